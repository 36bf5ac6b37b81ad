"""When a gate looks, on what data, and what it finds: shared by the two questions."""

from dataclasses import dataclass

import numpy as np

from aem_harness.harness.compare.values import Floats, Ints
from aem_harness.harness.gate.config import GateConfig
from aem_harness.harness.gate.design import Design
from aem_harness.harness.gate.sequential import Truths

LOOKS = 400  # at most; a longer gate looks at every second, third, ... rollout


@dataclass(frozen=True)
class Cells:
    """Outcomes by task and visit (N, K), for the candidate's worst and best case; they differ where a rollout is
    missing.

    `baseline_low` and `baseline_high` are the baseline's worst and best case: means of stored outcomes (N,), or
    outcomes (N, K) of a baseline that is run beside the candidate. Cells not consumed yet may have any value.
    """

    low: Floats
    high: Floats
    baseline_low: Floats
    baseline_high: Floats

    @property
    def complete(self) -> bool:
        """Nothing is missing: worst and best case are the same arrays."""
        return self.low is self.high and self.baseline_low is self.baseline_high


@dataclass(frozen=True)
class GatePath:
    """At each look (L,): rollouts consumed, the difference, and what is proven.

    `hopeless`: a verdict has become too unlikely to continue.
    """

    rollouts: Ints
    difference: Floats
    passed: Truths
    blocked: Truths
    hopeless: Truths

    def stop(self) -> int | None:
        """Index of the first look that ends the gate, or None."""
        over = self.passed | self.blocked | self.hopeless
        return int(over.argmax()) if over.any() else None


def planned(design: Design, config: GateConfig) -> int:
    """The most rollouts that will be run; with a fresh baseline each costs two."""
    total = len(design.order)
    if config.budget is not None and config.budget.unit == "rollouts":
        return max(1, min(total, int(config.budget.amount) // (1 if design.baseline else 2)))
    return total


def looks(design: Design, config: GateConfig) -> Ints:
    """After how many rollouts the gate looks; fixed in advance."""
    last = planned(design, config)
    step = max(1, -(-last // LOOKS))
    early = range(step, last, step) if config.sequential else ()
    return np.array([*early, last], dtype=np.int64)
