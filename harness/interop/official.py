"""Verdicts as the official harness writes them: a run report, per-instance reports in folders, or lines of reports.

Run report: `resolved_ids`, `unresolved_ids`, `empty_patch_ids`, `error_ids`, `incomplete_ids` (schema 2 of swebench 2
to 5, and sb-cli's). Folder: `[<run>/<model>/]<instance>/report.json`; where the harness wrote none, the instance's log
says why. Read are swebench 2.0 to 5.0's forms.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aem_harness.harness.compare.schema import listed
from aem_harness.harness.errors import DataError
from aem_harness.harness.interop import Row, Source
from aem_harness.harness.interop.files import holds, peek_json
from aem_harness.harness.io import read_json, read_json_lines, read_text
from aem_harness.harness.types import Outcome

Verdict = tuple[str, str]  # outcome ("" when there is none) and cause
LISTS = {
    "resolved_ids": Outcome.RESOLVED.value,
    "unresolved_ids": Outcome.UNRESOLVED.value,
    "empty_patch_ids": Outcome.EMPTY_PATCH.value,
    "error_ids": Outcome.ERROR.value,
    "failed_ids": Outcome.ERROR.value,
}


def matches(path: Path) -> bool:
    if path.is_dir():
        return next(_report_files(path), None) is not None
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        first = next(read_json_lines(path), (0, {}))[1]
        return holds(first, "instance_id", "resolved")
    return holds(peek_json(path), "resolved_ids")


def read(source: Source) -> list[Row]:
    arm = source.arm or source.path.name.split(".")[0]
    found = read_verdicts(source.path)
    return [
        {"arm": arm, "instance_id": name, "seed": source.seed, **row_of(verdict)}
        for name, verdict in sorted(found.items())
    ]


def row_of(verdict: Verdict) -> dict[str, Any]:
    """Outcome and cause as columns; no verdict leaves both the outcome and `resolved` empty."""
    outcome, cause = verdict
    return {"outcome": outcome or None, "resolved": None, "cause": cause}


def read_verdicts(path: Path) -> dict[str, Verdict]:
    """The verdict on every instance that `path` knows of. Raises DataError where it is none of the three forms."""
    if path.is_dir():
        found = dict(_folder_verdicts(path))
        if not found:
            raise DataError(f"{path} holds no <instance>/report.json")
        return found
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        return dict(_line_verdicts(path))
    report = read_json(path)
    if holds(report, "resolved_ids"):
        return _run_report(report)
    if isinstance(report, dict) and report and all(holds(one, "resolved") for one in report.values()):
        return {name: of_report(one) for name, one in report.items()}
    raise DataError(f"{path} is not a report of the official harness: it has no resolved_ids")


def of_report(report: Mapping[str, Any]) -> Verdict:
    """The verdict in one per-instance report."""
    if report.get("resolved"):
        return Outcome.RESOLVED.value, ""
    if report.get("patch_is_None") or report.get("patch_exists") is False:
        return Outcome.EMPTY_PATCH.value, ""
    if report.get("patch_successfully_applied") is False:
        return Outcome.NOT_APPLIED.value, ""
    return Outcome.UNRESOLVED.value, ""


def _run_report(report: Mapping[str, Any]) -> dict[str, Verdict]:
    reasons = report.get("failure_reasons") or {}
    found: dict[str, Verdict] = {}
    for name in (*report.get("submitted_ids", ()), *report.get("incomplete_ids", ()), *report.get("pending_ids", ())):
        found[name] = "", "the run report has no verdict on it"
    for key, outcome in LISTS.items():
        for name in report.get(key, ()):
            found[name] = outcome, str(reasons.get(name, ""))
    return found


def _line_verdicts(path: Path) -> Iterator[tuple[str, Verdict]]:
    for number, line in read_json_lines(path):
        if not holds(line, "instance_id", "resolved"):
            raise DataError(f"{path} line {number} has no instance_id and resolved")
        yield line["instance_id"], of_report(line)


def _report_files(path: Path) -> Iterator[Path]:
    for depth in ("*", "*/*", "*/*/*"):
        yield from path.glob(f"{depth}/report.json")


def _folder_verdicts(path: Path) -> Iterator[tuple[str, Verdict]]:
    folders = {file.parent for file in _report_files(path)}
    if not folders:
        return
    parents = {folder.parent for folder in folders}
    if len(parents) > 1:
        names = listed(sorted(parent.name for parent in parents), most=4)
        raise DataError(f"{path} holds several runs or models ({names}); name the one to read")
    for folder in sorted(entry for entry in parents.pop().iterdir() if entry.is_dir()):
        yield folder.name, _folder_verdict(folder)


def _folder_verdict(folder: Path) -> Verdict:
    report = folder / "report.json"
    if report.is_file():
        found = read_json(report)
        if not isinstance(found, dict) or not ("resolved" in found or isinstance(found.get(folder.name), dict)):
            raise DataError(f"{report} is no official report of {folder.name}, the instance its folder is named after")
        return of_report(found.get(folder.name, found))
    log = folder / "run_instance.log"
    text = read_text(log) if log.is_file() else ""
    if "Patch Apply Failed" in text:
        return Outcome.NOT_APPLIED.value, "the patch did not apply"
    if "Test timed out" in text or "Timeout error" in text:
        return Outcome.TEST_TIMEOUT.value, "the tests timed out"
    return Outcome.ERROR.value, "the harness left no report"
