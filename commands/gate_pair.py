"""Baseline and candidate run side by side: pair by pair in the gate's order, so that both see the same hours, the same
load and the same machines."""

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from aem_harness.commands.evaluate import Selection, choose, outcomes
from aem_harness.commands.gate_run import Live, Side, concluded, feed, opened

if TYPE_CHECKING:
    from rich.console import Console

    from aem_harness.harness.config import RunConfig
    from aem_harness.harness.gate.config import GateConfig
    from aem_harness.harness.gate.gate import Gate
    from aem_harness.harness.gate.report import GateReport
    from aem_harness.harness.gate.stored import Options
    from aem_harness.harness.run.store import Event


def gate_pair(
    configs: "tuple[RunConfig, RunConfig]",
    stored: Path | None,
    config: "GateConfig",
    options: "Options",
    lives: tuple[Live, Live],
    console: "Console",
) -> "GateReport":
    """Run both arms (baseline first in every tuple) until the gate decides; the same call again continues.

    `stored` is an earlier run of the baseline: its tasks are run, its outcomes calibrate the gate and improve
    the order. Each arm becomes a run folder of its own, named by the arm, in one folder.
    """
    from aem_harness.harness.compare.outcomes import Outcomes, combine, load_one
    from aem_harness.harness.gate.design import design
    from aem_harness.harness.gate.gate import BASELINE, CANDIDATE, Gate
    from aem_harness.harness.gate.sequence import open_sequence
    from aem_harness.harness.gate.stored import past_arms
    from aem_harness.harness.gate.table import read_arm, refuse_drift

    theirs, mine = (one.model_copy(update={"infra_retries": config.retries}) for one in configs)
    parent = lives[1].out or Path("results") / f"gate-{theirs.arm}-{mine.arm}-{mine.digest}"
    folders = parent / theirs.arm, parent / mine.arm
    sequence, number = None, None
    if options.sequence is not None:
        sequence = open_sequence(options.sequence, theirs.digest, config.alphas[1])
        number = sequence.number_of_run(folders[1], retries=config.retries)
        config = config.model_copy(update={"block_alpha": sequence.block_alpha(number)})
    past = past_arms([*([str(stored)] if stored else []), *options.history], None, retries=config.retries)
    selection = choose(theirs.dataset, console, ids=list(past[0].tasks) if stored else None)

    def both() -> Outcomes:
        return combine(load_one(str(folder)) for folder in folders)

    names = [task.instance_id for task in selection.tasks]
    stratified = config.question == "rates"
    gate = Gate(config, design(names, lives[1].seeds, history=past, stratified=stratified, seed=config.seed))
    with (
        opened(BASELINE, theirs, folders[0], selection, lives[0], config, console) as first,
        opened(CANDIDATE, mine, folders[1], selection, lives[1], config, console) as second,
    ):
        refuse_drift(both(), (theirs.arm, mine.arm), options.allow)
        for key in gate.order:
            for side in (first, second):
                feed(gate, side, *key)
        if not gate.decided:
            perform_pair(gate, (first, second), selection, lives, console)
    found = both()
    notes = refuse_drift(found, (theirs.arm, mine.arm), options.allow)
    baseline = read_arm(found, theirs.arm, retries=config.retries)
    surface = past[0] if stored else None
    return concluded(gate, baseline, mine.arm, folders[1], options, sequence, number, notes, surface)


def perform_pair(
    gate: "Gate", sides: tuple[Side, Side], selection: Selection, lives: tuple[Live, Live], console: "Console"
) -> None:
    """Both runs at once, level with each other, until the gate has decided or nothing is owed."""
    from aem_harness.harness.grading.reports import write_reports
    from aem_harness.harness.report.live import RunView
    from aem_harness.harness.run.runner import Runner
    from aem_harness.harness.sandbox.reaping import reap

    reap()
    tasks = {task.instance_id: task for task in selection.tasks}
    places = {key: place for place, key in enumerate(gate.order)}
    pace = Pace(slack=sum(live.workers for live in lives))
    feeding = threading.Lock()
    runners: list[Runner] = []

    def stop() -> None:
        for n, runner in enumerate(runners):
            runner.stop.set()
            pace.end(n)

    def watcher(n: int) -> "Callable[[str, Event], None]":
        side, arm = sides[n], sides[n].store.config.arm

        def on_event(kind: str, event: "Event") -> None:
            with feeding:
                view(kind, event | {"instance_id": f"{arm} {event['instance_id']}"})
                if kind != "started" and feed(gate, side, event["instance_id"], event["seed"]):
                    stop()
            if kind == "started":
                pace.start(n, places[event["instance_id"], event["seed"]])

        return on_event

    def go(n: int) -> None:
        try:
            runners[n].run(gate.order)
        finally:
            pace.end(n)

    known = outcomes(sides[0].store, gate.order) + outcomes(sides[1].store, gate.order)
    known.pop("owed", None)
    title = " and ".join(side.store.config.arm for side in sides)
    with RunView(console, title, 2 * len(gate.order), known) as view:
        for n, (side, live) in enumerate(zip(sides, lives, strict=True)):
            runners.append(
                Runner(
                    side.store,
                    tasks,
                    side.agent,
                    workers=live.workers,
                    grade_workers=live.grade_workers,
                    ahead=live.grade_workers,
                    on_event=watcher(n),
                    release=side.release,
                )
            )
        with ThreadPoolExecutor(2, "arm") as pool:
            try:
                for done in as_completed([pool.submit(go, n) for n in range(2)]):
                    done.result()
            finally:
                stop()
        for side in sides:
            write_reports(side.store.folder, selection.tasks, side.store.progress)


class Pace:
    """Keeps two runs level: neither starts a rollout more than `slack` places of the order ahead of the other."""

    def __init__(self, slack: int) -> None:
        self._slack = slack
        self._places: list[float] = [0, 0]
        self._changed = threading.Condition()

    def start(self, side: int, place: float) -> None:
        """Wait until `side` may start the rollout at `place`. Never both wait: each has said where it stands."""
        with self._changed:
            self._places[side] = max(self._places[side], place)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._places[side] == math.inf or self._ahead(side, place) <= self._slack)

    def end(self, side: int) -> None:
        """`side` starts nothing more; nobody waits for it."""
        with self._changed:
            self._places[side] = math.inf
            self._changed.notify_all()

    def _ahead(self, side: int, place: float) -> float:
        return place - self._places[1 - side]


def halves(live: Live, baseline_endpoints: Sequence[str], baseline_model: str | None) -> tuple[Live, Live]:
    """How each arm is run: half of the workers, at least one; the baseline at its own endpoints where it has some."""
    live = replace(live, workers=max(1, live.workers // 2), grade_workers=max(1, live.grade_workers // 2))
    return replace(live, endpoints=baseline_endpoints or live.endpoints, model=baseline_model), live
