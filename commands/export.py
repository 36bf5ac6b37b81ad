"""`aem export`: a run in the formats of other viewers, leaderboards and trainers."""

from pathlib import Path
from typing import Annotated

import typer

from aem_harness.harness.errors import counted

EXAMPLES = """
Examples:

  aem export results/base-1a2b3c4d5e6f --to inspect --out base.eval

  aem export results/base --to swebench-experiments --seed 0 --out 20261129_me

  aem export results/base-1a2b3c4d5e6f --to sft --out rollouts.jsonl

Formats: inspect (.eval), atif (Harbor), swebench-experiments (a leaderboard submission), mini (mini-swe-agent),
hf-dataset (Parquet and a card), sft (messages with rewards), csv, parquet. mini-swe-agent's inspector opens the
trajectories of a run directly.
"""


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(export)


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="Format; see below.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE|FOLDER", help="File or folder to write, by the format.")
    ],
    seed: Annotated[int | None, typer.Option(min=0, help="Only this seed of every task.")] = None,
) -> None:
    """Write a run for another tool: Inspect, Harbor, the SWE-bench leaderboard, mini-swe-agent, trainers, tables."""
    from aem_harness.harness.export import export as write

    written = write(run, to, out, seed)
    typer.echo(f"{out}: {counted(written.rollouts, 'rollout')}")
    if written.left_out:
        typer.echo(f"left out: {counted(written.left_out, 'rollout')} {written.why}", err=True)
