"""Verdicts as the official harness writes them: a run report, per-instance reports in folders, or lines of reports.

Run report: `resolved_ids`, `unresolved_ids`, `empty_patch_ids`, `error_ids`, `incomplete_ids` (schema 2 of swebench 2
to 5, sb-cli's, and OpenHands' derived one). Its `error_ids` are refused patches, tests that timed out and lost
containers alike: `failure_reasons` (swebench 5) or the instances' logs tell which, where there are any. Folder:
`[<run>/<model>/]<instance>/report.json`; where the harness wrote none, the instance's log says why.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from aem_harness.harness.errors import DataError, listed
from aem_harness.harness.interop import ImportSource, Row
from aem_harness.harness.interop.files import LINES, holds, peek_json, peek_line, records, strings, table
from aem_harness.harness.interop.problems import Problems
from aem_harness.harness.io import read_json, read_text
from aem_harness.harness.types import Outcome

LOG = "run_instance.log"
LISTS = {
    "unresolved_ids": Outcome.UNRESOLVED,
    "resolved_ids": Outcome.RESOLVED,
    "empty_patch_ids": Outcome.EMPTY_PATCH,
}
ENVIRONMENT = "infra_failure_ids"  # swebench 5: the log shows a fault that no patch can cause


class ReportedVerdict(NamedTuple):
    """Outcome ("" when there is none), why, and the word of `harness.ends` where there is no report to say more."""

    outcome: str
    cause: str = ""
    end: str = ""


def matches(path: Path) -> bool:
    if path.is_dir():
        return next(_report_files(path), None) is not None
    if path.name.endswith(LINES):
        return holds(peek_line(path), "instance_id", "resolved")
    return holds(peek_json(path), "resolved_ids")


def read(source: ImportSource) -> list[Row]:
    verdicts = read_verdicts(source.path, source.problems, source.reports)
    arm = source.arm or arm_of(source.path)
    return [
        {"arm": arm, "instance_id": name, "seed": source.seed, **row_of(verdict)}
        for name, verdict in sorted(verdicts.items())
    ]


def arm_of(path: Path) -> str:
    """The model in `<model>.<run_id>.json`, the name of a run report: run ids have no dots, models do."""
    if path.is_dir():
        return path.name
    name = path.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".json")
    return name.rpartition(".")[0] or name


def row_of(verdict: ReportedVerdict) -> dict[str, Any]:
    """The verdict as columns; none leaves both the outcome and `resolved` empty."""
    return {"outcome": verdict.outcome or None, "resolved": None, "cause": verdict.cause, "end": verdict.end or None}


def read_verdicts(path: Path, problems: Problems | None = None, logs: Path | None = None) -> dict[str, ReportedVerdict]:
    """The verdict on every instance that `path` knows of. Raises DataError where it is none of the three forms.

    `logs` is a folder of instances' logs, which tells the errors of a run report apart.
    """
    problems = Problems() if problems is None else problems
    if path.is_dir():
        verdicts = dict(_folder_verdicts(path, problems))
        if not verdicts:
            raise DataError(f"{path} holds no <instance>/report.json")
        return verdicts
    if path.name.endswith(LINES):
        return _line_verdicts(path, problems)
    report = read_json(path)
    if holds(report, "resolved_ids"):
        return _run_report(report, path, problems, logs)
    if isinstance(report, dict) and report and all(holds(one, "resolved") for one in report.values()):
        return {name: of_report(one) for name, one in report.items()}
    raise DataError(f"{path} is not a report of the official harness: it has no resolved_ids")


def of_report(report: Mapping[str, Any]) -> ReportedVerdict:
    """The verdict in one per-instance report."""
    if report.get("resolved"):
        return ReportedVerdict(Outcome.RESOLVED)
    if report.get("patch_is_None") or report.get("patch_exists") is False:
        return ReportedVerdict(Outcome.EMPTY_PATCH)
    if report.get("patch_successfully_applied") is False:
        return ReportedVerdict(Outcome.NOT_APPLIED)
    return ReportedVerdict(Outcome.UNRESOLVED)


# --- a run report ---------------------------------------------------------------------------------------------------


def _run_report(
    report: Mapping[str, Any], path: Path, problems: Problems, logs: Path | None
) -> dict[str, ReportedVerdict]:
    verdicts: dict[str, ReportedVerdict] = {}
    for key in ("submitted_ids", "completed_ids", "incomplete_ids", "pending_ids", "skipped_ids"):
        for name in strings(report.get(key)):
            verdicts[name] = ReportedVerdict("", "the run report has no verdict on it")
    said: dict[str, str] = {}
    for key, outcome in LISTS.items():
        for name in strings(report.get(key)):
            if name in said:
                raise DataError(f"{path}: {name} is in {said[name]} and in {key}")
            said[name] = key
            verdicts[name] = ReportedVerdict(outcome)
    reasons = table(report.get("failure_reasons"))
    environment = set(strings(report.get(ENVIRONMENT)))
    for name in strings(report.get("failed_ids")):
        verdicts[name] = ReportedVerdict("", str(reasons.get(name, "")), "failed_ids")
    for name in strings(report.get("error_ids")):
        if name not in said:
            verdicts[name] = _error(name, path, str(reasons.get(name, "")), name in environment, logs)
    unsaid = [name for name, verdict in verdicts.items() if verdict.end == "error_ids"]
    if unsaid:
        problems.note(
            f"{path}: {len(unsaid)} of {len(verdicts)} instances are error_ids, and nothing tells refused patches from "
            "lost containers: they count as unresolved, as in the official rate; name the logs with --reports to tell"
        )
    return verdicts


def _error(name: str, report: Path, reason: str, environment: bool, logs: Path | None) -> ReportedVerdict:
    """Why the harness left no report of `name`, which its run report lists among the errors."""
    for folder in _log_folders(name, report, logs):
        return _folder_verdict(folder, Problems())
    if environment:
        return ReportedVerdict("", reason, reason or ENVIRONMENT)
    if reason == "tests_timed_out":
        return ReportedVerdict(Outcome.TEST_TIMEOUT, "the tests timed out")
    return ReportedVerdict(Outcome.UNRESOLVED, reason or "the official harness counts it as an error", "error_ids")


def _log_folders(name: str, report: Path, logs: Path | None) -> Iterator[Path]:
    """Folders of the instance's log: in `logs`, else beside the run report, where swebench and people leave them."""
    run_id = report.name.removesuffix(".json").rpartition(".")[2]
    places = [logs] if logs else [report.parent / "logs" / "run_evaluation" / run_id, report.parent]
    for place in places:
        for pattern in (name, f"*/{name}", f"*/*/{name}"):
            yield from (folder for folder in sorted(place.glob(pattern)) if (folder / LOG).is_file())


# --- lines and folders of reports -----------------------------------------------------------------------------------


def _line_verdicts(path: Path, problems: Problems) -> dict[str, ReportedVerdict]:
    verdicts: dict[str, ReportedVerdict] = {}
    for number, line in records(path, problems):
        name = line.get("instance_id")
        if not isinstance(name, str):
            problems.add("have no instance_id", f"line {number}")
            continue
        if name in verdicts:
            raise DataError(f"{path} line {number}: {name} occurred before; a file of reports has each instance once")
        if "resolved" in line and not isinstance(line["resolved"], bool | int):
            problems.add("have a verdict that is neither true nor false", name)
        if isinstance(line.get("resolved"), bool | int):
            verdicts[name] = of_report(line)
        else:
            verdicts[name] = ReportedVerdict("", "no verdict on its line")
    return verdicts


def _report_files(path: Path) -> Iterator[Path]:
    for depth in ("*", "*/*", "*/*/*"):
        yield from path.glob(f"{depth}/report.json")


def _folder_verdicts(path: Path, problems: Problems) -> Iterator[tuple[str, ReportedVerdict]]:
    folders = {file.parent for file in _report_files(path)}
    if not folders:
        return
    parents = {folder.parent for folder in folders}
    if len(parents) > 1:
        names = listed(sorted(parent.name for parent in parents), most=4)
        raise DataError(f"{path} holds several runs or models ({names}); name the one to read")
    for folder in sorted(entry for entry in parents.pop().iterdir() if entry.is_dir()):
        yield folder.name, _folder_verdict(folder, problems)


def _folder_verdict(folder: Path, problems: Problems) -> ReportedVerdict:
    report = folder / "report.json"
    if report.is_file():
        try:
            written = read_json(report)
        except DataError as error:
            problems.add("have a report that is not JSON", folder.name)
            return ReportedVerdict("", str(error))
        if not isinstance(written, dict) or not ("resolved" in written or isinstance(written.get(folder.name), dict)):
            raise DataError(f"{report} is no official report of {folder.name}, the instance its folder is named after")
        return of_report(written.get(folder.name, written))
    log = folder / LOG
    text = read_text(log) if log.is_file() else ""
    if "Patch Apply Failed" in text:
        return ReportedVerdict(Outcome.NOT_APPLIED, "the patch did not apply")
    if "Test timed out" in text or "Timeout error" in text:
        return ReportedVerdict(Outcome.TEST_TIMEOUT, "the tests timed out")
    return ReportedVerdict(Outcome.ERROR, "the harness left no report")
