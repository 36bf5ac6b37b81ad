"""A comparison in the terminal: the answer first, then tables that say their n, their seeds and their question."""

from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from aem_harness.harness.compare.records import QUESTIONS, ArmSummary, Comparison, Estimate, Flip, Interval, MetricRow
from aem_harness.harness.compare.records import Group as Part
from aem_harness.harness.compare.verdicts import verdict_panel
from aem_harness.harness.compare.words import (
    adjusted_p,
    amount,
    bracket,
    headline,
    percent,
    points,
    seeds_of,
    short,
    title_of,
    unit_of,
)
from aem_harness.harness.errors import listed

MANY = 2  # candidates of which intervals still fit beside each other
SHOWN, WARNINGS = 12, 8  # flips and warnings in the terminal; all are in the JSON


def show(comparison: Comparison, console: Console, *, brief: bool = False) -> None:
    """Print the comparison: the verdict, what it rests on and, unless `brief`, every breakdown."""
    for block in blocks(comparison, brief=brief):
        console.print(block)
        console.print()


def blocks(comparison: Comparison, *, brief: bool = False) -> list[RenderableType]:
    """What is shown, in order."""
    out: list[RenderableType] = [verdict_panel(comparison)]
    if comparison.warnings:
        more = len(comparison.warnings) - WARNINGS
        shown = [*comparison.warnings[:WARNINGS], *([f"{more} more, see --json or --out"] if more > 0 else [])]
        lines = Text("\n".join(f"- {line}" for line in shown))
        out.append(Panel(lines, title="Mind: more than the weights differs", border_style="bold yellow", expand=False))
    out += [_arms(comparison), _contrasts(comparison)]
    if not brief:
        out += _passes(comparison)
        out += [_parts(comparison, by) for by in dict.fromkeys(group.by for group in comparison.groups)]
        out += [_metrics(comparison, section) for section in dict.fromkeys(row.section for row in comparison.metrics)]
        out += _flips(comparison)
    return [*out, _footer(comparison, brief=brief), Text(headline(comparison), "bold")]


def table_of(title: str, first: str, others: Sequence[str]) -> Table:
    """An empty table: a text column and columns of numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.padding, table.collapse_padding, table.show_edge = (0, 1, 0, 1), True, False
    table.add_column(first, overflow="fold", min_width=12)
    for name in others:
        table.add_column(name, justify="right", overflow="fold")
    return table


# --- rates and differences ------------------------------------------------------------------------------------------


def _arms(comparison: Comparison) -> Table:
    level = f"{100 * comparison.level:.0f} %"
    names = ["tasks", "seeds", "lost", "%", f"{level} these tasks", f"{level} like these"]
    table = table_of("Resolved", "arm", names)
    for arm in comparison.arms:
        lost = "0" if not arm.missing else f"{arm.missing}/{arm.scored + arm.missing}"
        cells = [str(arm.resolved.tasks), seeds_of(arm.resolved), lost, *_rate_cells(arm.resolved)]
        table.add_row(escape(arm.arm), *cells)
        for name, cells in _asides(arm):
            table.add_row(f"[dim]  {name}[/]", "", "", "", *(f"[dim]{cell}[/]" for cell in cells))
    return table


def _rate_cells(rate: Estimate) -> list[str]:
    return [percent(rate.value), bracket(rate.these), bracket(rate.like)]


def _asides(arm: ArmSummary) -> list[tuple[str, list[str]]]:
    """What else the rate of an arm would be, under its name."""
    out: list[tuple[str, list[str]]] = []
    if arm.retried:
        out.append((f"{arm.retried} retried after faults", []))
    if arm.missing:
        out.append(("lost ones failed / passed", ["", f"{percent(arm.official)} / {percent(arm.highest)}"]))
    if arm.audited is not None:
        out.append((f"audited: {arm.tampered} of {arm.regraded} tampered", _rate_cells(arm.audited)))
    if arm.marked:
        out.append((f"adjusted: less {arm.marked} marked", _rate_cells(arm.unmarked)))
    return out


def _contrasts(comparison: Comparison) -> Table:
    level = f"{100 * comparison.level:.0f} %"
    many = len(comparison.contrasts) > 1
    counts = {contrast.difference.tasks for contrast in comparison.contrasts}
    names = [f"{level} these", f"{level} like", "p these", "p like", "up/down"]
    names = ["points", *names] if len(counts) == 1 else ["tasks", "points", *names]
    same = {contrast.baseline for contrast in comparison.contrasts} == {comparison.baseline}
    title = "Difference in points" + (f" to {comparison.baseline}" if same else "") + ", paired by task"
    title += f" (n = {counts.pop()})" if len(counts) == 1 else ""
    table = table_of(title + (", p adjusted (Holm)" if many else ""), "candidate" if same else "pair", names)
    for contrast in comparison.contrasts:
        delta = contrast.difference
        p = {t.question: adjusted_p(t.p, t.p_holm if many else None, comparison.level) for t in contrast.tests}
        table.add_row(
            escape(short(contrast.candidate, 24) if same and not contrast.label else title_of(contrast)),
            *([str(delta.tasks)] if "tasks" in names else []),
            points(delta.value),
            bracket(delta.these, signed=True),
            bracket(delta.like, signed=True),
            *(p.get(question, "-") for question in QUESTIONS),
            f"{contrast.gained}/{contrast.lost}",
        )
    return table


def _passes(comparison: Comparison) -> list[Table]:
    if not comparison.passes:
        return []
    columns = dict.fromkeys((point.kind, point.k) for point in comparison.passes)
    columns.pop(("pass^k", 1), None)  # is pass@1
    tasks = {arm.arm: arm.resolved.tasks for arm in comparison.arms}
    table = table_of("pass@k and pass^k, %", "arm", [f"pass{kind[-2]}{k}" for kind, k in columns])
    for arm in dict.fromkeys(point.arm for point in comparison.passes):
        cells = []
        for kind, k in columns:
            found = [p.estimate for p in comparison.passes if (p.arm, p.kind, p.k) == (arm, kind, k)]
            cells.append(_pass_cell(found[0], tasks[arm]) if found else "-")
        table.add_row(escape(arm), *cells)
    if any(point.estimate.tasks != tasks[point.arm] for point in comparison.passes):
        table.caption, table.caption_justify = "(tasks with k rollouts)", "left"
    return [table]


def _pass_cell(estimate: Estimate, tasks: int) -> str:
    return percent(estimate.value) + ("" if estimate.tasks == tasks else f" ({estimate.tasks})")


# --- parts and metrics ----------------------------------------------------------------------------------------------


def _parts(comparison: Comparison, by: str) -> Table:
    found = [group for group in comparison.groups if group.by == by]
    candidates = list(dict.fromkeys(arm for group in found for arm in group.differences))
    shown = {group.value: group.value for group in found}
    if by == "repository" and len({value.split("/")[-1] for value in shown}) == len(shown):
        shown = {value: value.split("/")[-1] for value in shown}
    names = ["tasks", *(f"{short(arm)} %" for arm in found[0].rates), *_columns(comparison, candidates, "points")]
    table = table_of(f"By {by}" + _legend(candidates), by, names)
    for group in sorted(found, key=lambda group: -group.tasks if by == "repository" else 0):
        table.add_row(escape(shown[group.value]), str(group.tasks), *_part_cells(group, candidates))
    return table


def _part_cells(group: Part, candidates: Sequence[str]) -> list[str]:
    cells = [percent(rate.value) for rate in group.rates.values()]
    for arm in candidates:
        delta = group.differences[arm]
        p, holm = group.p[arm], group.p_holm.get(arm)
        if len(candidates) > MANY:
            cells.append(points(delta.value) + ("!" if (p if holm is None else holm) <= 0.05 else ""))
        else:
            words = adjusted_p(p, holm, delta.these.level)
            cells += [points(delta.value), bracket(delta.these, signed=True), words]
    return cells


def _columns(comparison: Comparison, candidates: Sequence[str], what: str) -> list[str]:
    """Difference, interval and p-value of each candidate; of many, only the difference."""
    if len(candidates) > MANY:
        return [f"{short(arm)} {what}" for arm in candidates]
    level = f"{100 * comparison.level:.0f} % these"
    alone = len(candidates) == 1
    return [name for arm in candidates for name in (what if alone else f"{short(arm)} {what}", level, "p")]


def _legend(candidates: Sequence[str]) -> str:
    if len(candidates) > MANY:
        return " (! adjusted p at most 0.05; intervals: --out, --json)"
    return " (p adjusted, Holm)" if candidates else ""


def _metrics(comparison: Comparison, section: str) -> Table:
    rows = [row for row in comparison.metrics if row.section == section]
    arms = list(dict.fromkeys(arm for row in rows for arm in row.arms))
    candidates = list(dict.fromkeys(arm for row in rows for arm in row.differences))
    names = [*map(short, arms), *_columns(comparison, candidates, "difference")]
    most = max(one.tasks for row in rows for one in row.arms.values())
    part = f" on the {most} tasks of all" if most < max(arm.resolved.tasks for arm in comparison.arms) else ""
    table = table_of(section.capitalize() + part + _legend(candidates), "metric", names)
    for row in rows:
        name = ", ".join(filter(None, (row.name, unit_of(row))))
        table.add_row(escape(name), *_metric_cells(row, arms, candidates))
    return table


def _metric_cells(row: MetricRow, arms: Sequence[str], candidates: Sequence[str]) -> list[str]:
    cells = [amount(row.arms[arm].value) if arm in row.arms else "-" for arm in arms]
    if not candidates:  # nothing to compare it with: its own interval then
        return [
            f"{cell} {_ends(row.arms[arm].these)}" for cell, arm in zip(cells, arms, strict=True) if arm in row.arms
        ]
    for arm in candidates:
        delta = row.differences.get(arm)
        if delta is None:
            cells += ["-"] if len(candidates) > MANY else ["-", "-", "-"]
            continue
        p, holm = row.p[arm], row.p_holm.get(arm)
        if len(candidates) > MANY:
            cells.append(amount(delta.value, signed=True) + ("!" if (p if holm is None else holm) <= 0.05 else ""))
            continue
        words = adjusted_p(p, holm, delta.these.level)
        cells += [amount(delta.value, signed=True), _ends(delta.these, signed=True), words]
    return cells


def _ends(interval: Interval, *, signed: bool = False) -> str:
    low, high = (amount(end, signed=signed) for end in (interval.low, interval.high))
    return f"[{low}, {high}]" + ("*" if interval.bound else "")


# --- tasks that moved -----------------------------------------------------------------------------------------------


def _flips(comparison: Comparison) -> list[RenderableType]:
    out: list[RenderableType] = []
    for contrast in comparison.contrasts:
        pair = (contrast.baseline, contrast.candidate)
        found = [flip for flip in comparison.flips if (flip.baseline, flip.candidate) == pair]
        if not found or contrast.label:
            continue
        heading = f"Tasks that moved, {title_of(contrast)}: {len(found)}, the surest first"
        parted = any(flip.step is not None for flip in found)
        table = table_of(heading, "task", ["before", "after", "really, %", *(["part at turn"] if parted else [])])
        for flip in found[:SHOWN]:
            table.add_row(escape(flip.instance_id), *_flip_cells(flip, parted=parted))
        table.caption_justify = "left"
        table.caption = "really: probability that the resolved rate truly changed" + _how_to_read(found[0])
        out.append(table)
    unique = {arm: tasks for arm, tasks in comparison.unique.items() if tasks}
    if unique:
        lines = [f"{arm}: {len(tasks)} ({listed(tasks, most=4)})" for arm, tasks in unique.items()]
        out.append("[bold]Resolved by one arm only[/]\n" + escape("\n".join(lines)))
    return out


def _flip_cells(flip: Flip, *, parted: bool) -> list[str]:
    """Before and after lead to a trajectory each, in terminals that know links."""
    rates = []
    for solved, rollouts, path in zip(flip.solved, flip.rollouts, flip.trajectories, strict=True):
        link = f"[link={Path(path).resolve().as_uri()}]" if path else ""
        rates.append(f"{link}{solved}/{rollouts}{'[/link]' if link else ''}")
    turn = ["-" if flip.step is None else str(flip.step + 1)] if parted else []
    return [*rates, percent(max(flip.p_worse, flip.p_better), 0), *turn]


def _how_to_read(flip: Flip) -> str:
    """The command that shows a trajectory of the first flip, where it lies in a run folder."""
    path = Path(flip.trajectories[1])
    if len(path.parents) < 4 or path.parents[2].name != "rollouts":
        return ""
    return escape(f"; read one: aem show {path.parents[3]} {flip.instance_id} --seed {path.parent.name}")


# --- the end --------------------------------------------------------------------------------------------------------


def _footer(comparison: Comparison, *, brief: bool) -> str:
    lines = [
        "these tasks: would a re-run agree?  like these: would new tasks agree? (run and task noise, by repository)"
    ]
    if any(arm.marked for arm in comparison.arms):
        lines.append("marked: resolved by a patch or a log with a grave integrity mark (audit.json of the run)")
    if any(arm.regraded for arm in comparison.arms):
        lines.append(
            "audited: resolved rollouts that were graded again with canaries, less those that tamper with tests"
        )
    if comparison.passes and not brief:
        lines.append("pass@k: one of k rollouts resolves the task; pass^k: all k do")
    if len(comparison.contrasts) > 1 or comparison.groups or comparison.metrics:
        lines.append(
            "alone: the p-value before Holm; an interval is of its row alone, and may exclude what Holm does not"
        )
    if _any_bound(comparison):
        lines.append("* from an upper bound of the run noise: one rollout a task, too few rollouts, or all alike")
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
