"""Curves of an arm: resolved within a budget, and response entropy by turn."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from aem_harness.harness.compare.behaviour import Sketch
from aem_harness.harness.compare.intervals import of_a_rate, these_tasks
from aem_harness.harness.compare.records import Curve, CurveKind, CurvePoint
from aem_harness.harness.compare.values import Floats, task_values

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
    scored = table[table["resolved"].notna()]
    for kind, column in BUDGETS:
        usable = scored[scored[column].notna()]
        if len(usable) < 2:
            continue
        spent = usable[column].astype(float)
        points = []
        for budget in _grid(spent):
            within = usable.assign(resolved=usable["resolved"] & (spent <= budget))
            points.append(_rate_point(float(budget), within, level))
        out.append(Curve(arm=arm, kind=kind, points=tuple(points)))
    return out


def entropy_curve(arm: str, table: pd.DataFrame, read: Mapping[int, Sketch], *, level: float = 0.95) -> Curve | None:
    """Mean response entropy (nats) at each turn, from 1, over the rollouts that reach it: fewer and longer later on."""
    rows = [row for row in table.index if row in read]
    series = {row: read[row].entropies for row in rows}
    longest = max((len(one) for one in series.values()), default=0)
    points = []
    for step in range(longest):
        reached = {row: one[step] for row, one in series.items() if len(one) > step and one[step] is not None}
        if len(reached) < max(2, FEWEST * len(rows)):
            break
        at = table.loc[list(reached)].assign(entropy=pd.Series(reached, dtype="float64"))
        values = task_values(at, "entropy")
        interval = these_tasks(values, level)
        mean = float(values.values.mean())
        points.append(CurvePoint(x=step + 1, value=mean, low=interval.low, high=interval.high, tasks=len(values)))
    return Curve(arm=arm, kind="response entropy by turn", points=tuple(points)) if points else None


def _rate_point(x: float, table: pd.DataFrame, level: float) -> CurvePoint:
    values = task_values(table, "resolved")
    rate = float(values.values.mean())
    interval = of_a_rate(these_tasks(values, level), rate, len(table))
    return CurvePoint(x=x, value=rate, low=interval.low, high=interval.high, tasks=len(values))


def _grid(spent: pd.Series) -> Floats:
    """At most POINTS budgets, each reached by an equal share of the rollouts."""
    return np.unique(np.ceil(np.quantile(spent.to_numpy(dtype=float), np.linspace(0, 1, POINTS + 1)[1:])))
