"""The decision rule of version 1.0: bets at up to 400 looks. Kept unchanged, to be measured beside today's gate.

`decide` is its verdict on complete outcomes; nothing in the product uses this.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.special import ndtr

from aem_harness.harness.compare.values import Floats, Ints
from aem_harness.harness.gate.config import GateConfig
from aem_harness.harness.gate.design import Design
from aem_harness.harness.gate.gate import GateVerdict
from aem_harness.harness.gate.looks import Cells, GatePath, looks, planned
from aem_harness.harness.gate.sequential import Truths, largest_stake, log_evidence, reach_probability

FUTILITY = 0.3  # of the first chance
# BLOCK hedges between "a margin beyond the margin" and "far beyond": half of the capital on each. In margins.
BLOCK_TARGETS = (1.0, 3.0)
# At most this share of the capital is risked on any one task. With more, rare failures that a second rollout makes up
# for let false PASSes exceed alpha where a baseline has no run noise (measured: 7 % at 0.9).
PASS_RISK, BLOCK_RISK = 0.5, 0.7
LAST_SHARE = 0.05  # of alpha, kept for the last planned look, at which an ordinary t-test uses all there is
# Where the tasks are too few for bets, these shares of the alphas of PASS and BLOCK go to t-tests after 1/2, 3/4 and
# all of the rollouts instead (earlier, rare failures are too few for a t-test).
FEW_SHARES, FEW_TESTS = (0.6, 0.5), (0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Views:
    """What L looks see: rollouts of each task and its weight, (L, N), the planned variance of the difference, (L,)."""

    counts: Ints
    weights: Floats
    variance: Floats
    ready: Truths

    def differences(self, candidate: Floats, baseline: Floats) -> Floats:
        """Mean over each task's rollouts so far, less the baseline's, (L, N); 0 where there is none yet."""
        stored = baseline.ndim == 1
        means = np.cumsum(candidate if stored else candidate - baseline, axis=1) / np.arange(1, candidate.shape[1] + 1)
        mine = means[np.arange(len(means)), np.maximum(self.counts, 1) - 1]
        return np.where(self.counts > 0, mine - baseline if stored else mine, 0.0)

    def extremes(self, cells: Cells) -> tuple[Floats, Floats]:
        """Differences at worst and at best for the candidate."""
        worst = self.differences(cells.low, cells.baseline_high)
        return worst, worst if cells.complete else self.differences(cells.high, cells.baseline_low)


def view(design: Design, at: Ints) -> Views:
    """The looks after `at` rollouts. A look is ready when every stratum has been seen: its weights then sum to 1."""
    counts = np.zeros((len(at), len(design.tasks)), dtype=np.int64)
    for visit in design.places.T:
        counts += visit < at[:, None]
    seen = counts > 0
    visited = np.stack([seen[:, design.strata == h].sum(axis=1) for h in range(len(design.sizes))], axis=1)
    share = design.sizes / design.sizes.sum()
    weights = np.where(seen, (share / np.maximum(visited, 1))[:, design.strata], 0.0)
    expected, n = design.forecast, np.maximum(counts, 1)
    each = expected.noise / n + (expected.spread if design.baseline else expected.noise / n)
    return Views(counts, weights, (weights**2 * each).sum(axis=1), np.all(visited > 0, axis=1))


def follow(design: Design, config: GateConfig, cells: Cells, at: Ints) -> GatePath:
    """What is proven at the looks `at`: by the evidence so far, and at the last planned look also by a t-test."""
    views = view(design, at)
    worst, best = views.extremes(cells)
    difference = (views.weights * (worst + best)).sum(axis=1) / 2
    low, high = _tested(design, config, views, worst, best, at)
    passed, blocked = low > -config.margin, high < -config.blocks_beyond
    if not config.sequential:
        return GatePath(at, difference, passed, blocked, np.zeros(len(at), bool))
    margin, beyond = config.margin, config.blocks_beyond
    for_pass_gap, *for_block_gaps = targets(design, config)
    for_pass = _above(views, worst, np.full(len(at), -margin), for_pass_gap, PASS_RISK)
    for_block = _below(views, best, np.full(len(at), -beyond), for_block_gaps)
    (pass_alpha, _), (block_alpha, _) = shares(design, config)
    need_pass, need_block = -np.log(pass_alpha), -np.log(block_alpha)
    passed |= for_pass >= need_pass
    blocked |= for_block >= need_block
    blocked &= ~passed
    hopeless = np.zeros(len(at), bool)
    if FUTILITY:
        plan = _Plan(design, config, views)
        kind = np.sqrt(views.variance)  # one standard error in favour
        hope_pass = plan.hope(difference + margin, kind, need_pass - for_pass, 0)
        hope_block = plan.hope(-difference - beyond, kind, need_block - for_block, 1)
        hopeless = np.maximum(hope_pass, hope_block) < FUTILITY * chance(design, config)
        hopeless &= plan.late & ~passed & ~blocked & (at < planned(design, config))
    return GatePath(at, difference, passed, blocked, hopeless)


def shares(design: Design, config: GateConfig) -> list[tuple[float, float]]:
    """For PASS and for BLOCK: what the bets may spend of alpha, and what each of the t-tests may."""
    if not config.sequential:
        return [(0.0, alpha) for alpha in config.alphas]
    if few(design, config):
        return [
            ((1 - t) * alpha, t * alpha / len(FEW_TESTS)) for t, alpha in zip(FEW_SHARES, config.alphas, strict=True)
        ]
    return [((1 - LAST_SHARE) * alpha, LAST_SHARE * alpha) for alpha in config.alphas]


def few(design: Design, config: GateConfig) -> bool:
    """Are the tasks too few for bets? So few that all of them, equal and noiseless, would not earn a PASS."""
    return bool(len(design.tasks) * np.log1p(PASS_RISK * config.margin) < -np.log(config.alpha))


def tests(design: Design, config: GateConfig) -> Ints:
    """The looks, in rollouts, that have a t-test: the last, or with few tasks FEW_TESTS."""
    at = looks(design, config)
    if not config.sequential or not few(design, config):
        return at[-1:]
    return at[[max(int(part * len(at)) - 1, 0) for part in FEW_TESTS]]


def targets(design: Design, config: GateConfig) -> list[float]:
    """The gaps between truth and hypothesis that evidence is staked for: one for PASS, then those for BLOCK.

    For PASS a candidate that is equal. Where all that is planned is too little to show a gap so small, the smallest gap
    that it can show: sqrt(2 log(1 / alpha) / information), at which the evidence needs the least deviation in the end.
    """
    information = _information(design, config)
    for_pass, for_block = (float(np.sqrt(-2 * np.log(alpha) / information)) for alpha, _ in shares(design, config))
    return [max(config.margin, for_pass), *(max(times * config.margin, for_block) for times in BLOCK_TARGETS)]


def chance(design: Design, config: GateConfig) -> float:
    """Planned probability that a checkpoint equal to the baseline is cleared (the better of the two ways to it)."""
    information, margin = _information(design, config), config.margin
    underway, last = shares(design, config)[0]
    at_the_end = float(stats.norm.cdf(margin * np.sqrt(information) + stats.norm.ppf(last)))
    if not config.sequential:
        return at_the_end
    return max(float(_reach(information, targets(design, config)[0], margin, -np.log(underway))), at_the_end)


# --- evidence ---------------------------------------------------------------------------------------------------------


def _above(views: Views, differences: Floats, null: Floats, target: float, risk: float) -> Floats:
    """Log evidence (L,) that the mean exceeds `null` (L,), staked for it to exceed it by `target`.

    The stakes follow from the design and the baseline alone: target / variance is the growth-optimal one to second
    order (Kelly), where the variance is that of a candidate equal to the baseline.
    """
    stakes = np.minimum(target / views.variance, largest_stake(views.weights, null, risk))
    return np.where(views.ready, log_evidence(differences, views.weights, null, stakes), 0.0)


def _below(views: Views, differences: Floats, null: Floats, gaps: Sequence[float]) -> Floats:
    """Log evidence (L,) that the mean is below `null` (L,): the mean of the evidence for each gap."""
    hedged = [_above(views, -differences, -null, gap, BLOCK_RISK) for gap in gaps]
    return np.asarray(np.logaddexp.reduce(hedged, axis=0) - np.log(len(hedged)))


def _tested(
    design: Design, config: GateConfig, views: Views, worst: Floats, best: Floats, at: Ints
) -> tuple[Floats, Floats]:
    """The t-tests' bounds at the looks `at` that have one, -1 and 1 at the others."""
    tested = np.isin(at, tests(design, config)) & views.ready
    if not tested.any():
        return -np.ones(len(at)), np.ones(len(at))
    low, high = _t_bounds(views, worst, best, [alpha for _, alpha in shares(design, config)])
    return np.where(tested, low, -1.0), np.where(tested, high, 1.0)


def _t_bounds(views: Views, worst: Floats, best: Floats, alphas: Sequence[float]) -> tuple[Floats, Floats]:
    """One-sided t-intervals, the task as the unit: variance sum_i weight_i^2 (d_i - difference)^2, m - 1 df."""
    seen = (views.counts > 0).sum(axis=1)

    def centre_and_error(d: Floats) -> tuple[Floats, Floats]:
        x = (views.weights * d).sum(axis=1)
        square = (views.weights**2 * (d - x[:, None]) ** 2).sum(axis=1) + views.weights.max(axis=1) ** 2 / 4
        return x, np.sqrt(square * seen / np.maximum(seen - 1, 1))

    t = [stats.t.ppf(1 - alpha, np.maximum(seen - 1, 1)) for alpha in alphas]
    (low, low_error), (high, high_error) = centre_and_error(worst), centre_and_error(best)
    return low - t[0] * low_error, high + t[1] * high_error


# --- planning ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """How likely a verdict still is at each look (L,), for deciding to give up; nothing is claimed from it."""

    design: Design
    config: GateConfig
    views: Views

    @property
    def late(self) -> Truths:
        """More than half of the information is in; before that nothing is hopeless."""
        return 1 / self.views.variance >= _information(self.design, self.config) / 2

    def hope(self, gap: Floats, kind: Floats, need: Floats, side: int) -> Floats:
        """Chance of a verdict, underway or at the last look, if the truth is `kind` better than the gap so far."""
        end, now, margin = _information(self.design, self.config), 1 / self.views.variance, self.config.margin
        to_come = np.maximum(end - now, 1e-9)
        truth = np.maximum(gap + kind, margin)
        underway = _reach(to_come, targets(self.design, self.config)[side], truth, need)
        z = stats.norm.isf(shares(self.design, self.config)[side][1])
        at_the_end = ndtr((gap * now + truth * to_come - z * np.sqrt(end)) / np.sqrt(to_come))
        return np.maximum(underway, at_the_end)


def _information(design: Design, config: GateConfig) -> float:
    """1 / variance of the difference when everything planned is in, for a candidate equal to the baseline."""
    return 1 / float(view(design, np.array([planned(design, config)])).variance[0])


def _reach(information: Floats | float, target: float, gap: Floats | float, need: Floats | float) -> Floats:
    """Chance that evidence staked for a gap of `target` grows by `need` while `information` comes in."""
    root = np.sqrt(np.maximum(information, 1e-12))
    return reach_probability(np.asarray(need) / (target * root), (np.asarray(gap) - target / 2) * root)


def decide(config: GateConfig, design: Design, cells: Cells) -> tuple[GateVerdict, int]:
    """Verdict and rollouts used."""
    at = looks(design, config)
    for part in np.array_split(at, max(1, len(at) // 40)):
        path = follow(design, config, cells, part)
        stop = path.stop()
        if stop is not None:
            said = "PASS" if path.passed[stop] else "BLOCK" if path.blocked[stop] else "INCONCLUSIVE"
            return GateVerdict(said), int(part[stop])
    return GateVerdict.INCONCLUSIVE, int(at[-1])
