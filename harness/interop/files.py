"""What the readers of foreign formats share: telling by its content what a file is."""

from pathlib import Path
from typing import Any

from aem_harness.harness.errors import DataError
from aem_harness.harness.io import read_json


def holds(value: Any, *keys: str) -> bool:
    """Is `value` an object with all of these keys?"""
    return isinstance(value, dict) and all(key in value for key in keys)


def peek_json(path: Path, most: int = 64 * 2**20) -> Any:
    """The JSON document in a file, or None where it is not one; for telling formats apart."""
    if not path.is_file() or path.stat().st_size > most:
        return None
    try:
        return read_json(path)
    except DataError:
        return None
