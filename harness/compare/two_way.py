"""A table over two columns, scaffold by checkpoint, say: is one checkpoint's gain another one under another scaffold?

The first row and the first column are what the others are compared with.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape

from aem_harness.harness.compare.arms import sample
from aem_harness.harness.compare.decisions import holm
from aem_harness.harness.compare.fitted import table_of
from aem_harness.harness.compare.intervals import estimate, estimate_difference, p_value
from aem_harness.harness.compare.records import Estimate
from aem_harness.harness.compare.values import TaskValues, difference
from aem_harness.harness.compare.words import BOUND, adjusted_p, bracket, p_is, percent, points
from aem_harness.harness.errors import ConfigError, DataError, counted, listed
from aem_harness.harness.types import Record

Cells = Mapping[tuple[str, str], TaskValues]


class TwoWayInteraction(Record):
    """The gain of `column` over the first column in `row`, less that in the first row, on the tasks of all four cells.

    `p` is of the t test for these tasks (run noise of all four cells), Holm over all of the table in `p_holm`.
    `bounds` is how far missing rollouts could move it, over the tasks that then are in all four cells; None if none is
    missing.
    """

    row: str
    column: str
    change: Estimate
    p: float
    p_holm: float
    bounds: tuple[float, float] | None = None


class TwoWay(Record):
    """Rates by row and column, gains over the first column within each row, and where the gains differ.

    `missing` counts the rollouts without a verdict: they are in none of the rates.
    """

    by: tuple[str, str]
    level: float
    rates: Mapping[str, Mapping[str, Estimate]]
    gains: Mapping[str, Mapping[str, Estimate]]
    missing: int
    interactions: tuple[TwoWayInteraction, ...]


def two_way(table: pd.DataFrame, by: str, *, level: float = 0.95) -> TwoWay:
    """`by` names two columns of the outcomes, ROWS,COLUMNS. Raises DataError where a cell of the table is empty."""
    names = tuple(name.strip() for name in by.split(","))
    if len(names) != 2 or names[0] == names[1]:
        raise ConfigError(f"--two-way {by}: two columns of the outcomes, for example scaffold,model")
    if unknown := [name for name in names if name not in table]:
        raise ConfigError(f"no column {listed(unknown)}; there are: {listed(table.columns, most=40)}")
    over, across = names
    known = table[table[over].notna() & table[across].notna()]
    rows, columns = (list(dict.fromkeys(known[name].astype(str))) for name in names)
    if min(len(rows), len(columns)) < 2:
        values = "; ".join(f"{name}: {listed(seen) or 'none'}" for name, seen in ((over, rows), (across, columns)))
        raise DataError(f"--two-way needs at least two values in each column, among rollouts that have both; {values}")
    cells = dict(_cells(known, (over, across), rows, columns))
    filled = [
        dict(_cells(known.assign(resolved=known["resolved"].fillna(passed)), (over, across), rows, columns))
        for passed in (False, True)
    ]
    found = list(_interactions(cells, filled, rows, columns, level))
    adjusted = holm([one.p for one in found])
    return TwoWay(
        by=(over, across),
        level=level,
        rates={row: {column: estimate(cells[row, column], level, rate=True) for column in columns} for row in rows},
        gains={row: {column: _gain(cells, row, columns[0], column, level) for column in columns[1:]} for row in rows},
        missing=int(known["resolved"].isna().sum()),
        interactions=tuple(one.model_copy(update={"p_holm": p}) for one, p in zip(found, adjusted, strict=True)),
    )


def show_two_way(found: TwoWay, console: Console) -> None:
    """Rates with gains under them, then one line for each gain that is compared with that of the first row."""
    first_row, *_ = found.rates
    first, *others = found.rates[first_row]
    table = table_of(f"Resolved, % for these tasks, by {found.by[0]} and {found.by[1]}", found.by[0], [first, *others])
    for row, rates in found.rates.items():
        table.add_row(escape(row), *(f"{percent(one.value)} {bracket(one.these)}" for one in rates.values()))
        gains = found.gains[row].values()
        words = [f"{points(one.value)} {bracket(one.these, signed=True)}" for one in gains]
        table.add_row(f"  points to {escape(first)}", "", *words)
    console.print(table)
    for one in found.interactions:
        p = adjusted_p(one.p, one.p_holm if len(found.interactions) > 1 else None, found.level)
        ends = f"{bracket(one.change.these, signed=True)} these, {bracket(one.change.like, signed=True)} like these"
        line = f"the gain of {one.column} with {one.row} less that with {first_row}: {points(one.change.value)} points"
        console.print(escape(f"{line} {ends}, {p_is(p)}"), soft_wrap=True)
        if one.bounds:
            low, high = one.bounds
            line = f"  whatever their missing rollouts were: [{100 * low:+z.1f}, {100 * high:+z.1f}]"
            console.print(escape(line), soft_wrap=True)
    estimates = [one for part in (found.rates, found.gains) for row in part.values() for one in row.values()]
    if any(one.these.bound for one in [*estimates, *(one.change for one in found.interactions)]):
        console.print(f"[dim]{BOUND}[/]", soft_wrap=True)
    if found.missing:
        console.print(f"{counted(found.missing, 'rollout')} without a verdict: in none of the rates", soft_wrap=True)


def _cells(
    table: pd.DataFrame, names: tuple[str, ...], rows: list[str], columns: list[str]
) -> Iterator[tuple[tuple[str, str], TaskValues]]:
    over, across = names
    for row in rows:
        for column in columns:
            part = table[(table[over].astype(str) == row) & (table[across].astype(str) == column)]
            if part["resolved"].notna().sum() == 0:
                raise DataError(f"no verdict for {over} {row} with {across} {column}: every cell needs rollouts")
            yield (row, column), sample(f"{row}, {column}", part).values


def _gain(cells: Cells, row: str, first: str, column: str, level: float) -> Estimate:
    before, after = _aligned(cells[row, first], cells[row, column])
    return estimate_difference(before, after, level)


def _interactions(
    cells: Cells, filled: Sequence[Cells], rows: list[str], columns: list[str], level: float
) -> Iterator[TwoWayInteraction]:
    """`filled` are the cells with every missing rollout failed, and passed."""
    for row in rows[1:]:
        for column in columns[1:]:
            places = [(rows[0], columns[0]), (rows[0], column), (row, columns[0]), (row, column)]
            change = estimate(_change([cells[place] for place in places]), level, within=(-2, 2))
            p = p_value(change.value, change.these)
            yield TwoWayInteraction(
                row=row, column=column, change=change, p=p, p_holm=p, bounds=_bounds(filled, places)
            )


def _change(four: Sequence[TaskValues]) -> TaskValues:
    """The gain in the second row less that in the first, by task."""
    a, b, c, d = _aligned(*four)
    return difference(difference(a, b), difference(c, d))


def _bounds(filled: Sequence[Cells], places: Sequence[tuple[str, str]]) -> tuple[float, float] | None:
    """The change if the missing rollouts of two cells had all passed and those of the other two failed, both ways."""
    low, high = (
        float(_change([filled[up][place] for up, place in zip(passed, places, strict=True)]).values.mean())
        for passed in ((0, 1, 1, 0), (1, 0, 0, 1))
    )
    return None if low == high else (low, high)


def _aligned(*cells: TaskValues) -> tuple[TaskValues, ...]:
    """The cells on the tasks that all have. Raises DataError for fewer than two."""
    shared = sorted(set.intersection(*(set(cell.tasks) for cell in cells)))
    if len(shared) < 2:
        raise DataError(f"the cells of a two-way table have {len(shared)} tasks in common; 2 are needed")
    return tuple(cell.where(np.isin(cell.tasks, shared)) for cell in cells)
