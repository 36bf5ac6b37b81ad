"""Predictions files (.json by instance or as a list, .jsonl), joined with verdicts and trajectories."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from aem_harness.harness.ends import Ends, Whose
from aem_harness.harness.errors import DataError
from aem_harness.harness.grading.predictions import entries_of
from aem_harness.harness.interop import ImportSource
from aem_harness.harness.interop.files import LINES, holds, is_file, peek_json, records
from aem_harness.harness.interop.official import ReportedVerdict, read_verdicts, row_of
from aem_harness.harness.interop.problems import Problems
from aem_harness.harness.interop.trajectories import Trajectory, read_trajectory
from aem_harness.harness.overflow import names_overflow
from aem_harness.harness.types import Outcome

NAMES = ("preds.json", "all_preds.jsonl", "predictions.jsonl")
# Where people leave the official verdicts beside the predictions, best first.
REPORTS = ("results.json", "report.json", "results/results.json", "logs", "evaluation_logs", "eval_logs")


def predictions_by_task(path: Path, problems: Problems) -> dict[str, Mapping[str, Any]]:
    """Prediction by instance id; entries that are none are named in `problems`. Raises DataError for a repeated id."""
    by_task: dict[str, Mapping[str, Any]] = {}
    for where, entry in _entries(path, problems):
        name = entry.get("instance_id") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name:
            problems.add("have no instance_id", where)
        elif name in by_task:
            raise DataError(f"{path}, {where}: {name} occurred before; a predictions file has each instance once")
        else:
            by_task[name] = entry
    return by_task


def _entries(path: Path, problems: Problems) -> Iterator[tuple[str, Any]]:
    if path.name.endswith(LINES):
        yield from ((f"line {number}", line) for number, line in records(path, problems))
        return
    for key, place, entry in entries_of(path):
        own = {} if key is None else {"instance_id": key}  # the key stands in for an id that is missing
        yield key or place, own | entry if isinstance(entry, dict) else own


def find_predictions(folder: Path) -> Path | None:
    """The predictions file of an output folder."""
    return next((folder / name for name in NAMES if (folder / name).is_file()), None)


def find_verdicts(source: ImportSource) -> dict[str, ReportedVerdict]:
    """The verdicts for a run: `source.reports`, or what lies beside it. Raises DataError saying how to get them."""
    if source.reports is not None:
        return read_verdicts(source.reports, source.problems)
    folder = source.path if source.path.is_dir() else source.path.parent
    named = [folder / name for name in REPORTS]
    candidate = next((path for path in named if path.is_dir() or is_run_report(path)), None)
    if candidate := candidate or only_report(folder):
        return read_verdicts(candidate, source.problems)
    raise DataError(
        f"{folder} has predictions but no verdicts; grade them (aem grade, or swebench eval) and name the report with "
        "--reports"
    )


def is_run_report(path: Path) -> bool:
    return holds(peek_json(path), "resolved_ids")


def only_report(folder: Path, stem: str = "") -> Path | None:
    """The run report in a folder: the one named after `stem`, else the only one. DataError where there are several."""
    found = [path for path in sorted(folder.glob("*.json")) if is_run_report(path)]
    mine = [path for path in found if stem and path.name.startswith(f"{stem}.")] or found
    if len(mine) > 1:
        names = ", ".join(path.name for path in mine[:4])
        raise DataError(f"{folder} holds several reports ({names}); name the one of these rollouts with --reports")
    return mine[0] if mine else None


def row(
    source: ImportSource,
    instance_id: str,
    prediction: Mapping[str, Any] | None,
    verdict: ReportedVerdict | None,
    trajectory: Path | None,
    arm: str,
    look: Callable[[Trajectory], None] = lambda trajectory: None,
) -> dict[str, Any]:
    """One rollout from its prediction, its verdict and its trajectory, each of which may be missing or damaged.

    `look` is given the trajectory when it is read, which takes long enough to do it once.
    """
    patch = (prediction or {}).get("model_patch")
    patch = patch if isinstance(patch, str) else ""
    verdict = verdict or ReportedVerdict("", "no verdict in the report")
    if not verdict.outcome and prediction is not None and not patch.strip():
        verdict = ReportedVerdict(Outcome.EMPTY_PATCH)
    columns: dict[str, Any] = {"arm": arm, "instance_id": instance_id, "seed": source.seed, **row_of(verdict)}
    columns["patch_bytes"] = len(patch.encode("utf-8", "surrogatepass")) if prediction else None
    columns["model"] = (prediction or {}).get("model_name_or_path")
    if trajectory is not None and is_file(trajectory):
        try:
            read = read_trajectory(trajectory)
            look(read)
            columns |= _of_trajectory(read, source.ends) | {"trajectory": str(trajectory)}
        except DataError as error:  # the verdict does not depend on it
            source.problems.note(f"{error}: its steps, tokens and end are not known")
    return columns


def _of_trajectory(read: Trajectory, ends: Ends) -> dict[str, Any]:
    end = ends.of(read.exit_status)
    if end.whose is not Whose.MODEL and names_overflow(str(read.info.get("exception_str") or "")):
        end = ends.of("context_limit")  # a client that has no class of its own for it
    facts = {
        "scaffold": read.scaffold,
        "exit_status": end.status or read.exit_status,
        "steps": len(read.turns),
        "prompt_tokens": read.prompt_tokens,
        "completion_tokens": read.completion_tokens,
        "cost_usd": read.cost,
    }
    return facts | {"end": end.word} if read.exit_status and end.word.lower() != end.status else facts
