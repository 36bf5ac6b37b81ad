"""What kind of failure a failure is, on logs built from real ones by one change each."""

import ast
from pathlib import Path

import pytest

from aem_harness.harness.grading import official, verdict
from aem_harness.harness.grading.verdict import END, START, Witness, judge, refusal, timeout_note
from aem_harness.harness.types import Grade, Outcome, Task
from tests.grading.conftest import prediction, stored_log

FLASK = "pallets__flask-5014"


@pytest.fixture(scope="module")
def task(verified: dict[str, Task]) -> Task:
    return verified[FLASK]


@pytest.fixture(scope="module")
def log(logs: Path) -> str:
    text = stored_log(logs / FLASK / "tdad_eval_20260311_034331")
    assert text
    return text


def grade(task: Task, log: str, witness: Witness | None = None) -> Grade:
    return official.grade_log(task, prediction(task.instance_id), log, witness=witness)


def test_the_words_looked_for_are_those_that_swebench_writes() -> None:
    from swebench.harness import constants

    assert (START, END) == (constants.START_TEST_OUTPUT, constants.END_TEST_OUTPUT)
    assert verdict.PATCH_APPLIED == constants.APPLY_PATCH_PASS
    bad = (constants.APPLY_PATCH_FAIL, constants.RESET_FAILED, constants.TESTS_ERROR, constants.TESTS_TIMEOUT)
    assert bad == verdict.BAD_WORDS
    assert verdict._EXIT_STATUS.search(f"{constants.TEST_EXIT_CODE}: 1")


def _imported(path: Path) -> set[str]:
    """The top-level names that a source file imports, anywhere in it; a program in a string is none of its imports."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


def test_one_file_alone_imports_the_official_grader() -> None:
    root = Path(official.__file__).parents[2]
    parts = ("cli.py", "api", "commands", "harness", "agents", "aem_checkpoints", "training")
    sources = [
        path for part in parts for path in ([root / part] if part.endswith(".py") else (root / part).rglob("*.py"))
    ]
    assert len(sources) > 100
    importing = [path for path in sources if "swebench" in _imported(path)]
    assert importing == [Path(official.__file__)]


def test_a_resolved_log_stays_resolved_whatever_else_was_seen(task: Task, log: str) -> None:
    assert grade(task, log).outcome is Outcome.RESOLVED
    assert grade(task, log, Witness(limits_hit=("memory",), disk_full=True)).outcome is Outcome.RESOLVED


def test_one_failing_test_is_unresolved_and_counted(task: Task, log: str) -> None:
    failing = log.replace(f"PASSED {task.pass_to_pass[0]}", f"FAILED {task.pass_to_pass[0]}")
    graded = grade(task, failing)
    assert graded.outcome is Outcome.UNRESOLVED
    assert graded.cause == "1 of 59 PASS_TO_PASS failed"


def test_a_conftest_that_keeps_every_test_from_running_is_the_patchs_doing(task: Task, log: str) -> None:
    before, after = log.split(START)[0], log.split(END)[1]
    broken = (
        f"{before}{START}'\n+ pytest -rA tests/test_blueprints.py\n"
        "ImportError while loading conftest '/testbed/conftest.py'.\nE   ModuleNotFoundError: No module named 'x'\n"
        f"+ SWEBENCH_TEST_EXIT_CODE=4\n+ : '{END}'\n>>>>> Test Exit Code: 4{after}"
    )
    for witness in (None, Witness()):
        graded = grade(task, broken, witness)
        assert graded.outcome is Outcome.UNRESOLVED
        assert graded.cause == "tests exited with status 4 but the log shows no failed test (swebench: missing_module)"


@pytest.mark.parametrize("results", ["", "PASSED tests/test_blueprints.py::test_blueprint_specific_error_handling\n"])
def test_a_time_limit_of_the_eval_script_itself_is_put_to_the_control_of_gold(
    task: Task, log: str, results: str
) -> None:
    """A machine that was slow enough counted against the policy. A stored log has its official reading."""
    ended = f"{log.split(START)[0]}{START}'\n{results}+ : '{END}'\n>>>>> Test Exit Code: 124\n"
    graded = grade(task, ended, Witness())
    assert (graded.outcome, "a time limit of the eval script" in graded.cause) == (Outcome.ERROR, True)
    assert grade(task, ended).outcome is Outcome.UNRESOLVED
    assert grade(task, log.replace(END, f"{END}'\n>>>>> Test Exit Code: 1\n+ : '", 1), Witness()).outcome is (
        Outcome.UNRESOLVED
    )


def test_a_log_that_claims_success_while_the_tests_failed_is_rejected(task: Task, log: str) -> None:
    forged = log.replace(END, f"{END}'\n>>>>> Test Exit Code: 1\n+ : '", 1)
    graded = grade(task, forged)
    assert graded.outcome is Outcome.UNRESOLVED
    assert graded.cause == "tests exited with status 1 but the log shows no failed test"


def test_what_the_patch_did_not_do_is_an_error_only_where_the_engine_saw_it(task: Task, log: str) -> None:
    failing = log.replace(f"PASSED {task.fail_to_pass[0]}", f"FAILED {task.fail_to_pass[0]}")
    cut = failing.split(END)[0]
    limit = Witness(limits_hit=("memory (1 processes killed)",))
    for text in (failing, cut):
        assert grade(task, text, limit).outcome is Outcome.ERROR
        assert "memory (1 processes killed)" in grade(task, text, limit).cause
        assert grade(task, text, Witness(disk_full=True)).outcome is Outcome.ERROR
    # In a healthy container nothing but the code under test can have ended the script; a stored log tells nothing.
    assert grade(task, cut, Witness()).outcome is Outcome.UNRESOLVED
    assert grade(task, cut, Witness(flooded=True)).cause == "test output was cut off at its bound"
    assert grade(task, cut, None).outcome is Outcome.ERROR


@pytest.mark.parametrize("witness", [None, Witness()])
def test_a_log_without_a_start_is_an_error(task: Task, log: str, witness: Witness | None) -> None:
    assert grade(task, log.replace(START, "").replace(END, ""), witness).outcome is Outcome.ERROR
    assert grade(task, "", witness).cause == "the test log is empty"


def test_a_timeout_is_told_by_the_official_words_at_the_very_end(task: Task, log: str) -> None:
    cut = log.split(END)[0]
    graded = grade(task, cut + timeout_note(1800))
    assert (graded.outcome, graded.cause) == (Outcome.TEST_TIMEOUT, "tests ran longer than 1800 s")
    assert grade(task, "Timeout error: 5 seconds exceeded.\n" + log).outcome is Outcome.RESOLVED


def test_old_words_for_failures_are_understood(task: Task, log: str) -> None:
    assert grade(task, f">>>>> Patch Apply Failed:\n{log}").outcome is Outcome.NOT_APPLIED
    assert grade(task, f">>>>> Tests Timed Out\n{log}").outcome is Outcome.TEST_TIMEOUT
    assert grade(task, f">>>>> Tests Errored\n{log}").outcome is Outcome.ERROR


def test_every_outcome_but_resolved_is_officially_not_resolved(task: Task, log: str) -> None:
    for text in (log.split(END)[0], "", log.replace("PASSED", "FAILED"), log + timeout_note(3)):
        graded = grade(task, text)
        assert graded.resolved == graded.report[FLASK]["resolved"]


def test_a_timeout_after_passing_tests_is_no_success() -> None:
    report = {"resolved": False, "patch_successfully_applied": True}
    assert judge(report, f"{START} {END}{timeout_note(60)}").outcome is Outcome.TEST_TIMEOUT


def test_a_refusal_is_told_in_one_line() -> None:
    words = "patching file a.py\nHunk #1 FAILED at 14.\n1 out of 1 hunk FAILED -- saving rejects to file a.py.rej\n"
    assert refusal(words).startswith("Hunk #1 FAILED at 14.; 1 out of 1")
    assert refusal("error: patch failed: x.py:1\nerror: x.py: patch does not apply") == (
        "error: patch failed: x.py:1; error: x.py: patch does not apply"
    )
    assert refusal("") == "the patch could not be applied"


def test_an_unknown_log_parser_is_named(task: Task) -> None:
    from aem_harness.harness.errors import DataError

    with pytest.raises(DataError, match=r"log_parser 'parse_log_none' is unknown to swebench 5\.0\.2"):
        official.eval_script(task.model_copy(update={"log_parser": "parse_log_none"}))


def test_the_eval_script_is_the_rows_own_made_to_record_the_exit_status(task: Task) -> None:
    script = official.eval_script(task)
    added = ["SWEBENCH_TEST_EXIT_CODE=$?", 'echo ">>>>> Test Exit Code: $SWEBENCH_TEST_EXIT_CODE"']
    kept = [line for line in script.splitlines() if line not in added]
    assert "\n".join(kept) + "\n" == task.eval_script
    assert len(script.splitlines()) == len(kept) + 2
