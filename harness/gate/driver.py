"""One gate from start to end, for any source of outcomes: checks, order, decision, calibration, report."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from aem_harness.harness.compare.outcomes import Outcomes, load_one
from aem_harness.harness.ends import Ends
from aem_harness.harness.errors import ConfigError, EnvironmentFault
from aem_harness.harness.gate import ledger
from aem_harness.harness.gate.calibrate import cached
from aem_harness.harness.gate.config import GateConfig
from aem_harness.harness.gate.design import Arm, Design, design
from aem_harness.harness.gate.gate import BASELINE, Gate
from aem_harness.harness.gate.page import write_page
from aem_harness.harness.gate.report import GateReport, report
from aem_harness.harness.gate.sequence import PastGate, open_sequence, record
from aem_harness.harness.gate.sequential import Truths
from aem_harness.harness.gate.table import read_arm
from aem_harness.harness.gate.vacuous import refuse_vacuous
from aem_harness.harness.run.store import now


@dataclass(frozen=True)
class GateOptions:
    """What surrounds a gate: earlier checkpoints, permitted differences, the pinned baseline, and its sequence.

    `audited`: resolved rollouts that canaries caught tampering with their tests count as failures, in both arms; in an
    arm that is run, each resolved rollout is graded again before it counts. `ledger` None: the user's own.
    `least_chance`: refuse a design that passes an equal checkpoint less often. `page`: write the comparison with every
    trajectory as one HTML file. `ends`: whose fault an exit status is, in stored outcomes.
    """

    history: Sequence[str] = ()
    fresh: bool = False
    common: bool = False
    pin: str | None = None
    allow: Collection[str] = ()
    sequence: Path | None = None
    window: int | None = None
    ledger: Path | None = None
    least_chance: float = 0.0
    page: Path | None = None
    calibrated: bool = True
    audited: bool = False
    ends: Ends | None = None


@dataclass(frozen=True)
class Start:
    """The facts before the first outcome of the candidate.

    `baseline` is None if the baseline is run beside the candidate. A sequence identifies the arms by `baseline_digest`
    and `candidate_digest` (None: the candidate has no outcomes yet). The ledger identifies the candidate by `candidate`
    (its weights; "": unknown) and its rollouts by `run`. `surface` is what the gate is calibrated on; `due` (N, K) says
    which rollouts the candidate has if its tasks have unequal numbers of them.
    """

    tasks: Sequence[str]
    seeds: int
    baseline: Arm | None
    baseline_digest: str
    candidate_digest: str | None
    candidate: str
    run: str
    history: Sequence[Arm]
    surface: Arm | None
    due: Truths | None = None


@dataclass(frozen=True)
class Ending:
    """The facts to report when no more outcomes are coming.

    `candidate_digest` is of the candidate's outcomes, None if it has none; `accepted` names the differences between the
    arms that were allowed; `outcomes` are those of both arms; `notes` go into the report.
    """

    baseline: Arm
    candidate: str
    candidate_digest: str | None
    outcomes: Outcomes
    accepted: Sequence[str] = ()
    notes: Sequence[str] = ()


class OutcomeSource(Protocol):
    """Where a gate's outcomes come from: a table, or runs that are made as far as the gate needs them.

    `exhausted` is the reason given if outcomes run out before a verdict. `futility` is the default of that setting:
    stored outcomes cost nothing and are used to the end.
    """

    exhausted: str
    futility: float

    def start(self, config: GateConfig, options: GateOptions) -> Start:
        """Do all checks that are possible before anything is spent."""

    def feed(self, gate: Gate) -> None:
        """Give the gate outcomes until it has decided or there are none left."""

    def end(self, gate: Gate) -> Ending:
        """Both arms when no more outcomes are coming."""


def drive(
    source: OutcomeSource,
    config: GateConfig,
    options: GateOptions | None = None,
    announce: Callable[[Gate], None] = lambda gate: None,
) -> GateReport:
    """Put the outcomes of `source` through a gate; `announce` is called with the gate before the first outcome.

    Raises ConfigError and DataError for invalid requests, DriftFault if the arms differ in more than their weights.
    """
    options = options or GateOptions()
    start = source.start(config, options)
    if config.futility is None:
        config = config.model_copy(update={"futility": source.futility})
    number, past = None, None
    if options.sequence is not None:
        past = open_sequence(options.sequence, start.baseline_digest, config.alpha, options.window)
        number = past.number(start.candidate_digest)
        config = config.model_copy(update={"block_alpha": past.block_alpha(number)})
    plan = _planned(start, config)
    attempt, where = _attempt(start, config, plan), options.ledger or ledger.default_ledger()
    if attempt.candidate:
        ledger.check(ledger.read(where), attempt, where)
    refuse_vacuous(config, plan, start.baseline or start.surface)
    gate = Gate(config, plan)
    _refuse_unlikely(gate, options.least_chance)
    announce(gate)
    source.feed(gate)
    end = source.end(gate)
    gate.finish(source.exhausted)
    _refuse_empty(gate, end)
    surface = start.surface or end.baseline
    notes = [*end.notes, *(f"accepted: {line}" for line in end.accepted)]
    written = ledger.line(
        attempt,
        end.candidate,
        margin=config.margin,
        alpha=config.alpha,
        verdict=gate.verdict.value if gate.verdict else "",
        rollouts=gate.consumed,
    )
    if not ledger.record(where, written):
        notes.append(f"this gate is not on record: the ledger {where} cannot be written; name another with --ledger")
    result = report(
        gate,
        start.baseline or end.baseline,
        end.candidate,
        calibration=cached(config, surface, start.seeds, fresh=options.fresh) if options.calibrated else None,
        number=number,
        shared=past.guarantee if past else "",
        notes=notes,
    )
    if options.sequence is not None and past is not None and number is not None:
        record(options.sequence, past, _past_gate(result, number, end.candidate_digest, past.block_alpha(number)))
    if options.page is not None:
        write_page(options.page, gate, end.outcomes, (end.baseline.name, end.candidate), options.ends)
    return result


def _refuse_unlikely(gate: Gate, least_chance: float) -> None:
    if gate.chance < least_chance:
        raise ConfigError(
            f"an equal checkpoint passes with a chance of {gate.chance:.0%}, not {least_chance:.0%}; give "
            "it more seeds or tasks, or a wider margin (`aem plan` says how many)"
        )


def _past_gate(result: GateReport, number: int, candidate_digest: str | None, block_alpha: float) -> PastGate:
    """A finished gate as an entry of its sequence."""
    return PastGate(
        number=number,
        candidate=result.candidate,
        candidate_digest=candidate_digest or "",
        block_alpha=block_alpha,
        verdict=result.verdict,
        rollouts=result.rollouts,
        difference=result.difference,
        at=now(),
    )


def past_arms(names: Sequence[str], outcomes: Outcomes | None, *, retries: int, ends: Ends | None = None) -> list[Arm]:
    """Earlier checkpoints: arms of `outcomes`, or run folders and files (FILE:ARM) of their own."""
    arms = []
    for name in names:
        if outcomes is not None and (name in outcomes.arms or not Path(name.rpartition(":")[0] or name).exists()):
            arms.append(read_arm(outcomes, name, retries=retries))
        else:
            part = load_one(name, ends)
            arms += [read_arm(part, arm, retries=retries) for arm in part.arms]
    return arms


def _planned(start: Start, config: GateConfig) -> Design:
    return design(
        start.tasks,
        start.seeds,
        baseline=start.baseline,
        history=start.history,
        stratified=config.question == "rates",
        seed=config.seed,
        due=start.due,
    )


def _attempt(start: Start, config: GateConfig, plan: Design) -> ledger.GateAttempt:
    return ledger.GateAttempt(
        baseline=start.baseline_digest,
        candidate=start.candidate,
        order=plan.digest,
        outcomes=start.run,
        single_look=not config.sequential,
        question=config.question,
        orders=config.orders,
        futility=config.gives_up_below,
    )


def _refuse_empty(gate: Gate, end: Ending) -> None:
    """A baseline that was run beside the candidate and resolved nothing: no drop is possible."""
    if gate.design.baseline is None and gate.consumed and not np.nansum(gate.consumed_outcomes(BASELINE)):
        raise EnvironmentFault(
            f"the baseline {end.baseline.name} resolved none of {gate.consumed} rollouts: no drop is possible, and a "
            "gate shows nothing; check its trajectories with `aem show`"
        )
