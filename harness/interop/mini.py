"""A mini-swe-agent output folder: preds.json, `<instance>/<instance>.traj.json`, and an official report.

mini-swe-agent writes an entry with an empty patch for an instance whose rollout raised, with the exception's class name
as exit status: whose fault that is, `harness.ends` says.
"""

from pathlib import Path

from aem_harness.harness.interop import Row, Source
from aem_harness.harness.interop.predictions import find_predictions, find_verdicts, predictions_by_task, row


def matches(path: Path) -> bool:
    if path.is_file():
        return path.name.startswith("preds.json") or path.name.endswith("preds.json.gz")
    return (path / "preds.json").is_file() and not any(path.glob("*/*.traj"))


def read(source: Source) -> list[Row]:
    folder = source.path if source.path.is_dir() else source.path.parent
    file = source.path if source.path.is_file() else find_predictions(folder)
    predictions = predictions_by_task(file, source.problems) if file else {}
    verdicts = find_verdicts(source)
    arm = source.arm or folder.name
    return [
        row(source, name, predictions.get(name), verdicts.get(name), folder / name / f"{name}.traj.json", arm)
        for name in sorted({*predictions, *verdicts})
    ]
