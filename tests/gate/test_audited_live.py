"""Canaries in a gate that runs its arms: after the verdict, or before a rollout counts where the gate decides on them.

Agents, gradings and regrades are scripted: the official grader resolves everything, canaries see through one arm.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import product
from pathlib import Path
from threading import Lock

import pytest

from aem_harness.agents.scripted import EmptyAgent
from aem_harness.api import gating
from aem_harness.api.gating import Candidate
from aem_harness.api.running import Selection, open_run
from aem_harness.harness import preflight
from aem_harness.harness.config import RunConfig
from aem_harness.harness.errors import ConfigError, DataError, EnvironmentFault
from aem_harness.harness.gate import live
from aem_harness.harness.gate.driver import GateOptions
from aem_harness.harness.gate.gate import Gate
from aem_harness.harness.grading.regrade import Regrade, digest_of
from aem_harness.harness.instances.load import load
from aem_harness.harness.io import read_json, write_json
from aem_harness.harness.run import auditing, places
from aem_harness.harness.run.reports import write_reports
from aem_harness.harness.run.store import RunStore, now
from aem_harness.harness.types import Grade, Outcome, Task
from tests.run.faulty import Folders, Injector

TASKS, SEEDS = 15, 2
ALLOWED = ("agent", "config.agent", "scaffold", "images")


@pytest.fixture(autouse=True)
def regraded(monkeypatch, tmp_path) -> Counter:
    """Nothing runs in a container; counts the regrades of each run. Canaries mark all of a run called "cheat"."""
    counts: Counter = Counter()
    counting = Lock()
    folders = Folders(Injector({}))

    class Regrader:
        def __init__(self, task, *, timeout, limits, labels):
            self.task, self.run = task, labels["aem.run"]

        def regrade(self, patch, passed):
            with counting:
                counts[self.run] += 1
            state = "marked" if self.run == "cheat" else "clean"
            return Regrade(state=state, patch_sha256=digest_of(patch), seconds=1.0)

    def grade(self, task, prediction, folder, left):
        write_json(folder / "report.json", {})
        return Grade(instance_id=task.instance_id, outcome=Outcome.RESOLVED)

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(auditing, "Regrader", Regrader)
    monkeypatch.setattr(live, "reap", lambda: 0)
    monkeypatch.setattr(preflight, "unusable", lambda *_, **__: "")
    monkeypatch.setattr(places.Containers, "image", lambda self, task: nullcontext("sha256:none"))
    monkeypatch.setattr(places.Containers, "open", lambda self, task: folders.open(task))
    monkeypatch.setattr(places.Containers, "grade", grade)
    monkeypatch.setattr(places.Containers, "close_all", lambda self: None)
    return counts


@contextmanager
def opened(folder: Path) -> Iterator[tuple[RunStore, list[Task]]]:
    """The run of the baseline, and its tasks."""
    loaded = load("sample")
    selection = Selection(loaded.tasks[:TASKS], loaded)
    config = RunConfig(arm="base", agent="empty", dataset="sample")
    with open_run(folder, config, selection, EmptyAgent(), SEEDS) as store:
        yield store, selection.tasks
        write_reports(folder, selection.tasks, store.progress)


@pytest.fixture
def baseline(tmp_path) -> Path:
    """A stored run that resolves four tasks in five, honestly, each of its resolved rollouts audited."""
    with opened(tmp_path / "base") as (store, tasks):
        for n, seed in product(range(TASKS), range(SEEDS)):
            key = {"instance_id": tasks[n].instance_id, "seed": seed, "attempt": 0}
            scratch = store.scratch(tasks[n].instance_id, seed)
            (scratch / "patch.diff").write_text("")
            ended = {"exit_status": "submitted", "fault": None, "patch_bytes": 0, "seconds": 0.0, "at": now()}
            spent = {"prompt_tokens": 0, "completion_tokens": 0, "image_digest": "sha256:none"}
            store.finish_rollout(scratch, {"event": "rollout", **key, **ended, **spent})
            outcome = "resolved" if n % 5 else "unresolved"
            store.finish_grade({"event": "grade", **key, "outcome": outcome, "cause": "", "seconds": 1.0})
            if n % 5:
                found = Regrade(state="clean", patch_sha256=digest_of(""))
                folder = store.rollout_folder(tasks[n].instance_id, seed)
                write_json(folder / auditing.CANARY, found.model_dump(mode="json"))
    return tmp_path / "base"


def gate(baseline: Path, out: Path, *, canary: float | None = 0.05, overrides: Sequence[str] = (), **options):
    candidate = Candidate(arm="cand", seeds=SEEDS, out=out, canary=canary, overrides=overrides)
    settings = GateOptions(calibrated=False, allow=ALLOWED, **options)
    return gating.gate(baseline, candidate, options=settings, margin=0.3)


def resolved(folder: Path) -> list[Path]:
    """The folders of what is graded in a run of these tests: all of it is resolved."""
    return sorted(path.parent for path in folder.glob("rollouts/*/*/grade.json"))


def all_audited(folder: Path) -> bool:
    return all(map(auditing.stored, resolved(folder)))


def test_after_the_verdict_a_sample_is_graded_again_and_the_verdict_is_the_official_one(baseline, tmp_path, regraded):
    found = gate(baseline, tmp_path / "cheat", canary=0.5)
    assert found.verdict == "PASS"
    assert 0 < regraded["cheat"] < len(resolved(tmp_path / "cheat"))
    summary = read_json(tmp_path / "cheat" / "canaries.json")
    assert summary["found_others"] == summary["others_regraded"] == regraded["cheat"]


def test_an_image_in_which_no_rollout_can_work_ends_a_gate_before_a_server_and_a_rollout(
    baseline, tmp_path, monkeypatch
):
    """Every rollout of it was lost, one after the other, until the run gave up."""
    looked: list[str] = []

    def unusable(tasks, limits, *, mirror):
        looked.extend(task.instance_id for task in tasks)
        return "/testbed of some/image:1: no git; install it in the image: patches need it"

    monkeypatch.setattr(preflight, "unusable", unusable)
    monkeypatch.setattr(gating, "driving", None)
    with pytest.raises(EnvironmentFault, match="no git; install it"):
        gate(baseline, tmp_path / "cand")
    assert looked
    assert list((tmp_path / "cand" / "rollouts").iterdir()) == []


def test_without_canaries_nothing_is_graded_again(baseline, tmp_path, regraded):
    gate(baseline, tmp_path / "cheat", canary=None)
    assert not regraded
    assert not (tmp_path / "cheat" / "canaries.json").exists()


def test_audited_outcomes_decide_and_no_resolved_rollout_is_counted_before_it_is_graded_again(
    baseline, tmp_path, regraded, monkeypatch
):
    out, fed = tmp_path / "cheat", []
    feed = Gate.feed

    def watched(self, instance_id, seed, outcome, **how):
        fed.append(outcome)
        assert auditing.stored(out / "rollouts" / instance_id / str(seed)), "counted before its audit"
        return feed(self, instance_id, seed, outcome, **how)

    monkeypatch.setattr(Gate, "feed", watched)
    found = gate(baseline, out, audited=True)
    assert (found.verdict, set(fed)) == ("BLOCK", {False})
    assert any("tamper" in note and f"{len(resolved(out))} of cand" in note for note in found.notes)

    regrades = regraded["cheat"]
    again = gate(baseline, out, audited=True)
    assert (again, regraded["cheat"]) == (found, regrades)


def test_an_honest_candidate_passes_on_audited_outcomes(baseline, tmp_path, regraded):
    assert gate(baseline, tmp_path / "honest", audited=True).verdict == "PASS"
    assert regraded["honest"] > 0
    assert all_audited(tmp_path / "honest")


def test_what_an_earlier_gate_left_unaudited_is_audited_before_it_counts(baseline, tmp_path, regraded):
    assert gate(baseline, tmp_path / "cheat", canary=None).verdict == "PASS"
    assert gate(baseline, tmp_path / "cheat", audited=True).verdict == "BLOCK"
    assert all_audited(tmp_path / "cheat")


def test_a_fresh_baseline_is_audited_as_the_candidate_is(baseline, tmp_path, regraded):
    found = gate(baseline, tmp_path / "pair", audited=True, fresh=True)
    assert found.verdict in ("PASS", "INCONCLUSIVE")
    for arm in ("base", "cand"):
        assert regraded[arm] > 0
        assert all_audited(tmp_path / "pair" / arm)


def test_a_stored_baseline_must_be_audited_as_fully_as_the_candidate_will_be(baseline, tmp_path):
    next(baseline.glob("rollouts/*/*/canary.json")).unlink()
    with opened(baseline):
        pass
    with pytest.raises(DataError, match=r"1 resolved rollouts of .* were not graded again.*aem audit --canary 1"):
        gate(baseline, tmp_path / "cand", audited=True)
    assert not (tmp_path / "cand").exists()


def test_audited_outcomes_without_canaries_are_refused(baseline, tmp_path):
    with pytest.raises(ConfigError, match="--no-canary"):
        gate(baseline, tmp_path / "cand", canary=None, audited=True)


def test_a_candidate_may_go_on_past_rollouts_that_end_alike(baseline, tmp_path, regraded):
    found = gate(baseline, tmp_path / "cand", overrides=["stop_alike=0", "outage_seconds=9"])
    assert found.verdict == "PASS"
    assert read_json(tmp_path / "cand" / "run.json")["config"]["stop_alike"] == 0


def test_a_candidate_with_other_settings_than_its_baseline_is_refused(baseline, tmp_path):
    with pytest.raises(ConfigError, match=r"sampling.temperature=0: both arms .* outage_seconds and stop_alike"):
        gate(baseline, tmp_path / "cand", overrides=["sampling.temperature=0"])
