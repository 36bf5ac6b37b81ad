"""A comparison of methods over their training runs in the terminal: the answer, the runs, their variation."""

from collections.abc import Iterator

from rich.console import Console, Group
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from aem_harness.harness.compare.fitted import table_of
from aem_harness.harness.compare.records import RunComparison, RunContrast
from aem_harness.harness.compare.verdicts import COLOURS
from aem_harness.harness.compare.words import BOUND, adjusted_p, bracket, p_words, percent, points


def show_runs(comparison: RunComparison, console: Console) -> None:
    """Print it; every number says of how many training runs it is."""
    lines = [line for one in comparison.contrasts for line in _contrast(comparison, one)]
    console.print(Panel(Group(*lines), title="Verdict on methods", title_align="left", expand=False))
    console.print()
    for block in (_runs(comparison), _components(comparison), _contrasts(comparison)):
        console.print(block)
        console.print()
    for line in _legend(comparison):
        console.print(f"[dim]{escape(line)}[/dim]", soft_wrap=True)


def _contrast(comparison: RunComparison, one: RunContrast) -> Iterator[Text]:
    runs = f"{one.runs[0]} + {one.runs[1]} training runs"
    yield Text(f"{one.candidate} - {one.baseline}: {points(one.difference)} points over {runs}", "bold")
    line = Text(f"  other training runs, these tasks, {100 * comparison.level:g} % {bracket(one.these, signed=True)}: ")
    line.append(one.decision.verdict, style=COLOURS.get(one.decision.verdict, "yellow"))
    yield line.append(f" ({one.decision.reason})")
    if one.bounds is not None:
        ends = f"[{100 * one.bounds.low:+z.1f}, {100 * one.bounds.high:+z.1f}]"
        yield Text(
            f"  whatever the missing rollouts were: {ends}, {one.bounds.verdict_low} to {one.bounds.verdict_high}"
        )
    exact = f"  permuting the runs: {p_words(one.p_permutation)}"
    never = 1 - comparison.level < one.least_p
    yield Text(exact + (f", and never less than {one.least_p:.2g} with so few runs" if never else ""))
    pooled = comparison.pooled[one.candidate]
    yield Text(
        f"  these checkpoints alone, rollouts pooled: {bracket(pooled.difference.these, signed=True)}, "
        f"{pooled.decision.verdict}: no evidence on another training run"
    )


def _runs(comparison: RunComparison) -> Table:
    table = table_of(f"Training runs on {comparison.tasks} tasks", "method", ["run", "rollouts", "resolved, %"])
    for method in comparison.methods:
        for number, run in enumerate(method.runs):
            name = escape(method.method) if not number else ""
            table.add_row(name, escape(run.name), str(run.rollouts), percent(run.rate))
    return table


def _components(comparison: RunComparison) -> Table:
    names = ["runs", "mean, %", "sd between runs", "sd of a rerun", "sd of tasks"]
    table = table_of("What makes the rates vary, points", "method", names)
    for one in comparison.methods:
        between = "-"
        if one.sd_run is not None and one.sd_run_ends is not None:
            low, high = one.sd_run_ends
            between = f"{percent(one.sd_run, 2)} [{percent(low, 2)}, {percent(high, 2)}]"
        rerun = "-" if one.sd_rerun is None else percent(one.sd_rerun, 2)
        cells = [str(len(one.runs)), percent(one.rate), between, rerun, percent(one.sd_task)]
        table.add_row(escape(one.method), *cells)
    return table


def _contrasts(comparison: RunComparison) -> Table:
    level = f"{100 * comparison.level:g} %"
    names = ["runs", "points", f"{level} these tasks", f"{level} like these", "p (t)", "p perm."]
    table = table_of(f"Difference in points from {comparison.baseline}, over training runs", "method", names)
    for one in comparison.contrasts:
        many = one.p_holm if len(comparison.contrasts) > 1 else None
        cells = [f"{one.runs[0]} + {one.runs[1]}", points(one.difference), bracket(one.these, signed=True)]
        cells += [bracket(one.like, signed=True), adjusted_p(one.p, many, comparison.level)]
        table.add_row(escape(one.candidate), *cells, f"{one.p_permutation:.2g}")
    return table


def _legend(comparison: RunComparison) -> Iterator[str]:
    yield "sd between runs: of training runs' true rates, with its interval; of a rerun: of one run's rate"
    yield "like these: other training runs on new tasks; p perm.: exact, over all permutations of the runs"
    if any(one.sd_rerun is None for one in comparison.methods):
        yield "-: one rollout per task cannot show what a rerun changes; the other columns include it"
    if any(one.difference.these.bound for one in comparison.pooled.values()):
        yield BOUND
    if comparison.left_out:
        yield f"{comparison.left_out} tasks lack a verdict in some run and are left out of all"
    if comparison.missing:
        yield f"{comparison.missing} rollouts have no verdict and are left out; the bounds are with them at their worst"
