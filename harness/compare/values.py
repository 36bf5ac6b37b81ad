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
    grain: how far one rollout can move a value, 1/K for a rate over K, 0 for what is no rate; floors the variance.
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
    numbers = table[metric].to_numpy(dtype=float, na_value=np.nan)
    whole = table[metric].dtype == "boolean"
    return values_by_task(numbers, by_task(table), whole=whole, order=tasks)


@dataclass(frozen=True)
class ByTask:
    """Which of M tasks each of N rows belongs to: `number` (N,) into `names` (M,), sorted; `repos` (M,), "" unknown."""

    names: tuple[str, ...]
    number: Ints
    repos: NDArray[np.str_]

    def at(self, keep: NDArray[np.bool_]) -> "ByTask":
        """Of the rows at which `keep` (N,) is true; the same tasks."""
        return ByTask(self.names, self.number[keep], self.repos)


def by_task(table: "pd.DataFrame") -> ByTask:
    """The tasks of a table's rows, each with the first repository that is told of it."""
    import pandas as pd

    number, names = pd.factorize(table["instance_id"], sort=True)
    repos = np.full(len(names), "", dtype=object)
    told = table["repo"].notna().to_numpy(dtype=bool)
    kinds, labels = pd.factorize(table["repo"])
    back = np.flatnonzero(told)[::-1]  # of several rows the first one's stays
    repos[number[back]] = labels.to_numpy(dtype=object)[kinds[back]]
    return ByTask(tuple(names.tolist()), number.astype(np.int64), repos.astype(str))


def values_by_task(
    numbers: Floats, tasks: ByTask, *, whole: bool = False, order: tuple[str, ...] | None = None
) -> TaskValues:
    """`numbers` (N,), nan for none, by task; `whole`: they are truth values. `order` as `tasks` of `task_values`."""
    known = ~np.isnan(numbers)
    number, x, m = tasks.number[known], numbers[known], len(tasks.names)
    count = np.bincount(number, minlength=m).astype(float)
    first = np.zeros(m)
    first[number[::-1]] = x[::-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        # From each task's first value on, so that equal values have no variance at all.
        mean = first + np.bincount(number, x - first[number], m) / count
        var = np.bincount(number, (x - mean[number]) ** 2, m) / (count - 1)
        var[count < 2] = np.nan
        repos = tasks.repos
        if order is not None:
            place = _places(tasks.names, order)
            mean, var, count = (np.append(one, end)[place] for one, end in ((mean, np.nan), (var, np.nan), (count, 0)))
            repos = np.append(repos, "")[place]
        noise = var / count
        return TaskValues(
            tasks=tasks.names if order is None else order,
            values=mean,
            noise=noise,
            noise_spread=noise**2 / (count - 1),
            grain=1 / count if whole else np.zeros(len(count)),
            clusters=repos,
            counts=(count.astype(np.int64),),
        )


def count_trials(table: "pd.DataFrame", tasks: tuple[str, ...]) -> Trials:
    """Count the rollouts of `table`, which holds one arm, on `tasks`.

    A task without any row has as many missing rollouts as the arm's tasks usually have rollouts.
    """
    known = by_task(table)
    resolved = table["resolved"].to_numpy(dtype=float, na_value=np.nan)
    verdict = ~np.isnan(resolved)
    m, place = len(known.names), _places(known.names, tasks)
    planned = np.bincount(known.number, minlength=m)
    usual = int(np.bincount(planned).argmax())
    scored = np.append(np.bincount(known.number[verdict], minlength=m), 0)[place]
    solved = np.append(np.bincount(known.number[verdict], resolved[verdict], m), 0)[place]
    return Trials(solved.astype(np.int64), scored.astype(np.int64), np.append(planned, usual)[place] - scored)


def _places(names: tuple[str, ...], wanted: tuple[str, ...]) -> Ints:
    """The index of each of `wanted` in `names`, -1 where it is not there."""
    if names == wanted:
        return np.arange(len(names))
    place = {name: i for i, name in enumerate(names)}
    return np.array([place.get(name, -1) for name in wanted], dtype=np.int64)


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
