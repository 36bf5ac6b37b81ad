"""The exact test of "this candidate is the baseline" on these tasks, at any number of seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, gcd

import numpy as np

from aem_harness.harness.compare.values import Floats, Ints, Trials

LATTICE = 300_000  # points of the exact distribution; beyond that, Monte Carlo
DRAWS = 99_999
TINY = float(np.finfo(float).tiny)


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
    cells = _cells(total, n_a, n_b)
    grid = gcd(*(step // a + step // b for _, a, b, _ in cells))  # between the points of one task
    for t, a, b, count in cells:
        splits, chances = _splits(t, a, b)
        if len(splits) < 2:
            continue  # resolved by all rollouts, or by none: no difference
        points = (t - splits) * (step // b) - splits * (step // a)
        shifts = ((points - points.min()) // grid).tolist()
        for _ in range(count):
            pmf, cut = _added(pmf, shifts, chances)
            low += int(points.min()) + cut * grid
    support = low + grid * np.arange(len(pmf))
    total = pmf.sum()  # 1, but for rounding
    p = float(pmf[np.abs(support) >= abs(observed)].sum() / total)
    ties = float(pmf[np.abs(support) == abs(observed)].sum() / total)
    return Permutation(p, p - ties / 2, exact=True)


def _added(pmf: Floats, shifts: Sequence[int], chances: Sequence[float]) -> tuple[Floats, int]:
    """The distribution of a sum with one more variable, and how many points were cut off its lower end.

    A variable has at most nine points for eight seeds, far apart, so that adding them one by one is several times as
    fast as a convolution. Chances too small for a normal number, all those more than 38 standard deviations away,
    are cut off at both ends: most of the lattice.
    """
    out = np.zeros(len(pmf) + max(shifts))
    for shift, chance in zip(shifts, chances, strict=True):
        out[shift : shift + len(pmf)] += chance * pmf
    if out[0] >= TINY and out[-1] >= TINY:
        return out, 0
    held = np.flatnonzero(out >= TINY)
    return out[held[0] : held[-1] + 1], int(held[0])


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
