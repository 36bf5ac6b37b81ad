"""Other people's results as rows of our outcomes table: one small file per foreign format.

Each format module has `matches(path)`, true when `path` looks like that format, and `read(path, arm)`, which returns a
data frame with the columns of `harness.compare.schema` that the format knows.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

# In the order in which `auto` tries them: the most specific first.
FORMATS: dict[str, str] = {
    "leaderboard": "outcomes of leaderboard submissions: a matrix CSV or a folder of the experiments repository",
}


def read(path: Path, *, format: str = "auto", arm: str = "") -> "pd.DataFrame":
    """The rollouts in `path`. `arm` names them where the format does not. Raises DataError when nothing fits."""
    if format != "auto" and format not in FORMATS:
        raise DataError(f"unknown format {format!r}; known: auto, {', '.join(FORMATS)}")
    for name in FORMATS if format == "auto" else (format,):
        module = import_module(f"harness.interop.{name.replace('-', '_')}")
        if format != "auto" or module.matches(path):
            return module.read(path, arm)
    raise DataError(f"cannot tell the format of {path}; say it with --format (one of: {', '.join(FORMATS)})")
