"""Predictions files (.json by instance or as a list, .jsonl), joined with verdicts and trajectories."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aem_harness.harness.errors import DataError
from aem_harness.harness.interop import Source
from aem_harness.harness.interop.files import holds, peek_json
from aem_harness.harness.interop.official import Verdict, read_verdicts
from aem_harness.harness.interop.trajectories import read_trajectory
from aem_harness.harness.io import read_json, read_json_lines
from aem_harness.harness.types import Outcome

NAMES = ("preds.json", "all_preds.jsonl", "predictions.jsonl")
# Where people leave the official verdicts beside the predictions, best first.
REPORTS = ("results.json", "report.json", "results/results.json", "logs", "evaluation_logs", "eval_logs")


def read_predictions(path: Path) -> dict[str, Mapping[str, Any]]:
    """Prediction by instance id. Raises DataError naming the entry that has no instance_id."""
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        entries = [(f"line {number}", line) for number, line in read_json_lines(path)]
    else:
        loaded = read_json(path)
        if isinstance(loaded, dict):
            entries = [(key, {"instance_id": key, **dict(value or {})}) for key, value in loaded.items()]
        elif isinstance(loaded, list):
            entries = [(f"entry {number}", value) for number, value in enumerate(loaded, start=1)]
        else:
            raise DataError(f"{path} is not a predictions file: it must hold an object or a list")
    for where, entry in entries:
        if not holds(entry, "instance_id"):
            raise DataError(f"{path}, {where}: no instance_id")
    return {entry["instance_id"]: entry for _, entry in entries}


def find_predictions(folder: Path) -> Path | None:
    """The predictions file of an output folder."""
    return next((folder / name for name in NAMES if (folder / name).is_file()), None)


def find_verdicts(source: Source) -> dict[str, Verdict]:
    """The verdicts for a run: `source.reports`, or what lies beside it. Raises DataError saying how to get them."""
    if source.reports is not None:
        return read_verdicts(source.reports)
    folder = source.path if source.path.is_dir() else source.path.parent
    for name in REPORTS:
        candidate = folder / name
        if candidate.is_dir() or holds(peek_json(candidate), "resolved_ids"):
            return read_verdicts(candidate)
    for candidate in sorted(folder.glob("*.json")):
        if holds(peek_json(candidate), "resolved_ids"):
            return read_verdicts(candidate)
    raise DataError(
        f"{folder} has predictions but no verdicts; grade them (aem grade, or swebench eval) and name the report with "
        "--reports"
    )


def row(
    source: Source,
    instance_id: str,
    prediction: Mapping[str, Any] | None,
    verdict: Verdict | None,
    trajectory: Path | None,
    arm: str,
) -> dict[str, Any]:
    """One rollout from its prediction, its verdict and its trajectory, each of which may be missing."""
    patch = (prediction or {}).get("model_patch") or ""
    outcome, cause = verdict or ("", "no verdict in the report")
    if not outcome and prediction is not None and not patch.strip():
        outcome = Outcome.EMPTY_PATCH.value
    found: dict[str, Any] = {"arm": arm, "instance_id": instance_id, "seed": source.seed, "resolved": None}
    found |= {"outcome": outcome or None, "cause": cause, "patch_bytes": len(patch.encode()) if prediction else None}
    found["model"] = (prediction or {}).get("model_name_or_path")
    if trajectory is not None:
        read = read_trajectory(trajectory)
        found |= {
            "trajectory": str(trajectory),
            "scaffold": read.scaffold,
            "exit_status": EXITS.get(read.exit_status.lower(), read.exit_status),
            "steps": len(read.turns),
            "prompt_tokens": read.prompt_tokens,
            "completion_tokens": read.completion_tokens,
            "cost_usd": read.cost,
        }
    return found


# How mini-swe-agent and SWE-agent name the ends that we name too; others are kept as they are.
EXITS = {
    "submitted": "submitted",
    "limitsexceeded": "step_limit",
    "exit_cost": "token_limit",
    "exit_context": "context_limit",
    "exit_format": "format_errors",
    "repeatedformaterror": "format_errors",
    "timeexceeded": "wall_limit",
    "submitted (exit_cost)": "token_limit",
    "submitted (exit_context)": "context_limit",
}
