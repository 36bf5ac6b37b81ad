"""`aem import`: other people's results as a plain outcomes CSV."""

from pathlib import Path
from typing import Annotated

import typer

from aem_harness.commands.options import EndsFile, warn

EXAMPLES = """
Examples:

  aem import runs/gpt-5-mini --reports gpt-5-mini.my-run.json --arm gpt-5-mini --out gpt.csv

  aem import logs/run_evaluation/my-run/my-model --format swebench --arm mine --out mine.csv

  aem compare gpt.csv mine.csv

  aem import runs.csv --columns instance=task,arm=study+model,seed=run --out runs-as-outcomes.csv

Formats: auto, run (our own), csv, leaderboard, inspect, harbor, nemo, openhands, mini-swe-agent, swe-agent, swebench.
"""


def register(app: typer.Typer) -> None:
    app.command(name="import", epilog=EXAMPLES)(import_)


def import_(
    source: Annotated[Path, typer.Argument(help="File or folder to read.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="CSV file to write.")],
    format: Annotated[str, typer.Option("--format", help="Format of the source; `auto` looks at it.")] = "auto",
    arm: Annotated[str, typer.Option(help="Name of the arm where the source does not name it.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Which seed this is, where the source does not say.")] = 0,
    reports: Annotated[Path | None, typer.Option(help="Official report or folder of logs with the verdicts.")] = None,
    columns: Annotated[
        str | None, typer.Option(help="CSV with other column names: OURS=THEIRS,...; A+B joins two columns.")
    ] = None,
    ends: EndsFile = None,
) -> None:
    """Turn results of other tools into the outcomes CSV that `aem compare` reads."""
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
        f"{out}: {len(outcomes.table)} rollouts, {len(outcomes.arms)} arm(s)"
        + f", {lost} without a verdict" * bool(lost)
    )
