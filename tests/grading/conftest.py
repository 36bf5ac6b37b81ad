"""What the grading tests share: the Verified tasks, and the index of real logs."""

import csv
import gzip
import json
from pathlib import Path

import pytest

from aem_harness.harness.instances.load import load
from aem_harness.harness.types import Prediction, Task


@pytest.fixture(scope="session")
def verified(shared: Path) -> dict[str, Task]:
    """All 500 Verified tasks by id, from rows as published in 2024."""
    return {task.instance_id: task for task in load(shared / "data" / "swe-bench-verified.jsonl.gz", strict=True).tasks}


@pytest.fixture(scope="session")
def logs(shared: Path) -> Path:
    return shared / "data" / "grading-logs"


@pytest.fixture(scope="session")
def index(logs: Path) -> list[dict[str, str]]:
    """One row for each of the 74 real logs: what official releases said of it."""
    with (logs / "index.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def stored_log(folder: Path) -> str | None:
    path = folder / "test_output.txt.gz"
    return gzip.decompress(path.read_bytes()).decode(errors="replace") if path.exists() else None


def stored_report(folder: Path) -> dict | None:
    path = folder / "report.json"
    return json.loads(path.read_text())[folder.parent.name] if path.exists() else None


def prediction(instance_id: str, patch: str = "a patch") -> Prediction:
    return Prediction(instance_id=instance_id, model_name_or_path="model", model_patch=patch)
