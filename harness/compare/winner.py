"""The best of a series, without the winner's curse: the arm picked for its high score has, on average, been lucky."""

from collections.abc import Sequence

import numpy as np
from scipy import special

from aem_harness.harness.compare.records import BestOf
from aem_harness.harness.compare.values import Floats, Trials

DRAWS = 20_000


def best_of(
    names: Sequence[str],
    rates: Floats,
    errors: Floats,
    arms: list[Trials],
    *,
    level: float = 0.95,
    splits: int = 400,
    seed: int = 0,
) -> BestOf:
    """`rates` and their run-noise standard errors `errors`, both (M,), and the `arms` aligned on the same tasks.

    shrunken: rates ~ Normal(theta, error^2), theta ~ Normal(mu, tau^2), tau by Paule and Mandel (1982).
    interval: observed +- c * error with c the Sidak quantile over the M arms, whose run noises are independent: it
    covers all M at once and so whichever is picked (projection interval of Andrews, Kitagawa and McCloskey 2024).
    """
    rng = np.random.default_rng(seed)
    m, index = len(rates), int(rates.argmax())
    tau2 = _paule_mandel(rates, errors)
    weights = 1 / (tau2 + errors**2)
    centre = float((weights * rates).sum() / weights.sum())
    keep = tau2 / (tau2 + errors**2)
    posterior = keep * rates + (1 - keep) * centre
    draws = posterior + np.sqrt(keep) * errors * rng.standard_normal((DRAWS, m))
    draws += 1e-12 * rng.standard_normal((DRAWS, m))  # arms that are all alike share the win
    wins = np.bincount(draws.argmax(axis=1), minlength=m) / DRAWS
    half = float(special.ndtri((1 + level ** (1 / m)) / 2)) * float(errors[index])
    return BestOf(
        arm=names[index],
        among=m,
        tasks=len(arms[index].rollouts),
        observed=float(rates[index]),
        shrunken=float(posterior[index]),
        held_out=_held_out(arms, splits, rng),
        low=max(float(rates[index]) - half, 0.0),
        high=min(float(rates[index]) + half, 1.0),
        level=level,
        probability=float(wins[index]),
    )


def _held_out(arms: list[Trials], splits: int, rng: np.random.Generator) -> float | None:
    """Split each task's rollouts at random into halves, pick on one, score on the other; mean over many splits."""
    if min(int(arm.rollouts.min()) for arm in arms) < 2:
        return None
    first, second = [], []
    for arm in arms:
        half = arm.rollouts // 2
        drawn = rng.hypergeometric(arm.solved, arm.rollouts - arm.solved, half, size=(splits, len(half)))
        first.append((drawn / half).mean(axis=1))
        second.append(((arm.solved - drawn) / (arm.rollouts - half)).mean(axis=1))
    picked = np.stack(first).argmax(axis=0)
    return float(np.stack(second)[picked, np.arange(splits)].mean())


def _paule_mandel(rates: Floats, errors: Floats) -> float:
    """Between-arm variance at which the generalised chi-square statistic equals its expectation, M - 1; at least 0."""

    def excess(tau2: float) -> float:
        weights = 1 / (tau2 + errors**2)
        centre = (weights * rates).sum() / weights.sum()
        return float((weights * (rates - centre) ** 2).sum()) - (len(rates) - 1)

    if len(rates) < 2 or excess(0.0) <= 0:
        return 0.0
    from scipy import optimize

    return float(optimize.brentq(excess, 0.0, float(np.ptp(rates)) ** 2 * len(rates) + 1.0))
