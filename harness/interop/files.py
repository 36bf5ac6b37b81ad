"""Reading JSON as other tools leave it, with errors that name the file and the line."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aem_harness.harness.errors import DataError


def read_text(path: Path) -> str:
    """The text of a file, gzipped or not."""
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8", "replace")
    except (OSError, EOFError) as error:
        raise DataError(f"cannot read {path}: {error}") from None


def read_json(path: Path) -> Any:
    """One JSON document."""
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from None


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number from 1, and object, of every line that is not blank."""
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip():
            try:
                found = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path} line {number} is not JSON: {error}") from None
            if not isinstance(found, dict):
                raise DataError(f"{path} line {number} is not an object")
            yield number, found


def holds(value: Any, *keys: str) -> bool:
    """Is `value` an object with all of these keys?"""
    return isinstance(value, dict) and all(key in value for key in keys)


def peek_json(path: Path, most: int = 64 * 2**20) -> Any:
    """The JSON document in a file, or None where it is not one; for telling formats apart."""
    if not path.is_file() or path.stat().st_size > most:
        return None
    try:
        return json.loads(read_text(path))
    except (ValueError, DataError):
        return None
