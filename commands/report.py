"""`aem report`: a comparison as one HTML file."""

from pathlib import Path
from typing import Annotated

import typer

from aem_harness.commands.lean import import_pandas
from aem_harness.commands.options import Comparing, grouped, warn

EXAMPLES = """
A comparison; checkpoints of one training, each against the one before:

  aem report results/base results/aem --out report.html

  aem report results/base results/step-* --series --out series.html

All runs: rates over time, gates, cost by day:

  aem report results --overview --out overview.html

The file needs no server and no network. Trajectories are packed into it up to --embed, those of changed tasks
first; the others are links to the run folders.
"""


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(grouped(report))


def report(
    arms: Annotated[list[str], typer.Argument(help="What `aem compare` takes; the first is the baseline.")],
    how: Comparing,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="HTML file to write.")] = Path("report.html"),
    embed: Annotated[
        float, typer.Option(metavar="MB", min=0, help="Maximum size of the trajectories in the file.")
    ] = 16.0,
    overview: Annotated[
        bool,
        typer.Option("--overview", help="Instead of a comparison: one page on all runs below the given folders."),
    ] = False,
) -> None:
    """Write a report: verdict, tables, plots, every task and its trajectories, in one HTML file."""
    if overview:
        _overview([Path(arm) for arm in arms], out)
        return
    if not how.instances:
        import_pandas()
    from aem_harness.harness.compare.compare import compare
    from aem_harness.harness.compare.outcomes import describe_tasks, load
    from aem_harness.harness.ends import read_ends
    from aem_harness.harness.io import write_text
    from aem_harness.harness.report.html import build_report

    whose = read_ends(how.ends)
    outcomes = load(arms, whose)
    warn(outcomes.notes)
    if how.instances:
        outcomes = describe_tasks(outcomes, how.instances)
    comparison = compare(outcomes, how.baseline, options=how.options()).model_copy(update={"ends": whose.overrides})
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
