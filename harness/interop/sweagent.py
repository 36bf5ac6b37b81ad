"""A SWE-agent output folder: `<instance>/<instance>.traj` or `<instance>.traj`, preds.json, and an official report."""

from pathlib import Path

from aem_harness.harness.interop import ImportSource, Row
from aem_harness.harness.interop.predictions import find_predictions, find_verdicts, predictions_by_task, row


def matches(path: Path) -> bool:
    return path.is_dir() and any(_trajectories(path))


def read(source: ImportSource) -> list[Row]:
    files = {file.stem: file for file in _trajectories(source.path)}
    found = find_predictions(source.path)
    predictions = predictions_by_task(found, source.problems) if found else {}
    verdicts = find_verdicts(source)
    arm = source.arm or source.path.name
    names = sorted({*files, *predictions, *verdicts})
    return [row(source, name, predictions.get(name), verdicts.get(name), files.get(name), arm) for name in names]


def _trajectories(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.traj"), *folder.glob("*/*.traj"), *folder.glob("trajs/*.traj")])
