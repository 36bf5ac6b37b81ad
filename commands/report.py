"""`aem report`: a comparison as one HTML file."""

from pathlib import Path
from typing import Annotated

import typer

from aem_harness.commands.options import (
    AllPairs,
    Baseline,
    Calls,
    Common,
    Cutoff,
    Describe,
    EndsFile,
    Level,
    Margin,
    Series,
    Tax,
    names,
    warn,
)

EXAMPLES = """
Examples:

  aem report results/base results/aem --out report.html

  aem report results/base results/step-* --series --instances verified --out series.html

  aem report results --overview --out overview.html        all runs: rates over time, gates, cost by day

The file needs no server and no network. Trajectories are packed into it up to --embed, tasks that moved first; the
others are linked where they lie.
"""


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(report)


def report(
    arms: Annotated[list[str], typer.Argument(help="What `aem compare` takes; the first is the baseline.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The HTML file.")] = Path("report.html"),
    baseline: Baseline = None,
    series: Series = False,
    all_pairs: AllPairs = False,
    common: Common = False,
    level: Level = 0.95,
    margin: Margin = None,
    instances: Describe = None,
    calls: Calls = None,
    tax: Tax = None,
    cutoff: Cutoff = None,
    ends: EndsFile = None,
    embed: Annotated[float, typer.Option(min=0, help="Most megabytes of trajectories in the file.")] = 16.0,
    overview: Annotated[
        bool,
        typer.Option("--overview", help="One page over all runs below the given folders, instead of a comparison."),
    ] = False,
) -> None:
    """Write a report: verdict, tables, plots, every task and its trajectories, in one HTML file."""
    if overview:
        _overview([Path(arm) for arm in arms], out)
        return
    from aem_harness.harness.compare.compare import Options, compare
    from aem_harness.harness.compare.outcomes import describe_tasks, load
    from aem_harness.harness.ends import read_ends
    from aem_harness.harness.io import write_text
    from aem_harness.harness.report.html import build_report

    whose = read_ends(ends)
    outcomes = load(arms, whose)
    warn(outcomes.notes)
    if instances:
        outcomes = describe_tasks(outcomes, instances)
    options = Options(
        level=level,
        against="all" if all_pairs else "previous" if series else "baseline",
        common=common,
        margin=None if margin is None else margin / 100,
        calls=names(calls),
        tax=names(tax),
        cutoff=cutoff,
    )
    comparison = compare(outcomes, baseline, options=options).model_copy(update={"ends": whose.overrides})
    out.parent.mkdir(parents=True, exist_ok=True)
    page = build_report(comparison, outcomes, out, embed=int(embed * 1e6))
    write_text(out, page)
    typer.echo(f"{out} ({len(page.encode()) / 1e6:.1f} MB)")


def _overview(roots: list[Path], out: Path) -> None:
    from aem_harness.harness.io import write_text
    from aem_harness.harness.report.overview import build_overview

    page, problems = build_overview(roots)
    for problem in problems:
        typer.secho(f"warning: {problem}", fg="yellow", err=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, page)
    typer.echo(f"{out} ({len(page.encode()) / 1e3:.0f} kB)")
