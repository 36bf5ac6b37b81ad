"""Before training: how many training runs per method, and rollouts of each, show a difference between methods."""

from collections.abc import Iterator, Sequence

import numpy as np

from aem_harness.harness.compare.plan import power_of
from aem_harness.harness.compare.records import Components
from aem_harness.harness.types import Record

RUNS, SEEDS = (2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32), (1, 2, 4, 8, 16)


class RunDesign(Record):
    """`runs` training runs per method with `seeds` rollouts of every task each: their power and cost.

    se is a fraction; `hours` are GPU hours of both methods, training included.
    """

    runs: int
    seeds: int
    se: float
    power: float
    hours: float


class RunPlan(Record):
    """Every design considered; `best` is the cheapest with the requested power, None if none has it."""

    components: Components
    tasks: int
    difference: float
    run_sd: float
    alpha: float
    target: float
    designs: tuple[RunDesign, ...]
    best: RunDesign | None


def plan_runs(
    components: Components,
    *,
    tasks: int,
    difference: float,
    run_sd: float,
    training_hours: float,
    rollout_hours: float,
    alpha: float = 0.05,
    power: float = 0.8,
) -> RunPlan:
    """Power of the t test over run means for a `difference` of methods, on these tasks.

    `run_sd`: standard deviation of a method's training runs (fraction of resolved tasks). A run's mean varies by
    run_sd^2 + W / (N K); with M runs per method the test has 2 (M - 1) degrees of freedom. `training_hours` is of one
    run, `rollout_hours` of one rollout.
    """
    designs = [
        _design(components, (tasks, m, k), difference, run_sd, alpha, (training_hours, rollout_hours))
        for m in RUNS
        for k in SEEDS
    ]
    enough = [one for one in designs if one.power >= power]
    return RunPlan(
        components=components,
        tasks=tasks,
        difference=difference,
        run_sd=run_sd,
        alpha=alpha,
        target=power,
        designs=tuple(designs),
        best=min(enough, key=lambda one: (one.hours, one.runs * one.seeds), default=None),
    )


def _design(
    components: Components,
    size: tuple[int, int, int],
    difference: float,
    run_sd: float,
    alpha: float,
    hours: tuple[float, float],
) -> RunDesign:
    tasks, runs, seeds = size
    noise = components.noise * components.rate * (1 - components.rate) / (tasks * seeds)
    se = float(np.sqrt(2 * (run_sd**2 + noise) / runs))
    power = power_of(difference, se, 2.0 * (runs - 1), alpha)
    cost = 2 * runs * (hours[0] + seeds * tasks * hours[1])
    return RunDesign(runs=runs, seeds=seeds, se=se, power=power, hours=cost)


def answer(plan: RunPlan) -> str:
    """The cheapest design in a sentence, or that none of those considered suffices."""
    aim = f"{100 * plan.difference:+.1f} points between methods whose runs vary by {100 * plan.run_sd:.1f}"
    if plan.best is None:
        most = max(plan.designs, key=lambda one: one.power)
        return (
            f"{aim}: no design of up to {RUNS[-1]} training runs per method has {100 * plan.target:.0f} % power; "
            f"{most.runs} runs of {most.seeds} rollouts have {100 * most.power:.0f} %"
        )
    one = plan.best
    return (
        f"{aim}: {one.runs} training runs per method, {one.seeds} rollouts of each task and run, "
        f"{2 * one.runs * one.seeds * plan.tasks:,} rollouts and {one.hours:,.0f} GPU hours in total "
        f"({100 * one.power:.0f} % power at alpha {plan.alpha:g})"
    )


def rows(plan: RunPlan) -> Iterator[Sequence[str]]:
    """Power in percent by runs (rows) and rollouts of each task and run (columns)."""
    for m in RUNS:
        if m <= (plan.best.runs if plan.best else RUNS[-1]) + 2:
            yield [str(m), *(f"{100 * one.power:.0f}" for one in plan.designs if one.runs == m)]
