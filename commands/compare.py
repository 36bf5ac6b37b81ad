"""`aem compare`: two or many arms, side by side, with honest intervals."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """
Examples:

  aem compare results/base results/aem                     two run folders, the first is the baseline

  aem compare results/base results/step-{100,200,300}      a series

  aem compare base=other.csv:gpt results/aem --json        an arm of a CSV file under another name, as JSON
"""


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(compare)


def compare(
    arms: Annotated[
        list[str], typer.Argument(help="Run folders, CSV files, or what `aem import` reads; FILE:ARM picks.")
    ],
    baseline: Annotated[
        str | None, typer.Option(help="Arm that the others are compared with (default: the first).")
    ] = None,
    level: Annotated[float, typer.Option(min=0.5, max=0.999, help="Confidence level of the intervals.")] = 0.95,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole comparison as JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print one line a contrast as CSV.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Also write JSON, CSV and text into this folder.")
    ] = None,
) -> None:
    """Compare arms: resolved rates and paired differences, for these tasks and for tasks like these."""
    from rich.console import Console

    from harness.compare import export, terminal
    from harness.compare.compare import compare as run
    from harness.compare.outcomes import load

    comparison = run(load(arms), baseline, level=level)
    if as_json:
        typer.echo(comparison.model_dump_json(indent=1))
    elif as_csv:
        typer.echo(export.to_csv(comparison), nl=False)
    else:
        terminal.show(comparison, Console())
    if out:
        export.write_folder(comparison, out)
