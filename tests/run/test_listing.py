"""Runs as a person looks for them: found, counted, noted, archived and restored, also while one is being written."""

import json
import os
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.compare.alarms import ran_apart
from aem_harness.harness.compare.outcomes import load
from aem_harness.harness.config import RunConfig
from aem_harness.harness.errors import ConfigError, DataError
from aem_harness.harness.facts.arrays import write_arrays
from aem_harness.harness.report.overview import days
from aem_harness.harness.report.runs import duration, resolved_rate, size_words
from aem_harness.harness.run.archive import archive, restore, verify
from aem_harness.harness.run.listing import find_runs, pace, read_state
from aem_harness.harness.run.store import RunStore, now
from aem_harness.harness.run.trajectory import TrajectoryWriter
from benchmarks.synthetic_runs import make_run

TASKS, SEEDS = 6, 2
FACTS = {
    "plan": {"instances": [f"repo__project-{n}" for n in range(3)], "seeds": 2},
    "agent": {"kind": "gold"},
    "dataset": {"name": "x", "digest": "d"},
    "versions": {"swebench": "5.0.2"},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "results" / "noted-run", "noted", tasks=TASKS, seeds=SEEDS, turns=3)


def started(folder: Path) -> RunStore:
    return RunStore(folder, RunConfig(arm="half", agent="gold"), FACTS)


def lost(store: RunStore, name: str, seed: int) -> None:
    event = {"event": "rollout", "instance_id": name, "seed": seed, "attempt": 0, "exit_status": "fault", "at": now()}
    store.finish_rollout(store.scratch(name, seed), event | {"fault": {"boundary": "environment", "message": "gone"}})


def words(*arguments: object) -> str:
    # Wide, so that no name is folded: how long the folder of a test is differs from run to run.
    done = CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": "300"})
    assert done.exit_code == 0, done.output
    return done.output


def test_runs_are_found_below_a_folder_and_inside_what_a_gate_writes_but_not_inside_runs(tmp_path):
    for name in ("a", "gate/baseline", "gate/candidate"):
        with started(tmp_path / name):
            pass
    (tmp_path / "a" / "rollouts" / "nested").mkdir(parents=True)
    (tmp_path / "a" / "rollouts" / "nested" / "run.json").write_text("{}")
    (tmp_path / ".hidden").mkdir()
    names = [folder.relative_to(tmp_path).as_posix() for folder in find_runs([tmp_path])]
    assert names == ["a", "gate/baseline", "gate/candidate"]


def test_a_finished_run_is_told_from_one_that_was_stopped_and_one_that_goes_on(run, tmp_path):
    assert read_state(run).status == "finished"
    with started(tmp_path / "half") as store:
        lost(store, "repo__project-0", 0)
        assert read_state(tmp_path / "half").status == "running"
    state = read_state(tmp_path / "half")
    assert (state.status, state.done, state.rollouts, state.outcomes["error"]) == ("unfinished", 1, 6, 1)


def test_what_was_lost_is_counted_as_lost_and_leaves_the_rate_alone(tmp_path):
    with started(tmp_path / "half") as store:
        lost(store, "repo__project-0", 0)
    state = read_state(tmp_path / "half")
    assert state.scored == 0
    assert resolved_rate(state) is None


def test_the_rate_is_the_one_that_compare_prints(run):
    from aem_harness.harness.compare.arms import sample
    from aem_harness.harness.compare.intervals import estimate
    from aem_harness.harness.compare.outcomes import load_one

    state, table = read_state(run), load_one(str(run)).table
    rate, expected = resolved_rate(state), estimate(sample("noted", table).values, rate=True)
    assert rate is not None
    assert (rate.value, rate.these.low, rate.these.high) == pytest.approx(
        (expected.value, expected.these.low, expected.these.high)
    )
    assert state.rollouts == TASKS * SEEDS == len(table)


def test_a_rollout_under_way_is_shown_with_its_messages(tmp_path):
    with started(tmp_path / "half") as store:
        writer = TrajectoryWriter(store.scratch("repo__project-1", 1), "repo__project-1")
        writer.message({"role": "user", "content": "hello"})
        writer.message({"role": "assistant", "content": "ls"})
        (working,) = read_state(tmp_path / "half").working
        assert (working.instance_id, working.seed, working.messages) == ("repo__project-1", 1, 2)
        assert "running repo__project-1 seed 1: 2 messages" in words("status", tmp_path / "half")
    assert read_state(tmp_path / "half").working == ()


def test_the_time_that_is_left_follows_from_what_was_done(run):
    state = read_state(run).model_copy(update={"rollouts": 4 * TASKS * SEEDS})
    later = datetime.fromisoformat(state.started) + timedelta(hours=1)
    assert pace(state, later) == pytest.approx((TASKS * SEEDS, 3 * 3600))
    assert pace(state.model_copy(update={"outcomes": {}}), datetime.now(UTC)) is None


def test_a_note_is_kept_shown_and_forgotten(run):
    words("runs", "note", run, "before the tokenizer fix")
    assert "before the tokenizer fix" in words("runs", "list", run.parent)
    words("runs", "note", run, "")
    assert "before" not in words("runs", "list", run.parent)


def test_the_list_is_json_on_request_and_a_damaged_run_does_not_hide_the_others(run, tmp_path):
    broken = tmp_path / "results" / "broken"
    broken.mkdir()
    (broken / "run.json").write_text('{"plan": 3}')
    done = CliRunner().invoke(app, ["runs", "list", str(tmp_path / "results"), "--json"])
    assert done.exit_code == 0
    assert "broken" in done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["arm"], row["status"], row["done"]) == ("noted", "finished", TASKS * SEEDS)
    assert row["bytes"] > 0


def test_removing_asks_first_and_leaves_a_run_that_is_being_written(run, tmp_path):
    asked = CliRunner().invoke(app, ["runs", "rm", str(run)], input="n\n")
    assert asked.exit_code == 0
    assert run.exists()
    with started(tmp_path / "half"):
        refused = CliRunner().invoke(app, ["runs", "rm", str(run), str(tmp_path / "half"), "--yes"])
        assert isinstance(refused.exception, ConfigError)
        assert run.exists()
    words("runs", "rm", run, "--yes")
    assert not run.exists()


def test_an_archive_is_read_again_elsewhere_byte_for_byte(run, tmp_path):
    files = archive(run, tmp_path / "a.tar.gz")
    archive(run, tmp_path / "b.tar.gz")
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()
    made = restore(tmp_path / "a.tar.gz", tmp_path / "elsewhere")
    assert made.name == run.name
    assert list(verify(made)) == []
    here = {
        path.relative_to(run): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file() and path.name not in (".lock", ".owners", ".verified")
    }
    assert len(here) == files
    assert all((made / name).read_bytes() == content for name, content in here.items())
    assert read_state(made).outcomes == read_state(run).outcomes


def test_what_was_changed_removed_or_added_since_is_named(run, tmp_path):
    archive(run, tmp_path / "a.tar")
    made = restore(tmp_path / "a.tar", tmp_path / "elsewhere")
    (made / "journal.jsonl").write_text("")
    (made / "audit.json").unlink()
    (made / "extra.txt").write_text("x")
    assert sorted(verify(made)) == ["audit.json is missing", "extra.txt was added", "journal.jsonl has changed"]


def test_a_damaged_archive_leaves_nothing_behind(run, tmp_path):
    archive(run, tmp_path / "a.tar")
    raw = bytearray((tmp_path / "a.tar").read_bytes())
    at = raw.index(b'"event": "rollout"')
    raw[at : at + 7] = b'"EVENT"'
    (tmp_path / "a.tar").write_bytes(raw)
    with pytest.raises(DataError, match="has changed"):
        restore(tmp_path / "a.tar", tmp_path / "elsewhere")
    (tmp_path / "text.tar").write_text("no archive")
    with pytest.raises(DataError, match="cannot read"):
        restore(tmp_path / "text.tar", tmp_path / "elsewhere")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_nothing_is_overwritten_and_a_run_under_way_is_not_archived(run, tmp_path):
    archive(run, tmp_path / "a.tar")
    with pytest.raises(ConfigError, match="exists already"):
        archive(run, tmp_path / "a.tar")
    with pytest.raises(ConfigError, match="exists already"):
        restore(tmp_path / "a.tar", run.parent)
    with started(tmp_path / "half"), pytest.raises(ConfigError, match="being written"):
        archive(tmp_path / "half", tmp_path / "half.tar")
    with pytest.raises(ConfigError, match="must end in"):
        archive(run, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert tar.getmembers()[0].name == f"{run.name}/SHA256SUMS"


def test_numbers_carry_units_that_fit_them():
    assert [duration(s) for s in (42, 420, 12_600, 181_440)] == ["42 s", "7 min", "3.5 h", "2.1 days"]
    assert [size_words(b) for b in (7, 3400, 3_400_000)] == ["7 B", "3.4 kB", "3.4 MB"]


def test_what_a_killed_process_left_half_written_goes_with_the_next_start_and_into_no_archive(tmp_path):
    """Each kill in that moment left another file, in `facts/` of megabytes."""
    with started(tmp_path / "half"):
        pass
    (tmp_path / "half" / "facts").mkdir()
    dead, alive = f".x.npz.{2**22 + 1}.0123abcd", f".x.npz.{os.getpid()}.0123abcd"
    places = [tmp_path / "half", tmp_path / "half" / "facts"]
    for place in places:
        for name in (dead, alive, "x.npz", ".x.npz"):
            (place / name).write_text("half")
    archive(tmp_path / "half", tmp_path / "half.tar")
    with tarfile.open(tmp_path / "half.tar") as tar:
        assert not [name for name in tar.getnames() if "0123abcd" in name]
    with started(tmp_path / "half"):
        for place in places:
            assert not (place / dead).exists()
            assert {alive, "x.npz", ".x.npz"} <= {path.name for path in place.iterdir()}
    (places[1] / dead).write_text("half")
    write_arrays(places[1] / "new.npz", 1, {})
    assert not (places[1] / dead).exists()


ODD_TIMES = ("", "2026-13-45T00:00:00+00:00", "2026-11-30T08:00:00", "9999-12-31T23:59:59+00:00", 5, None)


def with_times(run: Path, at: object, lines: slice) -> Path:
    journal = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    for event in journal[lines]:
        event["at"] = at
    (run / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in journal))
    return run


@pytest.mark.parametrize("lines", [slice(-1, None), slice(None)], ids=["last", "all"])
@pytest.mark.parametrize("at", ODD_TIMES, ids=repr)
def test_odd_times_in_a_journal_end_no_command_that_reads_them(run, tmp_path, at, lines):
    """One such line made `aem status` fail, and `aem runs list` for all runs; a year beyond 2262 `aem compare`."""
    other = make_run(tmp_path / "results" / "other", "other", tasks=TASKS, seeds=SEEDS, turns=3)
    with_times(run, at, lines)
    assert read_state(run).done == TASKS * SEEDS
    assert f"{TASKS * SEEDS} of {TASKS * SEEDS}" in words("status", run)
    assert "other" in words("runs", "list", tmp_path / "results")
    assert days([read_state(other), read_state(run)])
    ran_apart({one.name: load([one]).table for one in (other, run)})


def test_a_time_without_a_zone_is_utc_and_one_that_is_none_is_passed_over(run):
    with_times(with_times(run, "2026-11-30T08:00:00+00:00", slice(None)), "", slice(-1, None))
    assert read_state(run).last == "2026-11-30T08:00:00+00:00"
    assert read_state(with_times(run, "2026-12-01T08:00:00", slice(-1, None))).last == "2026-12-01T08:00:00+00:00"


def test_a_run_of_which_no_time_is_known_is_shown_without_one(run):
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | {"created_at": "yesterday"}))
    with_times(run, "", slice(None))
    state = read_state(run)
    assert (state.started, state.last, pace(state, datetime.now(UTC))) == ("", "", None)
    assert "at an unknown time" in " ".join(words("runs", "list", run).split())


def test_a_journal_with_odd_values_is_one_line_and_hides_no_other_run(run, tmp_path):
    other = make_run(tmp_path / "results" / "other", "other", tasks=TASKS, seeds=SEEDS, turns=3)
    journal = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    (run / "journal.jsonl").write_text("".join(json.dumps(e | {"exit_status": None}) + "\n" for e in journal))
    with pytest.raises(DataError, match="odd values"):
        read_state(run)
    assert other.name in words("runs", "list", tmp_path / "results")
