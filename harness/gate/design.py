"""What a gate fixes before the first rollout: the tasks, their order, and the information to be gained.

The order is random and a function of the seed, the tasks and the baseline's stored outcomes alone. Rollouts finish in
any order (easy tasks first); consuming them in this fixed order keeps an early verdict unbiased.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from aem_harness.harness.compare.values import Floats, Ints
from aem_harness.harness.gate.sequential import Truths

Key = tuple[str, int]  # instance_id, seed

# With one rollout a task, the share of the variance of observed rates that is task spread: 1 / (1 + a + b) of the
# Beta(0.25, 0.34) that has the pass@1 of 42.2 % and the pass@16 of 71.0 % published for DeepSWE on SWE-bench Verified.
USUAL_SHARE = 1 / 1.59
USUAL_NOISE = 0.09  # mean p (1 - p) of that surface
# Strata by predicted resolve rate: seldom, sometimes and usually solved. The middle one carries most of the run noise.
CUTS = (0.15, 0.85)
LESS = 0.93  # the order is made for a candidate that solves every task a little less often: at the margin, usually
SMALLEST = 10  # tasks; a smaller stratum joins its neighbour, or one rollout in it would weigh too much


@dataclass(frozen=True)
class Arm:
    """Outcomes of one arm: `resolved` has shape (tasks, seeds) and holds 1, 0 or nan (lost to infrastructure).

    `tokens` and `gpu_seconds` of the rollouts, if known, have the same shape, and so has `planned`: False where a task
    was never to get that seed (None: every task gets all seeds).
    """

    name: str
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    resolved: Floats
    tokens: Floats | None = None
    gpu_seconds: Floats | None = None
    planned: Truths | None = None

    @cached_property
    def due(self) -> Truths:
        """Which rollouts were planned, (N, K)."""
        return np.ones(self.resolved.shape, bool) if self.planned is None else self.planned

    @cached_property
    def missing(self) -> int:
        """Planned rollouts without a verdict."""
        return int((np.isnan(self.resolved) & self.due).sum())

    @cached_property
    def extremes(self) -> tuple[Floats, Floats]:
        """Mean outcome of each task (N,), worst and best case for the arm; the same array if nothing is missing."""
        low = np.where(self.due, np.nan_to_num(self.resolved, nan=0.0), 0.0).sum(axis=1)
        count = np.maximum(self.due.sum(axis=1), 1)
        if not self.missing:
            return (low / count,) * 2
        high = np.where(self.due, np.nan_to_num(self.resolved, nan=1.0), 0.0).sum(axis=1)
        return low / count, high / count

    @cached_property
    def means(self) -> Floats:
        """Resolved rate of each task (N,) over the rollouts with a verdict; nan where there is none."""
        with np.errstate(invalid="ignore"):
            return np.nansum(self.resolved, axis=1) / self.trials

    @cached_property
    def trials(self) -> Ints:
        return np.asarray((~np.isnan(self.resolved)).sum(axis=1), dtype=np.int64)

    def select(self, tasks: Sequence[str]) -> "Arm":
        """The arm on `tasks`, in that order; a task that it lacks is all missing, and costs nothing."""
        index = {task: row for row, task in enumerate(self.tasks)}
        rows = [index.get(task, -1) for task in tasks]

        def pick(values: Floats | None, other: float) -> Floats | None:
            return None if values is None else np.vstack([values, np.full(len(self.seeds), other)])[rows]

        resolved = pick(self.resolved, np.nan)
        assert resolved is not None
        due = np.vstack([self.due, np.ones(len(self.seeds), bool)])[rows]
        costs = pick(self.tokens, 0.0), pick(self.gpu_seconds, 0.0)
        return Arm(self.name, tuple(tasks), self.seeds, resolved, *costs, None if due.all() else due)

    @property
    def digest(self) -> str:
        """SHA-256 over the sorted outcomes: equal for all files with the same results, whatever their names."""
        lines = [
            f"{task},{seed},{'' if np.isnan(value) else int(value)}"
            for task, row in zip(self.tasks, self.resolved, strict=True)
            for seed, value in zip(self.seeds, row, strict=True)
        ]
        return "sha256:" + hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


@dataclass(frozen=True)
class Forecast:
    """The forecast for each task (N,) before the candidate runs: its rate, and the run noise p (1 - p).

    `spread` is the expected square of the rate's distance from the baseline's stored mean. The forecast affects the
    order and the stakes, never the validity of a verdict.
    """

    rate: Floats
    noise: Floats
    spread: Floats


@dataclass(frozen=True)
class Design:
    """Tasks (N), seeds (K), forecast and stratum (N,) of each task, and the order of the rollouts.

    `order` (N K, 2) holds task and visit; it is shorter where tasks get unequal numbers of rollouts. The k-th visit to
    task i is its rollout of seed `seed_of[i, k]`, since stored seeds may differ (run on different nights, say).
    `baseline` is None if the baseline is run afresh beside the candidate, seed by seed.
    """

    tasks: tuple[str, ...]
    seeds: int
    forecast: Forecast
    strata: Ints
    order: Ints
    seed_of: Ints
    baseline: Arm | None

    @cached_property
    def sizes(self) -> Ints:
        """Tasks in each stratum (H,)."""
        return np.asarray(np.bincount(self.strata), dtype=np.int64)

    @cached_property
    def places(self) -> Ints:
        """Place of each rollout in the order, (N, K); beyond its end if it is not planned."""
        places = np.full((len(self.tasks), self.seeds), len(self.tasks) * self.seeds + 1, dtype=np.int64)
        places[self.order[:, 0], self.order[:, 1]] = np.arange(len(self.order))
        return places

    @property
    def keys(self) -> list[Key]:
        return [(self.tasks[i], int(self.seed_of[i, k])) for i, k in self.order]

    @property
    def digest(self) -> str:
        """Evidence of pre-registration: SHA-256 of the order."""
        text = "\n".join(f"{task} {seed}" for task, seed in self.keys)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def design(
    tasks: Sequence[str],
    seeds: int,
    *,
    baseline: Arm | None = None,
    history: Sequence[Arm] = (),
    stratified: bool = True,
    seed: int = 0,
    due: Truths | None = None,
) -> Design:
    """Fix the order of `seeds` rollouts of every task; a stored `baseline` must have outcomes for all of them.

    `due` (N, K), for tasks in the given order, says which rollouts exist if tasks have unequal numbers of them.

    Stratified: strata by the rate that baseline and history (earlier checkpoints) predict; more early rollouts where
    more is uncertain, the k-th rollout of a task only after the (k-1)-th of its whole stratum. Otherwise: a uniformly
    random order of all rollouts.
    """
    if due is not None:
        due = due[np.argsort(np.asarray(tasks, dtype=object), kind="stable")]
    tasks = tuple(sorted(tasks))
    rng = np.random.default_rng(seed)
    expected = forecast(tasks, baseline, history)
    if stratified:
        strata = stratify(expected.rate)
        order = allocate(strata, expected, seeds, rng)
    else:
        strata = np.zeros(len(tasks), dtype=np.int64)
        order = np.stack(np.divmod(rng.permutation(len(tasks) * seeds), seeds), axis=1)
    seed_of = rng.permuted(np.tile(np.arange(seeds), (len(tasks), 1)), axis=1)
    if due is not None:
        # Planned visits come first for each task; the rest of the order is dropped.
        first = np.argsort(~np.take_along_axis(due, seed_of, axis=1), axis=1, kind="stable")
        seed_of = np.take_along_axis(seed_of, first, axis=1)
        order = order[order[:, 1] < due.sum(axis=1)[order[:, 0]]]
    stored = None if baseline is None else baseline.select(tasks)
    return Design(tasks, seeds, expected, strata, order, seed_of, stored)


def forecast(tasks: Sequence[str], baseline: Arm | None, history: Sequence[Arm] = ()) -> Forecast:
    """Shrink the observed rates towards their mean (James-Stein), by the share of their variance that is noise."""
    known = [*([baseline] if baseline else []), *history]
    if not known:
        flat = np.ones(len(tasks))
        return Forecast(0.5 * flat, USUAL_NOISE * flat, USUAL_NOISE * flat)
    arms = [arm.select(tasks) for arm in known]
    solved = np.sum([np.nansum(arm.resolved, axis=1) for arm in arms], axis=0)
    trials = np.sum([arm.trials for arm in arms], axis=0)
    overall = solved.sum() / max(trials.sum(), 1)
    own = np.where(trials > 0, solved / np.maximum(trials, 1), overall)
    repeated = trials > 1
    keep = np.where(trials > 0, USUAL_SHARE, 0.0)
    if repeated.any():
        noise = (own * (1 - own) * trials / np.maximum(trials - 1, 1))[repeated].mean()
        spread = max(own[repeated].var() - (noise / trials[repeated]).mean(), 1e-6)
        keep = spread / (spread + noise / np.maximum(trials, 1e-9))
    rate = overall + keep * (own - overall)
    total = np.maximum(rate * (1 - rate), 1e-3)
    size = np.maximum(trials, 1) / np.maximum(keep, 0.05)  # prior and observed rollouts together
    noise_i = total * size / (size + 1)
    reference = rate if baseline is None else np.where(arms[0].trials > 0, arms[0].means, rate)
    return Forecast(rate, noise_i, total - noise_i + (rate - reference) ** 2)


def stratify(rate: Floats) -> Ints:
    """Stratum of each task (N,), numbered from 0 without gaps; none smaller than SMALLEST unless it is the only one."""
    strata = np.digitize(rate, CUTS)
    for small in (0, len(CUTS)):
        if (strata == small).sum() < SMALLEST:
            strata[strata == small] = 1
    if 0 < (strata == 1).sum() < SMALLEST:
        strata[strata == 1] = 0 if (strata == 0).any() else len(CUTS)
    return np.unique(strata, return_inverse=True)[1].astype(np.int64)


def allocate(strata: Ints, expected: Forecast, seeds: int, rng: np.random.Generator) -> Ints:
    """The order (N K, 2): strata interleaved in proportion to size times expected spread of an outcome (Neyman 1934).

    Every stratum is a sequence of passes over its tasks, each in a new random order, so that any prefix of the order is
    a simple random sample of each stratum, and no task gets a second rollout before all others of its stratum have one.
    """
    when = np.empty((len(strata), seeds))
    for stratum in np.unique(strata):
        inside = np.flatnonzero(strata == stratum)
        rate = LESS * expected.rate[inside]
        spread = np.sqrt(max(float(np.mean(rate * (1 - rate))), 0.02))
        places = np.stack([k * len(inside) + rng.permutation(len(inside)) for k in range(seeds)], axis=1)
        when[inside] = (places + rng.random()) / (len(inside) * spread)
    return np.stack(np.divmod(np.argsort(when, axis=None, kind="stable"), seeds), axis=1)
