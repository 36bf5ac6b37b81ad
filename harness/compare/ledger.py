"""Whose fault each rollout's end was: the verdicts that do not count, and the number of ends of every arm."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from aem_harness.harness.compare.records import LedgerRow
from aem_harness.harness.ends import Ends, Whose
from aem_harness.harness.errors import listed
from aem_harness.harness.types import Outcome

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Settled:
    """A table whose verdicts follow the ends, and what the reader has to know."""

    table: pd.DataFrame
    notes: list[str]


def settle(table: pd.DataFrame, ends: Ends, source: str) -> Settled:
    """Remove the verdict of every rollout whose exit status does not count, a good verdict too.

    The column `graded` keeps what the grader said, so that another table of ends can be applied to the same rows later.
    A word of `exit_status` (our own, or anyone's) decides only where the table knows it; one of `end` always does.
    """
    table = table.copy()
    was = table["graded"].notna()
    table.loc[was, "outcome"] = table.loc[was, "graded"]
    table.loc[was, "resolved"] = table.loc[was, "outcome"].eq(Outcome.RESOLVED.value)
    words = table["end"].fillna(table["exit_status"]).astype(object)
    known = {word: ends.of(word) for word in words.dropna().unique()}
    own = table["end"].notna()
    lost = pd.Series(
        [
            isinstance(word, str) and not known[word].whose.counts and (named or known[word].whose is not Whose.UNKNOWN)
            for word, named in zip(words, own, strict=True)
        ],
        index=table.index,
        dtype=bool,
    )
    graded = lost & table["outcome"].notna() & (table["outcome"] != Outcome.ERROR.value)
    table["graded"] = table["outcome"].where(graded)
    table.loc[lost, "outcome"] = Outcome.ERROR.value
    table.loc[lost, "resolved"] = pd.NA
    said = words.map(lambda word: f"{word}: {known[word].whose.value}" if isinstance(word, str) else None)
    table["cause"] = table["cause"].where(~(lost & table["cause"].isna()), said.astype("str"))
    unlisted = sorted(
        {word for word, gone in zip(words, lost, strict=True) if gone and known[word].whose is Whose.UNKNOWN}
    )
    notes = []
    if unlisted:
        count = int(words.isin(unlisted).sum())
        notes.append(
            f"{source}: {count} rollouts ended with {listed(unlisted, 4)}, which is not in the table of ends: "
            "they have no verdict; add it to a YAML file, for all arms, with --ends FILE"
        )
    return Settled(table, notes)


def ledger(table: pd.DataFrame, ends: Ends) -> list[LedgerRow]:
    """End, whose fault, and count, by arm in the order of the table, the most frequent end first."""
    words = table["end"].fillna(table["exit_status"]).fillna("not told").astype(object)
    faults = table["cause"].fillna("").astype(object).str.partition(":")[0]  # of our own runs: the boundary crossed
    words = words.where(words != "fault", "fault: " + faults)
    frame = pd.DataFrame({"arm": table["arm"].astype(object), "end": words, "lost": table["resolved"].isna()})
    rows = []
    for (arm, end), group in frame.groupby(["arm", "end"], sort=False):
        row = ends.of(str(end))
        if row.whose is Whose.UNKNOWN:  # a fault whose cause names no boundary
            row = ends.of(str(end).partition(":")[0])
        whose = "" if end == "not told" else row.whose.value
        rows.append(LedgerRow(arm=arm, end=end, whose=whose, rollouts=len(group), lost=int(group["lost"].sum())))
    order = {arm: place for place, arm in enumerate(dict.fromkeys(frame["arm"]))}
    return sorted(rows, key=lambda row: (order[row.arm], -row.rollouts, row.end))


def worth_showing(rows: Sequence[LedgerRow]) -> bool:
    """Is any end other than a plain submission, or any verdict missing?"""
    return any(row.end not in ("submitted", "not told") or row.lost for row in rows)


def show(rows: Sequence[LedgerRow], console: "Console") -> None:
    """The ledger as a table."""
    from rich.markup import escape

    from aem_harness.harness.compare.fitted import table_of

    table = table_of("How rollouts ended, and whose fault that is", "arm", ["end", "whose", "rollouts", "lost"])
    for row in rows:
        table.add_row(escape(row.arm), escape(row.end), row.whose, str(row.rollouts), str(row.lost))
    console.print(table)
