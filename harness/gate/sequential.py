"""Sequential tests by betting: claims that are valid whenever one stops looking.

Both tests work alike: capital starts at 1, is staked on the next outcome, and is not expected to grow under the
hypothesis. So the probability that it *ever* reaches 1/alpha is at most alpha (Ville 1939), however often one looks and
whatever makes one stop.

`log_evidence` bets on paired differences of independent runs; `log_capital` and `betting_interval` on the values of a
finite population drawn without replacement. After Waudby-Smith and Ramdas, "Estimating means of bounded random
variables by betting", JRSS-B 86:1 (2024), and "Confidence sequences for sampling without replacement", NeurIPS (2020).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_ndtr, ndtr

from aem_harness.harness.compare.values import Floats

Truths = NDArray[np.bool_]

# --- betting on paired differences ------------------------------------------------------------------------------------


def log_evidence(differences: Floats, weights: Floats, null: ArrayLike, stakes: ArrayLike) -> Floats:
    """Log evidence (L,) at each of L looks against "the mean difference over all tasks is at most `null`".

    `differences` (L, N) hold d_i in [-1, 1]; `weights` (L, N) say what each task stands for: w_h / m_h for the m_h
    tasks seen of a stratum that holds the share w_h of all tasks, 0 for tasks not seen. The evidence is

        prod_i (1 + stake * weight_i * (d_i - null)),   with stakes (L,) fixed in advance.

    At one look its expectation is at most 1 under the hypothesis, for any number of tasks and any distributions: the
    mean of a product of m out of N positive numbers is at most the m-th power of their mean (Maclaurin 1729), and
    prod_h (1 + stake w_h / m_h x_h)^m_h <= exp(stake sum_h w_h x_h) <= 1. That is exact once all tasks have been seen,
    and before that given the baseline's outcomes; over re-runs of the baseline too it then holds to second order.
    From look to look: as long as stake * weight stays the same it is a betting martingale in which drawing without
    replacement only makes large excursions rarer (the random walk becomes a bridge); beyond that, when tasks get second
    rollouts, it is one as far as sums of many rollouts are normal, which is why no task may risk much of the capital.
    `aem_harness.harness.gate.calibrate` measures the resulting error rates.
    """
    null, stakes = np.asarray(null, float), np.asarray(stakes, float)
    return np.log1p(stakes[..., None] * weights * (differences - null[..., None])).sum(axis=-1)


def largest_stake(weights: Floats, null: ArrayLike, risk: float) -> Floats:
    """The largest stake (L,) that risks at most the share `risk` of the capital on any one task, for any d_i."""
    return np.asarray(risk / np.maximum(weights.max(axis=-1) * (1 + np.asarray(null, float)), 1e-9))


def reach_probability(height: ArrayLike, drift: ArrayLike) -> Floats:
    """P(W(s) + drift s >= height for some s <= 1), W a standard Brownian motion: to plan with, no claim rests on it.

    Siegmund, Sequential Analysis (1985), equation 3.15. Arrays broadcast.
    """
    height, drift = np.maximum(height, 0.0), np.asarray(drift, float)
    returned = np.exp(np.minimum(2 * height * drift + log_ndtr(-drift - height), 0.0))
    return np.minimum(ndtr(drift - height) + returned, 1.0)


# --- betting on a finite population -----------------------------------------------------------------------------------


def log_capital(
    values: Floats,
    nulls: ArrayLike,
    population: int,
    bounds: tuple[float, float],
    *,
    guess: float,
    weight: float = 40.0,
) -> Floats:
    """Log capital, shape (len(nulls), T), of bets that the population mean exceeds each null.

    `values` (T,) are the first T of a uniformly random order of `population` numbers within `bounds`. If the mean is
    at most the null, capital is a non-negative supermartingale that starts at 1, so it ever reaches 1/alpha with
    probability at most alpha, exactly. Given what was drawn, the rest has mean
    m_t = (N null - S_{t-1}) / (N - t + 1) under the null; the stake on the next value is the growth-optimal one for an
    estimate that starts at `guess` with the weight of `weight` draws and follows the data (Stark's ALPHA, Ann. Appl.
    Stat. 17:641, 2023): it depends on the past alone.
    A null that the remaining values cannot reach any more is refuted with certainty: infinite capital.
    """
    low, high = bounds
    n = np.asarray(nulls, dtype=float).reshape(-1, 1)
    t = np.arange(1, len(values) + 1)
    total = np.cumsum(values)
    before, square = total - values, np.cumsum(values**2) - values**2
    expected = (population * n - before) / (population - t + 1)
    estimate = (weight * guess + before) / (weight + t - 1)
    spread = (high - low) ** 2 / 4
    variance = (weight * spread / 4 + square - before**2 / np.maximum(t - 1, 1)) / (weight + t - 1)
    gap = np.maximum(estimate - expected, 0.0)
    room = np.maximum(expected - low, 1e-12)
    stake = np.minimum(gap / (variance + gap**2), 0.9 / room)
    with np.errstate(divide="ignore", invalid="ignore"):
        gains = np.log1p(stake * (values - expected))
    gains[expected >= high] = 0.0
    capital = np.cumsum(np.nan_to_num(gains, nan=0.0), axis=1)
    refuted = total + low * (population - t) > population * n + 1e-9
    capital[np.maximum.accumulate(refuted, axis=1)] = np.inf
    return capital


def betting_interval(
    values: Floats,
    population: int,
    bounds: tuple[float, float],
    *,
    alphas: tuple[float, float],
    guesses: tuple[float, float] = (0.0, 0.0),
    points: int = 400,
) -> tuple[Floats, Floats]:
    """Lower and upper confidence sequence (T,), (T,) for the population mean, with errors `alphas` below and above.

    The hypotheses not rejected by any of the first t looks, on a grid of `points` means, widened to the next point.
    """
    low, high = bounds
    grid = np.linspace(low, high, points)
    step = grid[1] - grid[0]
    above = _ever(log_capital(values, grid, population, bounds, guess=guesses[0]), alphas[0])
    below = _ever(log_capital(-values, -grid, population, (-high, -low), guess=-guesses[1]), alphas[1])
    lower = np.where(above.any(0), low + step * (above.shape[0] - 1 - np.argmax(above[::-1], axis=0)), low)
    upper = np.where(below.any(0), low + step * np.argmax(below, axis=0), high)
    return np.maximum.accumulate(lower), np.minimum.accumulate(upper)


def _ever(capital: Floats, alpha: float) -> Truths:
    return np.maximum.accumulate(capital, axis=1) >= -np.log(alpha)
