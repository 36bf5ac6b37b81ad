"""Simulated evaluations with a known truth: to check a plan's power, and every interval and test of `aem compare`.

A world is a resolve probability per task and arm, spread like the public ones: Beta with mean `rate` and the share
`noise` of the variance being run noise, so that E[p (1 - p)] = noise * rate * (1 - rate).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aem_harness.harness.compare.plan import VERIFIED_REPOS
from aem_harness.harness.compare.values import Floats, TaskValues, Trials, rates


@dataclass(frozen=True)
class World:
    """True resolve probabilities of two arms on N tasks, and the tasks' repositories. Shapes (N,)."""

    baseline: Floats
    candidate: Floats
    repos: NDArray[np.str_]

    @property
    def difference(self) -> float:
        """The true mean difference on these tasks."""
        return float((self.candidate - self.baseline).mean())


def draw_world(
    rng: np.random.Generator,
    repos: dict[str, int] | None = None,
    *,
    rate: float = 0.42,
    noise: float = 0.37,
    shift: float = 0.0,
    task_spread: float = 0.0,
    repo_spread: float = 0.0,
) -> World:
    """New tasks. The candidate differs by `shift` plus a task's and its repository's own change, all on average 0.

    Changes scale with the distance of p from 0 and 1, so that the mean change over tasks like these is
    exactly `shift`: task_spread and repo_spread are standard deviations at p = 1/2.
    """
    sizes = VERIFIED_REPOS if repos is None else repos
    counts = list(sizes.values())
    labels = np.repeat(list(sizes), counts)
    concentration = noise / (1 - noise)
    p = rng.beta(rate * concentration, (1 - rate) * concentration, len(labels))
    own = task_spread * rng.standard_normal(len(labels))
    shared = np.repeat(repo_spread * rng.standard_normal(len(sizes)), counts)
    room = np.minimum(p, 1 - p)
    q = p + np.clip((own + shared) * 4 * p * (1 - p), -room, room)  # clipped symmetrically: the mean stays `rate`
    q = q + (shift * (1 - q) / (1 - rate) if shift > 0 else shift * q / rate)
    return World(p, np.clip(q, 0, 1), labels.astype(str))


def roll(probabilities: Floats, rollouts: NDArray[np.int64] | int, rng: np.random.Generator) -> Trials:
    """Run an arm: `rollouts` for every task, or per task (N,)."""
    count = np.broadcast_to(np.asarray(rollouts, dtype=np.int64), probabilities.shape).copy()
    return Trials(rng.binomial(count, probabilities), count, np.zeros_like(count))


def observed(trials: Trials, repos: NDArray[np.str_]) -> TaskValues:
    """Rates of a simulated arm."""
    return rates(trials, tuple(str(i) for i in range(len(repos))), repos)
