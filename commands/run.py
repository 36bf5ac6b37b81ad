"""`aem run`: rollouts and their grading; `aem show`: one trajectory in the terminal."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from aem_harness.commands import options
from aem_harness.commands.ending import conclude
from aem_harness.commands.options import Retry, grouped

RUN_EXAMPLES = """
Does this machine resolve every gold patch?

  aem run --agent gold --set sample

Four seeds of a served model, and of a registered checkpoint, on Verified:

  aem run --endpoint http://localhost:8000/v1 --set verified -k 4 -w 32

  aem run --checkpoint deepswe-aem@250 --set verified -k 4 -w 32

Every step of a series in turn, each into a run of its own:

  aem run --checkpoint deepswe-aem@50..250 --set verified -k 4 -w 32

More seeds for tasks whose outcome varies, as an earlier run showed:

  aem plan --history results/base --allocate seeds.csv --budget 2000

  aem run --checkpoint deepswe-aem@250 --set verified --allocation seeds.csv

Repeat the command to continue a run. --retry infra also repeats lost rollouts.
"""


def register(app: typer.Typer) -> None:
    app.command(epilog=RUN_EXAMPLES)(grouped(run))
    app.command(epilog="Example: aem show results/gold-1a2b3c4d5e6f django__django-11066 --seed 0")(show)


@dataclass
class Asked:
    """What is run."""

    agent: Annotated[
        str | None,
        typer.Option(
            metavar="AGENT",
            help="gold, empty, replay:NAME, bash, deepswe, command:PROGRAM, or module.path:attribute (default: bash).",
        ),
    ] = None
    dataset: Annotated[
        str | None,
        typer.Option(
            "--set",
            metavar="NAME|FILE",
            help=f"{options.SETS} (default: sample).",
        ),
    ] = None
    arm: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of this arm in comparisons (default: the agent).")
    ] = None
    seeds: options.Seeds = 1
    allocation: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="CSV file from `aem plan --allocate`: seeds per instance, instead of --seeds."
        ),
    ] = None
    out: options.Out = None
    config_file: options.ConfigFile = None
    overrides: options.Overrides = None
    retry: Annotated[Retry | None, typer.Option(help="Also repeat rollouts lost to infrastructure.")] = None


@dataclass
class Model:
    """The model that the agent asks."""

    PANEL: ClassVar[str] = "Model"

    endpoint: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="Base URL of an OpenAI-compatible server. Repeatable.")
    ] = None
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Model name at the endpoint (default: the only one there).")
    ] = None
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[@STEPS]",
            help="Registered checkpoint, or a series NAME@50..250. It is served for the run, unless --endpoint is.",
        ),
    ] = None
    registry: options.RegistryFolder = None
    retry_seconds: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=1,
            max=10**6,
            help="Time limit for one attempt of a model call; after it the call is tried once more (default: 1800).",
        ),
    ] = None


@dataclass
class Rechecking(options.Rechecking):
    """What is graded twice, and what is not."""

    reuse_verdicts: Annotated[
        bool, typer.Option("--reuse-verdicts", help="Grade equal patches of an instance once (docs/grading.md).")
    ] = False


@dataclass
class Pace:
    """How much at a time, and who may watch."""

    workers: options.Workers = 4
    grade_workers: options.GradeWorkers = 2
    metrics_port: options.MetricsPort = None


def run(
    asked: Asked,
    pace: Pace,
    selecting: options.Selecting,
    model: Model,
    rechecking: Rechecking,
    machines: options.Machines,
) -> None:
    """Run an agent on tasks, each rollout in a container, and grade the patches. Repeat it to continue."""
    from rich.console import Console

    from aem_harness.api.running import run as perform
    from aem_harness.api.serving import find
    from aem_harness.harness.errors import ConfigError

    console, checkpoint = Console(stderr=True), model.checkpoint
    names = [entry.card.name for entry in find(checkpoint, model.registry)] if checkpoint else [None]
    if len(names) > 1 and (asked.out or model.endpoint or asked.arm):
        raise ConfigError(
            f"{checkpoint} names {len(names)} checkpoints, and each has its own server and run folder: remove --out, "
            "--arm and --endpoint, or name one step"
        )
    if asked.allocation and asked.seeds > 1:
        raise ConfigError("--allocation sets the seeds of every instance: remove --seeds")
    code = 0
    for name in names:  # a step that loses rollouts does not stop the others
        finished = perform(
            asked.agent,
            asked.dataset,
            arm=asked.arm,
            seeds=asked.seeds,
            tasks=selecting.tasks(),
            out=asked.out,
            endpoint=model.endpoint or (),
            model=model.model,
            checkpoint=name,
            registry=model.registry,
            allocation=asked.allocation,
            workers=pace.workers,
            grade_workers=pace.grade_workers,
            retry_infrastructure=asked.retry is Retry.infra,
            retry_seconds=model.retry_seconds,
            canary=rechecking.share,
            reuse=rechecking.reuse(verdicts=rechecking.reuse_verdicts),
            where=machines.where(),
            metrics_port=pace.metrics_port,
            config=asked.config_file,
            overrides=asked.overrides or (),
            console=console,
        )
        code = conclude(finished, console) or code
    raise typer.Exit(code)


def show(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    instance: Annotated[str, typer.Argument(metavar="INSTANCE", help="Instance id, or a unique end of one.")],
    seed: Annotated[int, typer.Option(help="Seed of the rollout.")] = 0,
    gold: Annotated[bool, typer.Option("--gold", help="Also show the gold patch.")] = False,
) -> None:
    """Show a trajectory, its patch, its verdict and the output of the failing tests."""
    from rich.console import Console

    from aem_harness.harness.report.show import reference_patch, rollout_view

    console = Console()
    reference = reference_patch(folder, instance) if gold else None
    with console.pager(styles=True) if console.is_terminal else nullcontext():
        console.print(rollout_view(folder, instance, seed, reference))
