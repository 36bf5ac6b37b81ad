"""The tasks on which an arm moved, the surest first, each with two trajectories to look at; and unique solves."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from harness.compare.behaviour import action_at, first_divergence
from harness.compare.records import Flip
from harness.compare.regressions import regressions
from harness.compare.values import count_trials
from harness.interop.trajectories import Trajectory


def flips(
    baseline: str,
    table_a: pd.DataFrame,
    candidate: str,
    table_b: pd.DataFrame,
    read: Mapping[int, Trajectory] | None = None,
) -> list[Flip]:
    """Every task whose resolved rate differs, ordered by the posterior that it really changed.

    The trajectories shown are a success of the better arm and a failure of the other, of the same seed where there is
    such a pair. `read` holds trajectories by row label of the tables, for the first diverging step.
    """
    tasks = tuple(sorted(_scored(table_a) & _scored(table_b)))
    a, b = count_trials(table_a, tasks), count_trials(table_b, tasks)
    posterior = regressions(a, b)
    moved = np.flatnonzero(a.solved * b.rollouts != b.solved * a.rollouts)
    rows_a, rows_b = dict(list(table_a.groupby("instance_id"))), dict(list(table_b.groupby("instance_id")))
    out = []
    for i in moved:
        task = tasks[i]
        worse = a.solved[i] * b.rollouts[i] > b.solved[i] * a.rollouts[i]
        row_a, row_b = _shown(rows_a[task], rows_b[task], worse=bool(worse))
        step, actions = _divergence(read or {}, row_a, row_b)
        out.append(
            Flip(
                instance_id=task,
                repo=str(rows_a[task]["repo"].iloc[0]),
                baseline=baseline,
                candidate=candidate,
                solved=(int(a.solved[i]), int(b.solved[i])),
                rollouts=(int(a.rollouts[i]), int(b.rollouts[i])),
                p_worse=float(posterior.worse[i]),
                p_better=float(posterior.better[i]),
                trajectories=(_path(rows_a[task], row_a), _path(rows_b[task], row_b)),
                step=step,
                actions=actions,
            )
        )
    return sorted(out, key=lambda flip: (-max(flip.p_worse, flip.p_better), flip.instance_id))


def unique_solves(tables: Mapping[str, pd.DataFrame]) -> dict[str, tuple[str, ...]]:
    """Per arm, the tasks that it alone ever resolved."""
    solved = {arm: set(table["instance_id"][table["resolved"].fillna(False)]) for arm, table in tables.items()}
    return {
        arm: tuple(sorted(mine - set().union(*(theirs for other, theirs in solved.items() if other != arm))))
        for arm, mine in solved.items()
    }


def _scored(table: pd.DataFrame) -> set[str]:
    return set(table.loc[table["resolved"].notna(), "instance_id"])


def _shown(rows_a: pd.DataFrame, rows_b: pd.DataFrame, *, worse: bool) -> tuple[int, int]:
    """Row labels of a pair in which exactly the better arm resolved the task."""
    wanted_a = rows_a[(rows_a["resolved"] == worse).fillna(False)]
    wanted_b = rows_b[(rows_b["resolved"] == (not worse)).fillna(False)]
    shared = sorted(set(wanted_a["seed"]) & set(wanted_b["seed"]))
    if shared:
        wanted_a, wanted_b = wanted_a[wanted_a["seed"] == shared[0]], wanted_b[wanted_b["seed"] == shared[0]]
    return int(wanted_a.index[0]), int(wanted_b.index[0])


def _divergence(read: Mapping[int, Trajectory], row_a: int, row_b: int) -> tuple[int | None, tuple[str, str]]:
    if row_a not in read or row_b not in read:
        return None, ("", "")
    step = first_divergence(read[row_a], read[row_b])
    return step, (action_at(read[row_a], step), action_at(read[row_b], step))


def _path(rows: pd.DataFrame, row: int) -> str:
    return str(rows["trajectory"].fillna("")[row])
