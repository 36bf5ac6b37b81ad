"""`aem import`: other people's results as a plain outcomes CSV."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """
Examples:

  aem import preds.json --arm gpt-5-mini --out gpt.csv

  aem import logs/run_evaluation/my-run/my-model --format swebench --arm mine --out mine.csv

  aem compare gpt.csv mine.csv
"""


def register(app: typer.Typer) -> None:
    app.command(name="import", epilog=EXAMPLES)(import_)


def import_(
    source: Annotated[Path, typer.Argument(help="File or folder to read.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="CSV file to write.")],
    format: Annotated[str, typer.Option("--format", help="Format of the source; `auto` looks at it.")] = "auto",
    arm: Annotated[str, typer.Option(help="Name of the arm where the source does not name it.")] = "",
) -> None:
    """Turn results of other tools into the outcomes CSV that `aem compare` reads."""
    from harness.compare.outcomes import import_outcomes, write_csv

    outcomes = import_outcomes(source, format=format, arm=arm)
    write_csv(outcomes.table, out)
    typer.echo(f"{out}: {len(outcomes.table)} rollouts, {len(outcomes.arms)} arm(s)")
