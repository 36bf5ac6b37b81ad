"""The statistical methods of a gate, and which of them suits a design."""

from typing import Protocol, cast

from aem_harness.harness.compare.values import Floats, Ints
from aem_harness.harness.gate import outcomes, rates, stages
from aem_harness.harness.gate.config import GateConfig
from aem_harness.harness.gate.design import Design
from aem_harness.harness.gate.looks import Cells, GatePath

# Of the rule by which a gate decides; raised whenever the same outcomes could lead to another verdict. 1.0: bets
# everywhere. 1.1: looks. 1.2: an order made for the margin, weights by precision, spending near the optimal rule's.
RULE = "1.2"
RARE = 0.035  # mean variance p (1 - p) of one rollout of the baseline


class DecisionRule(Protocol):
    """Pure functions of a design, its configuration and the outcomes so far."""

    def looks(self, design: Design, config: GateConfig) -> Ints:
        """After how many rollouts the gate looks."""

    def follow(self, design: Design, config: GateConfig, cells: Cells, at: Ints) -> GatePath:
        """What is proven at the looks `at`."""

    def bounds(self, design: Design, config: GateConfig, cells: Cells, at: Ints) -> tuple[Floats, Floats]:
        """Lower and upper limit of the difference (L,)."""

    def chance(self, design: Design, config: GateConfig) -> float:
        """Planned probability that a checkpoint equal to the baseline passes."""


def choose(design: Design, config: GateConfig) -> DecisionRule:
    """Chosen from the design alone, before the first outcome of the candidate."""
    if config.question == "outcomes":
        return cast(DecisionRule, outcomes)
    if config.sequential and suits_stages(design, config):
        return cast(DecisionRule, stages)
    return cast(DecisionRule, rates)


def suits_stages(design: Design, config: GateConfig) -> bool:
    """Used unless failures are rare and there are enough tasks for bets, which then reach a verdict sooner."""
    rare = float(design.forecast.noise.mean()) < RARE
    return config.launch_sd > 0 or not rare or rates.few(design, config)


def name(method: DecisionRule, config: GateConfig) -> str:
    """Its name in a report."""
    if not config.sequential:
        return "one look"
    names = {id(outcomes): "finite population", id(stages): "stages", id(rates): "bets"}
    return names[id(method)]
