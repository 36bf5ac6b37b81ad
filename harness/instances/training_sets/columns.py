"""Columns of published rows, read as what they must be."""

import json
import re
from collections.abc import Mapping
from typing import Any

from aem_harness.harness.errors import DataError

Row = Mapping[str, Any]


def text(row: Row, column: str) -> str:
    """A column that must be text; DataError names it."""
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{column} must be text, is {'missing' if value is None else repr(value)[:60]}")
    return value


def names(row: Row, column: str) -> list[str]:
    """A list of test ids, or JSON text of one."""
    value = _parsed(row.get(column))
    if not isinstance(value, list | tuple) or not all(isinstance(test, str) for test in value):
        raise DataError(f"{column} must be a list of test ids, or JSON text of one")
    return list(value)


def fields(row: Row, column: str) -> dict[str, Any]:
    """An object, or JSON text of one."""
    value = _parsed(row.get(column))
    if not isinstance(value, Mapping):
        raise DataError(f"{column} must be an object, or JSON text of one")
    return dict(value)


def local_image(form: str, instance_id: str) -> str:
    """What an image that is made here from a published one is called."""
    return f"aem/{form}.{re.sub(r'[^a-z0-9]+', _separator, instance_id.lower())}:latest"


def _separator(found: re.Match[str]) -> str:
    return found[0] if found[0] in (".", "_", "__", "-") else "-"


def _parsed(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
