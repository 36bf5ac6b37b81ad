"""Made-up arms whose truth is known."""

import numpy as np

from aem_harness.harness.gate.calibrate import draw
from aem_harness.harness.gate.design import Arm


def names(n: int) -> tuple[str, ...]:
    return tuple(f"owner__repo-{i:04d}" for i in range(n))


def arm(name: str, outcomes) -> Arm:
    """An arm with these outcomes (tasks, seeds)."""
    values = np.asarray(outcomes, dtype=float)
    return Arm(name, names(len(values)), tuple(range(values.shape[1])), values)


def counted(name: str, solved, seeds: int) -> Arm:
    """An arm in which task i is solved by the first solved[i] of its seeds."""
    return arm(name, np.arange(seeds) < np.asarray(solved)[:, None])


def surface(n: int, seed: int = 0) -> np.ndarray:
    """Resolve probabilities like those published for SWE-bench Verified: Beta(0.25, 0.34)."""
    return np.random.default_rng(seed).beta(0.25, 0.34, n)


def drawn(name: str, p: np.ndarray, seeds: int = 4, seed: int = 1) -> Arm:
    return arm(name, draw(p, seeds, np.random.default_rng(seed)))
