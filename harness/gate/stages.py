"""Rates, group-sequentially: the difference is tested at some forty looks, each against its own boundary.

The estimate is the stratified mean difference over the tasks seen so far; its standard error is that of a candidate at
the margin (as in a score test), or what the outcomes show where that is clearly more. Spending and giving up follow the
optimal rule of a dynamic programme (`benchmarks/gate_frontier.py`); the bets of `rates` are kept for rare failures,
where sums are not normal.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from aem_harness.harness.compare.values import Floats, Ints
from aem_harness.harness.gate.boundaries import Boundaries, boundaries, chances, inner
from aem_harness.harness.gate.config import GateConfig
from aem_harness.harness.gate.design import Design
from aem_harness.harness.gate.looks import Cells, GatePath, planned
from aem_harness.harness.gate.sequential import Truths

# Information fractions of the looks: closer together early, where a fraction costs fewer rollouts.
FRACTIONS = np.r_[0.03:0.13:0.0125, 0.13:0.25:0.02, 0.25:0.6:0.025, 0.6:0.98:0.033, 1.0]
SHAPES = ((1.5, 2.0), (1.4, 1.4))  # error spending of PASS and BLOCK
# Share of its alpha that each spends. BLOCK keeps 5 % back, a safety factor for the normal approximation: with all of
# it false BLOCKs at the margin were measured at up to 5.2 %.
SPENT = (1.0, 0.95)
BLOCK_FUTILITY = 0.83  # of the share of its start below which PASS is given up: a BLOCK is hoped for longer
FIRST = 30  # rollouts before the first look
# The variance that is used, as a multiple of the planned one: what the outcomes show, but at least LEAST; more than
# planned only beyond NOISE / sqrt(rollouts), the standard error of the observed variance, and then with EXCESS of the
# surplus on top: a candidate that does not solve what the baseline solves leaves part of the baseline's noise unseen,
# between the strata.
LEAST, NOISE, EXCESS, STEEP = 0.95, 2.2, 0.4, 3.0


@dataclass(frozen=True)
class Scores:
    """At each look (L,): estimate and standard error, in the worst case for PASS and the best for BLOCK."""

    estimate: tuple[Floats, Floats]
    error: tuple[Floats, Floats]
    ready: Truths


def schedule(design: Design, config: GateConfig) -> tuple[Ints, Floats]:
    """The looks (L,): after how many rollouts, and at what fraction of the planned information."""
    last = planned(design, config)
    at = np.unique(np.linspace(1, last, min(last, 100)).round().astype(np.int64))
    seen = visits(design, at)
    known = 1 / (variance(design, seen, config, config.margin) + launches(config))
    information = np.maximum.accumulate(np.where(ready(design, seen), known, 0.0))
    due = np.ceil(np.interp(FRACTIONS * information[-1], information, at).round(6)).astype(np.int64)
    due[-1] = last
    fits = (due >= min(FIRST, last)) & np.r_[np.diff(due) > 0, True]
    return due[fits], FRACTIONS[fits]


def looks(design: Design, config: GateConfig) -> Ints:
    """After how many rollouts the gate looks."""
    return schedule(design, config)[0]


def limits(design: Design, config: GateConfig, at: Ints) -> Boundaries:
    """The boundaries at the looks `at`; an unplanned one (the run ends early) is interpolated."""
    due, fractions = schedule(design, config)
    if more := sorted(set(at.tolist()) - set(due.tolist())):
        extra = np.interp(more, np.r_[0, due], np.r_[0.0, fractions]).round(4)
        order = np.argsort(np.r_[due, more], kind="stable")
        due, fractions = np.r_[due, more][order], np.r_[fractions, extra][order]
    threshold = futility(design, config)
    same = config.blocks_beyond == config.margin
    alphas = spendable(config)
    boundary = boundaries(tuple(fractions.tolist()), alphas, SHAPES, threshold if same else (0.0, 0.0))
    low, high = inner(boundary.fractions, alphas, threshold)
    here = np.searchsorted(due, at)
    return Boundaries(boundary.fractions[here], boundary.upper[here], boundary.lower[here], low[here], high[here])


def follow(design: Design, config: GateConfig, cells: Cells, at: Ints) -> GatePath:
    """What is proven at the looks `at`."""
    boundary, scores = limits(design, config, at), score(design, config, cells, at)
    z_pass = (scores.estimate[0] + config.margin) / scores.error[0]
    z_block = (scores.estimate[1] + config.blocks_beyond) / scores.error[1]
    passed = (z_pass >= boundary.upper) & scores.ready
    blocked = (z_block <= boundary.lower) & scores.ready & ~passed
    hopeless = (z_pass < boundary.inner_high) & (z_block > boundary.inner_low) & ~passed & ~blocked
    hopeless &= (at < planned(design, config)) & scores.ready
    return GatePath(at, (scores.estimate[0] + scores.estimate[1]) / 2, passed, blocked, hopeless)


def bounds(design: Design, config: GateConfig, cells: Cells, at: Ints) -> tuple[Floats, Floats]:
    """Repeated confidence intervals at the looks `at` (Jennison and Turnbull, JRSS-B 51:305, 1989)."""
    boundary, scores = limits(design, config, at), score(design, config, cells, at)
    low = np.where(scores.ready, scores.estimate[0] - boundary.upper * scores.error[0], -1.0)
    high = np.where(scores.ready, scores.estimate[1] - boundary.lower * scores.error[1], 1.0)
    return np.maximum(low, -1.0), np.minimum(high, 1.0)


def chance(design: Design, config: GateConfig) -> float:
    """Planned probability that a checkpoint equal to the baseline passes."""
    drift = config.margin * np.sqrt(information(design, config, config.margin) / LEAST)
    return chances(limits(design, config, looks(design, config)), drift)[0]


def spendable(config: GateConfig) -> tuple[float, float]:
    """The errors that the boundaries spend, for PASS and for BLOCK."""
    return config.alphas[0] * SPENT[0], config.alphas[1] * SPENT[1]


def futility(design: Design, config: GateConfig) -> tuple[float, float]:
    """The predictive probabilities of PASS and of BLOCK below which a gate is futile."""
    return thresholds(config, float(np.sqrt(information(design, config))))


def thresholds(config: GateConfig, root: float) -> tuple[float, float]:
    """The same from the square root of the information; rounded, for the cache of boundaries."""
    least = config.gives_up_below * float(ndtr(config.margin * root + ndtri(config.alphas[0])))
    return round(200 * least) / 200, round(200 * BLOCK_FUTILITY * least) / 200


def information(design: Design, config: GateConfig, drop: float = 0.0) -> float:
    """1 / variance of the difference when everything planned is in, for a candidate that is worse by `drop`."""
    seen = visits(design, np.array([planned(design, config)]))
    return 1 / float(variance(design, seen, config, drop)[0] + launches(config))


# --- scores -----------------------------------------------------------------------------------------------------------


def score(design: Design, config: GateConfig, cells: Cells, at: Ints) -> Scores:
    """Estimates and standard errors at the looks `at`."""
    worst = _scored(design, config, at, (cells.low, cells.baseline_high), config.margin)
    best = worst
    if not cells.complete or config.blocks_beyond != config.margin:
        best = _scored(design, config, at, (cells.high, cells.baseline_low), config.blocks_beyond)
    return Scores((worst[0], best[0]), (worst[1], best[1]), ready(design, visits(design, at)))


def believed(expected: Floats, observed: Floats, at: Ints) -> Floats:
    """The variance (L,) that is used after `at` rollouts, from the planned one and what the outcomes show."""
    ratio = observed / expected
    surplus = ratio - 1
    more = np.minimum(ratio + EXCESS * surplus * np.clip(surplus, 0, 1), 1 + STEEP * (surplus - NOISE / np.sqrt(at)))
    return np.asarray(expected * np.maximum(np.clip(ratio, LEAST, 1), more))


def _scored(
    design: Design, config: GateConfig, at: Ints, outcomes: tuple[Floats, Floats], drop: float
) -> tuple[Floats, Floats]:
    """Stratified mean difference of the outcomes (candidate, baseline) at the looks (L,), and its standard error for a
    candidate that is worse by `drop`."""
    candidate, baseline = outcomes
    stored = baseline.ndim == 1
    means = np.cumsum(candidate if stored else candidate - baseline, axis=1) / np.arange(1, candidate.shape[1] + 1)
    seen = visits(design, at)
    mine = means[np.arange(len(means)), np.maximum(seen, 1) - 1]
    weight, kind = weights(design, config, seen), members(design)
    d = np.where(seen > 0, mine - baseline if stored else mine, 0.0)
    center = (weight * d) @ kind * (len(design.tasks) / design.sizes)
    square = (weight * np.where(seen > 0, d - center[:, design.strata], 0.0)) ** 2 @ kind
    tasks = (seen > 0) @ kind
    observed = (square * tasks / np.maximum(tasks - 1, 1)).sum(axis=1)
    total = believed(variance(design, seen, config, drop), observed, at) + launches(config)
    return (weight * d).sum(axis=1), np.sqrt(total)


def launches(config: GateConfig) -> float:
    """Variance of the difference that more rollouts do not reduce: each arm was launched once."""
    return 2 * config.launch_sd**2


def visits(design: Design, at: Ints) -> Ints:
    """Rollouts of each task (L, N) that the looks `at` see."""
    counts = np.zeros((len(at), len(design.tasks)), dtype=np.int64)
    for visit in design.places.T:
        counts += visit < at[:, None]
    return counts


def members(design: Design) -> Floats:
    """1 where a task is in a stratum, (N, H)."""
    return np.asarray(design.strata[:, None] == np.arange(len(design.sizes)), dtype=float)


def weights(design: Design, config: GateConfig, seen: Ints) -> Floats:
    """What each task counts at the looks (L, N); a stratum's weights sum to its share of all tasks.

    Within a stratum the weight goes by precision. Which of its tasks have had one rollout more than the others is
    random, so that the estimate stays unbiased; in the end all have had equally many. Where tasks were planned with
    unequal numbers, which have more is not random: all tasks seen count alike.
    """
    kind = members(design)
    precision = (seen > 0).astype(float)
    if len(design.order) == design.seeds * len(design.tasks):
        precision /= _each(design, seen, config.margin)
    total = precision @ kind
    return precision * (design.sizes / len(design.tasks) / np.maximum(total, 1e-9))[:, design.strata]


def variance(design: Design, seen: Ints, config: GateConfig, drop: float = 0.0) -> Floats:
    """Planned variance of the difference at the looks (L,) that see these rollouts (L, N).

    The candidate solves every task less often by one factor, so that its mean is lower by `drop`.
    """
    return np.asarray((weights(design, config, seen) ** 2 * _each(design, seen, drop)).sum(axis=1))


def ready(design: Design, seen: Ints) -> Truths:
    """Whether every stratum has been seen, (L,)."""
    return np.all((seen > 0) @ members(design) > 0, axis=1)


def _each(design: Design, seen: Ints, drop: float) -> Floats:
    """Planned variance of a task's difference after so many rollouts (L, N): the mean over its stratum."""
    expected, n = design.forecast, np.maximum(seen, 1)
    factor = max(1 - drop / max(float(expected.rate.mean()), 1e-9), 0.0)
    mine = np.maximum(factor * expected.rate - factor**2 * (expected.rate - expected.noise), 1e-3)
    theirs = expected.spread if design.baseline else expected.noise
    noise, other = ((part @ members(design) / design.sizes)[design.strata] for part in (mine, theirs))
    return np.asarray(noise / n + (other if design.baseline else other / n))
