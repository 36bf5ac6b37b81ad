"""A two-way table for print: rates by row and column, gains within each row, and the interaction test of each gain."""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from aem_harness.harness.compare.records import QUESTIONS, Estimate
from aem_harness.harness.compare.two_way import TwoWay
from aem_harness.harness.compare.words import points
from aem_harness.harness.errors import counted
from aem_harness.harness.report.columns import Cell, Head, interval_of, rate_cell, turned, with_interval
from aem_harness.harness.report.notes import DIGEST, STAMPED, UPPER_BOUND, made_by
from aem_harness.harness.report.paper import PaperTable

THESE, LIKE = QUESTIONS


def two_way_table(
    found: TwoWay,
    rows_of: pd.DataFrame,
    *,
    caption: str = "",
    label: str = "tab:aem",
    hash: str = "",
    version: str = "",
    wide: bool = False,
) -> PaperTable:
    """The table of `found`, which was made of the outcomes `rows_of`; `version` is that of aem."""
    stamps = {name: sorted(rows_of[name].dropna().astype(str).unique()) for name in STAMPED if name in rows_of}
    first_row, first, *others = *list(found.rates)[:1], *next(iter(found.rates.values()))
    p = "p (Holm)" if len(found.interactions) > 1 else "p"
    heads = [Head(column, f"{column}, %") for column in (first, *others)]
    for column in others:
        gain = f"{column} \N{MINUS SIGN} {first}"
        heads += [
            Head(f"{column}:gain", f"{gain}, points"),
            Head(f"{column}:interaction", f"{gain}, less that of {first_row}"),
            Head(f"{column}:interaction-like", f"{gain}, less that of {first_row} ({LIKE})"),
            Head(f"{column}:p", p),
        ]
    cells = {
        row: [rate_cell(rates[column], THESE) for column in (first, *others)] for row, rates in found.rates.items()
    }
    for row in found.rates:
        for column in others:
            cells[row] += [_points(found.gains[row][column]), *_interaction(found, row, column)]
    rows = tuple((row, tuple(each)) for row, each in cells.items())
    named = "; ".join(sorted({DIGEST.sub("", one) for one in stamps.get("dataset", [])}))
    of = f" of {named}" if named else ""
    return PaperTable(
        caption=caption or f"Resolved tasks{of} by {found.by[0]} and {found.by[1]}",
        label=label,
        heads=tuple(heads),
        rows=rows,
        notes=tuple(_notes(found, [cell for _, row in rows for cell in row], stamps, hash, version)),
        hash=hash,
        wide=wide,
        stub=found.by[0],
    )


def _points(estimate: Estimate) -> Cell:
    return with_interval(Cell("points", value=estimate.value), estimate.these)


def _interaction(found: TwoWay, row: str, column: str) -> tuple[Cell, Cell, Cell]:
    """The gain less that of the first row for these tasks and for tasks like these, and its p-value."""
    one = next((each for each in found.interactions if (each.row, each.column) == (row, column)), None)
    if one is None:
        return Cell(), Cell(), Cell()
    marked = turned(
        with_interval(Cell("points", value=one.change.value, p=one.p_holm), one.change.these), one.p, found.level
    )
    like = with_interval(Cell("points", value=one.change.value), one.change.like)
    return marked, like, Cell("p", value=one.p_holm)


def _notes(
    found: TwoWay, cells: Sequence[Cell], stamps: Mapping[str, Sequence[str]], hash: str, version: str
) -> Iterator[str]:
    rates = [one for row in found.rates.values() for one in row.values()]
    gains = [one for row in found.gains.values() for one in row.values()]
    changes = [one.change for one in found.interactions]
    lost = f"{counted(found.missing, 'rollout')} without a verdict left out" if found.missing else "none lost"
    fewest, most = min(one.seeds[0] for one in rates), max(one.seeds[1] for one in rates)
    seeds = str(most) if fewest == most else f"{fewest}-{most}"
    yield f"n = {_tasks(rates)} tasks, K = {seeds} rollouts of each task; {lost}."
    if len({one.tasks for one in (*rates, *gains, *changes)}) > 1:
        yield (
            f"THE CELLS HAVE DIFFERENT TASKS: a gain is over the tasks of both cells ({_tasks(gains)}), an interaction "
            f"over those of all four ({_tasks(changes)})."
        )
    level, first_row = f"{100 * found.level:g} % intervals", next(iter(found.rates))
    yield (
        f"{level} in brackets, for these tasks (would a rerun agree? run noise only): rates by "
        f"{_methods(rates, THESE)}; gains and their differences by {_methods([*gains, *changes], THESE)}. For {LIKE} "
        f"(would new tasks agree? run and task noise): {_methods(changes, LIKE)}."
    )
    yield (
        f"Less that of {first_row}: is the gain another one than with {first_row}? By a t test for these tasks with "
        f"the run noise of all four cells, {'Holm-adjusted over the table' if len(changes) > 1 else 'one test'}: "
        "* p < 0.05, ** p < 0.01, *** p < 0.001."
    )
    if bounds := [one for one in found.interactions if one.bounds]:
        ends = (f"{one.column} with {one.row} [{points(one.bounds[0])}, {points(one.bounds[1])}]" for one in bounds)  # type: ignore[index]
        yield f"Whatever the rollouts without a verdict were, less that of {first_row}: {'; '.join(ends)}."
    if any("§" in cell.sign for cell in cells):
        yield "§ the interval of this row alone excludes zero; after Holm over the table zero is not rejected."
    if any("†" in cell.sign for cell in cells):
        yield UPPER_BOUND
    yield "; ".join(f"{name}: {'; '.join(stamps.get(name, [])) or 'unknown'}" for name in STAMPED) + "."
    if hash:
        yield made_by(version, hash)


def _tasks(estimates: Sequence[Estimate]) -> str:
    return ", ".join(map(str, sorted({one.tasks for one in estimates})))


def _methods(estimates: Sequence[Estimate], question: str) -> str:
    intervals = (interval_of(one, THESE if question == THESE else LIKE) for one in estimates)
    return " or ".join(dict.fromkeys(one.method for one in intervals if one)) or "none"
