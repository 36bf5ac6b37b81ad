"""Sequential tests: what may be claimed at whatever moment one stops looking.

Two tools, both of one kind of sentence: "the probability that this test *ever* rejects a true hypothesis is at most
alpha", however often it looks and whyever it stops.

`Line` bounds a score process. An estimate x of a parameter, with variance V, makes the score x/V at information I = 1/V;
for efficient estimates the scores are a Brownian motion in I with the parameter as drift (Jennison and Turnbull, JASA
92:1330, 1997). A straight line in I is Wald's sequential probability ratio test: crossing it is the martingale
exp(d S - d^2 I / 2) reaching a level. As there is a planned end, the level is a little lower than Ville's 1/alpha, such
that the whole of alpha is used by then. Valid as far as sums of many rollouts are normal.

`log_capital` and `betting_interval` bet on the values of a finite population drawn without replacement (Waudby-Smith
and Ramdas, "Estimating means of bounded random variables by betting", JRSS-B 86:1, 2024, section 5; and "Confidence
sequences for sampling without replacement", NeurIPS 2020). Valid exactly, for any population and any size.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr, ndtri

from harness.compare.values import Floats

# --- a straight line in information time ----------------------------------------------------------------------------


def crossing_probability(height: ArrayLike, slope: float, *, drift: ArrayLike = 0.0, until: ArrayLike = 1.0) -> Floats:
    """P(W(f) + drift f >= height + slope f for some f <= until), W a standard Brownian motion, height >= 0.

    Siegmund, Sequential Analysis (1985), equation 3.15. Arrays broadcast.
    """
    height, until = np.maximum(height, 0.0), np.maximum(until, 1e-12)
    gap, root = slope - np.asarray(drift), np.sqrt(until)
    direct = ndtr(-(height + gap * until) / root)
    reflected = np.exp(np.minimum(-2 * height * gap + log_ndtr((gap * until - height) / root), 0.0))
    return np.minimum(direct + reflected, 1.0)


@dataclass(frozen=True)
class Line:
    """Reject when W(f) >= height + slope f, where f in (0, 1] is the information as a share of the planned most.

    W is the score divided by the root of the planned information: a standard Brownian motion under the hypothesis.
    An infinite height never rejects before the last look: the fixed-sample test.
    """

    alpha: float
    height: float
    slope: float

    @classmethod
    def fit(cls, alpha: float, slope: float) -> "Line":
        """The line of this slope that is crossed with probability alpha by f = 1. Slope d/2 suits a true drift of d."""
        height = brentq(lambda h: float(crossing_probability(h, slope)) - alpha, 0.0, 40.0)
        return cls(alpha, float(height), slope)

    @classmethod
    def once(cls, alpha: float) -> "Line":
        """No look but the last: the ordinary one-sided normal test."""
        return cls(alpha, np.inf, 0.0)

    def at(self, fraction: ArrayLike) -> Floats:
        return self.height + self.slope * np.asarray(fraction, dtype=float)

    def last(self, fraction: float) -> float:
        """The bound of a final look that comes at `fraction` of the information: it spends what the line has left."""
        root = np.sqrt(fraction)
        if np.isinf(self.height):
            return float(-ndtri(self.alpha) * root)
        end = float(self.at(fraction))
        left = lambda c: self._reached(c, 0.0, fraction) - self.alpha  # noqa: E731
        return float(brentq(left, -10 * root, end)) if left(end) < 0 else end

    def power(self, drift: float, fraction: float = 1.0) -> float:
        """P(rejected by a last look at `fraction`) under a drift; alpha at drift 0."""
        return float(self._reached(self.last(fraction), drift, fraction))

    def _reached(self, last: float, drift: float, fraction: float) -> float:
        """P(W + drift f crosses the line before `fraction`, or ends above `last` there)."""
        root = np.sqrt(fraction)
        ends_above = ndtr(-(last - drift * fraction) / root)
        if np.isinf(self.height):
            return float(ends_above)
        log_tilt = 2 * self.height * (drift - self.slope)
        return float(ends_above + np.exp(log_tilt + log_ndtr((last - drift * fraction - 2 * self.height) / root)))


# --- betting on a finite population -----------------------------------------------------------------------------------


def log_capital(
    values: Floats, nulls: ArrayLike, population: int, bounds: tuple[float, float], *, guess: float, weight: float = 40.0
) -> Floats:
    """Log capital, shape (len(nulls), T), of bets that the population mean exceeds each null.

    `values` (T,) are the first T of a uniformly random order of `population` numbers within `bounds`. If the mean is at
    most the null, capital is a non-negative supermartingale that starts at 1, so it ever reaches 1/alpha with probability
    at most alpha (Ville). Given what was drawn, the rest has mean m_t = (N null - S_{t-1}) / (N - t + 1) under the null;
    the stake on the next value is the growth-optimal one for an estimate that starts at `guess` with the weight of
    `weight` draws and follows the data (Stark's ALPHA, Ann. Appl. Stat. 17:641, 2023), and depends on the past alone.
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


def _ever(capital: Floats, alpha: float) -> NDArray[np.bool_]:
    return np.maximum.accumulate(capital, axis=1) >= -np.log(alpha)
