"""Leaderboard submissions: a matrix of 0/1 strings, or a submission folder of the SWE-bench experiments repository.

A folder has `metadata.yaml`, `all_preds.jsonl`, `results/results.json` (`resolved`, `no_generation`, `no_logs`, ...),
and may have `trajs/` and `logs/<instance>/report.json`.
"""

import csv
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aem_harness.harness.errors import DataError
from aem_harness.harness.interop import ImportSource, Row
from aem_harness.harness.interop.files import is_file, peek_json, strings
from aem_harness.harness.interop.official import ReportedVerdict
from aem_harness.harness.interop.predictions import find_predictions, predictions_by_task, row
from aem_harness.harness.io import read_json, read_text
from aem_harness.harness.types import Outcome

if TYPE_CHECKING:
    import pandas as pd

ORDER = "verified-instance-order.txt"  # beside the matrix: the instance ids, in the order of the outcome strings
RESULTS = "results/results.json"


def matches(path: Path) -> bool:
    if path.is_dir():
        found = peek_json(path / RESULTS)
        return isinstance(found, dict) and "resolved" in found
    return path.name.endswith((".csv", ".csv.gz")) and {"submission", "outcomes"} <= _header(path)


def read(source: ImportSource) -> "pd.DataFrame | list[Row]":
    return _submission(source) if source.path.is_dir() else _matrix(source.path)


def _matrix(path: Path) -> "pd.DataFrame":
    """A CSV with the columns submission and outcomes (a string of 0 and 1), and the ids in a text file beside it."""
    import pandas as pd

    order = path.parent / ORDER
    if not order.is_file():
        raise DataError(
            f"{path}: the order of the outcomes is missing; put the instance ids, one per line, into {order}"
        )
    ids = order.read_text().split()
    matrix = pd.read_csv(path, dtype=str, keep_default_na=False)
    parts = []
    for number, line in enumerate(matrix.to_dict("records"), start=2):
        marks = line["outcomes"]
        if len(marks) != len(ids) or set(marks) - {"0", "1"}:
            raise DataError(f"{path} row {number}: outcomes must be {len(ids)} characters 0 or 1 (it has {len(marks)})")
        parts.append(pd.DataFrame({"arm": line["submission"], "instance_id": ids, "resolved": list(marks)}))
    return pd.concat(parts, ignore_index=True).assign(seed=0)


def _submission(source: ImportSource) -> list[Row]:
    """Instances that the results do not list as resolved are unresolved, as the leaderboard counts them; those without
    a prediction are empty patches, and those without logs have no verdict."""
    results: dict[str, Any] = read_json(source.path / RESULTS)
    file = find_predictions(source.path)
    predictions = predictions_by_task(file, source.problems) if file else {}
    resolved, empty = set(results["resolved"]), _ids(results.get("no_generation"))
    lost = _ids(results.get("no_logs")) - resolved
    arm = source.arm or source.path.name
    listed = set().union(*(_ids(value) for value in results.values()))
    rows: list[Row] = []
    for name in sorted(listed | set(predictions)):
        outcome = Outcome.RESOLVED if name in resolved else Outcome.EMPTY_PATCH if name in empty else Outcome.UNRESOLVED
        verdict = ReportedVerdict("", "the submission has no log of it") if name in lost else ReportedVerdict(outcome)
        rows.append(row(source, name, predictions.get(name), verdict, _trajectory(source.path, name), arm))
    return rows


def _trajectory(folder: Path, name: str) -> Path | None:
    names = (f"{name}.traj", f"{name}.traj.json", f"{name}/{name}.traj", f"{name}/{name}.traj.json")
    return next((found for one in names if is_file(found := folder / "trajs" / one)), None)


def _ids(value: Any) -> set[str]:
    return set(strings(value))


def _header(path: Path) -> set[str]:
    return set(next(csv.reader(StringIO(read_text(path))), []))
