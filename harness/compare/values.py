"""One number per task: the task is the unit of inference, never the rollout.

`TaskValues` has, for each task, the mean of a metric over its rollouts and how much that mean would vary in a rerun.
Everything with an interval (rates, differences, tokens, entropy, ...) is computed from it.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Trials:
    """One arm on N tasks: resolved rollouts, rollouts with a verdict, and rollouts without one. Shapes (N,)."""

    solved: Ints
    rollouts: Ints
    missing: Ints

    def where(self, keep: NDArray[np.bool_]) -> "Trials":
        """The tasks at which `keep` (N,) is true."""
        return Trials(self.solved[keep], self.rollouts[keep], self.missing[keep])

    def pooled(self, other: "Trials") -> "Trials":
        """The rollouts of both arms, task by task."""
        return Trials(self.solved + other.solved, self.rollouts + other.rollouts, self.missing + other.missing)

    def followed_by(self, other: "Trials") -> "Trials":
        """The tasks of one, then those of the other."""
        pairs = zip(
            (self.solved, self.rollouts, self.missing), (other.solved, other.rollouts, other.missing), strict=True
        )
        return Trials(*(np.concatenate(pair) for pair in pairs))

    def filled(self, resolved: bool) -> "Trials":
        """As if every missing rollout had been resolved, or none."""
        none = np.zeros_like(self.missing)
        return Trials(self.solved + self.missing * resolved, self.rollouts + self.missing, none)


@dataclass(frozen=True)
class TaskValues:
    """A metric of one arm, or a difference of two, on N tasks. All arrays have shape (N,).

    values: mean over the rollouts of the task; nan where it has none.
    noise: unbiased estimate of the variance of `values` over re-runs; nan where it cannot be estimated (one rollout).
    noise_spread: sum of noise^2 / df over the arms involved, for Satterthwaite's degrees of freedom.
    grain: the smallest step of `values`, 1/K for a rate over K rollouts, 0 where there is none; floors the variance.
    clusters: label of the repository of each task.
    counts: rollouts behind each value, one array an arm involved.
    """

    tasks: tuple[str, ...]
    values: Floats
    noise: Floats
    noise_spread: Floats
    grain: Floats
    clusters: NDArray[np.str_]
    counts: tuple[Ints, ...]

    def __len__(self) -> int:
        return len(self.tasks)

    def where(self, keep: NDArray[np.bool_]) -> "TaskValues":
        """The tasks at which `keep` (N,) is true."""
        tasks = tuple(task for task, kept in zip(self.tasks, keep, strict=True) if kept)
        return TaskValues(
            tasks,
            self.values[keep],
            self.noise[keep],
            self.noise_spread[keep],
            self.grain[keep],
            self.clusters[keep],
            tuple(count[keep] for count in self.counts),
        )


def task_values(table: "pd.DataFrame", metric: str, tasks: tuple[str, ...] | None = None) -> TaskValues:
    """The metric (a column, truth values count as 0 and 1) of the rollouts in `table`, which holds one arm.

    `tasks` fixes which tasks and their order; by default the tasks of the table, sorted.
    """
    numbers = table[metric].astype("Float64").astype("float64")
    grouped = numbers.groupby(table["instance_id"].astype("object"))
    stats = grouped.agg(["mean", "var", "count"])  # pandas leaves missing values out and divides by count - 1
    repos = table.groupby(table["instance_id"].astype("object"))["repo"].first()
    order = tuple(sorted(stats.index)) if tasks is None else tasks
    stats, repos = stats.reindex(list(order)), repos.reindex(list(order))
    count = stats["count"].fillna(0).to_numpy(dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        noise = stats["var"].to_numpy(dtype=float) / count
        return TaskValues(
            tasks=order,
            values=stats["mean"].to_numpy(dtype=float),
            noise=noise,
            noise_spread=noise**2 / (count - 1),
            grain=1 / count if table[metric].dtype == "boolean" else np.zeros(len(count)),
            clusters=repos.fillna("").to_numpy(dtype=str),
            counts=(count.astype(np.int64),),
        )


def count_trials(table: "pd.DataFrame", tasks: tuple[str, ...]) -> Trials:
    """Count the rollouts of `table`, which holds one arm, on `tasks`.

    A task without any row has as many missing rollouts as the arm's tasks usually have rollouts.
    """
    names = table["instance_id"].astype("object")
    planned = table.groupby(names).size()
    counts = table["resolved"].groupby(names).agg(["sum", "count"]).reindex(list(tasks))
    scored = counts["count"].fillna(0).to_numpy(dtype=np.int64)
    due = planned.reindex(list(tasks)).fillna(planned.mode().iloc[0]).to_numpy(dtype=np.int64)
    return Trials(counts["sum"].fillna(0).to_numpy(dtype=np.int64), scored, due - scored)


def rates(trials: Trials, tasks: tuple[str, ...], clusters: NDArray[np.str_]) -> TaskValues:
    """Resolved rates; the noise of a task is p (1 - p) / (k - 1), the unbiased variance of its mean."""
    k = trials.rollouts.astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = trials.solved / k
        noise = np.where(k > 1, p * (1 - p) / (k - 1), np.nan)
        return TaskValues(tasks, p, noise, noise**2 / (k - 1), 1 / k, clusters, (trials.rollouts,))


def difference(baseline: TaskValues, candidate: TaskValues) -> TaskValues:
    """Candidate minus baseline, task by task; the two arms' rollouts are independent, so their noises add."""
    if baseline.tasks != candidate.tasks:
        raise ValueError(f"arms must be aligned on the same tasks ({len(baseline)} and {len(candidate)})")
    return replace(
        baseline,
        values=candidate.values - baseline.values,
        noise=baseline.noise + candidate.noise,
        noise_spread=baseline.noise_spread + candidate.noise_spread,
        grain=np.maximum(baseline.grain, candidate.grain),
        counts=baseline.counts + candidate.counts,
        clusters=np.where(baseline.clusters == "", candidate.clusters, baseline.clusters),
    )


def common(*arms: TaskValues) -> tuple[TaskValues, ...]:
    """The arms restricted to the tasks on which every one of them has a value."""
    keep = np.logical_and.reduce([np.isfinite(arm.values) for arm in arms])
    return tuple(arm.where(keep) for arm in arms)
