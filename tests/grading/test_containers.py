"""The official procedure in real containers: every outcome, and whose fault it is."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aem_harness.api.running import Selection, open_run
from aem_harness.harness.config import Limits, RunConfig
from aem_harness.harness.errors import EnvironmentFault
from aem_harness.harness.grading import official
from aem_harness.harness.grading.container import run_tests
from aem_harness.harness.instances.load import load
from aem_harness.harness.run.auditing import stored
from aem_harness.harness.run.identity import Identity
from aem_harness.harness.run.places import AuditedContainers
from aem_harness.harness.run.reports import integrity_marks
from aem_harness.harness.run.store import write_patch
from aem_harness.harness.run.submission import Submission
from aem_harness.harness.sandbox.container import Sandbox
from aem_harness.harness.sandbox.images import ensure_image
from aem_harness.harness.types import Grade, Outcome, Task
from tests.grading import tiny
from tests.grading.conftest import prediction

pytestmark = [pytest.mark.docker, pytest.mark.network]

MINE = f"aem.test={os.getpid()}"  # the label of the containers of this process, since others may be testing beside it
NO_OP = tiny.creating("notes.txt", "nothing")


@pytest.fixture(scope="module")
def task(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Task:
    """The tiny task, with its image built."""
    made = tiny.task(tmp_path_factory.mktemp("tiny"))
    ensure_image(made)
    return made


@pytest.fixture(autouse=True)
def nothing_left_behind(engine: None) -> Iterator[None]:
    yield
    assert containers() == []


def containers() -> list[str]:
    command = ["docker", "ps", "-aq", "--filter", f"label={MINE}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def grade(task: Task, patch: str, folder: Path, **options: object) -> Grade:
    options = {"labels": dict([MINE.split("=")]), **options}
    return official.grade(task, prediction(task.instance_id, patch), folder=folder, **options)  # type: ignore[arg-type]


def test_gold_is_resolved_and_leaves_the_official_files(task: Task, tmp_path: Path) -> None:
    graded = grade(task, tiny.GOLD, tmp_path, dataset_digest="d1")
    assert graded.outcome is Outcome.RESOLVED
    assert {path.name for path in tmp_path.iterdir()} == {
        "patch.diff",
        "eval.sh",
        "test_output.txt",
        "report.json",
        "run_instance.log",
    }
    assert (tmp_path / "patch.diff").read_text() == tiny.GOLD
    assert (tmp_path / "eval.sh").read_text() == official.eval_script(task)
    assert json.loads((tmp_path / "report.json").read_text()) == graded.report
    assert (tmp_path / "run_instance.log").read_text().startswith(">>>>> Applied Patch:\n")
    versions = graded.versions
    assert (versions["grader"], versions["dataset_digest"], versions["derived"]) == ("swebench 5.0.2", "d1", {})
    assert versions["image_digest"].startswith("sha256:")
    assert graded.seconds > 0


def test_a_patch_that_mends_nothing_is_unresolved(task: Task, tmp_path: Path) -> None:
    graded = grade(task, NO_OP, tmp_path)
    assert (graded.outcome, graded.cause) == (Outcome.UNRESOLVED, "1 of 1 FAIL_TO_PASS failed")


@pytest.mark.parametrize("patch", [tiny.GOLD.replace("x * x", "y * y"), "not a patch\n", "\n"])
def test_a_patch_that_no_way_applies_is_not_applied(task: Task, tmp_path: Path, patch: str) -> None:
    graded = grade(task, patch, tmp_path)
    assert graded.outcome is Outcome.NOT_APPLIED
    assert graded.cause
    assert graded.report == {}
    assert not (tmp_path / "report.json").exists()
    assert (tmp_path / "run_instance.log").read_text().startswith(">>>>> Patch Apply Failed:\n")


def test_a_patch_with_drifted_context_is_taken_by_the_last_way(task: Task, tmp_path: Path) -> None:
    """`git apply` refuses it thrice and `--reject` leaves its mess behind; `patch --fuzz` needs the tree reset."""
    drifted = tiny.GOLD.replace("twice the number", "two times the number")
    assert grade(task, drifted, tmp_path).outcome is Outcome.RESOLVED
    assert "Hunk #1 succeeded at 1 with fuzz" in (tmp_path / "run_instance.log").read_text()


def test_a_patch_whose_change_is_there_already_counts_as_applied(task: Task, tmp_path: Path) -> None:
    nothing_new = tiny.GOLD.replace("-    return x * x\n+    return x + x", "-    return x + x\n+    return x * x")
    assert grade(task, nothing_new, tmp_path).outcome is Outcome.UNRESOLVED
    assert "verified already applied" in (tmp_path / "run_instance.log").read_text()


def test_an_empty_patch_starts_no_container(task: Task, tmp_path: Path) -> None:
    graded = grade(task.model_copy(update={"dockerfile": "/nowhere"}), "", tmp_path)
    assert graded.outcome is Outcome.EMPTY_PATCH
    assert list(tmp_path.iterdir()) == []


def test_a_patch_that_breaks_the_test_run_is_unresolved_and_never_infrastructure(task: Task, tmp_path: Path) -> None:
    graded = grade(task, tiny.GOLD + tiny.creating("conftest.py", "import nothing_like_this"), tmp_path)
    assert graded.outcome is Outcome.UNRESOLVED
    assert graded.cause.startswith("tests exited with status 4")


def test_a_patch_that_kills_everything_in_its_container_is_unresolved(task: Task, tmp_path: Path) -> None:
    graded = grade(task, tiny.creating("conftest.py", 'import os\nos.system("kill -9 -1")'), tmp_path)
    assert (graded.outcome, graded.cause) == (
        Outcome.UNRESOLVED,
        "the eval script was ended from inside the container",
    )


def test_tests_that_do_not_end_are_a_timeout_without_a_report(task: Task, tmp_path: Path) -> None:
    graded = grade(task, tiny.creating("conftest.py", "import time\ntime.sleep(300)"), tmp_path, timeout=4)
    assert (graded.outcome, graded.cause) == (Outcome.TEST_TIMEOUT, "tests ran longer than 4 s")
    assert (tmp_path / "test_output.txt").read_text().endswith("\n\nTimeout error: 4 seconds exceeded.")
    assert not (tmp_path / "report.json").exists()
    assert graded.seconds < 200


def test_a_daemon_left_behind_by_the_tests_delays_nothing(task: Task, tmp_path: Path) -> None:
    daemon = tiny.creating("conftest.py", 'import subprocess\nsubprocess.Popen(["sleep", "300"])')
    graded = grade(task, tiny.GOLD + daemon, tmp_path)
    assert graded.outcome is Outcome.RESOLVED
    assert graded.seconds < 200


HOGS = {
    "memory": (Limits(memory="200m"), "x = []\nwhile True:\n    x.append(bytearray(10**7))\n"),
    "processes": (
        Limits(pids=60),
        "import os, time\nfor _ in range(200):\n    if not os.fork():\n        time.sleep(2)\n        os._exit(0)\n",
    ),
}


@pytest.mark.parametrize("name", HOGS)
def test_a_limit_that_only_this_patch_reaches_is_its_own_failure(task: Task, tmp_path: Path, name: str) -> None:
    limits, code = HOGS[name]
    graded = grade(task, tiny.GOLD + tiny.creating("conftest.py", code), tmp_path, limits=limits)
    assert graded.outcome is Outcome.UNRESOLVED
    assert f"limit of {name}" in graded.cause
    assert "which the gold patch does not" in graded.cause


@pytest.mark.parametrize("name", HOGS)
def test_a_limit_that_gold_reaches_too_is_infrastructure(task: Task, tmp_path: Path, name: str) -> None:
    limits, code = HOGS[name]
    greedy = task.model_copy(update={"patch": tiny.GOLD + tiny.creating("conftest.py", code)})
    graded = grade(greedy, greedy.patch, tmp_path, limits=limits)
    assert graded.outcome is Outcome.ERROR
    assert graded.cause.startswith(f"container limit reached during the tests: {name}")
    assert not (tmp_path / "report.json").exists()
    assert (tmp_path / "test_output.txt").exists()


def test_a_container_that_dies_under_the_tests_is_infrastructure(task: Task, tmp_path: Path) -> None:
    script = task.eval_script.replace("python -m pytest", "touch /started; sleep 60; python -m pytest")
    slow = task.model_copy(update={"eval_script": script})
    killer = (
        f'until id=$(docker ps -q --filter label={MINE}) && [ -n "$id" ] '
        "&& docker exec $id test -e /started 2> /dev/null; do sleep 0.2; done; docker kill $id"
    )
    with subprocess.Popen(["bash", "-c", killer], stdout=subprocess.DEVNULL):
        graded = grade(slow, tiny.GOLD, tmp_path)
    assert graded.outcome is Outcome.ERROR
    assert graded.cause.startswith("environment: ")


def test_what_only_this_patch_does_to_its_grading_is_its_own_failure(task: Task, tmp_path: Path) -> None:
    """The eval script stands in for the code under test: it stops the shell it runs in, or leaves no log, where a
    harmless file of the patch is found."""
    marked = tiny.GOLD + tiny.creating("marked.txt", "this patch")
    script = task.eval_script.replace("python -m", "[ -e marked.txt ] && rm -f /eval.log && kill -9 -1\npython -m")
    graded = grade(task.model_copy(update={"eval_script": script}), marked, tmp_path)
    assert graded.outcome is Outcome.UNRESOLVED
    assert graded.cause == "the test log is empty; the gold patch has no such trouble"


def test_where_gold_meets_the_same_it_is_infrastructure(task: Task, tmp_path: Path) -> None:
    script = task.eval_script.replace("python -m", "rm -f /eval.log && kill -9 -1\npython -m")
    graded = grade(task.model_copy(update={"eval_script": script}), NO_OP, tmp_path)
    assert (graded.outcome, graded.cause) == (Outcome.ERROR, "the test log is empty")


def test_trouble_that_does_not_come_again_is_nobodys(task: Task, tmp_path: Path) -> None:
    opened = 0

    def open_environment() -> Sandbox:
        nonlocal opened
        opened += 1
        if opened == 1:
            raise EnvironmentFault("the engine was busy")
        return Sandbox(task.instance.image, scrub_git=False, prelude="", labels=dict([MINE.split("=")]))

    graded = grade(task, NO_OP, tmp_path, open_environment=open_environment)
    assert (graded.outcome, graded.cause) == (Outcome.UNRESOLVED, "1 of 1 FAIL_TO_PASS failed")
    assert opened == 3  # the patch, gold, the patch again


@pytest.mark.parametrize("failing", [{1, 3}, {4}], ids=["for the patch, twice", "for gold, after the patch"])
def test_an_engine_that_fails_now_and_then_is_no_failure_of_the_patch(
    task: Task, tmp_path: Path, failing: set[int]
) -> None:
    """It was `unresolved` where gold, between the two tries of the patch, had got a container."""
    opened = 0

    def open_environment() -> Sandbox:
        nonlocal opened
        opened += 1
        if opened in failing:
            raise EnvironmentFault("the engine was busy")
        return Sandbox(task.instance.image, scrub_git=False, prelude="", labels=dict([MINE.split("=")]))

    script = task.eval_script.replace("python -m", "[ -e notes.txt ] && rm -f /eval.log && kill -9 -1\npython -m")
    graded = grade(task.model_copy(update={"eval_script": script}), NO_OP, tmp_path, open_environment=open_environment)
    assert graded.outcome is Outcome.ERROR
    assert opened == max(failing)


def test_a_missing_image_is_infrastructure_with_its_name(task: Task, tmp_path: Path) -> None:
    gone = task.instance.model_copy(update={"image": "localhost:1/nothing/here:latest"})
    graded = grade(task.model_copy(update={"instance": gone, "dockerfile": None}), tiny.GOLD, tmp_path)
    assert graded.outcome is Outcome.ERROR
    assert "localhost:1/nothing/here" in graded.cause


def test_a_work_tree_that_takes_no_patch_at_all_is_infrastructure(task: Task, tmp_path: Path) -> None:
    elsewhere = task.instance.model_copy(update={"workdir": "/opt"})
    graded = grade(task.model_copy(update={"instance": elsewhere}), tiny.GOLD, tmp_path)
    assert graded.outcome is Outcome.ERROR
    assert graded.cause.startswith("grading: no patch can be applied in /opt")


def test_a_work_tree_inside_another_repository_is_infrastructure(task: Task, tmp_path: Path) -> None:
    inside = task.instance.model_copy(update={"workdir": "/testbed/tests"})
    graded = grade(task.model_copy(update={"instance": inside}), tiny.GOLD, tmp_path)
    assert graded.outcome is Outcome.ERROR
    assert graded.cause.startswith("grading: /testbed/tests lies inside another git repository")


def test_what_git_quotes_of_a_patch_is_not_taken_for_what_git_did(task: Task, tmp_path: Path) -> None:
    added = "--- /dev/null\n+++ b/notes.txt\n@@ -0,0 +1 @@\n+Skipped patch 'notes.txt'.  \n"  # trailing blanks: quoted
    graded = grade(task, f"{tiny.GOLD}{added}", tmp_path)
    assert graded.outcome is Outcome.RESOLVED


def saying(task: Task, command: str) -> Task:
    """The task with an eval script that runs one more command before the tests."""
    return task.model_copy(update={"eval_script": task.eval_script.replace("python -m", f"{command}\npython -m")})


def test_long_output_comes_back_whole(task: Task, tmp_path: Path) -> None:
    loud = saying(task, "seq -f 'line %g of a very long log' 200000")
    assert grade(loud, tiny.GOLD, tmp_path).outcome is Outcome.RESOLVED
    log = (tmp_path / "test_output.txt").read_text()
    assert log.count("of a very long log\n") == 200_000
    assert len(log) > 5_000_000


def test_a_flood_is_bounded_inside_the_container(task: Task) -> None:
    with Sandbox(task.instance.image, scrub_git=False) as sandbox:
        run = run_tests(sandbox, "yes flood\n", timeout=60, bound=2**20)
    assert len(run.output) == 2**20
    assert run.witness.flooded
    assert not run.timed_out


def test_output_that_is_not_utf_8_is_kept_readable(task: Task, tmp_path: Path) -> None:
    assert grade(saying(task, r"printf 'caf\351\n'"), tiny.GOLD, tmp_path).outcome is Outcome.RESOLVED
    assert "caf\N{REPLACEMENT CHARACTER}" in (tmp_path / "test_output.txt").read_text(encoding="utf-8")


def test_a_patch_is_applied_byte_by_byte(task: Task, tmp_path: Path) -> None:
    latin = tiny.creating("latin.py", "# -*- coding: latin-1 -*-\nname = 'caf\udce9'\n")
    probe = tiny.creating("conftest.py", "import latin\nassert latin.name == 'caf\\xe9'")
    assert grade(task, tiny.GOLD + latin + probe, tmp_path).outcome is Outcome.RESOLVED


def test_the_second_grading_of_a_folder_leaves_nothing_of_the_first(task: Task, tmp_path: Path) -> None:
    grade(task, tiny.GOLD, tmp_path)
    grade(task, "not a patch\n", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"patch.diff", "run_instance.log"}


HOOK = """\
def pytest_runtest_makereport(item, call):
    return None
"""
NOTE = """\
# Words of the log, such as PASSED test_x.py::test_y, and a call, os._exit(0), in a comment that nobody runs.
"""


def test_harmless_forms_of_what_can_touch_a_verdict_bear_their_marks_and_change_none(
    task: Task, tmp_path: Path
) -> None:
    """Marks are for a reader (issues 631, 601 and 620 of swebench): the verdict stays the official one."""
    hook = tiny.GOLD + tiny.creating("conftest.py", HOOK)
    assert grade(task, hook, tmp_path).outcome is Outcome.RESOLVED
    marks = integrity_marks(tmp_path, task, Outcome.RESOLVED)
    assert {mark.name for mark in marks} == {"loaded unasked", "runner hook"}

    noted = tiny.GOLD + tiny.creating("notes.py", NOTE)
    assert grade(task, noted, tmp_path).outcome is Outcome.RESOLVED
    marks = integrity_marks(tmp_path, task, Outcome.RESOLVED)
    assert {mark.name for mark in marks} == {"forged log", "leaves the process"}
    assert all(mark.grave for mark in marks)

    assert grade(task, tiny.creating("conftest.py", HOOK), tmp_path).outcome is Outcome.UNRESOLVED


STOCK = """
import sys
from swebench.cli.cli import main
for name in sys.argv[1:]:
    sys.argv = ["swebench", "eval", "rows.jsonl", "-p", f"{name}.jsonl", "--run-id", name, "-j", "1"]
    try:
        main()
    except (Exception, SystemExit):
        pass
"""


@pytest.mark.slow
def test_reports_equal_those_of_the_stock_runner_on_the_same_image(task: Task, tmp_path: Path) -> None:
    """`swebench eval` itself against ours; one process for all patches, since it takes seconds to import."""
    patches = {
        "gold": tiny.GOLD,
        "noop": NO_OP,
        "broken": tiny.GOLD.replace("x * x", "y * y"),
        "fuzzy": tiny.GOLD.replace("twice the number", "two times the number"),
        "conftest": tiny.creating("conftest.py", "import nothing_like_this"),
    }
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(tiny.row()) + "\n")
    for name, patch in patches.items():
        preds = {"instance_id": task.instance_id, "model_name_or_path": name, "model_patch": patch}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(preds) + "\n")
    # Its exit status is not looked at: listing containers beside others can fail it.
    command = [sys.executable, "-c", STOCK, *patches]
    subprocess.run(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=600)
    for name, patch in patches.items():
        theirs = tmp_path / "logs" / "run_evaluation" / name / name / task.instance_id / "report.json"
        graded = grade(task, patch, tmp_path / "ours" / name)
        ours = tmp_path / "ours" / name / "report.json"
        assert ours.exists() == theirs.exists() == (graded.outcome is not Outcome.NOT_APPLIED), name
        if theirs.exists():
            assert ours.read_text() == theirs.read_text()


@pytest.mark.slow
def test_where_canaries_decide_a_resolved_patch_is_graded_again_before_its_grade_is_returned(
    task: Task, tmp_path: Path
) -> None:
    selection = Selection([task], load("sample"))
    with open_run(tmp_path / "run", RunConfig(arm="a", agent="gold"), selection, Submission(), 1) as store:
        places = AuditedContainers(Identity.of(store.folder))
        for name, patch, outcome in (("gold", tiny.GOLD, Outcome.RESOLVED), ("idle", NO_OP, Outcome.UNRESOLVED)):
            folder = tmp_path / name
            folder.mkdir()
            write_patch(folder / official.PATCH, patch)
            graded = places.grade(task, prediction(task.instance_id, patch), folder, None)
            found = stored(folder)
            assert graded.outcome is outcome
            assert (found and found.state) == ("clean" if outcome is Outcome.RESOLVED else None)
