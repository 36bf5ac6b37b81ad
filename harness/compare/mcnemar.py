"""One rollout per task and arm: the classical paired tests and intervals on the discordant tasks."""

from dataclasses import dataclass

import numpy as np
from scipy import special


@dataclass(frozen=True)
class McNemar:
    """`gained` tasks only the candidate resolved, `lost` only the baseline, out of `tasks`."""

    gained: int
    lost: int
    tasks: int
    p: float
    p_mid: float


def mcnemar(gained: int, lost: int, tasks: int) -> McNemar:
    """Exact conditional test and its mid-p version (Fagerland, Lydersen and Laake 2013), two-sided.

    Null hypothesis: a task is as likely to be gained as lost.
    """
    discordant, fewer = gained + lost, min(gained, lost)
    below = float(special.bdtr(fewer, discordant, 0.5))
    at = below - float(special.bdtr(fewer - 1, discordant, 0.5)) if fewer else below
    p = min(1.0, 2 * below)
    tie = gained == lost  # both tails then hold the observed count
    p_mid = 1 - at / 2 if tie else 2 * below - at
    return McNemar(gained, lost, tasks, p, p_mid if discordant else 1.0)


def tango(gained: int, lost: int, tasks: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of the difference of paired proportions (Tango 1998): the differences its test does not reject."""
    z = float(special.ndtri((1 + level) / 2))
    estimate = (gained - lost) / tasks

    def beyond(delta: float) -> float:
        return tango_statistic(gained, lost, tasks, delta) - z

    from scipy import optimize

    low = -1.0 if estimate <= -1 else float(optimize.brentq(beyond, -1 + 1e-12, estimate))
    high = (
        1.0
        if estimate >= 1
        else -float(
            optimize.brentq(lambda delta: tango_statistic(lost, gained, tasks, delta) - z, -1 + 1e-12, -estimate)
        )
    )
    return low, high


def tango_statistic(gained: int, lost: int, tasks: int, delta: float) -> float:
    """Score statistic of "the difference is `delta`", standard normal under it; also the test of non-inferiority."""
    total = gained - lost - tasks * delta
    a = 2 * tasks
    b = -gained - lost + (2 * tasks - gained + lost) * delta
    c = -lost * delta * (1 - delta)
    p_lost = (np.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)  # restricted maximum likelihood
    variance = tasks * (2 * p_lost + delta * (1 - delta))
    if variance <= 0:
        return float(np.copysign(np.inf, total)) if total else 0.0
    return float(total / np.sqrt(variance))


def newcombe(both: int, gained: int, lost: int, neither: int, level: float = 0.95) -> tuple[float, float]:
    """Square-and-add Wilson interval of the difference of paired proportions (Newcombe 1998, method 10)."""
    n = both + gained + lost + neither
    p_b, p_a = (both + gained) / n, (both + lost) / n
    (low_b, high_b), (low_a, high_a) = wilson(p_b, n, level), wilson(p_a, n, level)
    margins = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    phi = 0.0
    if margins:
        cross = both * neither - gained * lost
        phi = (max(cross - n / 2, 0.0) if cross > 0 else float(cross)) / float(np.sqrt(margins))
    down_b, up_b, down_a, up_a = p_b - low_b, high_b - p_b, p_a - low_a, high_a - p_a
    low = np.sqrt(max(down_b**2 - 2 * phi * down_b * up_a + up_a**2, 0.0))
    high = np.sqrt(max(up_b**2 - 2 * phi * up_b * down_a + down_a**2, 0.0))
    return p_b - p_a - float(low), p_b - p_a + float(high)


def square_and_add(a: tuple[float, int], b: tuple[float, int], level: float = 0.95) -> tuple[float, float]:
    """Interval of b - a for independent proportions, each given with its number of observations.

    Newcombe's square-and-add of Wilson's intervals (1998, Statistics in Medicine 17:873, method 10).
    """
    (p_a, n_a), (p_b, n_b) = a, b
    (low_a, high_a), (low_b, high_b) = wilson(p_a, n_a, level), wilson(p_b, n_b, level)
    delta = p_b - p_a
    return delta - float(np.hypot(p_b - low_b, high_a - p_a)), delta + float(np.hypot(high_b - p_b, p_a - low_a))


def wilson(p: float, n: float, level: float = 0.95, quantile: float | None = None) -> tuple[float, float]:
    """Wilson's score interval of a proportion `p` out of an (effective) `n`; `quantile` replaces the normal one."""
    z = quantile if quantile is not None else float(special.ndtri((1 + level) / 2))
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    return max(0.0, centre - half), min(1.0, centre + half)
