"""The exact test of "this candidate is the baseline" on these tasks, at any number of seeds."""

from dataclasses import dataclass
from math import comb, gcd

import numpy as np

from aem_harness.harness.compare.values import Ints, Trials

LATTICE = 300_000  # points of the exact distribution; beyond that, Monte Carlo
DRAWS = 99_999


@dataclass(frozen=True)
class Permutation:
    """Two-sided p-value of the mean task difference, its mid-p version, and whether it is exact."""

    p: float
    p_mid: float
    exact: bool


def stratified_permutation(
    baseline: Trials, candidate: Trials, *, lattice: int = LATTICE, seed: int = 0
) -> Permutation:
    """Permute arm labels within each task; the statistic is the mean over tasks of the difference of rates.

    Arms aligned on N tasks with at least one rollout each. Null hypothesis: on every task both arms resolve with the
    same probability, so that given a task's successes their split between the arms is hypergeometric. The sum of N
    independent lattice variables is convolved exactly; when unequal numbers of rollouts make the lattice too fine it is
    sampled (`lattice`: the most points convolved). With one rollout each this is McNemar's exact (mid-p) test.
    """
    solved_a, n_a, solved_b, n_b = baseline.solved, baseline.rollouts, candidate.solved, candidate.rollouts
    total = solved_a + solved_b
    # difference of task i = (total/n_b - solved_a * (1/n_a + 1/n_b)): an integer multiple of 1/lcm
    step = _lcm_all(np.concatenate([n_a, n_b]))
    if step is not None and 2 * step * len(n_a) <= lattice:
        return _exact(total, n_a, n_b, solved_a, solved_b, step)
    observed = float((solved_b / n_b - solved_a / n_a).sum())
    rng = np.random.default_rng(seed)
    sums = np.zeros(DRAWS)
    for t, a, b, count in _cells(total, n_a, n_b):
        splits, chances = _splits(t, a, b)
        if len(splits) > 1:  # equal tasks are exchangeable: how often each split occurs among them is all that matters
            split = rng.multinomial(count, chances, size=DRAWS) @ splits
            sums += count * t / b - split * (1 / a + 1 / b)
    slack = 1e-9
    beyond = int((np.abs(sums) > abs(observed) + slack).sum())
    ties = int((np.abs(np.abs(sums) - abs(observed)) <= slack).sum())
    return Permutation((beyond + ties + 1) / (DRAWS + 1), (beyond + ties / 2 + 0.5) / (DRAWS + 1), exact=False)


def _exact(total: Ints, n_a: Ints, n_b: Ints, solved_a: Ints, solved_b: Ints, step: int) -> Permutation:
    observed = int((solved_b * (step // n_b) - solved_a * (step // n_a)).sum())
    pmf, low = np.ones(1), 0  # pmf[j] = P(sum = low + j)
    for t, a, b, count in _cells(total, n_a, n_b):
        splits, chances = _splits(t, a, b)
        if len(splits) < 2:
            continue
        points = (t - splits) * (step // b) - splits * (step // a)
        kernel = np.zeros(int(points.max() - points.min()) + 1)
        kernel[points - points.min()] = chances
        for _ in range(count):
            pmf = np.convolve(pmf, kernel)
        low += count * int(points.min())
    support = low + np.arange(len(pmf))
    total = pmf.sum()  # 1, but for rounding
    p = float(pmf[np.abs(support) >= abs(observed)].sum() / total)
    ties = float(pmf[np.abs(support) == abs(observed)].sum() / total)
    return Permutation(p, p - ties / 2, exact=True)


def _splits(t: int, a: int, b: int) -> tuple[Ints, list[float]]:
    """How many of a task's `t` successes fall to the first of arms of `a` and `b` rollouts, and each one's chance."""
    splits = np.arange(max(0, t - b), min(t, a) + 1)
    return splits, [comb(a, s) * comb(b, t - s) / comb(a + b, t) for s in splits.tolist()]


def _cells(total: Ints, n_a: Ints, n_b: Ints) -> list[tuple[int, int, int, int]]:
    """Tasks with equal (successes, rollouts, rollouts) and how many of each there are."""
    cells, counts = np.unique(np.stack([total, n_a, n_b]), axis=1, return_counts=True)
    return [(int(t), int(a), int(b), int(c)) for (t, a, b), c in zip(cells.T, counts, strict=True)]


def _lcm_all(numbers: Ints) -> int | None:
    step = 1
    for number in np.unique(numbers):
        step = step * int(number) // gcd(step, int(number))
        if step > LATTICE:
            return None
    return step
