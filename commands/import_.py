"""`aem import`: results of other tools as an outcomes CSV file."""

from pathlib import Path
from typing import Annotated

import typer

from aem_harness.commands.options import EndsFile, warn
from aem_harness.harness.errors import counted

EXAMPLES = """
Trajectories with an official report, and a folder of official logs:

  aem import runs/gpt-5-mini --reports gpt-5-mini.my-run.json --out gpt.csv

  aem import logs/run_evaluation/my-run/my-model --arm mine --out mine.csv

  aem compare gpt.csv mine.csv

A CSV file with columns of its own:

  aem import runs.csv --columns instance=task,arm=study+model --out ours.csv

Formats: auto (by content), run (a run folder of aem), csv, leaderboard, inspect, harbor, nemo, openhands,
mini-swe-agent, swe-agent, swebench.
"""


def register(app: typer.Typer) -> None:
    app.command(name="import", epilog=EXAMPLES)(import_)


def import_(
    source: Annotated[Path, typer.Argument(help="File or folder to read.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="CSV file to write.")],
    format: Annotated[str, typer.Option("--format", metavar="NAME", help="Format of the source; see below.")] = "auto",
    arm: Annotated[str, typer.Option(metavar="NAME", help="Name of the arm, where the source has none.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the rollouts, where the source has none.")] = 0,
    reports: Annotated[
        Path | None, typer.Option(metavar="FILE|FOLDER", help="Official report, or folder of logs, with the verdicts.")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="OURS=THEIRS,...", help="Column names of a CSV source; A+B joins two columns."),
    ] = None,
    ends: EndsFile = None,
) -> None:
    """Convert results of other tools into an outcomes CSV file for `aem compare`."""
    from aem_harness.harness.compare.columns import parse_columns
    from aem_harness.harness.compare.outcomes import import_outcomes, write_csv
    from aem_harness.harness.ends import read_ends

    outcomes = import_outcomes(
        source,
        format=format,
        arm=arm,
        seed=seed,
        reports=reports,
        columns=parse_columns(columns) if columns else None,
        ends=read_ends(ends),
    )
    write_csv(outcomes.table, out)
    warn(outcomes.notes)
    lost = int(outcomes.table["resolved"].isna().sum())
    typer.echo(
        f"{out}: {counted(len(outcomes.table), 'rollout')}, {counted(len(outcomes.arms), 'arm')}"
        + f", {lost} without a verdict" * bool(lost)
    )
