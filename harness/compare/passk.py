"""pass@k (at least one of k rollouts resolves) and pass^k (all k do), unbiased from n >= k rollouts."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import comb

from aem_harness.harness.compare.records import PassKind
from aem_harness.harness.compare.values import Floats, Ints, TaskValues


def pass_at_k(solved: Ints, rollouts: Ints, k: int) -> Floats:
    """1 - C(n - c, k) / C(n, k) with c of n rollouts resolved (Chen et al., arXiv 2107.03374); nan where n < k."""
    return np.where(rollouts >= k, 1 - _share(rollouts - solved, rollouts, k), np.nan)


def pass_hat_k(solved: Ints, rollouts: Ints, k: int) -> Floats:
    """C(c, k) / C(n, k): the chance that k rollouts all resolve (Yao et al., arXiv 2406.12045); nan where n < k."""
    return np.where(rollouts >= k, _share(solved, rollouts, k), np.nan)


def pass_values(
    tasks: tuple[str, ...],
    clusters: NDArray[np.str_],
    solved: Ints,
    rollouts: Ints,
    k: int,
    kind: PassKind = "pass@k",
) -> TaskValues:
    """Either metric as `TaskValues`, on the tasks with at least k rollouts only (others would bias it).

    The noise of a task is the delete-one jackknife variance over its rollouts, which needs n > k: with n = k it is nan.
    One rollout changes the value by up to k / n.
    """
    keep = rollouts >= k
    solved, rollouts = solved[keep], rollouts[keep]
    metric = pass_at_k if kind == "pass@k" else pass_hat_k
    values = metric(solved, rollouts, k)
    # Leaving one rollout out gives one of two values: a success left out (c times) or a failure left out (n - c times).
    without_success = metric(np.maximum(solved - 1, 0), rollouts - 1, k)
    without_failure = metric(np.minimum(solved, rollouts - 1), rollouts - 1, k)
    share = solved / rollouts
    noise = (rollouts - 1) * share * (1 - share) * (without_success - without_failure) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = noise**2 / (rollouts - 1)
    kept = tuple(task for task, good in zip(tasks, keep, strict=True) if good)
    return TaskValues(kept, values, noise, spread, k / rollouts, clusters[keep], (rollouts,))


def _share(part: Ints, whole: Ints, k: int) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(comb(part, k) / comb(whole, k), dtype=float)
