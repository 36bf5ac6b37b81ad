"""A comparison in the terminal: the answer first, then tables with their n, their seeds and their question."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from aem_harness.harness.compare.fitted import table_of
from aem_harness.harness.compare.records import QUESTIONS, ArmSummary, Comparison, Estimate, Flip, Interval, MetricRow
from aem_harness.harness.compare.verdicts import verdict_panel
from aem_harness.harness.compare.words import (
    BOUND,
    about_times,
    adjusted_p,
    amount,
    bracket,
    distinct,
    ends_words,
    grader_words,
    headline,
    interaction_lines,
    like_words,
    percent,
    points,
    reused_words,
    seeds_of,
    short,
    stacked,
    sureness,
    title_of,
    unit_of,
)
from aem_harness.harness.errors import listed

MANY = 4  # candidates that are all shown in breakdowns; of more, those that differ
SHOWN, WARNINGS = 12, 8  # flips and warnings in the terminal; all are in the JSON


def show(comparison: Comparison, console: Console, *, brief: bool = False) -> None:
    """Print the comparison: the verdict, its evidence and, unless `brief`, every breakdown."""
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
        out.append(
            Panel(
                lines,
                title="Warning: the arms differ in more than their weights",
                border_style="bold yellow",
                expand=False,
            )
        )
    out += [_arms(comparison), _contrasts(comparison)]
    if not brief:
        out += [*_passes(comparison), *_pass_differences(comparison)]
        out += [_parts(comparison, by) for by in dict.fromkeys(group.by for group in comparison.groups)]
    out += _interactions(comparison, brief=brief)
    if not brief:
        sections = dict.fromkeys(row.section for row in comparison.metrics if _varied(row))
        out += [_metrics(comparison, section) for section in sections]
        out += _flips(comparison)
    return [*out, _footer(comparison, brief=brief), Text(headline(comparison), "bold")]


# --- rates and differences ------------------------------------------------------------------------------------------


def _arms(comparison: Comparison) -> Table:
    level = f"{100 * comparison.level:.0f} %"
    names = ["tasks", "seeds", "lost", "%", f"{level} these tasks", f"{level} like these"]
    table = table_of("Resolved", "arm", names)
    for arm in comparison.arms:
        lost = "0" if not arm.missing else f"{arm.missing}/{arm.scored + arm.missing}"
        lost += f" ({arm.status})" if arm.missing and arm.status else ""
        cells = [str(arm.resolved.tasks), seeds_of(arm.resolved), lost, *_rate_cells(arm.resolved)]
        table.add_row(escape(arm.arm), *cells)
        for name, cells in _asides(arm, comparison.bands):
            table.add_row(f"[dim]  {name}[/]", "", "", "", *(f"[dim]{cell}[/]" for cell in cells))
    return table


def _rate_cells(rate: Estimate) -> list[str]:
    return [percent(rate.value), bracket(rate.these), bracket(rate.like)]


def _asides(arm: ArmSummary, bands: Mapping[str, tuple[float, float]]) -> list[tuple[str, list[str]]]:
    """Other rates of an arm, under its name."""
    out: list[tuple[str, list[str]]] = []
    if arm.retried:
        out.append((f"{arm.retried} retried after faults", []))
    if arm.missing:
        out.append(("lost ones failed / passed", ["", f"{percent(arm.official)} / {percent(arm.highest)}"]))
    if arm.arm in bands:
        low, high = bands[arm.arm]
        out.append(("all arms at once", ["", f"[{percent(low)}, {percent(high)}]"]))
    if arm.audited is not None:
        out.append((f"tampered: {arm.tampered} of {arm.regraded}", _rate_cells(arm.audited)))
    if arm.marked:
        out.append((f"adjusted: less {arm.marked} marked", _rate_cells(arm.unmarked)))
    return out


def _contrasts(comparison: Comparison) -> Table:
    level = f"{100 * comparison.level:.0f} %"
    many = len(comparison.contrasts) > 1
    counts = {contrast.difference.tasks for contrast in comparison.contrasts}
    names = [f"{level} these", f"{level} like", "p these", "p like", "up/down"]
    names = ["points", *names]
    same = {contrast.baseline for contrast in comparison.contrasts} == {comparison.baseline}
    title = "Difference in points" + (f" from {comparison.baseline}" if same else "") + ", paired by task"
    title += f" (n = {min(counts)})" if len(counts) == 1 else ""
    table = table_of(title + (", p adjusted (Holm)" if many else ""), "candidate" if same else "pair", names)
    for contrast in comparison.contrasts:
        delta = contrast.difference
        p = {t.question: adjusted_p(t.p, t.p_holm if many else None, comparison.level) for t in contrast.tests}
        table.add_row(
            escape(short(contrast.candidate, 24) if same and not contrast.label else title_of(contrast)),
            points(delta.value),
            bracket(delta.these, signed=True),
            bracket(delta.like, signed=True),
            *(p.get(question, "-") for question in QUESTIONS),
            f"{contrast.gained}/{contrast.lost}",
        )
    if len(counts) > 1:
        table.caption_justify = "left"
        table.caption = "tasks: " + escape(
            "; ".join(f"{title_of(one)} {one.difference.tasks}" for one in comparison.contrasts)
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


def _pass_differences(comparison: Comparison) -> list[Table]:
    if not comparison.pass_differences:
        return []
    columns = list(dict.fromkeys((one.kind, one.k) for one in comparison.pass_differences))
    heads = [f"pass{kind[-2]}{k}" for kind, k in columns]
    table = table_of("Difference of pass@k and pass^k in points, on these tasks", "pair", heads)
    for pair in dict.fromkeys((one.baseline, one.candidate) for one in comparison.pass_differences):
        found = {(o.kind, o.k): o.estimate for o in comparison.pass_differences if (o.baseline, o.candidate) == pair}
        cells = [
            f"{points(found[at].value)} {bracket(found[at].these, signed=True)}" if at in found else "-"
            for at in columns
        ]
        table.add_row(escape(f"{short(pair[1], 24)} - {short(pair[0], 24)}"), *cells)
    return [table]


def _interactions(comparison: Comparison, *, brief: bool) -> list[RenderableType]:
    """Whether the difference is another one in other parts: one line each; if `brief`, only what --cutoff asks."""
    lines = interaction_lines(comparison, asked=brief)
    if not lines:
        return []
    return ["[bold]Does the difference vary between parts of the tasks?[/]\n" + escape("\n".join(lines))]


# --- parts and metrics ----------------------------------------------------------------------------------------------


def _parts(comparison: Comparison, by: str) -> Table:
    groups = [group for group in comparison.groups if group.by == by]
    shown = {group.value: group.value for group in groups}
    if by == "repository" and len({value.split("/")[-1] for value in shown}) == len(shown):
        shown = {value: value.split("/")[-1] for value in shown}
    candidates = len(groups[0].differences)
    table = table_of(f"By {by}{_legend(candidates)}", by, ["tasks", *_heads(comparison, candidates, "%", "points")])
    for group in sorted(groups, key=lambda group: -group.tasks if by == "repository" else 0):
        rates = {arm: percent(rate.value) for arm, rate in group.rates.items()}
        changes = {
            arm: _change(
                points(delta.value), bracket(delta.these, signed=True), delta, group.p[arm], group.p_holm.get(arm)
            )
            for arm, delta in group.differences.items()
        }
        for name, cells in _rows(shown[group.value], rates, changes):
            table.add_row(name, str(group.tasks) if name else "", *cells)
    return table


def _metrics(comparison: Comparison, section: str) -> Table:
    rows = [row for row in comparison.metrics if row.section == section and _varied(row)]
    candidates = max((len(row.differences) for row in rows), default=0)
    most = max((one.tasks for row in rows for one in row.arms.values()), default=0)
    part = f" on the {most} shared tasks" if most < max(arm.resolved.tasks for arm in comparison.arms) else ""
    heads = _heads(comparison, candidates, "mean", "difference")
    table = table_of(section.capitalize() + part + _legend(candidates), "metric", heads)
    for row in rows:
        name = ", ".join(filter(None, (row.name, unit_of(row))))
        means = {arm: amount(one.value) for arm, one in row.arms.items()}
        if not row.differences:  # nothing to compare it with: its own interval then
            means = {arm: f"{mean} {_ends(row.arms[arm].these)}" for arm, mean in means.items()}
        changes = {}
        for arm, one in row.differences.items():
            value, ends = amount(one.value, signed=True), _ends(one.these, signed=True)
            changes[arm] = _change(value, ends, one, row.p[arm], row.p_holm.get(arm))
        for label, cells in _rows(name, means, changes):
            table.add_row(label, *cells)
    table.caption_justify = "left"
    table.caption = about_times(comparison, rows) or None
    return table


def _varied(row: MetricRow) -> bool:
    """A metric that is zero in every arm is not worth a line."""
    return any(one.value for one in row.arms.values())


def _heads(comparison: Comparison, candidates: int, mean: str, change: str) -> list[str]:
    """The columns beside the name: arms side by side for one candidate, below each other for more."""
    level = f"{100 * comparison.level:.0f} % these"
    if candidates == 0:
        return ["arm", mean]
    if candidates == 1:
        before, after = comparison.baseline, next(a.arm for a in comparison.arms if a.arm != comparison.baseline)
        unit = " %" * (mean == "%")
        return [stacked(before) + unit, stacked(after) + unit, change, level, "p"]
    return ["arm", mean, change, level, "p"]


def _rows(
    name: str, means: Mapping[str, str], changes: Mapping[str, tuple[list[str], bool]]
) -> Iterator[tuple[str, list[str]]]:
    """One line for a single candidate; else one per arm, of many candidates only those that differ after Holm."""
    if len(changes) == 1 and len(means) == 2:
        ((arm, (cells, _)),) = changes.items()
        others = [mean for other, mean in means.items() if other != arm]
        yield escape(name), [*others, means[arm], *cells]
        return
    first, names = True, distinct(list(means))
    for arm, mean in means.items():
        cells, differs = changes.get(arm, (["", "", ""] if changes else [], True))
        if differs or len(changes) <= MANY:
            yield escape(name) if first else "", [escape(names[arm]), mean, *cells]
            first = False


def _change(value: str, ends: str, delta: Estimate, p: float, holm: float | None) -> tuple[list[str], bool]:
    level = delta.these.level
    return [value, ends, adjusted_p(p, holm, level)], (p if holm is None else holm) <= 1 - level


def _legend(candidates: int) -> str:
    if candidates > MANY:
        return " (candidates that differ, p adjusted; all: --out, --json)"
    return " (p adjusted, Holm)" if candidates else ""


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
        count = f"{len(found)}, the surest first" if len(found) <= SHOWN else f"the surest {SHOWN} of {len(found)}"
        heading = f"Changed tasks, {title_of(contrast)}: {count}"
        parted = any(flip.step is not None for flip in found)
        table = table_of(
            heading, "task", ["before", "after", "probability, %", *(["differ from turn"] if parted else [])]
        )
        for flip in found[:SHOWN]:
            table.add_row(escape(flip.instance_id), *_flip_cells(flip, parted=parted))
        alone = "" if max(found[0].p_worse, found[0].p_better) > 0.5 else "; of no single task is that likely"
        lines = [f"probability: that the resolved rate truly changed{alone}", *_how_to_read(found[0])]
        out.append(Group(table, *(f"[dim]{line}[/dim]" for line in lines)))
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
    return [*rates, sureness(flip), *turn]


def _how_to_read(flip: Flip) -> list[str]:
    """The command that shows a trajectory of the first flip, where it lies in a run folder."""
    path = Path(flip.trajectories[1])
    if len(path.parents) < 4 or path.parents[2].name != "rollouts":
        return []
    return [escape(f"read one: aem show {path.parents[3]} {flip.instance_id} --seed {path.parent.name}")]


# --- the end --------------------------------------------------------------------------------------------------------


def _footer(comparison: Comparison, *, brief: bool) -> str:
    lines = [
        "these tasks: would a rerun agree?  like these: would new tasks agree? (run and task noise, by repository)"
    ]
    lines += like_words(comparison)
    if any(arm.marked for arm in comparison.arms):
        lines.append("marked: resolved by a patch or a log with a grave integrity mark (audit.json of the run)")
    if any(arm.regraded for arm in comparison.arms):
        lines.append(
            "tampered: of the resolved rollouts that were graded again with canaries; that row counts them as failures"
        )
    if comparison.passes and not brief:
        lines.append("pass@k: one of k rollouts resolves the task; pass^k: all k do")
    if len(comparison.contrasts) > 1 or (not brief and (comparison.groups or comparison.metrics)):
        lines.append(
            "alone: the p-value before Holm; an interval is of its row alone, and may exclude what Holm does not"
        )
    lines += [*reused_words(comparison), *comparison.sensitivity, *grader_words(comparison.grader)]
    lines += [comparison.registration] if comparison.registration else []
    lines += [f"whose fault an exit status is, {ends_words(comparison.ends)}"] if comparison.ends else []
    if _any_bound(comparison, brief=brief):
        lines.append(BOUND)
    for name in ("grader", "dataset", "scaffold"):
        values = {arm.versions.get(name) or "unknown" for arm in comparison.arms}
        lines.append(f"{name}: {' | '.join(sorted(values))}")
    lines.append(f"aem {comparison.versions.get('aem', '')}")
    return "[dim]" + escape("\n".join(lines)) + "[/dim]"


def _any_bound(comparison: Comparison, *, brief: bool) -> bool:
    """Whether a star is shown."""
    rates = (rate for arm in comparison.arms for rate in (arm.resolved, arm.audited, arm.unmarked))
    contrasts = [one for each in comparison.contrasts for one in (each, each.unmarked)]
    estimates = [rate for rate in rates if rate] + [one.difference for one in contrasts if one]
    if not brief:
        estimates += [one.estimate for one in comparison.pass_differences]
        estimates += [one for row in comparison.metrics if _varied(row) for one in row.differences.values()]
        estimates += [one for group in comparison.groups for one in group.differences.values()]
    return any(one.these.bound for one in estimates)
