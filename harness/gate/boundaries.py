"""Boundaries of a group-sequential test: how large z must be at each look, so that the error rates hold over all looks.

The standardised difference at information fraction t is treated as S(t) / sqrt(t), where S is a Brownian motion with
drift: asymptotically any estimator is, whose variance falls as information comes in (Scharfstein, Tsiatis and Robins,
JASA 92:1342, 1997). The error spent by fraction t is the share of a beta distribution below t (Anderson and Clark,
Stat. Med. 29:321, 2010: two parameters follow the optimal rule's spending more closely than one); boundaries follow by
recursive numerical integration (Armitage, McPherson and Rowe, JRSS-A 132:235, 1969; Jennison and Turnbull,
Group Sequential Methods, 2000, chapter 19).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import fft
from scipy.special import betainc, ndtr, ndtri

from aem_harness.harness.compare.values import Floats

CELLS, WIDTH = 768, 6.0  # of the grid for S; it covers -WIDTH to WIDTH
NEVER = 30.0  # a limit of z that is never reached
Shape = tuple[float, float]  # of a beta distribution

EARLIEST = 0.25  # information fraction before which no gate stops for futility


@dataclass(frozen=True)
class Boundaries:
    """At each look (L,): PASS if z >= upper, BLOCK if z <= lower, stop for futility if z is within the inner limits."""

    fractions: Floats
    upper: Floats
    lower: Floats
    inner_low: Floats
    inner_high: Floats


def spent(fraction: Floats, alpha: float, shape: Shape) -> Floats:
    """Error spent by an information fraction: alpha times the distribution function of Beta(*shape); (1, 1) is even."""
    return np.asarray(alpha * betainc(*shape, fraction))


def inner(fractions: Floats, alphas: tuple[float, float], futility: tuple[float, float]) -> tuple[Floats, Floats]:
    """The limits of z between which the predictive probabilities of PASS and of BLOCK at the end are below `futility`.

    Predictive: the drift is as estimated, with its error. Given z at fraction t the last z has mean z / sqrt(t) and
    variance (1 - t) / t (Spiegelhalter, Freedman and Blackburn, Control. Clin. Trials 7:8, 1986).
    """
    t = np.clip(fractions, 1e-9, 1.0)
    reach = [ndtri(one) * np.sqrt(1 - t) if one > 0 else np.full(len(t), -np.inf) for one in futility]
    high = reach[0] - ndtri(alphas[0]) * np.sqrt(t)
    low = ndtri(alphas[1]) * np.sqrt(t) - reach[1]
    none = (low >= high) | (t >= 1) | (t < EARLIEST)
    return np.where(none, np.inf, low), np.where(none, -np.inf, high)


@lru_cache(maxsize=256)
def boundaries(
    fractions: tuple[float, ...],
    alphas: tuple[float, float],
    shapes: tuple[Shape, Shape],
    futility: tuple[float, float] = (0.0, 0.0),
) -> Boundaries:
    """Boundaries for looks at `fractions` (rising, the last 1), with errors `alphas` of PASS and of BLOCK.

    At drift 0, where both are wrong, the probability of PASS is the first alpha and that of BLOCK the second, exactly
    (up to the grid). Stopping for futility, where `inner` says so, is part of the calculation.
    """
    t = np.asarray(fractions)
    upper, lower = np.full(len(t), NEVER), np.full(len(t), -NEVER)
    low, high = inner(t, alphas, futility)
    grid, step = np.linspace(-WIDTH, WIDTH, CELLS, retstep=True)
    mass, past = np.zeros(CELLS), np.zeros(2)
    mass[CELLS // 2 - 1 : CELLS // 2 + 1] = 0.5
    for j, (now, increment) in enumerate(zip(t, np.diff(np.r_[0.0, t]), strict=True)):
        mass = _diffuse(mass, increment, step) if j else _normal(grid, now, step)
        due = [float(spent(now, alpha, shape)) for alpha, shape in zip(alphas, shapes, strict=True)] - past
        up = _tail(mass[::-1], -grid[::-1], due[0], step)
        down = _tail(mass, grid, due[1], step)
        root = np.sqrt(now)
        # never below the limit of a single look: futility may leave too little mass to spend alpha on
        upper[j] = np.clip(-up / root, -ndtri(alphas[0]), NEVER)
        lower[j] = np.clip(down / root, -NEVER, ndtri(alphas[1]))
        high[j], low[j] = min(high[j], upper[j]), max(low[j], lower[j])
        for_pass, for_block = _above(grid, upper[j] * root, step), _above(-grid, -lower[j] * root, step)
        past += np.array([mass @ for_pass, mass @ for_block])
        given_up = _above(grid, low[j] * root, step) * _above(-grid, -high[j] * root, step)
        mass = mass * np.clip(1 - for_pass - for_block - given_up, 0, 1)
    return Boundaries(t, upper, lower, low, high)


def chances(edges: Boundaries, drift: float) -> tuple[float, float, Floats]:
    """Probability of PASS and of BLOCK, and of stopping at each look (L,), when S has mean `drift` at fraction 1."""
    grid, step = np.linspace(-WIDTH, WIDTH, CELLS, retstep=True)
    passed = blocked = 0.0
    stop, mass = np.zeros(len(edges.fractions)), np.zeros(CELLS)
    for j, (now, increment) in enumerate(zip(edges.fractions, np.diff(np.r_[0.0, edges.fractions]), strict=True)):
        mass = _diffuse(mass, increment, step, drift) if j else _normal(grid - drift * now, now, step)
        root = np.sqrt(now)
        for_pass = _above(grid, edges.upper[j] * root, step)
        for_block = _above(-grid, -edges.lower[j] * root, step)
        given_up = _above(grid, edges.inner_low[j] * root, step) * _above(-grid, -edges.inner_high[j] * root, step)
        gone = np.clip(for_pass + for_block + given_up, 0, 1)
        passed += float(mass @ for_pass)
        blocked += float(mass @ for_block)
        stop[j] = float(mass @ gone)
        mass = mass * (1 - gone)
    stop[-1] += max(1 - stop.sum(), 0.0)
    return passed, blocked, stop


# --- inside -----------------------------------------------------------------------------------------------------------


def _normal(grid: Floats, variance: float, step: float) -> Floats:
    """Probability of each cell under a normal of mean 0."""
    root = np.sqrt(variance)
    return np.asarray(ndtr((grid + step / 2) / root) - ndtr((grid - step / 2) / root))


def _diffuse(mass: Floats, variance: float, step: float, drift: float = 0.0) -> Floats:
    """Mass after a normal increment: a convolution, by FFT with space for what leaves the grid."""
    size = 2 * CELLS
    frequency = 2 * np.pi * fft.rfftfreq(size, step)
    factor = np.exp(-(frequency**2) * variance / 2 - 1j * frequency * drift * variance)
    moved = fft.irfft(fft.rfft(mass, size) * factor, size)
    return np.maximum(moved[:CELLS], 0.0)


def _above(grid: Floats, limit: float, step: float) -> Floats:
    """The share of each cell that lies above `limit`."""
    return np.clip((grid - limit) / step + 0.5, 0, 1)


def _tail(mass: Floats, grid: Floats, due: float, step: float) -> float:
    """Where the mass below it is `due`; interpolated within a cell."""
    below = np.cumsum(mass)
    if due <= 1e-9:
        return -np.inf
    at = int(np.searchsorted(below, due))
    if at >= len(mass):
        return float(grid[-1])
    before = below[at - 1] if at else 0.0
    return float(grid[at] - step / 2 + step * (due - before) / max(mass[at], 1e-300))
