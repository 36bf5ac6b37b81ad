"""Outcomes that are made as a gate needs them: the candidate is run, or both arms are, in the gate's order.

With both arms run, baseline and candidate keep pace, so that they see the same hours, load and machines.
"""

import math
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from aem_harness.harness.compare.outcomes import Outcomes, combine, load_one
from aem_harness.harness.config import RunConfig
from aem_harness.harness.errors import ConfigError, DataError, EnvironmentFault
from aem_harness.harness.gate.config import FUTILITY, GateConfig
from aem_harness.harness.gate.design import Arm
from aem_harness.harness.gate.driver import Ending, GateOptions, Start, past_arms
from aem_harness.harness.gate.gate import Gate
from aem_harness.harness.gate.table import audit_words, audited, check_pin, read_arm, refuse_drift, refuse_unaudited
from aem_harness.harness.io import write_json
from aem_harness.harness.report.live import RunView, warner
from aem_harness.harness.run import auditing
from aem_harness.harness.run.counts import outcomes
from aem_harness.harness.run.listing import STOPPED
from aem_harness.harness.run.outages import Service
from aem_harness.harness.run.reports import write_reports
from aem_harness.harness.run.runner import Runner
from aem_harness.harness.run.sites import Site
from aem_harness.harness.run.store import Event, RunStore
from aem_harness.harness.sandbox.reaping import reap, say_reaped
from aem_harness.harness.types import Agent, Outcome, Task


@dataclass(frozen=True)
class ArmPlan:
    """An arm to be run: its role, settings and folder; `weights` is the digest of a registered checkpoint's."""

    role: str
    config: RunConfig
    folder: Path
    weights: str = ""


@dataclass(frozen=True)
class Side:
    """An arm that is ready to run. A rollout uses `gpus`: those of its servers over the rollouts in parallel.

    `gpus` is None if the servers report their number. `audited`: a resolved rollout is fed after it was graded again
    with canaries, as a failure if they caught it tampering with its tests. `site` None: the engine here.
    `services` are what the agent depends on, and may be away for a while.
    """

    role: str
    store: RunStore
    agent: Agent
    workers: int
    grade_workers: int
    release: Callable[[], None] = lambda: None
    gpus: float | None = None
    audited: bool = False
    site: Site | None = None
    services: Mapping[str, Service] = field(default_factory=dict)


@dataclass(frozen=True)
class Opening:
    """How to set up a run, which the engine does not know: the tasks of some ids, and an arm of a gate with its server
    up."""

    choose: Callable[[Sequence[str] | None], list[Task]]
    arm: Callable[[ArmPlan, Gate], AbstractContextManager[Side]]


class Live:
    """Runs as a source. `plans` has the candidate, or baseline and candidate; the last is the candidate.

    `stored` is a run of the baseline: the baseline itself, or with both arms run an earlier run of it.
    """

    exhausted = "the run ended before a verdict"
    futility = FUTILITY

    def __init__(
        self, plans: Sequence[ArmPlan], seeds: int, opening: Opening, console: Console, stored: Path | None
    ) -> None:
        self._plans, self._seeds, self._opening = list(plans), seeds, opening
        self._console, self._stored = console, stored

    @property
    def fresh(self) -> bool:
        return len(self._plans) > 1

    def start(self, config: GateConfig, options: GateOptions) -> Start:
        if options.ends is not None:
            raise ConfigError("--ends is for stored outcomes: run both arms, then gate their folders with it")
        self._config, self._options = config, options
        retried = {"infra_retries": config.retries}
        self._plans = [replace(plan, config=plan.config.model_copy(update=retried)) for plan in self._plans]
        known = load_one(str(self._stored)) if self._stored else None
        if known and options.audited and not self.fresh:
            refuse_unaudited(known, all_of_them=True)
        past = read_arm(self._counted(known), known.arms[0], retries=config.retries) if known else None
        if past and not self.fresh:
            check_pin(past, options.pin)
        self._baseline = None if self.fresh else past
        self._known = known if self._baseline else None
        history = past_arms(options.history, self._known, retries=config.retries)
        self._tasks = self._opening.choose(past.tasks if past else None)
        return Start(
            tasks=past.tasks if past else [task.instance_id for task in self._tasks],
            seeds=self._seeds,
            baseline=self._baseline,
            baseline_digest=self._plans[0].config.digest if self._baseline is None else self._baseline.digest,
            candidate_digest=self._candidate_digest(),
            candidate=self._plans[-1].weights,
            run=self._plans[-1].folder.name,
            history=[*([past] if past and self.fresh else []), *history],
            surface=past,
        )

    def feed(self, gate: Gate) -> None:
        with ExitStack() as stack:
            sides = [stack.enter_context(self._opening.arm(plan, gate)) for plan in self._plans]
            self._accepted()
            for key in gate.order:
                for side in sides:
                    feed(gate, side, *key)
            if not gate.decided:
                perform(gate, sides, self._tasks, self._console)

    def end(self, gate: Gate) -> Ending:
        accepted = self._accepted()  # again: images are known only now
        candidate = self._plans[-1]
        if gate.consumed and gate.missing() == gate.consumed:
            lost = (
                f"every rollout of {candidate.config.arm} was lost to infrastructure; {candidate.folder} has the causes"
            )
            raise EnvironmentFault(lost)
        baseline = self._baseline or self._read(self._plans[0])
        known = self._outcomes()
        notes = [audit_words(known)] if self._options.audited else []
        return Ending(baseline, candidate.config.arm, self._candidate_digest(), self._counted(known), accepted, notes)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _candidate_digest(self) -> str | None:
        try:
            return self._read(self._plans[-1]).digest
        except (OSError, DataError):
            return None  # not begun, or nothing in it yet

    def _read(self, plan: ArmPlan) -> Arm:
        known = self._counted(load_one(str(plan.folder)))
        return read_arm(known, known.arms[0], retries=self._config.retries)

    def _counted(self, outcomes: Outcomes) -> Outcomes:
        return audited(outcomes) if self._options.audited else outcomes

    def _outcomes(self) -> Outcomes:
        return combine([*([self._known] if self._known else []), *(load_one(str(plan.folder)) for plan in self._plans)])

    def _accepted(self) -> list[str]:
        """The differences between the arms that are allowed; raises DriftFault for others."""
        theirs = self._baseline.name if self._baseline else self._plans[0].config.arm
        return refuse_drift(self._outcomes(), (theirs, self._plans[-1].config.arm), self._options.allow)


def feed(gate: Gate, side: Side, instance_id: str, seed: int) -> bool:
    """Give the gate the journaled result of a rollout, if it is final; returns whether the gate has decided.

    It costs the GPU-seconds that its requests were charged, or with --gpus its wall time on its share of them.
    """
    progress = side.store.progress.get((instance_id, seed))
    if progress is None:
        return gate.decided
    rollout: Event = progress.rollout
    lost = rollout["fault"] is not None
    if (lost and rollout["attempt"] < side.store.config.infra_retries) or (not lost and progress.grade is None):
        return gate.decided  # still to be retried, or to be graded
    outcome = Outcome.ERROR if lost or progress.grade is None else Outcome(progress.grade["outcome"])
    resolved = outcome is Outcome.RESOLVED
    if resolved and side.audited:
        seen = auditing.stored(side.store.rollout_folder(instance_id, seed))
        if seen is None:
            return gate.decided  # still to be graded again
        resolved = seen.state != "marked"
    gate.feed(
        instance_id,
        seed,
        None if outcome is Outcome.ERROR else resolved,
        arm=side.role,
        tokens=rollout["prompt_tokens"] + rollout["completion_tokens"],
        gpu_seconds=(rollout.get("gpu_seconds") or 0.0) if side.gpus is None else rollout["seconds"] * side.gpus,
    )
    return gate.decided


def perform(gate: Gate, sides: Sequence[Side], tasks: Sequence[Task], console: Console) -> None:
    """Run the arms at the same pace, until the gate has decided or every planned rollout has been run."""
    say_reaped(sum(side.site.reap() if side.site else reap() for side in sides), console)
    places = {key: place for place, key in enumerate(gate.order)}
    pace = Pace(len(sides), slack=sum(side.workers for side in sides))
    feeding = threading.Lock()
    runners: list[Runner] = []
    known: Counter[str] = sum((outcomes(side.store, gate.order) for side in sides), Counter())
    known.pop("pending", None)

    def stop() -> None:
        for n, runner in enumerate(runners):
            runner.stop.set()
            pace.end(n)

    def watcher(n: int) -> Callable[[str, Event], None]:
        side = sides[n]
        label = f"{side.store.config.arm} " if len(sides) > 1 else ""

        def on_event(kind: str, event: Event) -> None:
            with feeding:
                view(kind, event | {"instance_id": label + event["instance_id"]})
                if kind != "started" and feed(gate, side, event["instance_id"], event["seed"]):
                    stop()
            if kind == "started":
                pace.start(n, places[event["instance_id"], event["seed"]])

        return on_event

    def run(n: int) -> None:
        try:
            runners[n].run(gate.order)
        finally:
            pace.end(n)

    title = " and ".join(side.store.config.arm for side in sides)
    with RunView(console, title, len(sides) * len(gate.order), known) as view:
        by_id = {task.instance_id: task for task in tasks}
        runners += [
            Runner(
                side.store,
                by_id,
                side.agent,
                workers=side.workers,
                grade_workers=side.grade_workers,
                ahead=side.grade_workers,
                on_event=watcher(n),
                release=side.release,
                site=side.site,
                services=side.services,
                say=warner(console),
            )
            for n, side in enumerate(sides)
        ]
        try:
            with ThreadPoolExecutor(len(sides), "arm") as pool:
                try:
                    for done in as_completed([pool.submit(run, n) for n in range(len(sides))]):
                        done.result()
                finally:
                    stop()
        finally:
            for side in sides:
                write_reports(side.store.folder, list(tasks), side.store.progress)
                if gate.decided and outcomes(side.store, gate.order)["pending"]:
                    write_json(side.store.folder / STOPPED, {"by": "gate", "reason": "the gate had decided"})


class Pace:
    """Keeps runs level: none starts a rollout more than `slack` places of the order ahead of any other."""

    def __init__(self, sides: int, slack: int) -> None:
        self._slack = slack
        self._places: list[float] = [0] * sides
        self._changed = threading.Condition()

    def start(self, side: int, place: float) -> None:
        """Wait until `side` may start the rollout at `place`. They never all wait: each has reported its place."""
        with self._changed:
            self._places[side] = max(self._places[side], place)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._places[side] == math.inf or self._ahead(side, place) <= self._slack)

    def end(self, side: int) -> None:
        """`side` starts nothing more; no other waits for it."""
        with self._changed:
            self._places[side] = math.inf
            self._changed.notify_all()

    def _ahead(self, side: int, place: float) -> float:
        return place - min((at for n, at in enumerate(self._places) if n != side), default=math.inf)
