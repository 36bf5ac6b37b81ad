"""Why rollouts failed: one cause each, with what the model said and what the failing tests printed."""

import gzip
import json
import re
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.config import RunConfig
from aem_harness.harness.errors import ConfigError
from aem_harness.harness.io import write_json
from aem_harness.harness.report.failures import chosen, failures, failures_view, grouped
from aem_harness.harness.report.show import rollout_view
from aem_harness.harness.report.why import END_WORDS, ListedTests, cause, end_words, excerpt, printable
from aem_harness.harness.run.store import RunStore, now, write_patch
from aem_harness.harness.run.trajectory import TrajectoryWriter
from aem_harness.harness.types import ExitStatus, Outcome

PYTEST_LOG = """
============================= FAILURES =============================
_________________________ test_other _________________________
E   assert 1 == 2
______________________ TestShape.test_area[square] ______________________

    def test_area(shape):
>       assert area(shape) == 4
E       assert 3 == 4

tests/test_shape.py:9: AssertionError
=========================== short test summary info ============================
FAILED tests/test_shape.py::TestShape::test_area[square]
"""
DJANGO_LOG = """
======================================================================
FAIL: test_ordering (queries.tests.OrderingTests)
----------------------------------------------------------------------
Traceback (most recent call last):
  File "tests/queries/tests.py", line 5, in test_ordering
AssertionError: Lists differ
======================================================================
ERROR: test_ordering_twice (queries.tests.OrderingTests)
----------------------------------------------------------------------
ValueError: no
----------------------------------------------------------------------
Ran 2 tests in 0.1s
"""


def rollout(status: str = "submitted", fault: str = "") -> dict:
    found = {"boundary": fault, "message": "the engine is gone"} if fault else None
    return {"exit_status": status, "fault": found, "reason": ""}


def graded(outcome: str, tests: ListedTests | None = None, status: str = "submitted") -> str:
    return cause(rollout(status), {"outcome": outcome}, tests)


def test_what_is_resolved_has_no_cause_and_what_is_lost_is_no_failure_of_the_model():
    assert graded("resolved") == ""
    assert cause(rollout(fault="environment"), None, None) == "lost to infrastructure: environment"
    assert graded("error") == "lost to infrastructure: grading"
    assert cause(rollout(), None, None) == "not graded yet"


@pytest.mark.parametrize(
    ("tests", "words"),
    [
        (ListedTests(0, ("a",), 3, ()), "wrong fix"),
        (ListedTests(1, ("a",), 3, ()), "incomplete fix: some of the tests still fail"),
        (ListedTests(1, (), 3, ("b",)), "right fix, but passing tests broken"),
        (ListedTests(0, ("a",), 3, ("b",)), "wrong fix, and passing tests broken"),
        (ListedTests(0, ("a",), 0, ("b",)), "no listed test passed: the code does not load, or the tests did not run"),
        (None, "no listed test passed: the code does not load, or the tests did not run"),
    ],
)
def test_a_wrong_fix_is_told_from_one_that_breaks_passing_tests_and_from_code_that_does_not_load(tests, words):
    assert graded("unresolved", tests) == words


def test_an_empty_patch_says_how_the_rollout_ended():
    assert graded("empty_patch") == "gave up: handed in without a change"
    assert graded("empty_patch", status="format_errors") == "no change: replies without a valid action"
    assert graded("empty_patch", status="agent_crash") == "no change: the agent crashed"
    assert graded("empty_patch", status="step_limit") == "no change before the end: step limit"


def test_every_outcome_has_a_cause_and_every_exit_status_a_sentence():
    assert all(graded(one.value) or one is Outcome.RESOLVED for one in Outcome)
    assert set(END_WORDS) == set(ExitStatus)
    assert end_words("exit_cost") == "exit_cost"  # another tool's


def test_the_last_lines_of_a_failing_test_come_from_its_own_part_of_the_log():
    lines = excerpt(PYTEST_LOG, "tests/test_shape.py::TestShape::test_area[square]")
    assert lines[-1] == "tests/test_shape.py:9: AssertionError"
    assert "E       assert 3 == 4" in lines
    assert not any("1 == 2" in line for line in lines)
    assert excerpt(PYTEST_LOG, "tests/test_shape.py::test_missing") == []


def test_djangos_runner_names_tests_the_other_way_round():
    assert excerpt(DJANGO_LOG, "test_ordering (queries.tests.OrderingTests)")[-1] == "AssertionError: Lists differ"
    assert excerpt(DJANGO_LOG, "test_ordering_twice (queries.tests.OrderingTests)") == ["ValueError: no"]


def test_real_logs_give_excerpts_for_nearly_every_test_that_has_a_part_of_its_own(shared):
    seen = shown = 0
    for path in (shared / "data" / "grading-logs").rglob("test_output.txt.gz"):
        log = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
        for name in re.findall(r"^(?:FAILED|FAIL:|ERROR:) (\S+(?: \(\S+\))?)", log, re.MULTILINE):
            own = re.escape(re.split(r"[\[ (]", name.rsplit("::", 1)[-1])[0])
            if re.search(rf"^(?:_{{3,}} .*{own}.* _{{3,}}|(?:FAIL|ERROR): {own}.*)$", log, re.MULTILINE):
                seen += 1
                shown += bool(excerpt(log, name))
    assert seen > 20
    assert shown >= 0.95 * seen


def test_control_characters_of_a_model_are_shown_and_not_obeyed():
    assert printable("a\tb\nc") == "a\tb\nc"
    assert "\x1b" not in printable("\x1b[2J red \x07 \x9b")
    assert printable("\x1b[2J").startswith("␛[2J")
    printable("a lone surrogate \udc80").encode()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Four rollouts: a malformed one that gave up, a wrong fix, a crash, and one that is resolved."""
    names = [f"repo__project-{n}" for n in range(4)]
    facts = {
        "plan": {"instances": names, "seeds": 1}, "agent": {"kind": "bash"}, "dataset": {"name": "x", "digest": "d"},
        "versions": {"swebench": "5.0.2"},
    }  # fmt: skip
    with RunStore(tmp_path / "run", RunConfig(arm="mine", agent="bash", dataset="sample"), facts) as store:
        finish(store, names[0], ExitStatus.FORMAT_ERRORS, "empty_patch")
        finish(store, names[1], ExitStatus.SUBMITTED, "unresolved", failing=["tests/test_a.py::test_b"])
        finish(store, names[2], ExitStatus.AGENT_CRASH, "empty_patch")
        finish(store, names[3], ExitStatus.SUBMITTED, "resolved")
    return tmp_path / "run"


def finish(store: RunStore, name: str, status: ExitStatus, outcome: str, failing: list[str] | None = None) -> None:
    scratch = store.scratch(name, 0)
    writer = TrajectoryWriter(scratch, name)
    complaint = {"model_response": "Let me \x1b[31mthink.", "malformed": True, "reasoning": "Hm."}
    writer.message({"role": "user", "content": "No action found.", "extra": complaint})
    if status is ExitStatus.AGENT_CRASH:
        writer.info(traceback="Traceback (most recent call last):\nKeyError: 'plan'\n")
    writer.finish(status, "")
    write_patch(scratch / "patch.diff", "")
    if failing:
        (scratch / "test_output.txt").write_text("____ test_b ____\nE   assert 1 == 2\n==== end ====\n")
        tests = {"FAIL_TO_PASS": {"success": [], "failure": failing}, "PASS_TO_PASS": {"success": ["c"], "failure": []}}
        write_json(scratch / "report.json", {name: {"resolved": False, "tests_status": tests}})
    event = {
        "event": "rollout", "instance_id": name, "seed": 0, "attempt": 0, "exit_status": status.value, "reason": "",
        "fault": None, "at": now(), **writer.summary.facts(), "seconds": 1.0, "patch_bytes": 0,
    }  # fmt: skip
    store.finish_rollout(scratch, event)
    grade = {"event": "grade", "instance_id": name, "seed": 0, "attempt": 0, "at": now()}
    store.finish_grade(grade | {"outcome": outcome, "cause": "", "seconds": 1.0, "versions": {}})


def read(run: Path, instance: str, width: int = 100) -> str:
    console = Console(width=width, record=True, file=None, force_terminal=False)
    with console.capture() as capture:
        console.print(rollout_view(run, instance, 0))
    return capture.get()


def test_failures_are_grouped_by_cause(run):
    groups = {words: [one.instance_id for one in group] for words, group in grouped(failures(run))}
    assert groups == {
        "no change: replies without a valid action": ["repo__project-0"],
        "wrong fix": ["repo__project-1"],
        "no change: the agent crashed": ["repo__project-2"],
    }
    assert [one.instance_id for one in chosen(failures(run), "WRONG")] == ["repo__project-1"]
    with pytest.raises(ConfigError, match="causes here: "):
        chosen(failures(run), "slow")


def test_a_run_without_failures_has_no_empty_table(run):
    console = Console(width=80)
    with console.capture() as capture:
        console.print(failures_view(run, [], total=4))
    said = capture.get()
    assert "0 of 4 rollouts are not resolved" in " ".join(said.split())
    assert "cause" not in said


def test_a_malformed_reply_is_shown_as_the_models_and_its_complaint_as_the_users(run):
    text = read(run, "project-0")
    places = ["assistant, reasoning", "Hm.", "assistant, malformed", "think.", "No action found."]
    assert sorted(places, key=text.index) == places
    assert "\x1b" not in text
    assert "too many replies in a row held no valid action" in text


def test_failing_tests_and_crashes_are_shown_with_their_last_lines(run):
    assert "E   assert 1 == 2" in read(run, "project-1")
    assert "cause: wrong fix" in read(run, "project-1")
    assert "KeyError: 'plan'" in read(run, "project-2")


def test_the_reference_patch_stands_beside_the_rollouts_where_there_is_width(run):
    def at(width: int) -> str:
        console = Console(width=width)
        with console.capture() as capture:
            console.print(rollout_view(run, "project-1", 0, "+ reference line\n"))
        return capture.get()

    assert any("patch: empty" in line and "reference" in line for line in at(200).split("\n"))
    assert not any("patch: empty" in line and "reference" in line for line in at(80).split("\n"))
    assert "reference line" in at(80)


def test_the_command_lists_reads_and_prints_json(run):
    listed = CliRunner().invoke(app, ["failures", str(run)], env={"COLUMNS": "100"})
    assert listed.exit_code == 0, listed.output
    assert "3 of 4 rollouts are not resolved" in " ".join(listed.stdout.split())
    assert re.search(r"^ *1 \(25 %\) +1 +wrong fix *$", listed.stdout, re.MULTILINE)
    assert re.search(r"^ +repo__project-1 seed 0\b", listed.stdout, re.MULTILINE), "an example on a line of its own"
    rows = json.loads(CliRunner().invoke(app, ["failures", str(run), "--json"]).stdout)
    assert {(row["instance_id"], row["exit_status"]) for row in rows} >= {("repo__project-2", "agent_crash")}
    whole = CliRunner().invoke(app, ["failures", str(run), "--read", "--cause", "crashed"])
    assert "KeyError: 'plan'" in whole.stdout
    assert "assert 1 == 2" not in whole.stdout
