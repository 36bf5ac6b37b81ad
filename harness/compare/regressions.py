"""Which tasks got worse: a posterior for each, because 4/4 -> 0/4 is not 1/1 -> 0/1.

Model of a task's two resolve probabilities: the baseline's is drawn from Beta(a, b); with probability `same` the
candidate's is the same number, otherwise it is drawn anew from Beta(a, b). a, b and `same` are fitted to all tasks by
maximum marginal likelihood (empirical Bayes; of `same` with one more unchanged task), so that a lone failure among 500
unchanged tasks is shrunk towards "no change", and one among 500 that all failed is not. Beta-binomial marginals:
Griffiths 1973; the local probabilities are those of Efron's two-groups model (2008).
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from aem_harness.harness.compare.values import Floats, Ints, Trials

_GRID, _WEIGHT = np.polynomial.legendre.leggauss(200)
BOUNDS = (np.log(0.01), np.log(100))  # of log a and log b
SHARP = 10.0  # the least curvature: a tenth more or less of a or b then costs 0.05 of log-likelihood
POINTS, WEIGHTS = (_GRID + 1) / 2, _WEIGHT / 2  # quadrature on (0, 1)


@dataclass(frozen=True)
class Regressions:
    """Per task (N,): posterior probability that the candidate's resolve probability is lower, and that it is higher."""

    worse: Floats
    better: Floats
    a: float
    b: float
    same: float


def regressions(baseline: Trials, candidate: Trials) -> Regressions:
    """Posterior of regression and of progress for every task; arms aligned on N tasks, at least one rollout each."""
    a, b = fit_beta(baseline.followed_by(candidate))
    apart = _log_marginal(baseline, a, b) + _log_marginal(candidate, a, b)
    pooled = baseline.pooled(candidate)
    together = _log_marginal(pooled, a, b) + _log_choose(baseline) + _log_choose(candidate) - _log_choose(pooled)
    same = _fit_share(together, apart)
    with np.errstate(divide="ignore"):
        log_same, log_changed = np.log(same) + together, np.log1p(-same) + apart
    changed = np.exp(log_changed - np.logaddexp(log_same, log_changed))
    lower = _probability_lower(baseline, candidate, a, b)
    return Regressions(changed * lower, changed * (1 - lower), a, b, same)


def moved(baseline: Trials, candidate: Trials) -> Ints:
    """Index of every task whose resolved rate differs; arms aligned on N tasks."""
    return np.flatnonzero(baseline.solved * candidate.rollouts != candidate.solved * baseline.rollouts)


def fit_beta(trials: Trials) -> tuple[float, float]:
    """Maximum likelihood a and b of a beta-binomial, each held within [0.01, 100]."""
    kinds, count = np.unique(np.stack([trials.solved, trials.rollouts]), axis=1, return_counts=True)
    solved, rollouts = kinds.astype(float)
    if (sharp := _sharp_maximum(solved, rollouts, count)) is not None:
        return sharp

    def loss(logs: Floats) -> float:
        return -float(_log_marginal(trials, *np.exp(logs)).sum())

    from scipy import optimize

    found = optimize.minimize(loss, np.log([0.5, 0.5]), method="L-BFGS-B", bounds=[BOUNDS, BOUNDS])
    a, b = np.exp(found.x)
    return float(a), float(b)


def _sharp_maximum(solved: Floats, rollouts: Floats, count: Ints) -> tuple[float, float] | None:
    """Where the log-likelihood has a sharp maximum within the bounds, by Newton's method in log a and log b; or None.

    There any method finds the same, and this one saves the 25 MB and the quarter of a second that the import of
    `scipy.optimize` takes. A flat one (with one rollout a task only a / b is known) is not for Newton's method.
    """
    logs = np.log([0.5, 0.5])
    for _ in range(30):
        slope, bend = _derivatives(solved, rollouts, count, *np.exp(logs))
        curvatures, ways = np.linalg.eigh(-bend)
        step = ways @ (ways.T @ slope / np.maximum(np.abs(curvatures), 1e-6 * count.sum()))  # uphill also from a saddle
        logs = logs + np.clip(step, -1, 1)
        if not (logs.min() > BOUNDS[0] and logs.max() < BOUNDS[1]):
            return None
        if np.abs(step).max() < 1e-9:
            a, b = np.exp(logs)
            return (float(a), float(b)) if curvatures[0] >= SHARP else None
    return None


def _derivatives(solved: Floats, rollouts: Floats, count: Ints, a: float, b: float) -> tuple[Floats, Floats]:
    """Gradient (2,) and Hessian (2, 2) of the beta-binomial log-likelihood in log a and log b."""

    parts = (a, solved), (b, rollouts - solved)  # terms of log Gamma, beside those with a + b and all rollouts
    of_both = float(count @ (special.psi(a + b) - special.psi(a + b + rollouts)))
    of_a, of_b = (float(count @ (special.psi(x + k) - special.psi(x))) for x, k in parts)
    bend_both = float(count @ (special.polygamma(1, a + b) - special.polygamma(1, a + b + rollouts)))
    bend_a, bend_b = (float(count @ (special.polygamma(1, x + k) - special.polygamma(1, x))) for x, k in parts)
    slope = np.array([a * (of_a + of_both), b * (of_b + of_both)])
    across = a * b * bend_both
    return slope, np.array(
        [
            [a * a * (bend_a + bend_both) + slope[0], across],
            [across, b * b * (bend_b + bend_both) + slope[1]],
        ]
    )


def _fit_share(together: Floats, apart: Floats) -> float:
    """The mixing weight, by halving: of the likelihood times the weight itself, whose logarithm is concave in it.

    As if one more task were known not to have changed. Without it a few tasks that nearly all moved give 0, and then a
    small change of the one that did not is called certain (docs/statistics.md).
    """
    ratio = np.exp(np.clip(together - apart, -700, 700))

    def slope(share: float) -> float:
        return float(((ratio - 1) / (share * ratio + 1 - share)).sum()) + 1 / share

    low, high = 1e-9, 1 - 1e-9
    if slope(high) >= 0:
        return 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return (low + high) / 2


def _probability_lower(baseline: Trials, candidate: Trials, a: float, b: float) -> Floats:
    """P(p_candidate < p_baseline) for independent Beta posteriors, by quadrature; once per kind of task."""
    kinds, index = np.unique(
        np.stack([baseline.solved, baseline.rollouts, candidate.solved, candidate.rollouts]),
        axis=1,
        return_inverse=True,
    )
    s_a, n_a, s_b, n_b = (row[:, None] for row in kinds)
    # Integrate over the quantile scale of the baseline's posterior, where the integrand is smooth whatever its shape.
    at = special.betaincinv(a + s_a, b + n_a - s_a, POINTS)
    lower = special.betainc(a + s_b, b + n_b - s_b, at) @ WEIGHTS
    return np.asarray(lower[index.ravel()], dtype=float)


def _log_marginal(trials: Trials, a: float, b: float) -> Floats:
    failed = trials.rollouts - trials.solved
    value = _log_choose(trials) + special.betaln(a + trials.solved, b + failed) - special.betaln(a, b)
    return np.asarray(value, dtype=float)


def _log_choose(trials: Trials) -> Floats:
    n, k = trials.rollouts, trials.solved
    return np.asarray(-special.betaln(n - k + 1, k + 1) - np.log(n + 1), dtype=float)
