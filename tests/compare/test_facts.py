"""Facts of trajectories are kept beside the journal, follow it, and may be lost at any time."""

import hashlib
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.compare.compare import compare
from aem_harness.harness.compare.outcomes import load, write_csv
from aem_harness.harness.errors import DataError
from aem_harness.harness.facts import journal, kept
from aem_harness.harness.facts.arrays import DAMAGE, FOLDER, read_arrays
from aem_harness.harness.facts.features import FEATURES, sketch
from aem_harness.harness.facts.kept import Keeper, journaled, read_facts
from aem_harness.harness.interop.trajectories import read_trajectory
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
    return sorted((run / FOLDER).glob("trajectories-*.npz"))


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
    for name in ("ROWS", "BATCH"):
        monkeypatch.setattr(kept, name, 5)  # several parts
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
    assert sorted(by_keeper.keys) == sorted(by_reader.keys)
    for key in by_reader.keys:
        one, other = by_keeper.keys.index(key), by_reader.keys.index(key)
        np.testing.assert_array_equal(by_keeper.features[one], by_reader.features[other])
        assert (
            by_keeper.sketches({0: one})[0] == by_reader.sketches({0: other})[0] == sketch(read_trajectory(wanted[key]))
        )


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
        part.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "other": b"PK not arrays"}[harm])
    assert shown(runs) == first


def test_whatever_byte_of_the_caches_is_damaged_the_figures_are_those_of_the_journal(runs):
    first = shown(runs)
    for file in (*parts(runs[0]), runs[0] / FOLDER / journal.FILE):
        whole = file.read_bytes()
        for place in range(0, len(whole), len(whole) // 8):
            damaged = bytearray(whole)
            damaged[place] ^= 0x55
            file.write_bytes(damaged)
            assert shown(runs) == first, place


@pytest.mark.parametrize(("pattern", "version"), [(journal.FILE, journal.VERSION), ("traj*.npz", kept.VERSION)])
def test_a_damaged_directory_hides_no_column(runs, pattern, version):
    """A single byte of it makes a reader of ZIP archives skip all entries that follow, and find nothing wrong."""
    shown(runs)
    (file,) = (runs[0] / FOLDER).glob(pattern)
    first, whole, found = read_arrays(file, version), file.read_bytes(), 0
    begin, end = whole.index(b"PK\x01\x02"), len(whole)
    for place in (*range(begin, begin + 200), *range(end - 22, end)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x08
        file.write_bytes(damaged)
        try:
            held = read_arrays(file, version)
        except DAMAGE:
            found += 1
        else:
            assert held.keys() == first.keys(), place
            assert all(np.array_equal(held[name], first[name], equal_nan=name == "features") for name in first), place
    assert found > 30


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
        dict(zip(facts.keys, facts.features[:, FEATURES.index("commands")], strict=True)) for facts in (before, after)
    ]
    assert not problems
    assert commands[1][key] == 1
    assert commands[0][key] != 1
    assert {k: v for k, v in commands[0].items() if k != key} == {k: v for k, v in commands[1].items() if k != key}


def test_a_trajectory_that_is_not_the_journaled_one_is_named_and_gives_no_facts(runs):
    (key, path), *_ = trajectories(runs[0]).items()
    path.write_text(path.read_text().replace("number 0", "number 9"))
    facts, problems = read_facts(runs[0], trajectories(runs[0]))
    assert key not in facts.keys
    assert len(facts.keys) == len(trajectories(runs[0])) - 1
    assert "other content than when it was written" in problems[0]
    assert "aem fsck" in problems[0]


def test_a_run_that_cannot_be_written_is_compared_all_the_same(runs, monkeypatch):
    first = shown(runs)
    for run in runs:
        shutil.rmtree(run / FOLDER)
        (run / FOLDER).write_text("in the way")
    assert shown(runs) == first


def test_small_parts_become_one(runs):
    wanted = list(trajectories(runs[0]).items())
    for some in (wanted[:2], wanted[:5], wanted):
        facts, _ = read_facts(runs[0], dict(some))
        assert sorted(facts.keys) == sorted(key for key, _ in some)
        shown = facts.sketches({row: row for row in range(len(some))})  # whose actions lie in the files
        assert all(len(shown[row].actions) == len(shown[row].keys) for row in range(len(some)))
    assert len(parts(runs[0])) == 1
    assert set(journaled(runs[0])) == {key for key, _ in wanted}


def test_facts_of_an_earlier_version_are_computed_again_and_removed(runs):
    first = shown(runs)
    for part in parts(runs[0]):
        part.unlink()
    (runs[0] / FOLDER / "0123.parquet").write_bytes(b"PAR1")
    (runs[0] / FOLDER / "trajectories-01.npz").write_bytes(b"PK damaged")
    np.savez(runs[0] / FOLDER / "trajectories-02.npz", version=1, seed=np.zeros(1))
    assert shown(runs) == first
    assert [path.suffix for path in sorted((runs[0] / FOLDER).iterdir())] == [".npz", ".npz"]


# --- the journal in columns -----------------------------------------------------------------------------------------


def unparsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on nobody can read the lines of a journal."""

    def refuse(*_: object) -> None:
        raise AssertionError("a journal was parsed")

    monkeypatch.setattr(journal, "read_journal", refuse)


def events_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]


def test_a_journal_is_parsed_once(runs, monkeypatch):
    first = load(runs).table
    unparsed(monkeypatch)
    pd.testing.assert_frame_equal(load(runs).table, first)


def test_a_journal_that_has_grown_or_changed_is_read_again(runs):
    before = load(runs[:1]).table.set_index(["instance_id", "seed"])
    event = next(one for one in events_of(runs[0]) if one["event"] == "rollout" and one["fault"] is None)
    key = event["instance_id"], event["seed"]
    lost = {**event, "attempt": 1, "fault": {"boundary": "environment", "message": "gone"}}
    with (runs[0] / "journal.jsonl").open("a") as file:
        file.write(json.dumps(lost) + "\n")
    after = load(runs[:1]).table.set_index(["instance_id", "seed"])
    assert before.loc[key, "outcome"] != "error"
    assert after.loc[key, "outcome"] == "error"
    assert after.loc[key, "cause"] == "environment: gone"
    text = (runs[0] / "journal.jsonl").read_text()
    (runs[0] / "journal.jsonl").write_text(text.replace("environment: gone", "").replace("gone", "lost"))  # same length
    assert load(runs[:1]).table.set_index(["instance_id", "seed"]).loc[key, "cause"] == "environment: lost"


def test_a_torn_last_line_counts_for_nothing_until_it_is_whole(runs):
    before = load(runs[:1]).table
    line = json.dumps({**events_of(runs[0])[0], "attempt": 7}) + "\n"
    for end in (1, len(line) // 2, len(line) - 1):
        with (runs[0] / "journal.jsonl").open("a") as file:
            file.write(line[:end])
        pd.testing.assert_frame_equal(load(runs[:1]).table, before)
        with (runs[0] / "journal.jsonl").open("r+b") as file:
            file.truncate((runs[0] / "journal.jsonl").stat().st_size - end)
    with (runs[0] / "journal.jsonl").open("a") as file:
        file.write(line)
    assert load(runs[:1]).table["attempt"].max() == 7


@pytest.mark.parametrize("value", [None, 3, -1, 2.5, 2**60, True, "text", "\ud800 half", ["a", 1], {"a": None}])
def test_any_value_of_a_journal_comes_back_as_it_was(tmp_path, value):
    (tmp_path / "journal.jsonl").write_text(
        "".join(
            json.dumps({"event": "rollout", "instance_id": "t", "seed": seed, "fault": None, "steps": one}) + "\n"
            for seed, one in enumerate((value, None, 4))
        )
    )
    by_parsing, by_columns = (journal.read_newest(tmp_path) for _ in range(2))
    assert by_parsing.keys == by_columns.keys == [("t", 0), ("t", 1), ("t", 2)]
    shown = [one.columns["steps"].tolist() for one in (by_parsing, by_columns)]
    assert repr(shown[0]) == repr(shown[1])
    assert shown[0][0] == value or (value is None and np.isnan(shown[0][0]))


def test_lists_of_one_length_in_a_journal_stay_lists(tmp_path):
    events = [{"event": "rollout", "instance_id": "t", "seed": seed, "steps": [seed, "a"]} for seed in range(2)]
    (tmp_path / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    for _ in ("parsed", "kept"):
        assert journal.read_newest(tmp_path).columns["steps"].tolist() == [[0, "a"], [1, "a"]]


@pytest.mark.parametrize("seed", ["0", 2**70, None])
def test_a_seed_that_is_none_is_the_same_to_every_reader(tmp_path, seed):
    (tmp_path / "journal.jsonl").write_text(json.dumps({"event": "rollout", "instance_id": "t", "seed": seed}) + "\n")
    for _ in ("parsed", "kept"):
        assert journal.read_newest(tmp_path).keys == [("t", seed)]


@pytest.mark.parametrize(
    "line",
    [
        *(
            "5",
            "null",
            "[]",
            "{}",
            '{"event": "rollout", "seed": 0}',
            '{"event": "grade", "instance_id": "t", "seed": 0}',
        ),
        '{"event": "rollout", "instance_id": "t", "seed": [0]}',
        '{"event": "rollout", "instance_id": "t", "seed": 0, "fault": "gone"}',
        '{"event": "rollout", "instance_id": "t", "seed": 0, "files": ["patch.diff"]}',
    ],
)
def test_a_line_that_is_no_event_is_named_with_the_remedy(runs, line):
    with (runs[0] / "journal.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=f"{runs[0].name}/journal.jsonl: an entry is none of a run .*aem fsck"):
        load(runs)


def test_columns_that_another_version_asked_for_are_read_again(runs, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr(journal, "_TOLD", tuple(name for name in journal._TOLD if name != "steps"))
        assert load(runs).table["steps"].isna().all()
    assert load(runs).table["steps"].notna().all()


def test_a_run_is_read_from_inside_its_folder_as_from_elsewhere(runs, monkeypatch):
    first = shown(runs).replace(f"{runs[0]}/rollouts", "rollouts")
    monkeypatch.chdir(runs[0])
    unreadable(monkeypatch)
    assert shown([Path(), runs[1]]).replace('"source":"."', f'"source":"{runs[0]}"') == first


READER = """
import sys
from pathlib import Path
from aem_harness.harness.compare.compare import compare
from aem_harness.harness.compare.outcomes import load, write_csv
from aem_harness.harness.errors import DataError
from aem_harness.harness.facts import kept
kept.BATCH = 2  # many writes, so that a kill meets one
compare(load([Path(run) for run in sys.argv[1:]]))
"""


def test_a_reader_that_is_killed_at_any_moment_leaves_nothing_that_changes_a_figure(runs):
    first = shown(runs)
    moments, killed = random.Random(0), 0
    for _ in range(8):
        shutil.rmtree(runs[0] / FOLDER)
        reader = subprocess.Popen([sys.executable, "-c", READER, *map(str, runs)])
        while not (runs[0] / FOLDER).exists() and reader.poll() is None:
            time.sleep(0.001)
        time.sleep(moments.random() * 0.05)
        killed += reader.poll() is None
        reader.kill()
        reader.wait()
        assert shown(runs) == first
        assert shown(runs) == first  # from what the one before has stored
    assert killed >= 3, "the reader ended before it could be disturbed"


AEM = """
import atexit, sys
from aem_harness.cli import main
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
main()
"""


def test_a_comparison_loads_no_pyarrow_and_says_what_one_with_it_says(runs, tmp_path):
    """Text columns of pandas are kept by pyarrow where it is loaded, as it is in this process, else by Python."""
    write_csv(load(runs).table, tmp_path / "both.csv")
    for words in (["compare", *map(str, runs)], ["compare", str(tmp_path / "both.csv"), "--json"]):
        lean = subprocess.run([sys.executable, "-c", AEM, *words], capture_output=True, text=True, check=True)
        assert "pyarrow" not in lean.stderr.split()
        assert "pandas" in lean.stderr.split()
        assert lean.stdout == CliRunner().invoke(app, words).stdout


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
