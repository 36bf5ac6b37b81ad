"""A table over two columns, scaffold by checkpoint, say: is one checkpoint's gain another one under another scaffold?

The first row and the first column are what the others are compared with.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape

from aem_harness.harness.compare.arms import sample
from aem_harness.harness.compare.decisions import holm
from aem_harness.harness.compare.intervals import estimate, estimate_difference, p_value
from aem_harness.harness.compare.records import Estimate
from aem_harness.harness.compare.terminal import table_of
from aem_harness.harness.compare.values import TaskValues, difference
from aem_harness.harness.compare.words import adjusted_p, bracket, percent, points
from aem_harness.harness.errors import ConfigError, DataError, listed
from aem_harness.harness.types import Record

Cells = Mapping[tuple[str, str], TaskValues]


class TwoWayInteraction(Record):
    """The gain of `column` over the first column in `row`, less that in the first row, on the tasks of all four cells.

    `p` is of the t test for these tasks (run noise of all four cells), Holm over all of the table in `p_holm`.
    """

    row: str
    column: str
    change: Estimate
    p: float
    p_holm: float


class TwoWay(Record):
    """Rates by row and column, gains over the first column within each row, and where the gains differ."""

    by: tuple[str, str]
    level: float
    rates: Mapping[str, Mapping[str, Estimate]]
    gains: Mapping[str, Mapping[str, Estimate]]
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
        raise DataError(f"{over}: {listed(rows)}; {across}: {listed(columns)}; at least two of each are needed")
    cells = dict(_cells(known, (over, across), rows, columns))
    found = list(_interactions(cells, rows, columns, level))
    adjusted = holm([one.p for one in found])
    return TwoWay(
        by=(over, across),
        level=level,
        rates={row: {column: estimate(cells[row, column], level, rate=True) for column in columns} for row in rows},
        gains={row: {column: _gain(cells, row, columns[0], column, level) for column in columns[1:]} for row in rows},
        interactions=tuple(one.model_copy(update={"p_holm": p}) for one, p in zip(found, adjusted, strict=True)),
    )


def show_two_way(found: TwoWay, console: Console) -> None:
    """Rates with gains under them, then one line for each gain that is held against that of the first row."""
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
        console.print(escape(f"{line} {ends}, p = {p}"), soft_wrap=True)


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


def _interactions(cells: Cells, rows: list[str], columns: list[str], level: float) -> Iterator[TwoWayInteraction]:
    for row in rows[1:]:
        for column in columns[1:]:
            places = [(rows[0], columns[0]), (rows[0], column), (row, columns[0]), (row, column)]
            a, b, c, d = _aligned(*(cells[place] for place in places))
            change = estimate(difference(difference(a, b), difference(c, d)), level, within=(-2, 2))
            p = p_value(change.value, change.these)
            yield TwoWayInteraction(row=row, column=column, change=change, p=p, p_holm=p)


def _aligned(*cells: TaskValues) -> tuple[TaskValues, ...]:
    """The cells on the tasks that all have. Raises DataError for fewer than two."""
    shared = sorted(set.intersection(*(set(cell.tasks) for cell in cells)))
    if len(shared) < 2:
        raise DataError(f"the cells of a two-way table have {len(shared)} tasks in common; 2 are needed")
    return tuple(cell.where(np.isin(cell.tasks, shared)) for cell in cells)
