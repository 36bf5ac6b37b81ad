"""Tables for the terminal."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from aem_harness.harness.errors import counted
from aem_harness.harness.report.live import STYLE
from aem_harness.harness.types import Outcome


def run_summary(
    folder: Path,
    counts: Mapping[str, int],
    *,
    n: int,
    seeds: int,
    ends: Mapping[str, Counter[str]] | None = None,
) -> Group:
    """How the rollouts of one run ended: every outcome with its share of all rollouts, losses included.

    `counts` add up to the rollouts of `n` instances, of which the most have `seeds` each; `ends` are the exit
    statuses of each outcome.
    """
    total = sum(counts.values())
    each = f"{'' if total == n * seeds else 'up to '}{counted(seeds, 'seed')}"
    title = f"{folder}: {counted(n, 'instance')} x {each} = {counted(total, 'rollout')}"
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("outcome")
    table.add_column("rollouts", justify="right")
    table.add_column("share", justify="right")
    if ends:
        table.add_column("ended by")

    def said(outcome: str) -> list[str]:
        statuses = (ends or {}).get(outcome, Counter()).most_common()
        return [", ".join(f"{status} {count}" for status, count in statuses)] if ends else []

    for outcome in Outcome:
        count = counts.get(outcome.value, 0)
        if count or outcome in (Outcome.RESOLVED, Outcome.ERROR):
            table.add_row(
                Text(outcome.value, STYLE[outcome]), str(count), f"{100 * count / total:.1f} %", *said(outcome.value)
            )
    if counts.get("pending"):
        table.add_row("not run yet", str(counts["pending"]), f"{100 * counts['pending'] / total:.1f} %")
    return Group(Text(title, "bold"), table)
