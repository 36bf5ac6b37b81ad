"""`aem gate` on outcomes that exist already: every check, the replay, the calibration and the report, in that order."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from aem_harness.harness.compare.outcomes import Outcomes, combine, load, load_one
from aem_harness.harness.errors import ConfigError, DataError
from aem_harness.harness.gate.calibrate import cached
from aem_harness.harness.gate.config import GateConfig
from aem_harness.harness.gate.design import Arm
from aem_harness.harness.gate.gate import replay
from aem_harness.harness.gate.report import GateReport, report
from aem_harness.harness.gate.sequence import open_sequence, record
from aem_harness.harness.gate.table import check_pin, read_arm, refuse_drift, same_tasks


@dataclass(frozen=True)
class Options:
    """What surrounds a gate: past checkpoints, leniences, the pinned baseline, and the sequence it belongs to."""

    history: Sequence[str] = ()
    fresh: bool = False
    common: bool = False
    pin: str | None = None
    allow: Collection[str] = ()
    sequence: Path | None = None
    calibrated: bool = True


def load_arms(sources: Sequence[str], baseline: str, candidate: str) -> tuple[Outcomes, str, str]:
    """The outcomes, and the names of the two arms in them.

    Without `sources`, baseline and candidate are themselves sources of one arm each (FILE:ARM picks one).
    """
    if sources:
        return load(sources), baseline, candidate
    parts = [load_one(source) for source in (baseline, candidate)]
    for source, part in zip((baseline, candidate), parts, strict=True):
        if len(part.arms) > 1:
            raise ConfigError(f"{source} holds several arms; write {source}:ARM, or name the file with --from")
    return combine(parts), parts[0].arms[0], parts[1].arms[0]


def past_arms(names: Sequence[str], outcomes: Outcomes | None, *, retries: int) -> list[Arm]:
    """Past checkpoints: arms of `outcomes`, or run folders and files (FILE:ARM) of their own."""
    found = []
    for name in names:
        if outcomes is not None and (name in outcomes.arms or not Path(name.rpartition(":")[0] or name).exists()):
            found.append(read_arm(outcomes, name, retries=retries))
        else:
            part = load_one(name)
            found += [read_arm(part, arm, retries=retries) for arm in part.arms]
    return found


def gate_stored(
    outcomes: Outcomes, baseline: str, candidate: str, config: GateConfig, options: Options | None = None
) -> GateReport:
    """Put two stored arms through a gate.

    Raises ConfigError and DataError for what cannot be gated, DriftFault where the arms differ in more than weights.
    """
    options = options or Options()
    if baseline == candidate and not options.fresh:
        raise ConfigError(
            f"baseline and candidate are the same arm {baseline!r}; `aem calibrate` gates an arm on itself"
        )
    arms = (read_arm(outcomes, baseline, retries=config.retries), read_arm(outcomes, candidate, retries=config.retries))
    notes = [f"accepted: {line}" for line in refuse_drift(outcomes, (baseline, candidate), options.allow)]
    check_pin(arms[0], options.pin)
    theirs, mine = same_tasks(*arms, common=options.common)
    if options.fresh and len(theirs.seeds) != len(mine.seeds):
        raise DataError(f"--fresh needs equal seeds; the arms have {len(theirs.seeds)} and {len(mine.seeds)}")
    check_costs(config, mine)
    number, past = None, None
    if options.sequence is not None:
        past = open_sequence(options.sequence, arms[0].digest, config.alphas[1])
        number = past.number(arms[1])
        config = config.model_copy(update={"block_alpha": past.block_alpha(number)})
    history = past_arms(options.history, outcomes, retries=config.retries)
    calibration = cached(config, theirs, len(mine.seeds), fresh=options.fresh) if options.calibrated else None
    gate = replay(config, theirs, mine, history=history, fresh=options.fresh)
    gate.finish("no more rollouts are stored")
    found = report(gate, theirs, mine.name, calibration=calibration, number=number, notes=notes)
    if options.sequence is not None and past is not None and number is not None:
        record(
            options.sequence,
            past,
            arms[1],
            found.verdict,
            number=number,
            rollouts=found.rollouts,
            difference=found.difference,
        )
    return found


def check_costs(config: GateConfig, candidate: Arm) -> None:
    """A budget in tokens or GPU-hours needs outcomes that say what they cost."""
    unit = config.budget.unit if config.budget else "rollouts"
    known = {"rollouts": True, "tokens": candidate.tokens is not None, "gpu_hours": candidate.gpu_seconds is not None}
    if not known[unit]:
        columns = {"tokens": "prompt_tokens and completion_tokens", "gpu_hours": "gpu_seconds"}[unit]
        raise DataError(f"the budget is in {unit}, but {candidate.name!r} has no {columns}; give it in rollouts")
