"""The journal: whatever is torn off or killed, nothing finished is lost and nothing is done twice."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aem_harness.harness.config import RunConfig
from aem_harness.harness.errors import ConfigError, DataError
from aem_harness.harness.run import store as run_store
from aem_harness.harness.run.store import RunStore, read_journal

KEYS = [(f"repo__project-{n}", seed) for n in range(3) for seed in range(2)]
FACTS = {
    "plan": {"instances": [f"repo__project-{n}" for n in range(3)], "seeds": 2},
    "agent": {"kind": "gold"},
    "dataset": {"name": "x", "digest": "d"},
    "versions": {"swebench": "5.0.2"},
}


def open_store(folder: Path, **config) -> RunStore:
    return RunStore(folder, RunConfig(**{"arm": "a", "agent": "gold", **config}), FACTS)


def rollout(instance_id: str, seed: int, attempt: int = 0, fault: dict | None = None) -> dict:
    return {"event": "rollout", "instance_id": instance_id, "seed": seed, "attempt": attempt, "fault": fault}


def grade(instance_id: str, seed: int, outcome: str = "resolved") -> dict:
    return {"event": "grade", "instance_id": instance_id, "seed": seed, "attempt": 0, "outcome": outcome, "cause": ""}


def finish(store: RunStore, key: tuple[str, int], **event) -> None:
    scratch = store.scratch(*key)
    (scratch / "patch.diff").write_text("patch")
    store.finish_rollout(scratch, rollout(*key, **event))


def test_a_fresh_run_owes_every_rollout_in_the_order_asked(tmp_path):
    with open_store(tmp_path / "r") as store:
        assert store.pending(KEYS[::-1]).rollouts == [(*key, 0) for key in KEYS[::-1]]


def test_a_finished_rollout_owes_its_grade_and_a_graded_one_owes_nothing(tmp_path):
    with open_store(tmp_path / "r") as store:
        finish(store, KEYS[0])
        assert store.pending(KEYS).grades == [KEYS[0]]
        store.finish_grade(grade(*KEYS[0]))
        pending = store.pending(KEYS)
        assert pending.grades == []
        assert [(i, s) for i, s, _ in pending.rollouts] == KEYS[1:]


def test_infrastructure_losses_are_pending_again_only_on_request(tmp_path):
    with open_store(tmp_path / "r") as store:
        finish(store, KEYS[0], fault={"boundary": "environment", "message": "gone"})
        finish(store, KEYS[1])
        store.finish_grade(grade(*KEYS[1], outcome="error"))
        assert store.pending(KEYS[:2]) == store.pending([])
        again = store.pending(KEYS[:2], retry_infrastructure=True)
        assert again.rollouts == [(*KEYS[0], 1)]
        assert again.grades == [KEYS[1]]


def test_an_earlier_attempt_is_kept_beside_its_retry(tmp_path):
    with open_store(tmp_path / "r") as store:
        finish(store, KEYS[0], fault={"boundary": "policy", "message": "gone"})
        finish(store, KEYS[0], attempt=1)
        assert (store.rollout_folder(*KEYS[0]).with_name("0.attempt0") / "patch.diff").exists()
        assert store.pending(KEYS[:1]).grades == [KEYS[0]]


@settings(max_examples=40)
@given(cut=st.integers(min_value=0, max_value=10_000))
def test_a_journal_cut_at_any_byte_is_completed_from_the_folders(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("run") / "r"
    with open_store(folder) as store:
        for key in KEYS[:3]:
            finish(store, key)
        store.finish_grade(grade(*KEYS[0]))
        before = store.progress
    journal = folder / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:cut])
    with open_store(folder) as store:
        assert store.progress == before
    events = [(e["event"], e["instance_id"], e["seed"]) for e in read_journal(folder)]
    assert len(events) == len(set(events)) == 4


def test_what_was_under_way_when_killed_is_dropped_and_done_again(tmp_path):
    with open_store(tmp_path / "r") as store:
        scratch = store.scratch(*KEYS[0])
        (scratch / "trajectory.jsonl").write_text('{"role": "sys')
    with open_store(tmp_path / "r") as store:
        assert not scratch.exists()
        assert store.pending(KEYS[:1]).rollouts == [(*KEYS[0], 0)]


def test_a_regrade_that_was_written_but_not_journaled_is_adopted(tmp_path):
    with open_store(tmp_path / "r") as store:
        finish(store, KEYS[0])
        store.finish_grade(grade(*KEYS[0], outcome="error"))
        (store.rollout_folder(*KEYS[0]) / "grade.json").write_text(json.dumps(grade(*KEYS[0])))
    with open_store(tmp_path / "r") as store:
        assert store.progress[KEYS[0]].grade["outcome"] == "resolved"


def test_a_folder_is_continued_only_under_the_same_configuration(tmp_path):
    with open_store(tmp_path / "r"):
        pass
    with pytest.raises(ConfigError, match="grade_timeout"):
        open_store(tmp_path / "r", grade_timeout=60)


def test_one_process_writes_a_run_at_a_time(tmp_path):
    with open_store(tmp_path / "r"), pytest.raises(ConfigError, match="another aem process"):
        open_store(tmp_path / "r")


def test_a_journal_damaged_in_the_middle_is_named_by_line(tmp_path):
    with open_store(tmp_path / "r") as store:
        finish(store, KEYS[0])
    journal = tmp_path / "r" / "journal.jsonl"
    journal.write_text("{broken\n" + journal.read_text())
    with pytest.raises(DataError, match="line 1"):
        open_store(tmp_path / "r")


@pytest.mark.parametrize("wrong", ["", "{", "[1", "2]", "{},{}", "1],[2", "\udcff"])
@pytest.mark.parametrize("place", [1, 2, 3, 4, 7])
def test_a_damaged_line_is_named_wherever_it_stands_and_those_before_it_are_read(tmp_path, monkeypatch, place, wrong):
    monkeypatch.setattr(run_store, "LINES", 3)  # that are parsed together
    lines = [json.dumps(grade("t", number)) for number in range(1, 8)]
    lines[place - 1] = wrong
    (tmp_path / "journal.jsonl").write_text("\n".join([*lines, "torn"]), errors="surrogateescape")
    seen = []
    with pytest.raises(DataError, match=f"line {place}: not a journal entry"):
        seen.extend(event["seed"] for event in read_journal(tmp_path))
    assert seen == list(range(1, place))


def test_a_line_that_is_just_being_written_ends_what_is_read(tmp_path):
    """The next read of the file begins in the middle of that line, once its rest is there."""
    whole, torn = (json.dumps({"event": "rollout", "seed": seed}).encode() + b"\n" for seed in range(2))
    lines = [whole] * (run_store.LINES - 1) + [torn[:20], torn[20:], whole]
    assert [event["seed"] for event in run_store._parse(tmp_path, lines)] == [0] * (run_store.LINES - 1)


def test_more_seeds_and_instances_widen_the_same_run(tmp_path):
    with open_store(tmp_path / "r"):
        pass
    wider = {**FACTS, "plan": {"instances": ["repo__project-9"], "seeds": 4}}
    with RunStore(tmp_path / "r", RunConfig(arm="a", agent="gold"), wider):
        pass
    plan = json.loads((tmp_path / "r" / "run.json").read_text())["plan"]
    before = FACTS["plan"]["instances"]
    assert plan == {"instances": [*before, "repo__project-9"], "seeds": 4, "allocation": dict.fromkeys(before, 2)}


def test_what_lies_among_the_rollouts_and_is_none_is_named_and_left_alone(tmp_path):
    with open_store(tmp_path / "r") as store:
        finish(store, KEYS[0])
    instance = tmp_path / "r" / "rollouts" / KEYS[0][0]
    for name in ("notes", "0 copy", "007", "1"):
        (instance / name).mkdir()
    (instance / ".DS_Store").write_text("")
    (instance / ".ipynb_checkpoints").mkdir()
    (instance / ".1.abc").mkdir()  # a rollout that was killed under way
    with open_store(tmp_path / "r") as store:
        strays = [".DS_Store", ".ipynb_checkpoints", "0 copy", "007", "1", "notes"]
        assert [path.name for path in store.stray] == strays
        assert set(store.progress) == {KEYS[0]}
        finish(store, (KEYS[0][0], 1))
    assert (instance / ".DS_Store").exists()
    assert not (instance / ".1.abc").exists()
