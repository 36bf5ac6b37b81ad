"""`aem plan`: what a comparison will cost, before it is run."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from aem_harness.commands import options
from aem_harness.harness.errors import ConfigError, counted

if TYPE_CHECKING:
    from aem_harness.harness.compare.records import Plan

EXAMPLES = """
Seeds that detect +1.4 points; whether 4 seeds can show non-inferiority by 2 points, and at what cost:

  aem plan --difference 1.4

  aem plan --margin 2 --seeds 4 --workers 64 --gpus 8

Training runs per method, and rollouts of each:

  aem plan --difference 1.4 --run-sd 0.9 --training-hours 400

A plan that is fixed before there are outcomes, for --registered of `aem compare`, `aem table` and `aem gate`:

  aem plan --register plan.json --set verified --seeds 4 --arm base --arm aem

More seeds where outcomes vary:

  aem plan --history results/base --allocate seeds.csv --budget 2000
"""


class SurfaceName(StrEnum):
    deepswe, autocoderover, temperature_0 = "deepswe", "autocoderover", "temperature-0"


@dataclass
class Target:
    """What a comparison has to show, and with which error rates."""

    difference: Annotated[
        float | None, typer.Option(metavar="POINTS", min=0, max=100, help="Difference to detect.")
    ] = None
    margin: Annotated[
        float | None,
        typer.Option(metavar="POINTS", min=0, max=100, help="Margin within which to show non-inferiority."),
    ] = None
    tasks: Annotated[
        int | None, typer.Option(min=2, max=10**6, help="Number of tasks (default: that of the history, or 500).")
    ] = None
    seeds: Annotated[
        int | None, typer.Option("--seeds", "-k", min=1, help="Also show what this many seeds detect, and cost.")
    ] = None
    alpha: Annotated[float, typer.Option(metavar="RATE", min=0.0001, max=0.5, help="Two-sided error rate.")] = 0.05
    power: Annotated[
        float, typer.Option(metavar="SHARE", min=0.5, max=0.999, help="Power: the chance to detect it.")
    ] = 0.8


@dataclass
class Assumed:
    """What is taken for granted of the policies and the machines."""

    PANEL: ClassVar[str] = "Assumptions"

    surface: Annotated[
        SurfaceName,
        typer.Option(
            metavar="NAME",
            help="Published results whose variance components are assumed: deepswe, autocoderover or temperature-0.",
        ),
    ] = SurfaceName.deepswe
    history: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN|FILE", help="Estimate the components from these results instead. Repeatable."),
    ] = None
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="PERCENT", min=0.1, max=99.9, help="Expected resolve rate (default: that of the results)."
        ),
    ] = None
    noise: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", min=0, max=1, help="Run noise, as a share of p (1 - p) (default: that of the results)."
        ),
    ] = None
    seconds: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0, help="Wall-clock time per rollout (default: that of the results)."),
    ] = None
    workers: options.Workers = 16
    gpus: Annotated[float, typer.Option(min=0, help="GPUs in use, where the history has no GPU-seconds.")] = 1

    @property
    def known(self) -> dict[str, float]:
        """Components that are given, rather than those of the surface or the history."""
        given = {"rate": None if self.rate is None else self.rate / 100, "noise": self.noise, "seconds": self.seconds}
        return {name: value for name, value in given.items() if value is not None}


@dataclass
class Allocated:
    """Seeds where they are worth most."""

    PANEL: ClassVar[str] = "Seeds per task"

    allocate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a CSV file of seeds per task, from --history.")
    ] = None
    budget: Annotated[
        int | None, typer.Option(min=1, help="With --allocate: rollouts per arm (default: 4 per task).")
    ] = None
    at_least: Annotated[int, typer.Option(min=1, help="With --allocate: minimum number of seeds per task.")] = 1


@dataclass
class Methods:
    """Several training runs of each method."""

    PANEL: ClassVar[str] = "Training runs"

    run_sd: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            min=0,
            max=100,
            help="Plan a comparison of methods whose training runs vary by this standard deviation.",
        ),
    ] = None
    training_hours: Annotated[float, typer.Option(metavar="HOURS", min=0, help="GPU-hours per training run.")] = 0


@dataclass
class Registered:
    """A plan that is written down before there are outcomes."""

    PANEL: ClassVar[str] = "Preregistration"

    register_at: Annotated[
        Path | None,
        typer.Option("--register", metavar="FILE", help="Preregister: write the plan before there are outcomes."),
    ] = None
    dataset: Annotated[str | None, typer.Option("--set", metavar="NAME|FILE", help="With --register: task set.")] = None
    ids: options.Ids = None
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="With --register: task to leave out. Repeatable.")
    ] = None
    arm: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="With --register: arm, the baseline first. Repeatable.")
    ] = None
    order: Annotated[int | None, typer.Option(metavar="SEED", help="With --register: order seed of the gate.")] = None


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(options.grouped(plan))


def plan(
    target: Target,
    assumed: Assumed,
    allocated: Allocated,
    methods: Methods,
    registered: Registered,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw power against the difference as SVG.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Seeds, rollouts, tokens, time and disk for a target difference or margin."""
    from rich.console import Console

    from aem_harness.harness.compare.outcomes import load
    from aem_harness.harness.compare.plan_view import show_allocation
    from aem_harness.harness.compare.surface import write_allocation

    if registered.register_at is not None:
        _register(registered.register_at, registered, target)
        return
    if target.difference is None and target.margin is None and target.seeds is None and allocated.allocate is None:
        raise ConfigError("say what to plan for: --difference, --margin, --seeds or --allocate")
    if allocated.allocate is not None and not assumed.history:
        raise ConfigError("--allocate needs --history: which tasks vary is learnt from runs")
    planned = _planned(target, assumed)
    if methods.run_sd is not None:
        _plan_methods(planned, target, assumed, methods.run_sd, methods.training_hours, as_json=as_json)
        return
    if plot is not None:
        from aem_harness.harness.io import write_text
        from aem_harness.harness.report.power import power_svg

        write_text(plot, power_svg(planned))
        typer.echo(f"power curves: {plot}", err=True)
    if as_json:
        typer.echo(planned.model_dump_json(indent=1))
    else:
        _show(planned, target, assumed)
    if allocated.allocate is not None:
        table = load(assumed.history or ()).table
        shown = write_allocation(table, allocated.budget, allocated.at_least, allocated.allocate)
        show_allocation(shown, len(shown.seeds), Console(stderr=as_json))


def _planned(target: Target, assumed: Assumed) -> "Plan":
    from aem_harness.api.comparing import plan
    from aem_harness.harness.compare.surface import PUBLIC

    return plan(
        _share(target.difference),
        margin=_share(target.margin),
        tasks=target.tasks,
        seeds=target.seeds,
        alpha=target.alpha,
        power=target.power,
        components=PUBLIC[assumed.surface.value],
        history=assumed.history or (),
        known=assumed.known,
    )


def _show(planned: "Plan", target: Target, assumed: Assumed) -> None:
    """The plan, and the costs of the seeds that were asked for, else of those that the first target needs."""
    from rich.console import Console

    from aem_harness.harness.compare.plan import costs
    from aem_harness.harness.compare.plan_view import show_plan

    seeds = target.seeds or next((needed for needed in planned.needed.values() if needed), None)
    spent = None
    if seeds is not None:
        rollouts, workers, gpus = 2 * seeds * planned.tasks, assumed.workers, assumed.gpus
        spent = costs(planned.components, rollouts, workers=workers, gpus=gpus, tasks=planned.tasks)
    show_plan(planned, Console(), spent, assumed.workers)


def _plan_methods(
    planned: "Plan", target: Target, assumed: Assumed, run_sd: float, training_hours: float, *, as_json: bool
) -> None:
    from rich.console import Console

    from aem_harness.harness.compare.fitted import table_of
    from aem_harness.harness.compare.plan_runs import SEEDS, answer, plan_runs, rows
    from aem_harness.harness.compare.plan_view import assumption_line

    if target.difference is None:
        raise ConfigError("--run-sd plans for a difference between methods: add --difference POINTS")
    components = planned.components
    gpu_seconds = components.gpu_seconds or components.seconds * assumed.gpus / assumed.workers
    answers = plan_runs(
        components,
        tasks=planned.tasks,
        difference=target.difference / 100,
        run_sd=run_sd / 100,
        training_hours=training_hours,
        rollout_hours=gpu_seconds / 3600,
        alpha=target.alpha,
        power=target.power,
    )
    if as_json:
        typer.echo(answers.model_dump_json(indent=1))
        return
    console = Console()
    console.print(answer(answers), soft_wrap=True)
    console.print()
    table = table_of("Power, %, these tasks", "training runs per method", [f"K = {k}" for k in SEEDS])
    for row in rows(answers):
        table.add_row(*row)
    console.print(table)
    console.print(f"\n[dim]K: rollouts per task and training run. {assumption_line(components)}[/dim]", soft_wrap=True)


def _register(path: Path, asked: Registered, target: Target) -> None:
    from rich.console import Console

    from aem_harness import __version__
    from aem_harness.api.running import Tasks, choose
    from aem_harness.harness.compare.registration import Registration, now, register

    if asked.dataset is None or target.seeds is None:
        raise ConfigError("--register fixes tasks and seeds: give --set and --seeds")
    selection = choose(asked.dataset, Console(stderr=True), Tasks(ids=asked.ids or ()))
    plan = Registration(
        tasks=tuple(sorted(task.instance_id for task in selection.tasks)),
        excluded=tuple(asked.exclude or ()),
        arms=tuple(asked.arm or ()),
        seeds=target.seeds,
        level=round(1 - target.alpha, 10),
        margin=_share(target.margin),
        difference=_share(target.difference),
        order=asked.order,
        dataset=f"{selection.loaded.name} {selection.loaded.digest[:12]}",
        aem=__version__,
        created_at=now(),
    )
    fixed = register(path, plan)
    size = f"{counted(len(fixed.tasks), 'task')}, {counted(fixed.seeds, 'seed')}"
    typer.echo(f"{path}: {size}, registered as {fixed.digest[:12]}")


def _share(points: float | None) -> float | None:
    return None if points is None else points / 100
