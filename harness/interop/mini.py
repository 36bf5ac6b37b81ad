"""A mini-swe-agent output folder: preds.json, `<instance>/<instance>.traj.json`, and an official report.

mini-swe-agent writes an entry with an empty patch for an instance whose rollout raised, so an empty patch whose
trajectory ended in an exception is an infrastructure error here, not an answer.
"""

from pathlib import Path
from typing import Any

from aem_harness.harness.interop import Row, Source
from aem_harness.harness.interop.predictions import find_predictions, find_verdicts, read_predictions, row
from aem_harness.harness.types import Outcome

ENDS = {"submitted", "step_limit", "token_limit", "context_limit", "wall_limit", "format_errors", ""}


def matches(path: Path) -> bool:
    folder = path if path.is_dir() else path.parent
    if path.is_file():
        return path.name.startswith("preds.json") or path.name.endswith("preds.json.gz")
    return (folder / "preds.json").is_file() and not any(folder.glob("*/*.traj"))


def read(source: Source) -> list[Row]:
    folder = source.path if source.path.is_dir() else source.path.parent
    file = source.path if source.path.is_file() else find_predictions(folder)
    predictions = read_predictions(file) if file else {}
    verdicts = find_verdicts(source)
    arm = source.arm or folder.name
    rows: list[Row] = []
    for name in sorted({*predictions, *verdicts}):
        trajectory = folder / name / f"{name}.traj.json"
        path = trajectory if trajectory.is_file() else None
        rows.append(_crashed(row(source, name, predictions.get(name), verdicts.get(name), path, arm)))
    return rows


def _crashed(found: dict[str, Any]) -> dict[str, Any]:
    """An exception's class name as exit status, with nothing handed in: lost, not failed."""
    status = found.get("exit_status", "")
    if status not in ENDS and not found["patch_bytes"]:
        lost = {"outcome": Outcome.ERROR.value, "resolved": None, "exit_status": "fault"}
        return found | lost | {"cause": f"the agent ended with {status}"}
    return found
