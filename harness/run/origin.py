"""What a journaled grade says of its origin: graded, reused, or graded although a verdict was known. Pure.

A grade event has "reused" (run, seed and attempt of the grading; run "" is its own) where the verdict is that of an
equal patch, and "checked" (the same, with that verdict's outcome) where the patch was graded to check it (`reuse.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aem_harness.harness.types import Outcome

REUSES = ("reused", "confirmed", "flipped")
CHECK = 0.05  # of the reusable verdicts, by default


@dataclass(frozen=True)
class Reuse:
    """Which verdicts are reused: those of the run itself, and of the run folders `runs`.

    `check` is the share of the reusable ones that is graded anyway, in [0, 1].
    """

    runs: Sequence[str | Path] = ()
    check: float = CHECK


def flipped(grade: Mapping[str, Any]) -> bool:
    """Did a patch that was graded anyway get another verdict? One lost to infrastructure is none."""
    checked = grade.get("checked")
    return checked is not None and grade["outcome"] not in (checked["outcome"], Outcome.ERROR.value)


def reuse_of(grade: Mapping[str, Any]) -> str:
    """For the outcomes table: "reused", "confirmed" or "flipped" where a reusable verdict was checked, else empty."""
    if "reused" in grade:
        return "reused"
    if "checked" not in grade or grade["outcome"] == Outcome.ERROR.value:
        return ""
    return "flipped" if flipped(grade) else "confirmed"


def reuse_line(reused: int, confirmed: int, flipped: int, *, of: str) -> str:
    """How many verdicts are those of an equal patch, and what came of those that were checked; empty without any."""
    if not reused + confirmed + flipped:
        return ""
    checked = confirmed + flipped
    told = f"{checked} more were graded as a check, and {flipped} of them differ" if checked else "none was checked"
    return f"{reused} of {of} are reused from gradings of equal patches; {told}"
