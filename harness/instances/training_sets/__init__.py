"""Rows of training sets, as they are published -> the columns of swebench 5. One small file a form.

A form is known by its columns, whatever the file is called. Every module says `fits(row)` and `columns(row)`: the
columns that replace those of the row, and where each came from. `dockerfile` is a full path. DataError, naming the
column, for a row that cannot be run.
"""

from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]
Adapted = tuple[dict[str, Any], dict[str, str]]
