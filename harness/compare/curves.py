"""Curves of an arm: resolved within a budget, and response entropy by turn."""

import numpy as np
import pandas as pd

from aem_harness.harness.compare.behaviour import Read
from aem_harness.harness.compare.intervals import of_a_rate, these_tasks
from aem_harness.harness.compare.records import Curve, CurveKind, CurvePoint
from aem_harness.harness.compare.values import ByTask, Floats, TaskValues, by_task, values_by_task
from aem_harness.harness.facts.kept import ENTROPIES

POINTS = 24
BUDGETS: tuple[tuple[CurveKind, str], ...] = (
    ("resolved within steps", "steps"),
    ("resolved within generated tokens", "completion_tokens"),
)
FEWEST = 0.1  # an entropy curve ends where less than this share of the rollouts is still running


def budget_curves(arm: str, table: pd.DataFrame, *, level: float = 0.95) -> list[Curve]:
    """Share resolved by rollouts that ended within x steps, and within x generated tokens.

    A lower bound of what a run with that limit would resolve: a rollout cut short might have handed in its patch.
    """
    out = []
    needed = ["instance_id", "repo", "resolved", *(column for _, column in BUDGETS)]
    scored = table.loc[table["resolved"].notna(), needed]
    for kind, column in BUDGETS:
        usable = scored[scored[column].notna()]
        if len(usable) < 2:
            continue
        tasks, spent = by_task(usable), usable[column].to_numpy(dtype=float)
        resolved = usable["resolved"].to_numpy(dtype=bool)
        points = []
        for budget in _grid(spent):
            within = values_by_task((resolved & (spent <= budget)).astype(float), tasks, whole=True)
            points.append(_rate_point(float(budget), within, len(usable), level))
        out.append(Curve(arm=arm, kind=kind, points=tuple(points)))
    return out


def entropy_curve(arm: str, table: pd.DataFrame, read: Read, *, level: float = 0.95) -> Curve | None:
    """Mean response entropy (nats) at each turn, from 1, over the rollouts that reach it: fewer and longer later on."""
    places = read.places(table.index)
    known = places >= 0
    lengths, values = read.facts.lists(ENTROPIES, places[known])
    entropies = values.astype(float)
    tasks = by_task(table).at(known)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    turns = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    told = ~np.isnan(entropies)
    rows, turns, entropies = rows[told], turns[told], entropies[told]
    order = np.argsort(turns, kind="stable")
    ends = np.cumsum(np.bincount(turns, minlength=0))
    points = []
    for step, end in enumerate(ends):
        some = order[ends[step - 1] if step else 0 : end]
        if len(some) < max(2, FEWEST * len(lengths)):
            break
        one = values_by_task(entropies[some], ByTask(tasks.names, tasks.number[rows[some]], tasks.repos))
        one = one.where(one.counts[0] > 0)
        interval = these_tasks(one, level)
        mean = float(one.values.mean())
        points.append(CurvePoint(x=step + 1, value=mean, low=interval.low, high=interval.high, tasks=len(one)))
    return Curve(arm=arm, kind="response entropy by turn", points=tuple(points)) if points else None


def _rate_point(x: float, values: TaskValues, rollouts: int, level: float) -> CurvePoint:
    rate = float(values.values.mean())
    interval = of_a_rate(these_tasks(values, level), rate, rollouts)
    return CurvePoint(x=x, value=rate, low=interval.low, high=interval.high, tasks=len(values))


def _grid(spent: Floats) -> Floats:
    """At most POINTS budgets, each reached by an equal share of the rollouts."""
    return np.unique(np.ceil(np.quantile(spent, np.linspace(0, 1, POINTS + 1)[1:])))
