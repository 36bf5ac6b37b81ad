"""Many rollouts: runs the agent in fresh containers, and grades each patch as soon as it exists.

An exception in a rollout or grading is a fault of that one (harness/run/rollout.py) and never cancels the others. When
something is clearly broken (many faults in a row), the run stops instead of losing the rest. An engine, a server or a
disk that is away for a while costs nothing: the run waits (harness/run/outages.py).
"""

import logging
import math
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import MappingProxyType
from typing import Any

from aem_harness.harness.config import RunConfig
from aem_harness.harness.errors import (
    AemError,
    DiskFault,
    EnvironmentFault,
    GradingFault,
    HostFault,
    NoSite,
    fault_in,
    in_one_line,
    of_disk,
    told_of,
)
from aem_harness.harness.io import read_json
from aem_harness.harness.run.alike import AlikeWatch
from aem_harness.harness.run.identity import Identity
from aem_harness.harness.run.outages import GRADING_NEEDS, ROLLOUT_NEEDS, Breaker, Disk, Service
from aem_harness.harness.run.places import Containers, Places
from aem_harness.harness.run.reuse import Verdicts, checked_with
from aem_harness.harness.run.rollout import RECEIPT, unworked
from aem_harness.harness.run.schedule import Order, in_turn
from aem_harness.harness.run.sites import Here, Site
from aem_harness.harness.run.store import Event, Key, RunStore, now
from aem_harness.harness.types import Agent, Grade, Outcome, Prediction, Task

logger = logging.getLogger(__name__)

FAULTS_IN_A_ROW = 12  # more mean that the engine or the server is gone


def loss(event: Event) -> str:
    """The infrastructure failure that a rollout or grading was lost to; empty if none."""
    if event["event"] == "rollout":
        return event["fault"]["message"] if event["fault"] else ""
    return event["cause"] or "no cause given" if event["outcome"] == Outcome.ERROR.value else ""


class Runner:
    """Runs what is pending in a store. Calls `on_event(kind, event)` for "started", "rollout", "grade", one at a time.

    No rollout is started while more than `ahead` wait for their verdict: for runs that a verdict may end.
    Set `stop` to end early: queued rollouts are cancelled, running ones are discarded and stay pending. `release` is
    then called, to wake rollouts that wait for something outside their containers, such as a model.
    """

    def __init__(
        self,
        store: RunStore,
        tasks: Mapping[str, Task],
        agent: Agent,
        *,
        workers: int = 4,
        grade_workers: int = 2,
        ahead: float = math.inf,
        on_event: Callable[[str, Event], None] = lambda kind, event: None,
        release: Callable[[], None] = lambda: None,
        places: Places | None = None,
        services: Mapping[str, Service] = MappingProxyType({}),
        say: Callable[[str], None] = lambda line: None,
        site: Site | None = None,
        order: Order = in_turn,
        verdicts: Verdicts | None = None,
    ) -> None:
        """`site` is where all is worked; without it the engine of this process, with `places` (default: containers).

        `order` takes the next of the waiting rollouts; without it they come in the order of their keys. `verdicts` are
        those that may be reused; without them every patch is graded.
        """
        self.store = store
        self.tasks = tasks
        self.agent = agent
        self.config: RunConfig = store.config
        self.stop = threading.Event()
        self._workers, self._grade_workers, self._ahead = workers, grade_workers, ahead
        self._on_event = on_event
        self._release = release
        self._order = order
        self._verdicts = verdicts
        self._view = threading.Lock()
        identity = Identity.of(store.folder, store.config)
        self._site = site or Here(tasks, agent, places or Containers(identity), identity)
        services = {**self._site.services(), "host": Disk(store.folder), **services}
        self._breaker = Breaker(services, patience=self.config.outage_seconds, say=say, stop=self.stop)

    def run(self, keys: Sequence[Key], *, retry_infrastructure: bool = False) -> None:
        """Do what is pending among `keys`, in their order.

        Raises EnvironmentFault after too many faults in a row, and Alike when the first rollouts all end alike without
        having worked.
        """
        watch = AlikeWatch(self.config.stop_alike, (known.rollout for known in self.store.progress.values()))
        pending = self.store.pending(list(keys), retry_infrastructure=retry_infrastructure)
        if pending.rollouts:
            watch.check()
        waiting = deque(pending.rollouts)
        logger.info("to do: %d rollouts and %d gradings of %d", len(waiting), len(pending.grades), len(keys))
        losses: set[Hashable] = set()  # in a row; those to one missing image are one
        begun: dict[Key, None] = dict.fromkeys(pending.grades)  # under way, and not graded yet

        def upcoming() -> list[Task]:
            still = list(waiting)  # in one step: the runner's thread changes it meanwhile
            keys = [*list(begun), *((instance_id, seed) for instance_id, seed, _ in still)]
            return [self.tasks[instance_id] for instance_id, _ in keys]

        with (
            self._breaker.watching(),
            self._site.supply(upcoming, self._breaker, self.stop),
            ThreadPoolExecutor(self._workers, "rollout") as rollouts,
            ThreadPoolExecutor(self._site.ahead(self._grade_workers), "grade") as grades,
        ):
            rolling: set[Future[Event | None]] = set()
            grading: set[Future[Event | None]] = set()

            def grade(keys: Sequence[Key]) -> None:
                grading.update(grades.submit(self._grade, *key) for key in keys)

            for key in pending.grades:
                grade(self._due(key))
            try:
                while (waiting or rolling or grading) and not self.stop.is_set():
                    while waiting and len(rolling) < self._workers and len(grading) <= self._ahead:
                        instance_id, seed, attempt = self._order(waiting)
                        begun[instance_id, seed] = None
                        rolling.add(rollouts.submit(self._rollout, instance_id, seed, attempt))
                    done, _ = wait(rolling | grading, timeout=0.2, return_when=FIRST_COMPLETED)
                    self._breaker.check()
                    rolling -= done
                    grading -= done
                    for event in filter(None, (future.result() for future in done)):
                        lost, key = loss(event), (event["instance_id"], event["seed"])
                        image = self.tasks[key[0]].instance.image
                        if lost:
                            losses.add(image if f"image {image} " in lost else (key, event["event"], event["attempt"]))
                        else:
                            losses.clear()
                        if len(losses) >= FAULTS_IN_A_ROW:
                            raise EnvironmentFault(
                                f"{len(losses)} losses in a row, the last to: {lost}; repair the cause, then run "
                                "the same command with --retry infra"
                            )
                        if event["event"] == "rollout":
                            watch.add(event)
                            if not lost:
                                grade(self._due(key))
                                continue
                            if event["attempt"] < self.config.infra_retries:
                                waiting.appendleft((*key, event["attempt"] + 1))
                        elif self._verdicts:
                            grade(self._verdicts.ended(key))
                        begun.pop(key, None)
            finally:
                # Ending early, by a verdict, an error or Ctrl-C: rollouts in progress are discarded and stay pending.
                if rolling or grading or waiting:
                    logger.warning("ending early: %d in progress are discarded, and pending", len(rolling | grading))
                self.stop.set()
                rollouts.shutdown(wait=False, cancel_futures=True)
                grades.shutdown(wait=False, cancel_futures=True)
                if rolling or grading:
                    self._release()
                while running := [future for future in rolling | grading if not future.done()]:
                    self._site.close_all()  # repeatedly: another container may just be starting
                    wait(running, timeout=0.5)

    def _rollout(self, instance_id: str, seed: int, attempt: int) -> Event | None:
        while self._breaker.ready(ROLLOUT_NEEDS):
            self._tell("started", {"instance_id": instance_id, "seed": seed})
            if event := self._worked((instance_id, seed), attempt):
                self._tell("rollout", event)
                return event
        return None

    def _worked(self, key: Key, attempt: int) -> Event | None:
        """One rollout, in its folder and in the journal; None if the run was stopped meanwhile, or if an outage
        interrupted it: then nothing of it is kept, and it is to be done again.

        Raises HostFault when its result cannot be written: then the run cannot continue.
        """
        began, scratch = time.monotonic(), Path()

        def make_scratch() -> None:
            nonlocal scratch
            scratch = self.store.scratch(*key)

        if not self._written(key, make_scratch):
            return None
        try:
            try:
                worked = self._site.rollout(scratch, *key, attempt)
            except NoSite:
                raise
            except Exception as error:  # of a node's process, or on the way from there
                logger.warning("%s seed %d attempt %d: its site failed", *key, attempt, exc_info=error)
                worked = unworked(scratch, *key, attempt, error, began)
            if worked is None or self.stop.is_set() or self._breaker.interrupts(key, worked.fault, began):
                return None
            if not self._written(key, lambda: self.store.finish_rollout(scratch, worked.event)):
                return None
        finally:
            shutil.rmtree(scratch, ignore_errors=True)  # of what is discarded; a finished one was renamed
        return worked.event

    def _written(self, what: Hashable, write: Callable[[], None]) -> bool:
        """Write to the run's folder, waiting for a disk that takes nothing; False when the run is stopped meanwhile.

        Raises HostFault where waiting does not help.
        """
        while True:
            began = time.monotonic()
            try:
                write()
                return True
            except OSError as error:
                fault = unwritable(self.store.folder, error)
                if not self._breaker.interrupts(("write", what), fault, began):
                    raise fault from error
                if not self._breaker.ready(("host",)):
                    return False

    def _due(self, key: Key) -> Sequence[Key]:
        """The gradings that may start, now that one of this rollout is due."""
        return self._verdicts.begin(key) if self._verdicts else [key]

    # --- one grading ------------------------------------------------------------------------------------------------

    def _grade(self, instance_id: str, seed: int) -> Event | None:
        started = time.monotonic()
        grade, origin = Grade(instance_id=instance_id, outcome=Outcome.ERROR), Event()
        attempts = 0
        while attempts <= self.config.infra_retries:
            if not self._breaker.ready(GRADING_NEEDS):
                return None
            began = time.monotonic()
            try:
                fault: AemError | None = None
                grade, origin = self._verdict(instance_id, seed)
            except NoSite:
                raise  # ends the run: the grading stays pending
            except Exception as error:
                logger.warning("%s seed %d: grading failed", instance_id, seed, exc_info=error)
                fault = fault_in(error) or GradingFault(f"unexpected {in_one_line(error)}")
                cause = f"{fault.boundary}: {fault}"
                grade = grade.model_copy(update={"cause": cause, "seconds": time.monotonic() - started})
            if fault is None and grade.outcome is Outcome.ERROR:
                fault = told_of(grade.cause)
            if self._breaker.interrupts(("grading", instance_id, seed), fault, began):
                continue
            if fault is None:
                break
            attempts += 1
        if self.stop.is_set():
            return None
        event = {
            "event": "grade",
            "instance_id": instance_id,
            "seed": seed,
            "attempt": self.store.progress[instance_id, seed].rollout["attempt"],
            "outcome": grade.outcome.value,
            "cause": grade.cause,
            "tree_differs": None if grade.tree_differs is None else list(grade.tree_differs),
            "seconds": round(grade.seconds, 3),
            "versions": dict(grade.versions),
            **origin,
            "at": now(),
        }
        logger.info("%s seed %d: %s %s", instance_id, seed, event["outcome"], event["cause"])
        if not self._written(("grade", instance_id, seed), lambda: self.store.finish_grade(event)):
            return None
        self._tell("grade", event)
        return event

    def _verdict(self, instance_id: str, seed: int) -> tuple[Grade, Event]:
        """The grade, and for the journal where it is from, or with what it is to be compared, if a verdict is known."""
        key = instance_id, seed
        known = self._verdicts.find(key) if self._verdicts else None
        if self._verdicts is None or known is None:
            return self._graded(*key), {}
        if self._verdicts.checked(key):
            return self._graded(*key), {"checked": checked_with(known)}
        reused = self._verdicts.take(key, known)
        return (reused, {"reused": known.place}) if reused else (self._graded(*key), {})

    def _graded(self, instance_id: str, seed: int) -> Grade:
        folder = self.store.rollout_folder(instance_id, seed)
        prediction = Prediction(
            instance_id=instance_id,
            model_name_or_path=self.config.arm,
            model_patch=self.store.patch(instance_id, seed),
        )
        left = read_json(folder / RECEIPT)["carried"] if (folder / RECEIPT).is_file() else None
        return self._site.grade(self.tasks[instance_id], prediction, folder, left)

    def _tell(self, kind: str, event: Mapping[str, Any]) -> None:
        with self._view:
            self._on_event(kind, dict(event))


def unwritable(folder: Path, error: OSError) -> HostFault:
    """The fault that ends a run: its folder cannot be written."""
    kind = DiskFault if of_disk(error) else HostFault
    return kind(f"cannot write to {folder} ({error.strerror}): free or repair it, then run the same command again")
