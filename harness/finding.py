"""What was looked at before a run, and how it is."""

from typing import Literal

from aem_harness.harness.types import Record


class Finding(Record):
    """One thing looked at. `remedy` is empty when all is well."""

    level: Literal["ok", "warning", "problem"]
    what: str
    detail: str
    remedy: str = ""
