"""Verdicts that are reused: an equal patch is graded once, and only where all that a verdict depends on is equal."""

import json
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

import aem_harness
from aem_harness.api.running import Finished, Selection, open_run, perform
from aem_harness.api.sites import AtATime, Driver
from aem_harness.cli import app
from aem_harness.harness.compare.compare import compare
from aem_harness.harness.compare.outcomes import combine, read_run
from aem_harness.harness.config import RunConfig
from aem_harness.harness.errors import ConfigError, DataError
from aem_harness.harness.grading import official
from aem_harness.harness.grading.verdict import judge, on_test_results
from aem_harness.harness.instances.load import load
from aem_harness.harness.report.paper import paper_table
from aem_harness.harness.run.origin import Reuse, reuse_of
from aem_harness.harness.run.regrading import REGRADES, Again
from aem_harness.harness.run.store import read_journal
from aem_harness.harness.types import AgentExit, ExitStatus, Grade, ImageRef, Outcome, Prediction, Task
from tests.run.faulty import Doubler, Folders, Injector

UNCHECKED = Reuse(check=0.0)
RESOLVED = Grade(instance_id="", outcome=Outcome.RESOLVED)
FAILED = Grade(instance_id="", outcome=Outcome.UNRESOLVED, cause="1 of 2 FAIL_TO_PASS failed")


class Author(Doubler):
    """An agent that leaves what it is told for each instance and seed."""

    def __init__(self, words: Callable[[str, int], str]) -> None:
        super().__init__(Injector({}))
        self.words = words

    def run(self, instance, environment, record, *, seed):
        environment.execute(self.words(instance.instance_id, seed))
        return AgentExit(status=ExitStatus.SUBMITTED)


class Graders(Folders):
    """Places whose gradings are counted; `verdict` gives the grade of an instance's n-th grading."""

    def __init__(self, verdict: Callable[[str, int], Grade], digest: str = "sha256:none") -> None:
        super().__init__(Injector({}))
        self.verdict, self.digest = verdict, digest
        self.graded: Counter[str] = Counter()
        self.dataset_digest = ""
        self.lock = threading.Lock()
        self.ready = threading.Event()
        self.ready.set()

    def image(self, task: Task):
        from contextlib import nullcontext

        return nullcontext(self.digest)

    def grade(self, task: Task, prediction: Prediction, folder: Path, left: Mapping[str, str | None] | None) -> Grade:
        assert self.ready.wait(60)
        with self.lock:
            name, number = task.instance_id, self.graded[task.instance_id]
            self.graded[name] += 1
        grade = self.verdict(name, number)
        image = ImageRef(name=task.instance.image, digest=self.digest, source="local", architecture=self.architecture())
        (folder / official.EVAL_SCRIPT).write_text(official.eval_script(task))
        (folder / official.TEST_OUTPUT).write_text(f"the log of grading {number}")
        (folder / official.REPORT).write_text(json.dumps({name: {"resolved": grade.resolved}}))
        versions = official.stamp(task, image=image, dataset_digest=self.dataset_digest)
        return grade.model_copy(update={"instance_id": name, "versions": versions})


@pytest.fixture(scope="module")
def selection() -> Selection:
    loaded = load("sample")
    return Selection(loaded.tasks[:2], loaded)


def act(
    folder: Path,
    selection: Selection,
    places: Graders,
    words: Callable[[str, int], str] = lambda name, seed: "a change",
    *,
    seeds: int = 3,
    reuse: Reuse | None = UNCHECKED,
    on_store: Callable[[Any], None] = lambda store: None,
    **config: Any,
) -> Finished:
    agent, places.dataset_digest = Author(words), selection.loaded.digest
    keys = [(task.instance_id, seed) for seed in range(seeds) for task in selection.tasks]
    with open_run(folder, RunConfig(arm=folder.name, agent="author", **config), selection, agent, seeds) as store:
        on_store(store)
        how: dict[str, Any] = {"places": places, "reuse": reuse}
        return perform(store, selection, Driver(agent), keys, Console(quiet=True), AtATime(2, 4), **how)


def origins(folder: Path) -> Counter[str]:
    return Counter(reuse_of(event) for event in read_journal(folder) if event["event"] == "grade")


def verdicts(folder: Path) -> dict[tuple[str, int], tuple[str, str]]:
    grades = [event for event in read_journal(folder) if event["event"] == "grade"]
    return {(event["instance_id"], event["seed"]): (event["outcome"], event["cause"]) for event in grades}


def always(grade: Grade) -> Callable[[str, int], Grade]:
    return lambda name, number: grade


# --- what is reused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "grade", [RESOLVED, FAILED, Grade(instance_id="", outcome=Outcome.NOT_APPLIED, cause="error: x")]
)
def test_equal_patches_are_graded_once_and_the_others_say_whose_verdict_theirs_is(tmp_path, selection, grade):
    places = Graders(always(grade))
    finished = act(tmp_path / "r", selection, places)
    assert set(places.graded.values()) == {1}
    assert finished.counts[grade.outcome.value] == 6
    assert set(verdicts(tmp_path / "r").values()) == {(grade.outcome.value, grade.cause)}
    assert origins(tmp_path / "r") == {"": 2, "reused": 4}
    assert any("4 of 6 verdicts are reused from gradings of equal patches" in line for line in finished.remarks)
    for event in read_journal(tmp_path / "r"):
        if "reused" in event:
            own = tmp_path / "r" / "rollouts" / event["instance_id"]
            source = own / str(event["reused"]["seed"])
            assert event["reused"]["run"] == ""
            for name in (official.REPORT, official.TEST_OUTPUT, official.EVAL_SCRIPT):
                assert (own / str(event["seed"]) / name).read_bytes() == (source / name).read_bytes()


def test_without_the_option_every_patch_is_graded_and_the_journal_is_as_it_was(tmp_path, selection):
    places = Graders(always(RESOLVED))
    finished = act(tmp_path / "r", selection, places, reuse=None)
    assert set(places.graded.values()) == {3}
    assert not any({"reused", "checked"} & event.keys() for event in read_journal(tmp_path / "r"))
    assert not any("reused" in line for line in finished.remarks)


def test_equal_patches_wait_for_the_grading_of_the_first_and_others_do_not(tmp_path, selection):
    places = Graders(always(RESOLVED))
    places.ready.clear()

    def release_at_the_last_rollout(store) -> None:
        finish = store.finish_rollout

        def finish_rollout(scratch, event):
            finish(scratch, event)
            if len(store.progress) == 8:
                places.ready.set()

        store.finish_rollout = finish_rollout

    def words(name: str, seed: int) -> str:
        return "the same" if seed < 3 else "another"

    act(tmp_path / "r", selection, places, words, seeds=4, on_store=release_at_the_last_rollout)
    assert set(places.graded.values()) == {2}, "all eight were due before the first verdict"


def test_a_verdict_of_a_run_that_is_named_is_reused(tmp_path, selection):
    act(tmp_path / "old", selection, Graders(always(RESOLVED)), seeds=1)
    places = Graders(always(FAILED))
    act(tmp_path / "new", selection, places, seeds=2, reuse=Reuse([tmp_path / "old"], check=0.0))
    assert not places.graded
    grades = [event for event in read_journal(tmp_path / "new") if event["event"] == "grade"]
    assert {event["reused"]["run"] for event in grades} == {str(tmp_path / "old")}
    assert {event["outcome"] for event in grades} == {"resolved"}


# --- what is not ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "grade",
    [
        Grade(instance_id="", outcome=Outcome.TEST_TIMEOUT, cause="tests ran longer than 1800 s"),
        Grade(
            instance_id="",
            outcome=Outcome.UNRESOLVED,
            cause="reached the container's limit of memory (1 processes killed), which the gold patch does not",
        ),
        Grade(
            instance_id="",
            outcome=Outcome.UNRESOLVED,
            cause="the test log is empty; the gold patch has no such trouble",
        ),
        Grade(instance_id="", outcome=Outcome.UNRESOLVED, cause="no test result in the log (swebench: missing_module)"),
    ],
)
def test_timeouts_limits_and_what_gold_decided_are_graded_each_time(tmp_path, selection, grade):
    places = Graders(always(grade))
    act(tmp_path / "r", selection, places)
    assert set(places.graded.values()) == {3}
    assert origins(tmp_path / "r") == {"": 6}


def test_what_was_lost_to_infrastructure_is_no_verdict_and_the_next_grading_is(tmp_path, selection):
    lost = Grade(instance_id="", outcome=Outcome.ERROR, cause="grading: something broke")
    places = Graders(lambda name, number: RESOLVED if number else lost)
    act(tmp_path / "r", selection, places, infra_retries=0)
    outcomes = Counter(outcome for outcome, _ in verdicts(tmp_path / "r").values())
    assert outcomes == {"error": 2, "resolved": 4}


def test_another_patch_another_image_or_another_tree_is_graded(tmp_path, selection):
    places = Graders(always(RESOLVED))
    act(tmp_path / "patches", selection, places, lambda name, seed: f"change {seed}")
    assert set(places.graded.values()) == {3}

    act(tmp_path / "images", selection, Graders(always(RESOLVED), "sha256:old"), seeds=1)
    places = Graders(always(RESOLVED), "sha256:new")
    act(tmp_path / "images", selection, places, seeds=3)
    assert set(places.graded.values()) == {1}, "the two new rollouts were on the new image: one grading for both"

    def leave_other_files(store) -> None:
        finish = store.finish_rollout

        def finish_rollout(scratch, event):
            (scratch / "receipt.json").write_text(json.dumps({"carried": {"number": f"file {event['seed']}"}}))
            finish(scratch, event)

        store.finish_rollout = finish_rollout

    places = Graders(always(RESOLVED))
    act(tmp_path / "trees", selection, places, on_store=leave_other_files)
    assert set(places.graded.values()) == {3}


def test_a_prediction_of_which_no_tree_is_known_takes_the_verdict_without_the_comparison_of_trees(tmp_path, selection):
    clean = RESOLVED.model_copy(update={"tree_differs": ()})
    act(tmp_path / "old", selection, Graders(always(clean)), seeds=1)

    def handed_in(store) -> None:
        finish = store.finish_rollout

        def finish_rollout(scratch, event):
            (scratch / "receipt.json").unlink()
            finish(scratch, event)

        store.finish_rollout = finish_rollout

    how = {"seeds": 1, "reuse": Reuse([tmp_path / "old"], check=0.0), "on_store": handed_in}
    act(tmp_path / "new", selection, Graders(always(clean)), **how)
    assert origins(tmp_path / "new") == {"reused": 2}
    grades = [[e["tree_differs"] for e in read_journal(tmp_path / n) if e["event"] == "grade"] for n in ("old", "new")]
    assert grades == [[[], []], [None, None]]


def test_the_same_digest_on_another_architecture_is_graded(tmp_path, selection):
    """The digest of an image in a registry may stand for images of several architectures."""

    class Arm(Graders):
        def architecture(self) -> str:
            return "arm64"

    act(tmp_path / "old", selection, Arm(always(RESOLVED)), seeds=1)
    how = {"seeds": 1, "reuse": Reuse([tmp_path / "old"], check=0.0)}
    places, others = Graders(always(RESOLVED)), Arm(always(RESOLVED))
    act(tmp_path / "here", selection, places, **how)
    act(tmp_path / "there", selection, others, **how)
    assert (places.graded.total(), others.graded.total()) == (2, 0)

    class Several(Graders):  # a pool of engines of which one is another's
        def architecture(self) -> str:
            return ""

    places = Several(always(RESOLVED))
    act(tmp_path / "several", selection, places)
    assert set(places.graded.values()) == {3}


def test_a_patch_to_which_a_regrading_gave_another_verdict_is_graded(tmp_path, selection):
    act(tmp_path / "r", selection, Graders(always(RESOLVED)), seeds=1)
    name = selection.tasks[0].instance_id
    patch = tmp_path / "r" / "rollouts" / name / "0" / "patch.diff"
    again = {"instance_id": name, "seed": 0, "moved": False, "patch_sha256": sha256(patch.read_bytes()).hexdigest()}
    found = [
        Again(**again, time=1, was=Outcome.RESOLVED, now=Outcome.ERROR),
        Again(**again, time=2, was=Outcome.RESOLVED, now=Outcome.UNRESOLVED),
    ]
    for told, graded in ((found[:1], 0), (found, 2)):
        (tmp_path / "r" / REGRADES).write_text("".join(one.model_dump_json() + "\n" for one in told))
        places = Graders(always(RESOLVED))
        act(tmp_path / f"new-{graded}", selection, places, seeds=2, reuse=Reuse([tmp_path / "r"], check=0.0))
        assert places.graded == ({name: 2} if graded else {})


def test_another_eval_script_is_run(tmp_path, selection, monkeypatch):
    act(tmp_path / "r", selection, Graders(always(RESOLVED)), seeds=1)
    script = official.eval_script
    monkeypatch.setattr(official, "eval_script", lambda task: script(task) + "# changed\n")
    places = Graders(always(RESOLVED))
    act(tmp_path / "r", selection, places, seeds=2)
    assert set(places.graded.values()) == {1}


def test_a_verdict_whose_files_are_damaged_is_not_reused(tmp_path, selection):
    act(tmp_path / "old", selection, Graders(always(RESOLVED)), seeds=1)
    for log in (tmp_path / "old").rglob(official.TEST_OUTPUT):
        log.write_text("something else")
    places = Graders(always(RESOLVED))
    act(tmp_path / "new", selection, places, seeds=1, reuse=Reuse([tmp_path / "old"], check=0.0))
    assert set(places.graded.values()) == {1}
    assert origins(tmp_path / "new") == {"": 2}


def test_a_reused_verdict_is_no_source(tmp_path, selection):
    """Else a verdict could travel on after what it was made of is gone."""
    act(tmp_path / "first", selection, Graders(always(RESOLVED)), seeds=1)
    act(
        tmp_path / "second", selection, Graders(always(RESOLVED)), seeds=1, reuse=Reuse([tmp_path / "first"], check=0.0)
    )
    places = Graders(always(RESOLVED))
    act(tmp_path / "third", selection, places, seeds=1, reuse=Reuse([tmp_path / "second"], check=0.0))
    assert set(places.graded.values()) == {1}


def test_empty_patches_have_nothing_to_reuse(tmp_path, selection):
    def without_a_patch(store) -> None:
        finish = store.finish_rollout

        def finish_rollout(scratch, event):
            (scratch / "patch.diff").write_bytes(b"")
            finish(scratch, event)

        store.finish_rollout = finish_rollout

    empty = Grade(instance_id="", outcome=Outcome.EMPTY_PATCH, cause="the prediction is empty")
    act(tmp_path / "r", selection, Graders(always(empty)), on_store=without_a_patch)
    assert origins(tmp_path / "r") == {"": 6}


def test_runs_whose_verdicts_mean_something_else_are_refused(tmp_path, selection):
    act(tmp_path / "old", selection, Graders(always(RESOLVED)), seeds=1)
    places = Graders(always(RESOLVED))
    how = {"seeds": 1, "reuse": Reuse([tmp_path / "old"])}
    with pytest.raises(ConfigError, match=r"another limits, grade_timeout: leave it out"):
        act(tmp_path / "larger", selection, places, limits={"memory": "8g"}, grade_timeout=60, **how)
    facts = json.loads((tmp_path / "old" / "run.json").read_text())
    facts["versions"]["swebench"] = "5.0.1"
    (tmp_path / "old" / "run.json").write_text(json.dumps(facts))
    with pytest.raises(ConfigError, match=r"another grader"):
        act(tmp_path / "new", selection, places, **how)
    with pytest.raises(DataError, match=r"nowhere is not a run folder"):
        act(tmp_path / "new", selection, places, seeds=1, reuse=Reuse([tmp_path / "nowhere"]))
    with pytest.raises(ConfigError, match=r"between 0 and 1"):
        act(tmp_path / "new", selection, places, seeds=1, reuse=Reuse(check=5))
    assert not places.graded


def test_a_run_of_a_version_that_kept_less_is_refused_or_read_without_its_verdicts(tmp_path, selection):
    act(tmp_path / "old", selection, Graders(always(RESOLVED)), seeds=1)
    path = tmp_path / "old" / "journal.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()]
    for event in events:
        event.pop("versions", None)
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    places = Graders(always(RESOLVED))
    act(tmp_path / "new", selection, places, seeds=1, reuse=Reuse([tmp_path / "old"], check=0.0))
    assert set(places.graded.values()) == {1}

    facts = json.loads((tmp_path / "old" / "run.json").read_text())
    facts.pop("versions")
    (tmp_path / "old" / "run.json").write_text(json.dumps(facts))
    with pytest.raises(ConfigError, match=r"another grader"):
        act(tmp_path / "newer", selection, places, seeds=1, reuse=Reuse([tmp_path / "old"]))


def test_only_verdicts_on_test_results_and_refusals_are_reusable():
    status = {"success": ["a"], "failure": ["b"]}
    report = {
        "resolved": False,
        "patch_successfully_applied": True,
        "tests_status": {"FAIL_TO_PASS": status, "PASS_TO_PASS": status},
    }
    verdict = judge(report, "a log")
    assert verdict.cause == "1 of 2 FAIL_TO_PASS and 1 of 2 PASS_TO_PASS failed"
    assert on_test_results(verdict.outcome, verdict.cause)
    assert not on_test_results(verdict.outcome, f"{verdict.cause}; the gold patch has no such trouble")
    for outcome in (Outcome.ERROR, Outcome.TEST_TIMEOUT, Outcome.EMPTY_PATCH):
        assert not on_test_results(outcome, "")


# --- checks -----------------------------------------------------------------------------------------------------------


def test_a_seeded_share_is_graded_nevertheless_the_same_in_every_run_of_that_name(tmp_path, selection):
    places = Graders(always(RESOLVED))
    act(tmp_path / "a" / "r", selection, places, seeds=20, reuse=Reuse(check=0.3))
    found = origins(tmp_path / "a" / "r")
    assert found["confirmed"] > 0
    assert found["reused"] + found["confirmed"] == 38
    assert places.graded.total() == 2 + found["confirmed"]
    checked = [key for key in read_journal(tmp_path / "a" / "r") if "checked" in key]
    assert {event["checked"]["outcome"] for event in checked} == {"resolved"}

    act(tmp_path / "b" / "r", selection, Graders(always(RESOLVED)), seeds=20, reuse=Reuse(check=0.3))
    again = {(e["instance_id"], e["seed"]) for e in read_journal(tmp_path / "b" / "r") if "checked" in e}
    drawn = {(e["instance_id"], e["seed"]) for e in checked}
    firsts = {(task.instance_id, 0) for task in selection.tasks}
    assert again - firsts == drawn - firsts


def test_a_patch_with_two_verdicts_is_counted_and_graded_every_time_from_then_on(tmp_path, selection):
    unsteady = selection.tasks[0].instance_id
    places = Graders(lambda name, number: FAILED if (name, number) == (unsteady, 1) else RESOLVED)
    act(tmp_path / "r", selection, places, seeds=2, reuse=Reuse(check=1.0))
    assert origins(tmp_path / "r") == {"": 2, "confirmed": 1, "flipped": 1}
    finished = act(tmp_path / "r", selection, places, seeds=5)
    assert places.graded == {unsteady: 5, selection.tasks[1].instance_id: 2}
    said = "3 of 10 verdicts are reused from gradings of equal patches; 2 more were graded as a check, and 1 of them"
    assert any(said in line for line in finished.remarks)


# --- a run that was killed, and what readers see ----------------------------------------------------------------------


def test_a_run_that_was_killed_before_any_of_its_verdicts_was_kept_ends_the_same(tmp_path, selection):
    act(tmp_path / "whole", selection, Graders(always(FAILED)))
    lines = (tmp_path / "whole" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    grades = [number for number, line in enumerate(lines) if json.loads(line)["event"] == "grade"]
    for first in range(len(grades)):
        killed = tmp_path / f"killed-{first}"
        shutil.copytree(tmp_path / "whole", killed, symlinks=True)
        for number in grades[first:]:  # the copied files are there, the verdict is not
            event = json.loads(lines[number])
            (killed / "rollouts" / event["instance_id"] / str(event["seed"]) / "grade.json").unlink()
        (killed / "journal.jsonl").write_bytes(b"".join(x for n, x in enumerate(lines) if n not in grades[first:]))
        agent, places = Author(lambda name, seed: "a change"), Graders(always(FAILED))
        places.dataset_digest = selection.loaded.digest
        with open_run(killed, RunConfig(arm="whole", agent="author"), selection, agent, 3) as store:
            keys = list(store.progress)
            how: dict[str, Any] = {"places": places, "reuse": UNCHECKED}
            perform(store, selection, Driver(agent), keys, Console(quiet=True), AtATime(2, 2), **how)
        assert verdicts(killed) == verdicts(tmp_path / "whole")
        assert places.graded.total() <= 2
        assert sum(origins(killed).values()) == 6, "every verdict is journaled once"


def test_journals_without_hashes_are_read_and_graded_as_before(tmp_path, selection):
    act(tmp_path / "r", selection, Graders(always(RESOLVED)), seeds=1)
    path = tmp_path / "r" / "journal.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()]
    for event in events:
        event.pop("files")
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    places = Graders(always(RESOLVED))
    act(tmp_path / "r", selection, places, seeds=3)
    assert set(places.graded.values()) == {1}


def test_comparison_table_and_report_say_how_many_verdicts_are_reused(tmp_path, selection):
    act(tmp_path / "a", selection, Graders(always(RESOLVED)), reuse=None)
    act(tmp_path / "b", selection, Graders(always(FAILED)))
    outcomes = combine([read_run(tmp_path / "a"), read_run(tmp_path / "b")])
    assert outcomes.table.loc[outcomes.table["arm"] == "b", "reuse"].eq("reused").sum() == 4
    assert outcomes.table.loc[outcomes.table["arm"] == "a", "reuse"].isna().all()
    comparison = compare(outcomes)
    assert [arm.reused for arm in comparison.arms] == [0, 4]
    said = "4 of 6 verdicts of b are reused from gradings of equal patches; none was checked"
    assert f"{said}." in paper_table(comparison).notes
    shown = CliRunner().invoke(app, ["compare", str(tmp_path / "a"), str(tmp_path / "b")], env={"COLUMNS": "200"})
    assert said in shown.output
    out = tmp_path / "report.html"
    done = CliRunner().invoke(app, ["report", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(out)])
    assert done.exit_code == 0, done.output
    pages = [out] if out.is_file() else list(out.rglob("*.html"))
    assert any(said in page.read_text() for page in pages)


# --- in containers ----------------------------------------------------------------------------------------------------


@pytest.mark.extended
@pytest.mark.docker
def test_reports_of_reused_verdicts_are_those_of_gradings_byte_by_byte(tmp_path, engine):
    how: dict[str, Any] = {"seeds": 3, "tasks": aem_harness.Tasks(slice="0:2"), "canary": None}
    aem_harness.run("gold", "tiny", out=tmp_path / "graded", **how)
    finished = aem_harness.run("gold", "tiny", out=tmp_path / "reused", reuse=aem_harness.Reuse(check=0.0), **how)
    assert finished.counts["resolved"] == 6
    assert origins(tmp_path / "reused") == {"": 2, "reused": 4}
    for report in (tmp_path / "graded" / "rollouts").rglob("report.json"):
        other = tmp_path / "reused" / report.relative_to(tmp_path / "graded")
        assert other.read_bytes() == report.read_bytes()

    table = aem_harness.outcomes(tmp_path / "reused")
    assert table["reuse"].eq("reused").sum() == 4
    predictions = tmp_path / "reused" / "predictions.jsonl"
    again = aem_harness.grade(
        predictions,
        "tiny",
        out=tmp_path / "again",
        canary=None,
        reuse=aem_harness.Reuse([tmp_path / "graded"], check=0.0),
    )
    assert again.counts["resolved"] == 2
    assert origins(tmp_path / "again") == {"reused": 2}


@pytest.mark.parametrize("command", ["run", "grade"])
def test_a_check_of_verdicts_that_are_not_reused_is_refused(tmp_path, command):
    patches = tmp_path / "predictions.jsonl"
    patches.write_text('{"instance_id": "aem-sample__calx-9", "model_name_or_path": "m", "model_patch": "x"}\n')
    words = ["run", "--agent", "gold"] if command == "run" else ["grade", str(patches)]
    result = CliRunner().invoke(app, [*words, "--set", "sample", "--reuse-check", "0.5"])
    assert isinstance(result.exception, ConfigError), result.output
    assert "--reuse-from RUN" in str(result.exception)
