"""`aem failures`: the failed rollouts of a run, grouped by cause, and their trajectories."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """
Examples:

  aem failures results/base-1a2b3c4d5e6f

  aem failures results/base-1a2b3c4d5e6f --cause "gave up" --read
"""


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(failures)


def failures(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    cause: Annotated[str, typer.Option("--cause", metavar="WORDS", help="Only causes that contain these words.")] = "",
    read: Annotated[bool, typer.Option("--read", help="Show the trajectories in the pager.")] = False,
    examples: Annotated[int, typer.Option(min=1, help="Examples per cause.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one entry per rollout.")] = False,
) -> None:
    """Why rollouts failed: wrong fix, broken tests, nothing handed in, malformed replies, infrastructure."""
    from rich.console import Console, Group

    from aem_harness.harness.report.failures import as_rows, chosen, failures_view
    from aem_harness.harness.report.failures import failures as find
    from aem_harness.harness.report.show import rollout_view
    from aem_harness.harness.run.listing import read_state

    shown = find(run)
    if cause:
        shown = chosen(shown, cause)
    console = Console()
    if as_json:
        typer.echo(json.dumps(as_rows(shown), indent=1))
    elif read:
        with console.pager(styles=True) if console.is_terminal else nullcontext():
            console.print(Group(*(rollout_view(run, one.instance_id, one.seed) for one in shown)))
    else:
        console.print(failures_view(run, shown, total=read_state(run).done, most=examples))
        if shown:
            console.print(f"read them: aem failures {run} --read", style="dim", highlight=False, soft_wrap=True)
