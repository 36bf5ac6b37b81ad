"""`aem doctor`: checks whether this machine can do a run, and names a remedy for each problem."""

from itertools import chain
from typing import Annotated

import typer

from aem_harness.commands.options import ConfigFile, Overrides, Sites, grouped
from aem_harness.harness.errors import EXIT_INFRASTRUCTURE


def register(app: typer.Typer) -> None:
    app.command(epilog="Example: aem doctor --set verified --endpoint http://localhost:8000/v1")(grouped(doctor))


def doctor(
    dataset: Annotated[
        str, typer.Option("--set", metavar="NAME|FILE", help="Task set of the intended run.")
    ] = "sample",
    endpoint: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="Model server to check. Repeatable.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Model name, if the server has several.")] = None,
    config_file: ConfigFile = None,
    overrides: Overrides = None,
    *,
    sites: Sites,
) -> None:
    """Check engine, disk, grader, dataset and endpoints, and name a remedy for each problem.

    Give the settings of the intended run (--config, -c sampling.max_tokens=N) to check an endpoint's context length
    against them.
    """
    from rich.console import Console

    from aem_harness.agents.endpoint_check import look_at_endpoint
    from aem_harness.api.sites import examinations
    from aem_harness.harness.config import RunConfig

    sampling = RunConfig.load(config_file, overrides or ()).sampling
    asked = chain.from_iterable(look_at_endpoint(url, model or "", sampling) for url in endpoint or ())
    console = Console()
    style = {"ok": "green", "warning": "yellow", "problem": "red"}
    worst = "ok"
    for finding in chain(examinations(sites.where(), dataset), asked):
        console.print(
            f"[{style[finding.level]}]{finding.level:<8}[/] {finding.what:<9} {finding.detail}",
            highlight=False,
            soft_wrap=True,
        )
        if finding.remedy:
            console.print(f"         -> {finding.remedy}", highlight=False, soft_wrap=True)
        worst = "problem" if "problem" in (worst, finding.level) else worst
    if worst == "problem":
        raise typer.Exit(EXIT_INFRASTRUCTURE)
