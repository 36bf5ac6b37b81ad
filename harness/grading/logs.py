"""Grade stored test output again, without containers: what today's grader says of logs from any run.

Layout: `<instance>/<submission>/` under the root, or the official `<run>/<model>/<instance>/`, from any of its levels
on; with `test_output.txt`, `patch.diff` and, where there are any, `report.json` and `run_instance.log`; each may be
gzipped. The rollouts of a run of ours are such a folder too.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aem_harness.harness.errors import AemError, DataError
from aem_harness.harness.grading import official
from aem_harness.harness.grading.differences import explain
from aem_harness.harness.grading.verdict import END, PATCH_FAILED, START, refusal
from aem_harness.harness.io import read_text
from aem_harness.harness.types import Grade, Outcome, Prediction, Task

COLUMNS = (
    "instance_id",
    "submission",
    "resolved",
    "outcome",
    "cause",
    *(f"{kind}_{side}" for kind in ("f2p", "p2p") for side in ("pass", "fail")),
    *(f"{kind}_{side}_tests" for kind in ("f2p", "p2p") for side in ("pass", "fail")),
    "grader",
    "differs",
)
FILES = (official.TEST_OUTPUT, official.PATCH, official.REPORT, official.NOTES)
DEEPEST = 4  # run_evaluation/<run>/<model>/<instance>
_LISTS = {
    f"{short}_{side}": (kind, list_name)
    for short, kind in (("f2p", "FAIL_TO_PASS"), ("p2p", "PASS_TO_PASS"))
    for side, list_name in (("pass", "success"), ("fail", "failure"))
}


@dataclass(frozen=True)
class Regraded:
    """One stored log, graded again. `differs`: in what, and why, from the report stored beside it (empty: nothing)."""

    submission: str
    grade: Grade
    differs: str = ""

    def row(self) -> dict[str, Any]:
        """The row of the CSV file, by COLUMNS; counts and lists are empty where the grader gives no lists."""
        row = {
            "instance_id": self.grade.instance_id,
            "submission": self.submission,
            "resolved": int(self.grade.resolved),
            "outcome": self.grade.outcome.value,
            "cause": self.grade.cause,
            "grader": self.grade.versions["grader"],
            "differs": self.differs,
        }
        if status := self.grade.report.get(self.grade.instance_id, {}).get("tests_status"):
            for column, (kind, list_name) in _LISTS.items():
                row[column] = len(status[kind][list_name])
                row[f"{column}_tests"] = json.dumps(status[kind][list_name], ensure_ascii=False)
        return row


def write_csv(path: Path, regraded: Iterable[Regraded]) -> None:
    """One row a log, by COLUMNS."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(each.row() for each in regraded)


def find_logs(root: Path) -> list[Path]:
    """The folders of single gradings under `root`, sorted: those with logs, and those beside them that have none.

    Raises DataError where there is none.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder")
    levels = ["/".join("*" * depth) for depth in range(1, DEEPEST + 1)]
    holding = {
        file.parent for level in levels for name in FILES for file in root.glob(f"{level}/{name}*") if file.is_file()
    }
    if not holding:
        raise DataError(
            f"{root} holds no logs: neither <instance>/<submission>/ nor <run>/<model>/<instance>/ folders with "
            f"{official.TEST_OUTPUT}"
        )
    depths = {len(folder.relative_to(root).parts) for folder in holding}
    above = {parent for folder in holding for parent in folder.parents}
    beside = {path for depth in depths for path in root.glob(levels[depth - 1]) if path.is_dir()} - above
    return sorted(path for path in holding | beside if not path.name.startswith("."))


def name_of(folder: Path, root: Path, tasks: Mapping[str, Task]) -> tuple[str, str]:
    """Instance and submission of one grading's folder: the instance is the innermost part that the dataset has."""
    parts = folder.relative_to(root).parts
    if folder.name in tasks or (len(parts) != 2 and folder.parent.name not in tasks):
        return folder.name, "/".join(parts[:-1]) or root.name
    return folder.parent.name, folder.name


def regrade(root: Path, tasks: Mapping[str, Task], *, add_markers: bool = False) -> Iterator[Regraded]:
    """Every log under `root`, in order; whatever is wrong with one is its own ERROR row, and spoils no other.

    `add_markers` puts the start and end marker around logs that have neither, as official logs of 2024 do, which
    swebench reads no results from since 3.0.
    """
    for folder in find_logs(root):
        instance_id, submission = name_of(folder, root, tasks)
        try:
            if instance_id not in tasks:
                raise DataError(f"{instance_id} is not in the dataset")
            yield _regrade(folder, submission, tasks[instance_id], add_markers)
        except AemError as error:
            yield Regraded(submission, _ended(instance_id, Outcome.ERROR, f"{error.boundary}: {error}"))


def _regrade(folder: Path, submission: str, task: Task, add_markers: bool) -> Regraded:
    log = _read(folder / official.TEST_OUTPUT)
    patch = _read(folder / official.PATCH)
    if log is None:
        return Regraded(submission, _without_log(folder, task, patch))
    if add_markers and START not in log and END not in log:
        log = f"{START}\n{log}\n{END}\n"
    prediction = Prediction(instance_id=task.instance_id, model_name_or_path=submission, model_patch=patch or "")
    grade = official.grade_log(task, prediction, log)
    if patch is None:
        grade = grade.model_copy(update={"cause": "; ".join(filter(None, (grade.cause, "patch.diff is missing")))})
    return Regraded(submission, grade, _differences(folder, task, grade, log))


def _without_log(folder: Path, task: Task, patch: str | None) -> Grade:
    """The official harness leaves no test output where no test ran; its own log then says why."""
    notes = _read(folder / official.NOTES)
    if notes and PATCH_FAILED in notes:
        cause = refusal(notes.split(PATCH_FAILED)[-1])
        return _ended(task.instance_id, Outcome.NOT_APPLIED, cause, task)
    if patch == "":
        return _ended(task.instance_id, Outcome.EMPTY_PATCH, "the prediction is empty", task)
    errors = [line for line in (notes or "").splitlines() if "Error" in line]
    cause = f"no test output; the run's log says: {errors[-1].strip()}" if errors else "no test output"
    return _ended(task.instance_id, Outcome.ERROR, cause, task)


def _differences(folder: Path, task: Task, grade: Grade, log: str) -> str:
    text = _read(folder / official.REPORT)
    if text is None:
        return ""
    try:
        stored = json.loads(text)[task.instance_id]
        return explain(stored, grade, official.log_statuses(task, log))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"report.json is not an official report ({type(error).__name__}: {error})"


def _ended(instance_id: str, outcome: Outcome, cause: str, task: Task | None = None) -> Grade:
    versions = official.stamp(task) if task else {"grader": official.grader_version()}
    return Grade(instance_id=instance_id, outcome=outcome, cause=" ".join(cause.split())[:300], versions=versions)


def _read(path: Path) -> str | None:
    """The text of a file or of its gzipped form, None where there is neither; bytes that are not UTF-8 are replaced."""
    zipped = path.with_name(f"{path.name}.gz")
    found = next((file for file in (path, zipped) if file.is_file()), None)
    return read_text(found) if found else None
