"""Facts of trajectories are kept beside the journal, follow it, and may be lost at any time."""

import hashlib
import json
from pathlib import Path

import pandas as pd
import pytest

from aem_harness.harness.compare.compare import compare
from aem_harness.harness.compare.outcomes import load
from aem_harness.harness.facts import kept
from aem_harness.harness.facts.kept import FOLDER, Keeper, journaled, read_facts
from aem_harness.harness.run.archive import archive, restore, verify
from benchmarks.synthetic_runs import make_run


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [make_run(tmp_path / arm, arm, tasks=6, seeds=2, turns=4, marked=0) for arm in ("base", "aem")]


def trajectories(run: Path) -> dict[tuple[str, int], Path]:
    return {
        (path.parent.parent.name, int(path.parent.name)): path for path in sorted(run.glob("rollouts/*/*/*.traj.json"))
    }


def parts(run: Path) -> list[Path]:
    return sorted((run / FOLDER).glob("*.parquet"))


def shown(runs: list[Path]) -> str:
    return compare(load(runs)).model_dump_json()


def unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on nobody can read a trajectory."""

    def refuse(*_: object) -> None:
        raise AssertionError("a trajectory was read")

    for name in ("parse_trajectory", "read_trajectory"):
        monkeypatch.setattr(kept, name, refuse)


def test_a_second_comparison_reads_no_trajectory_and_says_the_same(runs, monkeypatch):
    first = shown(runs)
    assert all(parts(run) for run in runs)
    unreadable(monkeypatch)
    assert shown(runs) == first


def test_facts_kept_while_rollouts_end_are_those_that_a_reader_computes(runs, monkeypatch):
    wanted = trajectories(runs[0])
    events = [json.loads(line) for line in (runs[0] / "journal.jsonl").read_text().splitlines()]
    monkeypatch.setattr(kept, "ROWS", 5)  # several parts
    with Keeper(runs[0]) as keeper:
        for event in events:
            keeper.add(event)
    assert len(parts(runs[0])) == 3
    by_keeper, problems = read_facts(runs[0], wanted)
    for part in parts(runs[0]):
        part.unlink()
    by_reader, more = read_facts(runs[0], wanted)
    assert not problems
    assert not more
    by_key = [one.table.to_pandas().set_index(["instance_id", "seed"]).sort_index() for one in (by_keeper, by_reader)]
    pd.testing.assert_frame_equal(*by_key)


@pytest.mark.parametrize("harm", ["cut", "flipped", "empty", "other", "gone"])
def test_damaged_facts_are_computed_again(runs, harm):
    first = shown(runs)
    (part,) = parts(runs[0])
    data = bytearray(part.read_bytes())
    if harm == "gone":
        part.unlink()
    elif harm == "flipped":
        data[len(data) // 3] ^= 0xFF
        part.write_bytes(data)
    else:
        part.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "other": b"PAR1 not a table PAR1"}[harm])
    assert shown(runs) == first


def test_facts_of_an_earlier_attempt_are_not_used_for_the_one_that_counts(runs):
    before, _ = read_facts(runs[0], trajectories(runs[0]))
    (key, path), *_ = trajectories(runs[0]).items()
    document = json.loads(path.read_text())
    document["messages"] = document["messages"][:4]
    path.write_text(json.dumps(document))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    events = [json.loads(line) for line in (runs[0] / "journal.jsonl").read_text().splitlines()]
    again = next(event for event in events if (event["instance_id"], event["seed"]) == key)
    again |= {"attempt": 1, "files": {path.name: {"bytes": path.stat().st_size, "sha256": digest}}}
    with (runs[0] / "journal.jsonl").open("a") as journal:
        journal.write(json.dumps(again) + "\n")
    after, problems = read_facts(runs[0], trajectories(runs[0]))
    commands = [
        dict(zip(facts.rollouts(), facts.table["commands"].to_pylist(), strict=True)) for facts in (before, after)
    ]
    assert not problems
    assert commands[1][key] == 1
    assert commands[0][key] != 1
    assert {k: v for k, v in commands[0].items() if k != key} == {k: v for k, v in commands[1].items() if k != key}


def test_a_trajectory_that_is_not_the_journaled_one_is_named_and_gives_no_facts(runs):
    (key, path), *_ = trajectories(runs[0]).items()
    path.write_text(path.read_text().replace("number 0", "number 9"))
    facts, problems = read_facts(runs[0], trajectories(runs[0]))
    assert key not in facts.rollouts()
    assert len(facts.rollouts()) == len(trajectories(runs[0])) - 1
    assert "other content than when it was written" in problems[0]
    assert "aem fsck" in problems[0]


def test_a_run_that_cannot_be_written_is_compared_all_the_same(runs, monkeypatch):
    first = shown(runs)
    for run in runs:
        for part in parts(run):
            part.unlink()
        (run / FOLDER).rmdir()
        (run / FOLDER).write_text("in the way")
    assert shown(runs) == first


def test_small_parts_become_one(runs):
    wanted = list(trajectories(runs[0]).items())
    for some in (wanted[:2], wanted[:5], wanted):
        facts, _ = read_facts(runs[0], dict(some))
        assert sorted(facts.rollouts()) == sorted(key for key, _ in some)
        shown = facts.sketches(range(len(some)))  # whose actions lie in the files
        assert all(len(shown[row].actions) == len(shown[row].keys) for row in range(len(some)))
    assert len(parts(runs[0])) == 1
    assert set(journaled(runs[0])) == {key for key, _ in wanted}


def test_an_archive_does_not_depend_on_whether_facts_were_kept(runs, tmp_path):
    archive(runs[0], tmp_path / "before.tar")
    shown(runs)
    archive(runs[0], tmp_path / "after.tar")
    assert (tmp_path / "before.tar").read_bytes() == (tmp_path / "after.tar").read_bytes()
    there = restore(tmp_path / "after.tar", tmp_path / "there")
    first = shown([there, runs[1]])
    assert parts(there)
    assert not list(verify(there))
    assert shown([there, runs[1]]) == first
