"""What the readers of foreign formats share: telling by its content what a file is."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aem_harness.harness.errors import DataError
from aem_harness.harness.interop.problems import Problems
from aem_harness.harness.io import json_lines, read_bytes, read_json

LINES = (".jsonl", ".jsonl.gz")
_ID = re.compile(r'"instance_id"\s*:\s*"([^"\\]+)"')


def holds(value: Any, *keys: str) -> bool:
    """Is `value` an object with all of these keys?"""
    return isinstance(value, dict) and all(key in value for key in keys)


def table(value: Any) -> dict[str, Any]:
    """`value` where it is an object, else an empty one: other tools leave null, text or a list in its place."""
    return value if isinstance(value, dict) else {}


def strings(value: Any) -> list[str]:
    """The texts in `value` where it is a list of them."""
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def is_file(path: Path) -> bool:
    """Is there such a file? A name that is too long for the file system has none."""
    try:
        return path.is_file()
    except OSError:
        return False


def peek_json(path: Path, most: int = 64 * 2**20) -> Any:
    """The JSON document in a file, or None where it is not one; for telling formats apart."""
    try:
        if not path.is_file() or path.stat().st_size > most:
            return None
        return read_json(path)
    except (OSError, DataError):
        return None


def peek_line(path: Path) -> Any:
    """The first line of a JSONL file that is an object, or None where there is none."""
    if not (path.is_file() and path.name.endswith(LINES)):
        return None
    try:
        return next((line.value for line in json_lines(read_bytes(path)) if isinstance(line.value, dict)), None)
    except DataError:
        return None


def records(path: Path, problems: Problems) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of every line of a JSONL file.

    A line that is none is named in `problems`; where it still shows its instance id, it gives an object with that
    alone, so that the task stays in the denominator.
    """
    data = read_bytes(path)
    for number, value, problem in json_lines(data):
        if isinstance(value, dict) and not problem:
            yield number, value
            continue
        problems.add("are not JSON objects", f"line {number}")
        if shown := _ID.search(data.split(b"\n")[number - 1].decode("utf-8", "replace")):
            yield number, {"instance_id": shown[1]}
