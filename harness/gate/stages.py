"""Rates, group-sequentially: the difference is tested at some forty looks, each against its own boundary.

The estimate is the stratified mean difference over the tasks seen so far; its standard error is that of a candidate at
the margin (as in a score test), or the observed one if that is larger. Close to the best of any rule for moderate
drops; the bets of `rates` are used for few tasks and rare failures, whose sums are not normal.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from aem_harness.harness.compare.values import Floats, Ints
from aem_harness.harness.gate.boundaries import Boundaries, boundaries, chances, inner
from aem_harness.harness.gate.config import GateConfig
from aem_harness.harness.gate.design import Design
from aem_harness.harness.gate.looks import Cells, GatePath, planned
from aem_harness.harness.gate.sequential import Truths

# Information fractions of the looks: closer together early, where a fraction costs fewer rollouts.
FRACTIONS = np.r_[0.03:0.13:0.0125, 0.13:0.25:0.02, 0.25:0.6:0.025, 0.6:0.98:0.033, 1.0]
SHAPES = (0.0, 0.0)  # error spending of PASS and BLOCK
FIRST = 30  # rollouts before the first look


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
    total, ready = variance(design, at, config)
    information = np.maximum.accumulate(np.where(ready, 1 / np.maximum(total, 1e-12), 0.0))
    due = np.ceil(np.interp(FRACTIONS * information[-1], information, at)).astype(np.int64)
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
    boundary = boundaries(tuple(fractions.tolist()), config.alphas, SHAPES, threshold if same else (0.0, 0.0))
    low, high = inner(boundary.fractions, config.alphas, threshold)
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
    drift = config.margin * np.sqrt(information(design, config))
    return chances(limits(design, config, looks(design, config)), drift)[0]


def futility(design: Design, config: GateConfig) -> tuple[float, float]:
    """The predictive probabilities of PASS and BLOCK below which a gate is futile (rounded: for the cache)."""
    alone = stats.norm.cdf(config.margin * np.sqrt(information(design, config)) - stats.norm.isf(config.alphas[0]))
    return (round(config.gives_up_below * float(alone), 2),) * 2


def information(design: Design, config: GateConfig) -> float:
    """1 / variance of the difference when everything planned is in, for a candidate equal to the baseline."""
    return 1 / float(variance(design, np.array([planned(design, config)]), config)[0][0])


# --- scores -----------------------------------------------------------------------------------------------------------


def score(design: Design, config: GateConfig, cells: Cells, at: Ints) -> Scores:
    """Estimates and standard errors at the looks `at`."""
    worst = _scored(design, config, at, (cells.low, cells.baseline_high), config.margin)
    best = worst
    if not cells.complete or config.blocks_beyond != config.margin:
        best = _scored(design, config, at, (cells.high, cells.baseline_low), config.blocks_beyond)
    ready = np.all(tally(design, at, np.ones(design.seed_of.shape)) > 0, axis=1)
    return Scores((worst[0], best[0]), (worst[1], best[1]), ready)


def _scored(
    design: Design, config: GateConfig, at: Ints, outcomes: tuple[Floats, Floats], drop: float
) -> tuple[Floats, Floats]:
    """Stratified mean difference of the outcomes (candidate, baseline) and its standard error at the looks (L,)."""
    candidate, baseline = outcomes
    stored = baseline.ndim == 1
    means = np.cumsum(candidate if stored else candidate - baseline, axis=1) / np.arange(1, candidate.shape[1] + 1)
    d = means - baseline[:, None] if stored else means
    seen = np.maximum(tally(design, at, np.ones(d.shape)), 1)
    total, squares = tally(design, at, d), tally(design, at, d**2)
    share = design.sizes / len(design.tasks)
    within = np.maximum(squares - total**2 / seen, 0.0) / np.maximum(seen - 1, 1)
    observed = (share**2 / seen * within).sum(axis=1) + launches(config)
    planned_here = variance(design, at, config, drop)[0]
    return (share * total / seen).sum(axis=1), np.sqrt(np.maximum(planned_here, observed))


def launches(config: GateConfig) -> float:
    """Variance of the difference that more rollouts do not reduce: each arm was launched once."""
    return 2 * config.launch_sd**2


def variance(design: Design, at: Ints, config: GateConfig, drop: float = 0.0) -> tuple[Floats, Truths]:
    """Planned variance of the difference at the looks (L,), and whether all strata have been seen.

    The candidate solves every task less often by one factor, so that its mean is lower by `drop`.
    """
    expected, n = design.forecast, np.arange(1, design.seeds + 1)
    factor = max(1 - drop / max(float(expected.rate.mean()), 1e-9), 0.0)
    noise = np.maximum(factor * expected.rate - factor**2 * (expected.rate - expected.noise), 1e-3)[:, None]
    each = noise / n + (expected.spread[:, None] if design.baseline else expected.noise[:, None] / n)
    seen = tally(design, at, np.ones(each.shape))
    share = design.sizes / len(design.tasks)
    total = ((share / np.maximum(seen, 1)) ** 2 * tally(design, at, each)).sum(axis=1)
    return total + launches(config), np.all(seen > 0, axis=1)


def tally(design: Design, at: Ints, values: Floats) -> Floats:
    """Sums (L, H) over the tasks seen, by stratum; `values` (N, K) is what a task counts after each of its visits."""
    steps = np.diff(values, axis=1, prepend=0.0)
    task, visit = design.order.T
    by_stratum = np.zeros((len(task), len(design.sizes)))
    by_stratum[np.arange(len(task)), design.strata[task]] = steps[task, visit]
    return np.cumsum(by_stratum, axis=0)[at - 1]
