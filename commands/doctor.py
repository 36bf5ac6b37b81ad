"""`aem doctor`: can this machine do a run, and if not, what is to be done."""

from itertools import chain
from typing import Annotated

import typer

from aem_harness.commands.options import ConfigFile, Overrides
from aem_harness.harness.errors import EXIT_INFRASTRUCTURE


def register(app: typer.Typer) -> None:
    app.command(epilog="Example: aem doctor --set verified --endpoint http://localhost:8000/v1")(doctor)


def doctor(
    dataset: Annotated[str, typer.Option("--set", help="The dataset you mean to run.")] = "sample",
    endpoint: Annotated[list[str] | None, typer.Option(help="A model endpoint to ask; may be repeated.")] = None,
    model: Annotated[str | None, typer.Option(help="The model you mean, where an endpoint serves several.")] = None,
    config_file: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Check engine, disk, grader, dataset and endpoints; every finding names its remedy.

    With the settings of the run you mean (--config, -c sampling.max_tokens=N), an endpoint's context is held against
    them.
    """
    from rich.console import Console

    from aem_harness.agents.endpoint_check import look_at_endpoint
    from aem_harness.harness.config import RunConfig
    from aem_harness.harness.doctor import examine

    sampling = RunConfig.load(config_file, overrides or ()).sampling
    asked = [look_at_endpoint(url, model or "", sampling) for url in endpoint or ()]
    console = Console()
    style = {"ok": "green", "warning": "yellow", "problem": "red"}
    worst = "ok"
    for finding in chain(examine(dataset), *asked):
        console.print(
            f"[{style[finding.level]}]{finding.level:<8}[/] {finding.what:<9} {finding.detail}", highlight=False
        )
        if finding.remedy:
            console.print(f"         -> {finding.remedy}", highlight=False)
        worst = "problem" if "problem" in (worst, finding.level) else worst
    if worst == "problem":
        raise typer.Exit(EXIT_INFRASTRUCTURE)
