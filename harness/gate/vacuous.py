"""A gate is vacuous if it cannot BLOCK a candidate that resolves nothing, or PASS one that resolves everything."""

from collections.abc import Sequence

import numpy as np

from aem_harness.harness.errors import ConfigError, EnvironmentFault
from aem_harness.harness.gate.config import GateConfig
from aem_harness.harness.gate.design import Arm, Design
from aem_harness.harness.gate.gate import GateVerdict, decide
from aem_harness.harness.gate.looks import Cells

MARGINS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.10, 0.15, 0.20, 0.30, 0.40)  # to suggest


def refuse_vacuous(config: GateConfig, design: Design, known: Arm | None) -> None:
    """Raise before anything is spent if one of the verdicts is out of reach.

    `known` is the baseline, or an earlier run of one that is run afresh. EnvironmentFault if it resolves nothing,
    ConfigError, with a usable margin, if it resolves too little.
    """
    if known is None:
        return
    baseline = known.select(design.tasks)
    rate = float(np.nanmean(baseline.means))
    if rate == 0:
        raise EnvironmentFault(
            f"the baseline {known.name} resolves nothing, so no candidate can be worse; a run at 0 % is usually "
            "broken: check it with `aem show`"
        )
    if not _reaches(config, design, baseline, solved=0.0, verdict=GateVerdict.BLOCK):
        smaller = [m for m in reversed(MARGINS) if m < config.blocks_beyond]
        least = next((m for m in reversed(MARGINS) if m <= rate / 2), MARGINS[0])
        advice = _advice(smaller, config, design, baseline)
        advice = advice or f"choose --margin {100 * least:g}, and more tasks or seeds"
        raise ConfigError(
            f"this gate cannot BLOCK: the baseline {known.name} resolves {100 * rate:.1f} %, so even a candidate that "
            f"resolves nothing is not shown to be {100 * config.blocks_beyond:g} points worse; {advice}"
        )
    if not _reaches(config, design, baseline, solved=1.0, verdict=GateVerdict.PASS):
        raise ConfigError(
            "this gate cannot PASS: with so few rollouts, even a candidate that resolves everything is not shown to be "
            f"less than {100 * config.margin:g} points worse; "
            + (
                _advice([m for m in MARGINS if m > config.margin], config, design, baseline)
                or "give it more tasks or seeds"
            )
        )


def _reaches(config: GateConfig, design: Design, baseline: Arm, *, solved: float, verdict: GateVerdict) -> bool:
    """Does a candidate that resolves all, or nothing, get the verdict?"""
    mine = np.full(design.seed_of.shape, solved)
    theirs = baseline.extremes if design.baseline is not None else (_spread(baseline, design.seeds),) * 2
    return decide(config, design, Cells(mine, mine, *theirs))[0] is verdict


def _advice(margins: Sequence[float], config: GateConfig, design: Design, baseline: Arm) -> str:
    """The first of these margins at which the gate can PASS and BLOCK, if there is one."""
    for margin in margins:
        changed = config.model_copy(update={"margin": margin, "block_margin": None})
        if all(
            _reaches(changed, design, baseline, solved=solved, verdict=verdict)
            for solved, verdict in ((0.0, GateVerdict.BLOCK), (1.0, GateVerdict.PASS))
        ):
            return f"choose --margin {100 * margin:g}"
    return ""


def _spread(baseline: Arm, seeds: int) -> np.ndarray:
    """Outcomes (N, K) of a fresh baseline as good as the known one: its mean, spread evenly."""
    means = np.nan_to_num(baseline.means)
    return (np.arange(seeds) < np.round(means * seeds)[:, None]).astype(float)
