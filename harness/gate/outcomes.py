"""Would the full table of the candidate's outcomes lie below the baseline's, by more than a margin?

The outcomes of all planned rollouts are taken as fixed, some not seen yet; the only randomness is the order in which
they are seen. Exact, and decided with fewer rollouts, but a rerun of the same checkpoints could differ.
"""

from dataclasses import dataclass

import numpy as np

from aem_harness.harness.compare.values import Floats, Ints
from aem_harness.harness.gate.config import GateConfig
from aem_harness.harness.gate.design import Design
from aem_harness.harness.gate.looks import Cells, GatePath
from aem_harness.harness.gate.looks import looks as looks
from aem_harness.harness.gate.sequential import betting_interval, log_capital


@dataclass(frozen=True)
class Draws:
    """The difference of the full tables as the mean of a population of N K numbers, of which `values` have been drawn.

    With a stored baseline the numbers are y - g, where g is what is forecast for the task (the control variate: its
    mean is known), and difference = mean + offset; with a fresh one they are y - b.
    """

    values: Floats
    offset: float
    limits: tuple[float, float]


def draws(design: Design, candidate: Floats, baseline: Floats, length: int) -> Draws:
    """The first `length` of the order; `candidate` and `baseline` as in `Cells`."""
    task, k = design.order[:length].T
    if baseline.ndim == 2:
        return Draws((candidate - baseline)[task, k], 0.0, (-1.0, 1.0))
    g = design.forecast.rate
    offset, limits = float(g.mean() - baseline.mean()), (-float(g.max()), 1 - float(g.min()))
    return Draws(candidate[task, k] - g[task], offset, limits)


def extremes(design: Design, cells: Cells, length: int) -> tuple[Draws, Draws]:
    """The candidate's worst and best case."""
    worst = draws(design, cells.low, cells.baseline_high, length)
    return worst, worst if cells.complete else draws(design, cells.high, cells.baseline_low, length)


def follow(design: Design, config: GateConfig, cells: Cells, at: Ints) -> GatePath:
    """What is proven at the looks `at`: bets on the rollouts still unseen; when all are seen, their sum decides.

    A full table whose difference is exactly the margin passes. Without early looks only the full table decides.
    """
    size, margin, beyond = len(design.order), config.margin, config.blocks_beyond
    worst, best = extremes(design, cells, int(at[-1]))
    low, high = best.limits
    like, unlike = guesses(config, worst, best)
    gain = log_capital(worst.values, -margin - worst.offset - 1e-9, size, worst.limits, guess=like)[0]
    loss = log_capital(-best.values, beyond + best.offset, size, (-high, -low), guess=-unlike)[0]
    need_pass, need_block = -np.log(config.alphas) if config.sequential else (np.inf, np.inf)
    passed = np.maximum.accumulate(gain)[at - 1] >= need_pass
    blocked = np.maximum.accumulate(loss)[at - 1] >= need_block
    difference = (np.cumsum(worst.values + best.values)[at - 1] / at + worst.offset + best.offset) / 2
    return GatePath(at, difference, passed, blocked, np.zeros(len(at), bool))


def bounds(design: Design, config: GateConfig, cells: Cells, at: Ints) -> tuple[Floats, Floats]:
    """Confidence sequence of the difference at the looks `at`; see `betting_interval`."""
    worst, best = extremes(design, cells, int(at[-1]))
    size, alphas, guess = len(design.order), config.alphas, guesses(config, worst, best)
    lower, _ = betting_interval(worst.values, size, worst.limits, alphas=alphas, guesses=guess)
    _, upper = betting_interval(best.values, size, best.limits, alphas=alphas, guesses=guess)
    return lower[at - 1] + worst.offset, upper[at - 1] + best.offset


def guesses(config: GateConfig, worst: Draws, best: Draws) -> tuple[float, float]:
    """Where the bets start: for PASS at an equal table, for BLOCK at one that is two margins below the limit."""
    return -worst.offset, -config.blocks_beyond - 2 * config.margin - best.offset


def chance(design: Design, config: GateConfig) -> float:
    """Planned probability that a candidate with the baseline's table passes: in the end everything is seen."""
    return 1.0
