"""`aem doctor`: can this machine do a run, and if not, what is to be done."""

from typing import Annotated

import typer

from aem_harness.harness.errors import EXIT_INFRASTRUCTURE


def register(app: typer.Typer) -> None:
    app.command(epilog="Example: aem doctor --set verified --endpoint http://localhost:8000/v1")(doctor)


def doctor(
    dataset: Annotated[str, typer.Option("--set", help="The dataset you mean to run.")] = "sample",
    endpoint: Annotated[list[str] | None, typer.Option(help="A model endpoint to ask; may be repeated.")] = None,
) -> None:
    """Check engine, disk, grader, dataset and endpoints; every finding names its remedy."""
    from rich.console import Console

    from aem_harness.harness.doctor import examine

    console = Console()
    style = {"ok": "green", "warning": "yellow", "problem": "red"}
    worst = "ok"
    for finding in examine(dataset, tuple(endpoint or ())):
        console.print(
            f"[{style[finding.level]}]{finding.level:<8}[/] {finding.what:<9} {finding.detail}", highlight=False
        )
        if finding.remedy:
            console.print(f"         -> {finding.remedy}", highlight=False)
        worst = "problem" if "problem" in (worst, finding.level) else worst
    if worst == "problem":
        raise typer.Exit(EXIT_INFRASTRUCTURE)
