"""A comparison as rich tables: every cell says its n, its seeds and which question its interval answers."""

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from harness.compare.records import ArmSummary, Comparison, Contrast, Estimate, Interval


def show(comparison: Comparison, console: Console) -> None:
    """Print the whole comparison."""
    for warning in comparison.warnings:
        console.print(Panel(warning, title="NOT COMPARABLE AS IT STANDS", style="bold yellow", title_align="left"))
    console.print(_arms(comparison))
    console.print(_contrasts(comparison))
    for contrast in comparison.contrasts:
        console.print(_verdict(contrast))
    console.print(_footer(comparison))


def percent(fraction: float, digits: int = 1) -> str:
    """0.342 -> `34.2`."""
    return f"{100 * fraction:.{digits}f}"


def points(fraction: float) -> str:
    """0.014 -> `+1.4`."""
    return f"{100 * fraction:+.1f}"


def seeds_of(estimate: Estimate) -> str:
    """Rollouts a task: `4`, or `3-4` where they are not equal."""
    fewest, most = estimate.seeds
    return str(most) if fewest == most else f"{fewest}-{most}"


def _bracket(interval: Interval | None, *, signed: bool = False) -> str:
    if interval is None:
        return "-"
    write = points if signed else percent
    return f"[{write(interval.low)}, {write(interval.high)}]" + ("*" if interval.bound else "")


def _arms(comparison: Comparison) -> Table:
    level = f"{100 * comparison.level:.0f} %"
    table = Table(title="Resolved", title_justify="left", caption_justify="left")
    for name in ("arm", "tasks", "seeds", "no verdict"):
        table.add_column(name, justify="left" if name == "arm" else "right")
    table.add_column("resolved %", justify="right")
    table.add_column(f"{level}, these tasks", justify="right")
    table.add_column(f"{level}, tasks like these", justify="right")
    for arm in comparison.arms:
        table.add_row(*_arm_cells(arm))
    return table


def _arm_cells(arm: ArmSummary) -> list[str]:
    rate = arm.resolved
    missing = f"{arm.missing} of {arm.rollouts}" if arm.missing else "0"
    cells = [arm.arm, str(rate.tasks), seeds_of(rate), missing, percent(rate.value)]
    return [*cells, _bracket(rate.these), _bracket(rate.like)]


def _contrasts(comparison: Comparison) -> Table:
    level = f"{100 * comparison.level:.0f} %"
    table = Table(title="Difference in points, paired by task", title_justify="left")
    table.add_column("candidate - baseline")
    for name in (
        "tasks",
        "points",
        f"{level}, these tasks",
        f"{level}, tasks like these",
        "p these",
        "p like",
        "up/down",
    ):
        table.add_column(name, justify="right")
    for contrast in comparison.contrasts:
        delta = contrast.difference
        p = {test.question: f"{test.p:.2g}" for test in contrast.tests}
        table.add_row(
            f"{contrast.candidate} - {contrast.baseline}",
            str(delta.tasks),
            points(delta.value),
            _bracket(delta.these, signed=True),
            _bracket(delta.like, signed=True),
            p["these tasks"],
            p.get("tasks like these", "-"),
            f"{contrast.gained}/{contrast.lost}",
        )
    return table


def _verdict(contrast: Contrast) -> str:
    decision = contrast.decision
    colour = {"better": "green", "worse": "red"}.get(decision.verdict, "yellow")
    return f"[{colour}]{contrast.candidate} against {contrast.baseline}: {decision.verdict}[/] ({decision.reason})"


def _footer(comparison: Comparison) -> str:
    lines = []
    if any(arm.resolved.these.bound for arm in comparison.arms):
        lines.append("* upper bound: with one rollout a task, run noise cannot be told from the spread between tasks")
    lines.append("these tasks: would a re-run agree? tasks like these: would new ones (clustered by repository)?")
    for name in ("grader", "dataset", "scaffold"):
        values = {arm.versions.get(name) or "unknown" for arm in comparison.arms}
        lines.append(f"{name}: {' | '.join(sorted(values))}")
    lines.append("aem " + str(comparison.versions.get("aem", "")))
    return "[dim]" + "\n".join(lines) + "[/dim]"
