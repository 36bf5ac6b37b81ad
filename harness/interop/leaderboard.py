"""Leaderboard submissions: a matrix of 0/1 strings, or a submission folder of the SWE-bench experiments repository."""

import csv
import gzip
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

ORDER = "verified-instance-order.txt"  # beside the matrix: the instance ids, in the order of the outcome strings


def matches(path: Path) -> bool:
    return path.is_file() and path.name.endswith((".csv", ".csv.gz")) and {"submission", "outcomes"} <= _header(path)


def read(path: Path, arm: str = "") -> "pd.DataFrame":
    """A CSV with the columns submission and outcomes (a string of 0 and 1), and the ids in a text file beside it."""
    import pandas as pd

    order = path.parent / ORDER
    if not order.is_file():
        raise DataError(f"{path}: the order of the outcomes is missing; put the instance ids, one a line, into {order}")
    ids = order.read_text().split()
    matrix = pd.read_csv(path, dtype=str, keep_default_na=False)
    parts = []
    for number, row in enumerate(matrix.to_dict("records"), start=2):
        marks = row["outcomes"]
        if len(marks) != len(ids) or set(marks) - {"0", "1"}:
            raise DataError(f"{path} row {number}: outcomes must be {len(ids)} characters 0 or 1 (it has {len(marks)})")
        parts.append(pd.DataFrame({"arm": row["submission"], "instance_id": ids, "resolved": list(marks)}))
    return pd.concat(parts, ignore_index=True).assign(seed=0)


def _header(path: Path) -> set[str]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as handle:
        return set(next(csv.reader(handle), []))
