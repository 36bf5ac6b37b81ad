"""The first look at a folder that should be a run."""

from pathlib import Path
from typing import Any

from aem_harness.harness.errors import DataError
from aem_harness.harness.io import read_json


def require_run(folder: Path) -> None:
    """DataError, with the remedy, where `folder` is no run."""
    if not (folder / "run.json").is_file():
        raise DataError(f"{folder} is not a run folder: it has no run.json; `aem runs list` shows the runs there are")


def run_json(folder: Path) -> dict[str, Any]:
    """What run.json says of a run. DataError where there is none."""
    require_run(folder)
    facts: dict[str, Any] = read_json(folder / "run.json")
    return facts
