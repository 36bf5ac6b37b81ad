"""Outcomes that already exist: arms of a CSV file, run folders, or what `aem import` reads."""

from collections.abc import Sequence

import numpy as np

from aem_harness.harness.compare.outcomes import Outcomes, combine, load, load_one
from aem_harness.harness.compare.words import ends_words
from aem_harness.harness.ends import Ends
from aem_harness.harness.errors import ConfigError, DataError
from aem_harness.harness.gate.config import GateConfig
from aem_harness.harness.gate.design import Arm
from aem_harness.harness.gate.driver import Ending, GateOptions, Start, past_arms
from aem_harness.harness.gate.gate import BASELINE, CANDIDATE, Gate
from aem_harness.harness.gate.table import (
    audit_words,
    audited,
    check_pin,
    read_arm,
    refuse_drift,
    refuse_unaudited,
    same_tasks,
    weights,
)


class Stored:
    """Two stored arms."""

    exhausted = "no more rollouts are stored"
    futility = 0.0  # stored outcomes cost nothing, and are used to the end

    def __init__(self, outcomes: Outcomes, baseline: str, candidate: str) -> None:
        self._outcomes, self._names = outcomes, (baseline, candidate)

    @classmethod
    def read(cls, sources: Sequence[str], baseline: str, candidate: str, ends: Ends | None = None) -> "Stored":
        """From files and folders; without `sources`, baseline and candidate are themselves sources of one arm each."""
        return cls(*load_arms(sources, baseline, candidate, ends))

    def start(self, config: GateConfig, options: GateOptions) -> Start:
        baseline, candidate = self._names
        if baseline == candidate and not options.fresh:
            raise ConfigError(
                f"baseline and candidate are the same arm {baseline!r}; `aem calibrate` gates an arm against itself"
            )
        notes: list[str] = []
        if options.audited:
            refuse_unaudited(self._outcomes)
            notes = [audit_words(self._outcomes)]
            self._outcomes = audited(self._outcomes)
        read = [read_arm(self._outcomes, name, retries=config.retries) for name in self._names]
        accepted = refuse_drift(self._outcomes, self._names, options.allow)
        if options.ends and options.ends.overrides:
            accepted = [ends_words(options.ends.overrides), *accepted]
        check_pin(read[0], options.pin)
        theirs, mine = same_tasks(*read, common=options.common)
        if options.fresh and not np.array_equal(theirs.due, mine.due):
            raise DataError(f"--fresh needs the same seeds in both arms; they have {_seeds(theirs)} and {_seeds(mine)}")
        if config.question == "outcomes" and not (theirs.due.all() and mine.due.all()):
            raise DataError(
                f"--question outcomes needs the same number of seeds for every task; {theirs.name!r} has "
                f"{_seeds(theirs)}, {mine.name!r} {_seeds(mine)}; use --question rates"
            )
        check_costs(config, mine)
        self._arms = ({BASELINE: theirs} if options.fresh else {}) | {CANDIDATE: mine}
        self._end = Ending(theirs, candidate, read[1].digest, self._outcomes, accepted, notes)
        return Start(
            tasks=mine.tasks,
            seeds=len(mine.seeds),
            baseline=None if options.fresh else theirs,
            baseline_digest=read[0].digest,
            candidate_digest=read[1].digest,
            candidate=weights(self._outcomes, candidate) or read[1].digest,
            run=read[1].digest,
            history=past_arms(options.history, self._outcomes, retries=config.retries, ends=options.ends),
            surface=theirs,
            due=mine.planned,
        )

    def feed(self, gate: Gate) -> None:
        replay(gate, self._arms)

    def end(self, gate: Gate) -> Ending:
        return self._end


def replay(gate: Gate, arms: dict[str, Arm]) -> None:
    """Feed stored outcomes to a gate as if they were arriving now; `arms` by role."""
    plan = gate.design
    arms = {role: arm.select(plan.tasks) for role, arm in arms.items()}
    for row, visit in plan.order[: gate.most]:
        seed = int(plan.seed_of[row, visit])
        for role, arm in arms.items():
            value = arm.resolved[row, seed]
            gate.feed(
                plan.tasks[row],
                seed,
                None if np.isnan(value) else bool(value),
                arm=role,
                tokens=0.0 if arm.tokens is None else float(arm.tokens[row, seed]),
                gpu_seconds=0.0 if arm.gpu_seconds is None else float(arm.gpu_seconds[row, seed]),
            )
        if gate.decided:
            break


def _seeds(arm: Arm) -> str:
    least, most = int(arm.due.sum(axis=1).min()), int(arm.due.sum(axis=1).max())
    return f"{least}" if least == most else f"{least} to {most}"


def load_arms(
    sources: Sequence[str], baseline: str, candidate: str, ends: Ends | None = None
) -> tuple[Outcomes, str, str]:
    """The outcomes, and the names of the two arms in them.

    Without `sources`, baseline and candidate are themselves sources of one arm each (FILE:ARM picks one).
    """
    if sources:
        return load(sources, ends), baseline, candidate
    parts = [load_one(source, ends) for source in (baseline, candidate)]
    for source, part in zip((baseline, candidate), parts, strict=True):
        if len(part.arms) > 1:
            raise ConfigError(f"{source} holds several arms; write {source}:ARM, or name the file with --from")
    return combine(parts), parts[0].arms[0], parts[1].arms[0]


def check_costs(config: GateConfig, candidate: Arm) -> None:
    """A budget in tokens or GPU-hours needs outcomes that say what they cost."""
    unit = config.budget.unit if config.budget else "rollouts"
    known = {"rollouts": True, "tokens": candidate.tokens is not None, "gpu_hours": candidate.gpu_seconds is not None}
    if not known[unit]:
        columns = {"tokens": "prompt_tokens and completion_tokens", "gpu_hours": "gpu_seconds"}[unit]
        raise DataError(f"the budget is in {unit}, but {candidate.name!r} has no {columns}; give it in rollouts")
