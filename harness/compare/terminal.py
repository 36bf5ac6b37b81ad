"""A comparison as rich tables: every cell says its n, its seeds and which question its interval answers."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from harness.compare.records import (
    QUESTIONS,
    Bounds,
    Comparison,
    Contrast,
    Decision,
    Estimate,
    Flip,
    Interval,
    MetricRow,
)
from harness.compare.records import Group as Part
from harness.compare.schema import listed

COLOURS = {"better": "green", "non-inferior": "green", "superior": "green", "worse": "red", "inferior": "red"}
MANY = 2  # candidates of which intervals still fit beside each other
SHOWN = 12  # flips in the terminal; all are in the JSON


def show(comparison: Comparison, console: Console) -> None:
    """Print the whole comparison, the verdicts last."""
    for block in blocks(comparison):
        console.print(block)
        console.print()


def blocks(comparison: Comparison) -> list[RenderableType]:
    """What is shown, in order."""
    out: list[RenderableType] = []
    if comparison.warnings:
        lines = Text("\n".join(f"- {line}" for line in comparison.warnings))
        out.append(Panel(lines, title="Arms differ in more than the weights", border_style="bold yellow", expand=False))
    out += [_arms(comparison), *_passes(comparison), _contrasts(comparison)]
    out += [_parts(comparison, by) for by in dict.fromkeys(group.by for group in comparison.groups)]
    sections = dict.fromkeys(row.section for row in comparison.metrics)
    out += [_metrics(comparison, section) for section in sections]
    out += _flips(comparison)
    out += [_verdicts(comparison), _footer(comparison)]
    return out


# --- words and numbers ----------------------------------------------------------------------------------------------


def percent(fraction: float, digits: int = 1) -> str:
    """0.342 -> `34.2`."""
    return f"{100 * fraction:.{digits}f}"


def points(fraction: float) -> str:
    """0.014 -> `+1.4`."""
    return f"{100 * fraction:+.1f}"


def amount(value: float, *, signed: bool = False) -> str:
    """Four significant digits, thousands grouped."""
    size = abs(value)
    digits = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 1 else 3
    return f"{value:{'+' if signed else ''},.{digits}f}"


def probability(p: float) -> str:
    """A p-value: `0.03`, `< 0.0001`."""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def seeds_of(estimate: Estimate) -> str:
    """Rollouts a task: `4`, or `3-4` where they are not equal."""
    fewest, most = estimate.seeds
    return str(most) if fewest == most else f"{fewest}-{most}"


def bracket(interval: Interval | None, *, signed: bool = False) -> str:
    """`[30.2, 38.5]` in percent; a star where the standard error is only an upper bound."""
    if interval is None:
        return "-"
    write = points if signed else percent
    return f"[{write(interval.low)}, {write(interval.high)}]" + ("*" if interval.bound else "")


def short(arm: str, most: int = 16) -> str:
    """An arm's name as a column head: long ones keep both ends."""
    return arm if len(arm) <= most else f"{arm[: most // 2 - 1]}…{arm[-most // 2 :]}"


def title_of(contrast: Contrast) -> str:
    """`aem - base`, with its label where it has one."""
    name = f"{short(contrast.candidate, 24)} - {short(contrast.baseline, 24)}"
    return f"{contrast.label}: {name}" if contrast.label else name


# --- tables ---------------------------------------------------------------------------------------------------------


def table_of(title: str, first: str, others: Sequence[str]) -> Table:
    """An empty table: a text column and columns of numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.padding, table.collapse_padding, table.show_edge = (0, 1, 0, 1), True, False
    table.add_column(first, overflow="fold", min_width=12)
    for name in others:
        table.add_column(name, justify="right", overflow="fold")
    return table


def _arms(comparison: Comparison) -> Table:
    level = f"{100 * comparison.level:.0f} %"
    names = ["tasks", "seeds", "lost", "%", f"{level} these tasks", f"{level} like these"]
    table = table_of("Resolved", "arm", names)
    for arm in comparison.arms:
        rate = arm.resolved
        lost = "0" if not arm.missing else f"{arm.missing}/{arm.scored + arm.missing}"
        cells = [str(rate.tasks), seeds_of(rate), lost, percent(rate.value), bracket(rate.these), bracket(rate.like)]
        table.add_row(escape(arm.arm), *cells)
        if arm.retried:
            table.add_row(f"[dim]  {arm.retried} retried after faults[/]")
        if arm.missing:
            extremes = f"[dim]{percent(arm.official)} / {percent(arm.highest)}[/]"
            table.add_row("[dim]  lost ones failed / passed[/]", "", "", "", extremes)
    return table


def _passes(comparison: Comparison) -> list[Table]:
    if not comparison.passes:
        return []
    columns = list(dict.fromkeys((point.kind, point.k) for point in comparison.passes))
    title = "pass@k: one of k resolves; pass^k: all k do (%; in brackets the tasks with k rollouts, if not all)"
    tasks = {arm.arm: arm.resolved.tasks for arm in comparison.arms}
    table = table_of(title, "arm", [f"{kind[:-1]}{k}" for kind, k in columns])
    for arm in dict.fromkeys(point.arm for point in comparison.passes):
        cells = []
        for kind, k in columns:
            found = [p.estimate for p in comparison.passes if (p.arm, p.kind, p.k) == (arm, kind, k)]
            cells.append(_pass_cell(found[0], tasks[arm]) if found else "-")
        table.add_row(escape(arm), *cells)
    return [table]


def _pass_cell(estimate: Estimate, tasks: int) -> str:
    return percent(estimate.value) + ("" if estimate.tasks == tasks else f" ({estimate.tasks})")


def _contrasts(comparison: Comparison) -> Table:
    level = f"{100 * comparison.level:.0f} %"
    many = len(comparison.contrasts) > 1
    names = ["tasks", "points", f"{level} these", f"{level} like", "p these", "p like", "up/down"]
    same = {contrast.baseline for contrast in comparison.contrasts} == {comparison.baseline}
    title = "Difference in points" + (f" to {comparison.baseline}" if same else "") + ", paired by task"
    table = table_of(title + (", p adjusted (Holm)" if many else ""), "candidate" if same else "pair", names)
    for contrast in comparison.contrasts:
        delta = contrast.difference
        p = {test.question: test.p_holm if many and test.p_holm is not None else test.p for test in contrast.tests}
        table.add_row(
            escape(short(contrast.candidate, 24) if same else title_of(contrast)),
            str(delta.tasks),
            points(delta.value),
            bracket(delta.these, signed=True),
            bracket(delta.like, signed=True),
            *(probability(p[question]) if question in p else "-" for question in QUESTIONS),
            f"{contrast.gained}/{contrast.lost}",
        )
    return table


def _parts(comparison: Comparison, by: str) -> Table:
    found = [group for group in comparison.groups if group.by == by]
    candidates = list(dict.fromkeys(arm for group in found for arm in group.differences))
    names = ["tasks", *(f"{short(arm)} %" for arm in found[0].rates), *_columns(candidates, "points")]
    table = table_of(f"By {by}" + _legend(candidates), by, names)
    for group in sorted(found, key=lambda group: -group.tasks if by == "repository" else 0):
        table.add_row(escape(group.value), str(group.tasks), *_part_cells(group, candidates))
    return table


def _part_cells(group: Part, candidates: Sequence[str]) -> list[str]:
    cells = [percent(rate) for rate in group.rates.values()]
    for arm in candidates:
        delta = group.differences[arm]
        p = group.p_holm.get(arm, group.p[arm])
        if len(candidates) > MANY:
            cells.append(points(delta.value) + ("!" if p <= 0.05 else ""))
        else:
            cells += [points(delta.value), bracket(delta.these, signed=True), probability(p)]
    return cells


def _columns(candidates: Sequence[str], what: str) -> list[str]:
    """Difference, interval and p-value of each candidate; of many, only the difference."""
    if len(candidates) > MANY:
        return [f"{short(arm)} {what}" for arm in candidates]
    return [name for arm in candidates for name in (f"{short(arm)} {what}", "these tasks", "p (Holm)")]


def _legend(candidates: Sequence[str]) -> str:
    return " (! adjusted p at most 0.05)" if len(candidates) > MANY else ""


def _metrics(comparison: Comparison, section: str) -> Table:
    rows = [row for row in comparison.metrics if row.section == section]
    arms = list(dict.fromkeys(arm for row in rows for arm in row.arms))
    candidates = list(dict.fromkeys(arm for row in rows for arm in row.differences))
    names = [*map(short, arms), *_columns(candidates, "difference")]
    table = table_of(section.capitalize() + _legend(candidates), "metric", names)
    for row in rows:
        name = f"{row.name}, {row.unit}" if row.unit and row.unit not in row.name else row.name
        table.add_row(escape(name), *_metric_cells(row, arms, candidates))
    return table


def _metric_cells(row: MetricRow, arms: Sequence[str], candidates: Sequence[str]) -> list[str]:
    cells = [amount(row.arms[arm].value) if arm in row.arms else "-" for arm in arms]
    for arm in candidates:
        delta = row.differences.get(arm)
        if delta is None:
            cells += ["-"] if len(candidates) > MANY else ["-", "-", "-"]
            continue
        p = row.p_holm.get(arm, row.p[arm])
        if len(candidates) > MANY:
            cells.append(amount(delta.value, signed=True) + ("!" if p <= 0.05 else ""))
            continue
        low, high = (amount(end, signed=True) for end in (delta.these.low, delta.these.high))
        inside = f"[{low}, {high}]" + ("*" if delta.these.bound else "")
        cells += [amount(delta.value, signed=True), inside, probability(p)]
    return cells


def _flips(comparison: Comparison) -> list[RenderableType]:
    out: list[RenderableType] = []
    for contrast in comparison.contrasts:
        pair = (contrast.baseline, contrast.candidate)
        found = [flip for flip in comparison.flips if (flip.baseline, flip.candidate) == pair]
        if not found or contrast.label:
            continue
        heading = f"Tasks that moved, {title_of(contrast)}: {len(found)}, the surest first"
        table = table_of(heading, "task", ["before", "after", "P(worse) %", "P(better) %", "parts at"])
        for flip in found[:SHOWN]:
            table.add_row(escape(flip.instance_id), *_flip_cells(flip))
        out.append(table)
    unique = {arm: tasks for arm, tasks in comparison.unique.items() if tasks}
    if unique:
        lines = [f"{arm}: {len(tasks)} ({listed(tasks, most=4)})" for arm, tasks in unique.items()]
        out.append("[bold]Resolved by one arm only[/]\n" + escape("\n".join(lines)))
    return out


def _flip_cells(flip: Flip) -> list[str]:
    rates = [f"{solved}/{rollouts}" for solved, rollouts in zip(flip.solved, flip.rollouts, strict=True)]
    return [*rates, percent(flip.p_worse, 0), percent(flip.p_better, 0), "-" if flip.step is None else str(flip.step)]


def _verdicts(comparison: Comparison) -> RenderableType:
    lines = []
    for contrast in comparison.contrasts:
        lines.append(Text(title_of(contrast), style="bold"))
        lines += [_decision(decision) for decision in (contrast.decision, *contrast.decisions)]
        if contrast.bounds is not None:
            lines.append(_missing(contrast.bounds))
    if comparison.best is not None:
        one = comparison.best
        held = "" if one.held_out is None else f"; {percent(one.held_out)} on held-out seeds"
        lines.append(
            Text(
                f"best of {one.among}: {one.arm}, {percent(one.observed)} % as observed, {percent(one.shrunken)} % "
                f"corrected for having been picked{held}; interval [{percent(one.low)}, {percent(one.high)}]; "
                f"probability that it is the best {percent(one.probability, 0)} %"
            )
        )
    return Panel(Group(*lines), title="Verdict", title_align="left", expand=False)


def _decision(decision: Decision) -> Text:
    line = Text(f"  {decision.question}: ")
    line.append(decision.verdict, style=COLOURS.get(decision.verdict, "yellow"))
    return line.append(f" ({decision.reason})")


def _missing(bounds: Bounds) -> Text:
    lost = f"{bounds.missing_baseline} rollouts of the baseline and {bounds.missing_candidate} of the candidate"
    return Text(
        f"  without a verdict are {lost}: the difference would be {points(bounds.low)} to {points(bounds.high)} points "
        f"at the extremes, {points(bounds.as_failed)} with all of them failed"
    )


def _footer(comparison: Comparison) -> str:
    lines = [
        "these tasks: would a re-run agree?  like these: would new tasks agree? (run and task noise, by repository)"
    ]
    if _any_bound(comparison):
        lines.append("* upper bound: with one rollout a task, or all alike, run noise cannot be told from task spread")
    for name in ("grader", "dataset", "scaffold"):
        values = {arm.versions.get(name) or "unknown" for arm in comparison.arms}
        lines.append(f"{name}: {' | '.join(sorted(values))}")
    lines.append(f"aem {comparison.versions.get('aem', '')}")
    return "[dim]" + escape("\n".join(lines)) + "[/dim]"


def _any_bound(comparison: Comparison) -> bool:
    estimates = [arm.resolved for arm in comparison.arms]
    estimates += [one for row in comparison.metrics for one in row.differences.values()]
    estimates += [one for group in comparison.groups for one in group.differences.values()]
    return any(one.these.bound for one in estimates)
