"""`aem plan`: what a comparison will cost, before it is run."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aem_harness.commands import options
from aem_harness.harness.errors import counted

if TYPE_CHECKING:
    from aem_harness.harness.compare.records import Components

EXAMPLES = """
Examples:

  aem plan --difference 1.4                                seeds that detect +1.4 points

  aem plan --margin 2 --seeds 4 --workers 64 --gpus 8      can 4 seeds show non-inferiority, at what cost

  aem plan --difference 1.4 --run-sd 0.9 --training-hours 400     training runs per method, and rollouts of each

  aem plan --register plan.json --set verified --seeds 4 --margin 2 --arm base --arm aem      then: compare --registered

  aem plan --history results/base --difference 3 --allocate seeds.csv --budget 2000
"""


class Surface(StrEnum):
    deepswe, autocoderover, temperature_0 = "deepswe", "autocoderover", "temperature-0"


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(plan)


def plan(
    difference: Annotated[float | None, typer.Option(metavar="POINTS", min=0, help="Difference to detect.")] = None,
    margin: Annotated[
        float | None, typer.Option(metavar="POINTS", min=0, help="Margin within which to show non-inferiority.")
    ] = None,
    tasks: Annotated[
        int | None, typer.Option(min=2, help="Number of tasks (default: that of the history, or 500).")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Also show what this many seeds detect, and cost.")] = None,
    alpha: Annotated[float, typer.Option(metavar="RATE", min=0.0001, max=0.5, help="Two-sided error rate.")] = 0.05,
    power: Annotated[
        float, typer.Option(metavar="SHARE", min=0.5, max=0.999, help="Power: the chance to detect it.")
    ] = 0.8,
    surface: Annotated[
        Surface, typer.Option(help="Published results whose variance components are assumed.")
    ] = Surface.deepswe,
    history: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN|FILE", help="Estimate the components from these results instead. Repeatable."),
    ] = None,
    rate: Annotated[float | None, typer.Option(metavar="PERCENT", min=0.1, max=99.9, help="Expected rate.")] = None,
    noise: Annotated[
        float | None, typer.Option(metavar="SHARE", min=0, max=1, help="Run noise, as a share of p (1 - p).")
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=0, help="Wall-clock seconds per rollout.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Rollouts in parallel.")] = 16,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs in use, where the history has no GPU-seconds.")] = 1,
    allocate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a CSV file of seeds per task, from --history.")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, help="With --allocate: rollouts per arm (default: 4 per task).")
    ] = None,
    at_least: Annotated[int, typer.Option(min=1, help="With --allocate: minimum of seeds per task.")] = 1,
    run_sd: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            min=0,
            help="Plan a comparison of methods whose training runs vary by this standard deviation.",
        ),
    ] = None,
    training_hours: Annotated[float, typer.Option(min=0, help="GPU-hours per training run.")] = 0,
    register_at: Annotated[
        Path | None,
        typer.Option("--register", metavar="FILE", help="Preregister: write the plan before there are outcomes."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--set", metavar="NAME|FILE", help="With --register: task set.")
    ] = None,
    ids: options.Ids = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="With --register: task to leave out. Repeatable.")
    ] = None,
    arm: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="With --register: arm, the baseline first. Repeatable.")
    ] = None,
    order: Annotated[int | None, typer.Option(metavar="SEED", help="With --register: order seed of the gate.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw power against the difference as SVG.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Seeds, rollouts, tokens, time and disk for a target difference or margin."""
    from rich.console import Console

    from aem_harness.api.comparing import plan as make
    from aem_harness.harness.compare.outcomes import load
    from aem_harness.harness.compare.plan import costs
    from aem_harness.harness.compare.plan_view import show_allocation, show_plan
    from aem_harness.harness.compare.surface import PUBLIC, write_allocation
    from aem_harness.harness.errors import ConfigError

    if register_at is not None:
        _register(register_at, dataset, ids, exclude or [], arm or [], seeds, alpha, margin, difference, order)
        return
    if difference is None and margin is None and seeds is None and allocate is None:
        raise ConfigError("say what to plan for: --difference, --margin, --seeds or --allocate")
    if allocate is not None and not history:
        raise ConfigError("--allocate needs --history: which tasks vary is learnt from runs")
    given = {"rate": None if rate is None else rate / 100, "noise": noise, "seconds": seconds}
    planned = make(
        None if difference is None else difference / 100,
        margin=None if margin is None else margin / 100,
        tasks=tasks,
        seeds=seeds,
        alpha=alpha,
        power=power,
        components=PUBLIC[surface.value],
        history=history or (),
        known={name: value for name, value in given.items() if value is not None},
    )
    if run_sd is not None:
        each = planned.components.gpu_seconds or planned.components.seconds * gpus / workers
        hours = (training_hours, each / 3600)
        _plan_methods(planned.components, planned.tasks, difference, run_sd, hours, (alpha, power), as_json=as_json)
        return
    if plot is not None:
        from aem_harness.harness.io import write_text
        from aem_harness.harness.report.power import power_svg

        write_text(plot, power_svg(planned))
        typer.echo(f"power curves: {plot}", err=True)
    priced = seeds or next((needed for needed in planned.needed.values() if needed), None)
    rollouts = 2 * (priced or 0) * planned.tasks
    spent = costs(planned.components, rollouts, workers=workers, gpus=gpus, tasks=planned.tasks) if priced else None
    console = Console()
    if as_json:
        typer.echo(planned.model_dump_json(indent=1))
    else:
        show_plan(planned, console, spent, workers)
    if allocate is not None:
        shown = write_allocation(load(history or ()).table, budget, at_least, allocate)
        show_allocation(shown, len(shown.seeds), Console(stderr=as_json))


def _plan_methods(
    components: "Components",
    tasks: int,
    difference: float | None,
    run_sd: float,
    hours: tuple[float, float],
    errors: tuple[float, float],
    *,
    as_json: bool,
) -> None:
    from rich.console import Console

    from aem_harness.harness.compare.plan_runs import SEEDS, answer, plan_runs, rows
    from aem_harness.harness.compare.plan_view import assumption_line
    from aem_harness.harness.compare.terminal import table_of
    from aem_harness.harness.errors import ConfigError

    if difference is None:
        raise ConfigError("--run-sd plans for a difference between methods: add --difference POINTS")
    answers = plan_runs(
        components,
        tasks=tasks,
        difference=difference / 100,
        run_sd=run_sd / 100,
        training_hours=hours[0],
        rollout_hours=hours[1],
        alpha=errors[0],
        power=errors[1],
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


def _register(
    path: Path,
    dataset: str | None,
    ids: list[str] | None,
    exclude: list[str],
    arms: list[str],
    seeds: int | None,
    alpha: float,
    margin: float | None,
    difference: float | None,
    order: int | None,
) -> None:
    from rich.console import Console

    from aem_harness import __version__
    from aem_harness.api.running import Tasks, choose
    from aem_harness.harness.compare.registration import Registration, now, register
    from aem_harness.harness.errors import ConfigError

    if dataset is None or seeds is None:
        raise ConfigError("--register fixes tasks and seeds: give --set and --seeds")
    selection = choose(dataset, Console(stderr=True), Tasks(ids=ids or ()))
    plan = Registration(
        tasks=tuple(sorted(task.instance_id for task in selection.tasks)),
        excluded=tuple(exclude),
        arms=tuple(arms),
        seeds=seeds,
        level=round(1 - alpha, 10),
        margin=None if margin is None else margin / 100,
        difference=None if difference is None else difference / 100,
        order=order,
        dataset=f"{selection.loaded.name} {selection.loaded.digest[:12]}",
        aem=__version__,
        created_at=now(),
    )
    fixed = register(path, plan)
    size = f"{counted(len(fixed.tasks), 'task')}, {counted(fixed.seeds, 'seed')}"
    typer.echo(f"{path}: {size}, registered as {fixed.digest[:12]}")
