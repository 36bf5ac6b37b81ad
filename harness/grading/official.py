"""The official grader: the only file that imports swebench, and the official procedure around it.

`grade` repeats `swebench.harness.run_evaluation.run_instance` (5.0.2) step by step in a fresh container: the same four
ways of applying a patch with the same resets in between, the same eval script run by `/bin/bash /eval.sh`, the same
reading of its log. It differs where the stock runner wastes or risks something: no 15 s stop grace, no added
capability, bounded memory, processes and log. The verdict comes from swebench alone.

swebench is imported on first use (about 2 s), so importing this module is cheap.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aem_harness.harness.errors import AemError, ContainerDied, DataError, GradingFault, boundary
from aem_harness.harness.grading.container import Attempt, TestRun, attempt_patch
from aem_harness.harness.grading.verdict import (
    PATCH_APPLIED,
    PATCH_FAILED,
    Verdict,
    Witness,
    judge,
    out_of_its_own_time,
    refusal,
    timeout_note,
)
from aem_harness.harness.io import write_bytes, write_text
from aem_harness.harness.types import Environment, Grade, ImageRef, Outcome, Prediction, Task

OpenEnvironment = Callable[[], AbstractContextManager[Environment]]
IN_ANY_ORDER: AbstractContextManager[object] = nullcontext()


class Noted:
    """Opens environments, and notes whether one was `opened`: what fails before that is no patch's doing."""

    def __init__(self, open_environment: OpenEnvironment) -> None:
        self._open, self.opened = open_environment, False

    @contextmanager
    def __call__(self) -> Iterator[Environment]:
        self.opened = False
        with self._open() as environment:
            self.opened = True
            yield environment


# Names in a rollout's folder, as the official harness names them.
PATCH, EVAL_SCRIPT, TEST_OUTPUT, REPORT, NOTES = (
    "patch.diff",
    "eval.sh",
    "test_output.txt",
    "report.json",
    "run_instance.log",
)


# --- swebench -------------------------------------------------------------------------------------------------------


def grader_version() -> str:
    """The exact release that gives the verdicts, e.g. "swebench 5.0.2"."""
    import swebench

    return f"swebench {swebench.__version__}"


def eval_script(task: Task) -> str:
    """The script the official harness would run: the row's own, made to record the tests' exit status."""
    return str(_test_spec(task).eval_script)


def script_commands(script: str) -> list[str]:
    """The lines of an eval script as swebench takes them, without those by which release 5 records the exit status."""
    from swebench.harness.constants import TEST_EXIT_CODE, TEST_EXIT_CODE_VAR
    from swebench.harness.utils import parse_eval_script

    added = {f"{TEST_EXIT_CODE_VAR}=$?", f'echo "{TEST_EXIT_CODE}: ${TEST_EXIT_CODE_VAR}"'}
    return [line for line in parse_eval_script(script) if line not in added]


def official_report(task: Task, prediction: Prediction, log: Path) -> dict[str, Any]:
    """`{instance_id: {...}}` as swebench writes it into report.json. `log` must be UTF-8."""
    from swebench.harness.grading import get_eval_report

    with boundary(GradingFault, f"swebench could not read the log of {task.instance_id}"):
        report: dict[str, Any] = get_eval_report(
            test_spec=_test_spec(task),
            prediction=prediction.model_dump(),
            test_log_path=str(log),
            include_tests_status=True,
        )
    return report


def log_statuses(task: Task, log: str) -> dict[str, str]:
    """The status of each test as swebench reads it from a log: PASSED, FAILED, ERROR, SKIPPED or XFAIL by test id."""
    from swebench.harness.grading import get_logs_eval

    with boundary(GradingFault, f"swebench could not read the log of {task.instance_id}"), _as_file(log) as path:
        statuses: dict[str, str] = get_logs_eval(_test_spec(task), str(path))[0]
    return statuses


@dataclass(frozen=True)
class FailureGuess:
    """What swebench guesses of a failure from its logs; advisory, `environment`: not the patch."""

    reason: str
    environment: bool


def guess_failure(folder: Path) -> FailureGuess | None:
    """The guess for the run report, from test_output.txt and run_instance.log in a rollout's folder."""
    from swebench.harness.infra_failure import TIER_ENVIRONMENT, classify_logs

    found = classify_logs(folder / TEST_OUTPUT, folder / NOTES)
    return FailureGuess(found[0], found[1] == TIER_ENVIRONMENT) if found else None


def apply_commands() -> list[str]:
    """The ways of applying a patch, in the order in which they are tried."""
    from swebench.harness.run_evaluation import GIT_APPLY_CMDS

    return list(GIT_APPLY_CMDS)


def require_parser(task: Task) -> None:
    """Raises DataError where swebench has no log parser of the task's name, so that nothing of it can be graded."""
    from swebench.harness.log_parsers import PARSER_REGISTRY

    if task.log_parser not in PARSER_REGISTRY:
        raise DataError(f"{task.instance_id}: log_parser {task.log_parser!r} is unknown to {grader_version()}")


def spec_row(task: Task) -> dict[str, Any]:
    """The columns of a task from which swebench makes its test specification."""
    return {
        "instance_id": task.instance_id,
        "image": task.instance.image,
        "repo": task.instance.repo,
        "version": task.instance.version,
        "eval_script": task.eval_script,
        "log_parser": task.log_parser,
        "eval_type": task.eval_type,
        "FAIL_TO_PASS": list(task.fail_to_pass),
        "PASS_TO_PASS": list(task.pass_to_pass),
    }


def _test_spec(task: Task) -> Any:
    from swebench.harness.utils import make_test_spec

    require_parser(task)
    return make_test_spec(spec_row(task))


# --- a stored log ---------------------------------------------------------------------------------------------------


def grade_log(
    task: Task,
    prediction: Prediction,
    log: str,
    *,
    witness: Witness | None = None,
    versions: Mapping[str, Any] | None = None,
) -> Grade:
    """Grade the text of a test log; starts no container. Raises DataError or GradingFault, never a verdict in doubt."""
    with _as_file(log) as path:
        report = official_report(task, prediction, path)
    verdict = judge(report[task.instance_id], log, witness)
    return Grade(
        instance_id=task.instance_id,
        outcome=verdict.outcome,
        cause=verdict.cause,
        report=report,
        versions=versions if versions is not None else stamp(task),
    )


@contextmanager
def _as_file(log: str) -> Iterator[Path]:
    """The text as a file that swebench can read: UTF-8 throughout, line ends as they are."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", errors="replace", newline="", suffix=".txt") as file:
        file.write(log)
        file.flush()
        yield Path(file.name)


def stamp(task: Task, *, image: ImageRef | None = None, dataset_digest: str = "") -> dict[str, Any]:
    """What a grade depends on beside the patch: grader, dataset, image, and where derived row fields came from."""
    architecture = {"architecture": image.architecture} if image and image.architecture else {}
    return {
        "grader": grader_version(),
        "dataset": task.dataset,
        "dataset_digest": dataset_digest,
        "image": image.name if image else task.instance.image,
        "image_digest": image.digest if image else "",
        **architecture,  # a digest may stand for images of several
        "derived": dict(task.provenance),
    }


# --- a fresh container ----------------------------------------------------------------------------------------------


def grade(
    task: Task,
    prediction: Prediction,
    *,
    folder: Path,
    timeout: float = 1800,
    limits: Any = None,
    labels: Mapping[str, str] | None = None,
    dataset_digest: str = "",
    open_environment: OpenEnvironment | None = None,
    left: Mapping[str, str | None] | None = None,
    turn: AbstractContextManager[object] = IN_ANY_ORDER,
) -> Grade:
    """Apply the prediction in a fresh container, run the official eval script, and read its log officially.

    `folder` gets patch.diff, eval.sh, test_output.txt, report.json (as swebench writes it) and run_instance.log.
    `timeout` bounds the eval script, in seconds. `open_environment` opens the container (root, at the work tree);
    by default one from the task's image, under `limits`, with network if the task grants it.

    `left` is what the agent left of each file that the patch changes; the grade says where the patched tree differs.

    `turn` is held while the patch is applied and the tests run, not while containers are opened and removed: those that
    share a semaphore can so have the next container ready. What is waited for it counts in `seconds`.

    Never raises a fault: what is not the patch's doing comes back as Outcome.ERROR with its cause. An empty
    prediction starts no container. What looks like infrastructure is the patch's doing if the gold patch gets its
    verdict under the same circumstances: on such a failure gold is run as a control, in one more container.
    """
    started = time.monotonic()
    versions: dict[str, Any] = {}
    try:
        with boundary(GradingFault, f"grading {task.instance_id}"):
            versions = stamp(task, dataset_digest=dataset_digest)
            for name in (TEST_OUTPUT, REPORT, NOTES, EVAL_SCRIPT):
                (folder / name).unlink(missing_ok=True)  # of an earlier attempt
            if not prediction.model_patch:
                verdict = Verdict(Outcome.EMPTY_PATCH, "the prediction is empty")
                return _ended(task, verdict, versions, started)
            if open_environment is None:
                image, open_environment = opener(task, limits, labels or {})
                versions = stamp(task, image=image, dataset_digest=dataset_digest)
            grade = _verdict(task, prediction, open_environment, timeout, folder, versions, left, turn)
            # Where a run fails so, the official harness writes no report, whatever its log holds.
            report = {} if grade.outcome is Outcome.ERROR else grade.report
            if report:
                write_text(folder / REPORT, json.dumps(dict(report), indent=4))
            return grade.model_copy(update={"report": report, "seconds": time.monotonic() - started})
    except AemError as error:
        return _ended(task, Verdict(Outcome.ERROR, f"{error.boundary}: {error}"), versions, started)


def _verdict(
    task: Task,
    prediction: Prediction,
    open_environment: OpenEnvironment,
    timeout: float,
    folder: Path,
    versions: Mapping[str, Any],
    left: Mapping[str, str | None] | None,
    turn: AbstractContextManager[object],
) -> Grade:
    """The grade of a patch that is there. What looks like infrastructure is put to a control: gold, treated alike.

    If gold gets its verdict before and after this patch, tried again, does not, then the failure is the patch's own: it
    reached a limit, ended or silenced its container, or removed what the grader needs. Never where no container opened.
    """

    def gold_fares_well() -> bool:
        control, reached = _try(task, _gold(task), open_environment, timeout, None, versions, None, turn)
        return control.outcome is not Outcome.ERROR and not reached

    grade, limits = _try(task, prediction, open_environment, timeout, folder, versions, left, turn)
    if grade.outcome is not Outcome.ERROR or not gold_fares_well():
        return grade
    if not limits:  # counted by the kernel, so no accident; anything else may have been one
        noted = Noted(open_environment)
        grade, limits = _try(task, prediction, noted, timeout, folder, versions, left, turn)
        if grade.outcome is not Outcome.ERROR or not noted.opened or not (limits or gold_fares_well()):
            return grade
    why = f"reached the container's limit of {', '.join(limits)}" if limits else grade.cause
    return grade.model_copy(
        update={
            "outcome": Outcome.UNRESOLVED,
            "cause": f"{why}, which the gold patch does not"
            if limits
            else f"{why}; the gold patch has no such trouble",
        }
    )


def _gold(task: Task) -> Prediction:
    return Prediction(instance_id=task.instance_id, model_name_or_path="gold", model_patch=task.patch)


def _try(
    task: Task,
    prediction: Prediction,
    open_environment: OpenEnvironment,
    timeout: float,
    folder: Path | None,
    versions: Mapping[str, Any],
    left: Mapping[str, str | None] | None,
    turn: AbstractContextManager[object],
) -> tuple[Grade, tuple[str, ...]]:
    """One patch in one fresh container: its grade, and the container's limits that it reached.

    Raises ContainerDied, which no patch causes, and no other fault.
    """
    started = time.monotonic()
    try:
        attempt = try_patch(task, prediction.model_patch, open_environment, timeout, folder, left, turn)
    except ContainerDied:
        raise
    except AemError as error:
        return _ended(task, Verdict(Outcome.ERROR, f"{error.boundary}: {error}"), versions, started), ()
    if attempt.run is None:
        return _ended(task, Verdict(Outcome.NOT_APPLIED, refusal(attempt.words)), versions, started), ()
    grade = _read(task, prediction, attempt.run, timeout, versions)
    grade = grade.model_copy(update={"tree_differs": attempt.tree_differs})
    if folder:
        write_text(folder / TEST_OUTPUT, _log(attempt.run, timeout))
    return grade, attempt.run.witness.limits_hit


def try_patch(
    task: Task,
    patch: str,
    open_environment: OpenEnvironment,
    timeout: float,
    folder: Path | None = None,
    left: Mapping[str, str | None] | None = None,
    turn: AbstractContextManager[object] = IN_ANY_ORDER,
) -> Attempt:
    """A patch in a fresh container; what went in and how it was taken is left in `folder`."""
    script, data = eval_script(task), patch.encode("utf-8", "surrogateescape")
    with open_environment() as environment, turn:
        attempt = attempt_patch(environment, data, script, timeout, apply_commands(), task.instance.workdir, left)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        note = f"{PATCH_FAILED if attempt.run is None else PATCH_APPLIED}:\n{attempt.words}\n"
        write_bytes(folder / PATCH, data)
        write_text(folder / NOTES, note)
        if attempt.run:
            write_text(folder / EVAL_SCRIPT, script)
    return attempt


def try_patch_patiently(task: Task, patch: str, open_environment: OpenEnvironment, timeout: float) -> Attempt:
    """The same, once more where a time limit of the eval script itself ended it: the machine may have been slow."""
    attempt = try_patch(task, patch, open_environment, timeout)
    if attempt.run and out_of_its_own_time(attempt.run.output.decode(errors="replace")):
        attempt = try_patch(task, patch, open_environment, timeout)
    return attempt


def _read(task: Task, prediction: Prediction, run: TestRun, timeout: float, versions: Mapping[str, Any]) -> Grade:
    """The verdict on a run."""
    grade = grade_log(task, prediction, _log(run, timeout), witness=run.witness, versions=versions)
    outcome, cause = grade.outcome, grade.cause
    if run.timed_out and grade.resolved:
        outcome, cause = Outcome.TEST_TIMEOUT, "out of time after the tests"
    report = {} if run.timed_out else grade.report  # nor does the official harness write one
    return grade.model_copy(update={"outcome": outcome, "cause": cause, "report": report})


def _log(run: TestRun, timeout: float) -> str:
    return run.output.decode(errors="replace") + (timeout_note(timeout) if run.timed_out else "")


def _ended(task: Task, verdict: Verdict, versions: Mapping[str, Any], started: float) -> Grade:
    return Grade(
        instance_id=task.instance_id,
        outcome=verdict.outcome,
        cause=" ".join(verdict.cause.split()),
        versions=versions,
        seconds=time.monotonic() - started,
    )


def opener(task: Task, limits: Any, labels: Mapping[str, str]) -> tuple[ImageRef, OpenEnvironment]:
    """The task's image, made present, and what opens a fresh container of it for grading."""
    from aem_harness.harness.sandbox.container import Sandbox
    from aem_harness.harness.sandbox.images import ensure_image

    image = ensure_image(task)

    def open_environment() -> AbstractContextManager[Environment]:
        sandbox: AbstractContextManager[Environment] = Sandbox(
            image.name,
            workdir=task.instance.workdir,
            network=task.network,
            limits=limits,
            labels={"aem.instance": task.instance_id, "aem.grading": "1", **labels},
            scrub_git=False,  # nobody looks for answers here, and eval scripts may name commits
            prelude="",  # as a plain `docker exec`: the eval script activates what it needs
        )
        return sandbox

    return image, open_environment
