"""Columns of a table for print: what can be asked for by name, and the cell that each makes of an arm."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from aem_harness.harness.compare.mcnemar import wilson
from aem_harness.harness.compare.records import (
    QUESTIONS,
    ArmSummary,
    Comparison,
    Contrast,
    Estimate,
    Interval,
    MetricRow,
    Question,
)
from aem_harness.harness.compare.words import seeds_of, unit_of
from aem_harness.harness.errors import ConfigError
from aem_harness.harness.report.reference import Reference

Kind = Literal["text", "count", "percent", "points", "amount", "change", "p"]
MARKS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
OF_PAIRS = {"difference", "difference-like", "adjusted-difference", "p", "p-like", "moved", "verdict"}
WAYS = {"repository": "repository", "difficulty": "difficulty", "year": "issue year"}


@dataclass(frozen=True)
class Cell:
    """One number with its interval and marks, or a text. Percent and points are held as fractions."""

    kind: Kind = "text"
    text: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    # behind the interval: † its standard error is an upper bound, ‡ a published figure's, § zero is outside it, but
    # not after Holm, ¶ it is over other tasks than the rates beside it
    sign: str = ""

    @property
    def mark(self) -> str:
        """Stars of significance, by the adjusted p-value."""
        return next((stars for limit, stars in MARKS if self.p is not None and self.p < limit), "")


@dataclass(frozen=True)
class Head:
    """The head of a column: its name on the command line and in CSV, and its words."""

    name: str
    words: str
    numeric: bool = True


@dataclass(frozen=True)
class Column:
    """A column: its head, how an arm's cell comes about, and the question its intervals answer."""

    head: Head
    cell: Callable[[ArmSummary, Contrast | None], Cell]
    interval: Question | None = None

    @property
    def name(self) -> str:
        return self.head.name

    @property
    def of_pair(self) -> bool:
        """Whether it speaks of a difference alone, not of an arm."""
        return self.name in OF_PAIRS


def slug(name: str) -> str:
    """`entropy, early` -> `entropy-early`: a metric's name as a column."""
    return name.lower().replace(",", "").replace(" ", "-")


def columns_of(comparison: Comparison, name: str) -> Iterator[Column]:
    """The column of that name; of `difficulty`, `repository` and `year` one for every part."""
    plain = {column.name: column for column in _plain(comparison)}
    metrics = {slug(row.name): row for row in comparison.metrics}
    if name in plain:
        yield plain[name]
    elif name in WAYS:
        parts = [group for group in comparison.groups if group.by == WAYS[name]]
        if not parts:
            raise ConfigError(f"column {name}: the arms lack it, or all tasks have the same value; see --instances")
        yield from (_part(comparison, group.value, name) for group in parts)
    elif name.startswith(("pass@", "pass^")):
        yield _pass_difference(comparison, name) if name.endswith(":diff") else _pass(comparison, name)
    elif name.removesuffix(":diff") in metrics:
        row = metrics[name.removesuffix(":diff")]
        yield _metric(row, difference=name.endswith(":diff"), tested=not (comparison.apart and row.timed))
    else:
        ks = sorted({point.k for point in comparison.passes})
        known = [*plain, *WAYS, *(f"pass@{k}" for k in ks), *metrics]
        raise ConfigError(
            f"no column {name!r}; there are: {', '.join(known)} (metrics and pass@K also as NAME:diff, and pass^K)"
        )


def _plain(comparison: Comparison) -> list[Column]:
    these, like = QUESTIONS

    def delta(question: Question) -> Callable[[ArmSummary, Contrast | None], Cell]:
        return lambda _, contrast: _difference(comparison, contrast, question)

    def adjusted(_: ArmSummary, contrast: Contrast | None) -> Cell:
        return _difference(comparison, contrast and (contrast.unmarked or contrast), these)

    p = "p (Holm)" if len(comparison.contrasts) > 1 else "p"
    return [
        Column(Head("tasks", "n"), lambda arm, _: _count(arm.resolved.tasks)),
        Column(Head("seeds", "K"), lambda arm, _: Cell(text=seeds_of(arm.resolved))),
        Column(Head("rollouts", "rollouts"), lambda arm, _: _count(arm.scored)),
        Column(Head("lost", "lost"), lambda arm, _: _count(arm.missing)),
        Column(Head("resolved", "resolved, %"), lambda arm, _: rate_cell(arm.resolved, these), these),
        Column(Head("resolved-like", f"resolved, % ({like})"), lambda arm, _: rate_cell(arm.resolved, like), like),
        Column(Head("official", "lost as failed, %"), lambda arm, _: Cell("percent", value=arm.official)),
        Column(Head("highest", "lost as resolved, %"), lambda arm, _: Cell("percent", value=arm.highest)),
        Column(Head("adjusted", "integrity-adjusted, %"), lambda arm, _: rate_cell(arm.unmarked, these), these),
        Column(Head("adjusted-difference", "integrity-adjusted difference, points"), adjusted, these),
        Column(Head("difference", "difference, points"), delta(these), these),
        Column(
            Head("difference-like", f"difference, points ({like})"), lambda _, c: _difference(comparison, c, like), like
        ),
        Column(Head("p", p), lambda _, c: _p(c, these)),
        Column(Head("p-like", f"{p} ({like})"), lambda _, c: _p(c, like)),
        Column(Head("moved", "up / down"), lambda _, c: Cell(text=f"{c.gained} / {c.lost}" if c else "")),
        Column(Head("verdict", "verdict", numeric=False), lambda _, c: Cell(text=c.decision.verdict if c else "")),
        Column(Head("model", "model", numeric=False), lambda arm, _: Cell(text=arm.versions.get("model", ""))),
    ]


def _pass(comparison: Comparison, name: str) -> Column:
    points = {point.arm: point for point in comparison.passes if f"{point.kind[:-1]}{point.k}" == name}
    if not points:
        ks = sorted({point.k for point in comparison.passes})
        raise ConfigError(f"column {name}: with these seeds k is one of: {', '.join(map(str, ks)) or 'none'}")

    def cell(arm: ArmSummary, _: Contrast | None) -> Cell:
        return rate_cell(points[arm.arm].estimate, "these tasks") if arm.arm in points else Cell()

    return Column(Head(name, f"{name}, %"), cell, "these tasks")


def _pass_difference(comparison: Comparison, name: str) -> Column:
    asked = name.removesuffix(":diff")
    found = {one.candidate: one for one in comparison.pass_differences if f"{one.kind[:-1]}{one.k}" == asked}
    if not found:
        ks = sorted({one.k for one in comparison.pass_differences})
        raise ConfigError(f"column {name}: with these seeds k is one of: {', '.join(map(str, ks)) or 'none'}")

    def cell(arm: ArmSummary, _: Contrast | None) -> Cell:
        one = found.get(arm.arm)
        return with_interval(Cell("points", value=one.estimate.value), one.estimate.these) if one else Cell()

    return Column(Head(name, f"{asked}: difference, points"), cell, "these tasks")


def _metric(row: MetricRow, *, difference: bool, tested: bool) -> Column:
    def mean(arm: ArmSummary, _: Contrast | None) -> Cell:
        return _amount("amount", row.arms[arm.arm], None) if arm.arm in row.arms else Cell()

    def change(arm: ArmSummary, _: Contrast | None) -> Cell:
        if arm.arm not in row.differences:
            return Cell()
        delta, p, holm = row.differences[arm.arm], row.p[arm.arm], row.p_holm.get(arm.arm)
        if not tested:
            return _amount("change", delta, None)
        return turned(_amount("change", delta, p if holm is None else holm), p, delta.these.level)

    head = ", ".join(filter(None, (row.name, unit_of(row))))
    if difference:
        return Column(Head(f"{slug(row.name)}:diff", f"{head}: difference"), change, "these tasks")
    return Column(Head(slug(row.name), head), mean, "these tasks")


def _part(comparison: Comparison, value: str, way: str) -> Column:
    (group,) = [one for one in comparison.groups if one.by == WAYS[way] and one.value == value]

    def cell(arm: ArmSummary, _: Contrast | None) -> Cell:
        if arm.arm not in group.rates:
            return Cell()
        return replace(rate_cell(group.rates[arm.arm], "these tasks"), p=group.p_holm.get(arm.arm))

    return Column(Head(f"{way}:{value}", f"{value} (n={group.tasks}), %"), cell, "these tasks")


# --- cells ----------------------------------------------------------------------------------------------------------


def _count(n: int) -> Cell:
    return Cell("count", value=n)


def interval_of(estimate: Estimate, question: Question) -> Interval | None:
    return estimate.these if question == "these tasks" else estimate.like


def rate_cell(estimate: Estimate, question: Question) -> Cell:
    return with_interval(Cell("percent", value=estimate.value), interval_of(estimate, question))


def _difference(comparison: Comparison, contrast: Contrast | None, question: Question) -> Cell:
    if contrast is None:
        return Cell()
    elsewhere = not same_tasks(comparison, contrast)
    cell = Cell("points", value=contrast.difference.value, p=_adjusted(contrast, question))
    alone = next((test.p for test in contrast.tests if test.question == question), None)
    cell = turned(
        with_interval(cell, interval_of(contrast.difference, question)), alone, contrast.difference.these.level
    )
    return replace(cell, sign=f"{cell.sign}¶") if elsewhere else cell


def turned(cell: Cell, alone: float | None, level: float) -> Cell:
    """The cell with a sign where only Holm keeps its p-value, `alone` before it, from rejecting."""
    if alone is None or cell.p is None or not alone <= 1 - level < cell.p:
        return cell
    return replace(cell, sign=f"{cell.sign}§")


def same_tasks(comparison: Comparison, contrast: Contrast) -> bool:
    """Whether the rates of both arms are over the very tasks of their difference."""
    tasks = {arm.arm: arm.resolved.tasks for arm in comparison.arms}
    return tasks[contrast.baseline] == tasks[contrast.candidate] == contrast.difference.tasks


def _p(contrast: Contrast | None, question: Question) -> Cell:
    p = _adjusted(contrast, question) if contrast else None
    return Cell() if p is None else Cell("p", value=p)


def _adjusted(contrast: Contrast, question: Question) -> float | None:
    return next((t.p if t.p_holm is None else t.p_holm for t in contrast.tests if t.question == question), None)


def _amount(kind: Kind, estimate: Estimate, p: float | None) -> Cell:
    return with_interval(Cell(kind, value=estimate.value, p=p), estimate.these)


def with_interval(cell: Cell, interval: Interval | None) -> Cell:
    if interval is None:
        return cell
    return replace(cell, low=interval.low, high=interval.high, sign="†" if interval.bound else "")


def reference_cell(column: Column, one: Reference, index: int, level: float) -> Cell:
    row = one.rows[index]
    if column.name == "tasks":
        return _count(one.tasks)
    if column.name == "seeds":
        return Cell(text="?")
    if column.name == "model":
        return Cell(text=one.model)
    if column.name == "resolved":
        low, high = wilson(row.resolved / 100, one.tasks, level)
        return Cell("percent", value=row.resolved / 100, low=low, high=high, sign="‡")
    if column.name == "difference" and row.difference is not None:
        return Cell("points", value=row.difference / 100)
    return Cell()
