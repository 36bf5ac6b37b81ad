"""A circuit breaker: if a service that a run needs is away for a while, the run waits instead of losing rollouts.

A run depends on services: the engine, the model server, the disk. A fault that is explained by an outage interrupts a
rollout or a grading: nothing is journaled, no attempt is spent, and it is repeated once the service is back. While a
service is away, nothing that needs it starts; it is checked at growing intervals. A fault that no outage explains is a
loss as before, and so is work that is interrupted repeatedly: then it may be the cause of the outage.
"""

import logging
import math
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from aem_harness.harness.errors import (
    AemError,
    DiskFault,
    EnvironmentFault,
    HostFault,
    PolicyFault,
    ServerAway,
    in_one_line,
)

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds between looks at a service that is away, doubled each time
GRACE = 0.5  # seconds within which a watched service's break is known, after a fault that it caused
INTERRUPTIONS = 5  # of the same rollout or grading; then its fault counts, whatever explains it
GLANCE = 5.0  # seconds between looks at the disk while all is well

_KINDS = {kind.boundary: kind for kind in (EnvironmentFault, PolicyFault, HostFault)}  # of a registry: environment
ROLLOUT_NEEDS = ("environment", "policy", "host")
GRADING_NEEDS = ("environment", "host")


class Service(Protocol):
    """A service that a run depends on. `name` starts a sentence; `remedy` is what a person does about an outage."""

    name: str
    remedy: str

    def probe(self) -> str:
        """The present problem; empty if there is none. Raises AemError for one that waiting cannot repair."""
        ...

    def watch(self, broke: Callable[[str], None]) -> AbstractContextManager[None]:
        """Inside the block `broke(why)` is called, from another thread, whenever the service breaks off."""
        ...

    def recovered(self) -> None:
        """Called once it is back, before work goes on."""
        ...


class Disk:
    """The disks below some folders: is there space left, and can the first folder be written?"""

    name = "the disk"
    remedy = "free disk space"
    FLOOR = 256 << 20  # bytes below which nothing new is started, or a fiftieth of a small disk

    def __init__(self, folder: Path, *others: Path) -> None:
        self._folder, self._others = folder, others

    def probe(self) -> str:
        return self.glance() or self._written()

    def glance(self) -> str:
        """Is one of them nearly full?"""
        for folder in (self._folder, *self._others):
            try:
                disk = shutil.disk_usage(folder)
            except OSError as error:
                if folder == self._folder:
                    return f"{folder}: {error.strerror}"
                continue  # the engine's folder may be another machine's
            if disk.free < min(self.FLOOR, disk.total // 50):
                return f"{folder} has {disk.free >> 20} MiB left"
        return ""

    def _written(self) -> str:
        path = self._folder / f".probe-{uuid4().hex[:8]}"
        try:
            path.write_bytes(bytes(1 << 20))
        except OSError as error:
            return f"{self._folder}: {error.strerror}"
        finally:
            path.unlink(missing_ok=True)
        return ""

    def watch(self, broke: Callable[[str], None]) -> AbstractContextManager[None]:
        return nullcontext()

    def recovered(self) -> None: ...


@dataclass
class _Circuit:
    service: Service
    since: float | None = None  # when it opened; None while the service is well
    broke: float = float("-inf")  # when it last broke off
    well: float = float("-inf")  # when the last look began that found it well
    watched: bool = False
    probing: threading.Lock = field(default_factory=threading.Lock)


class Breaker:
    """The circuits of one run, by the boundary of the faults that they explain ("environment", "policy", "host").

    `patience` is how long a service may be away, in seconds; then `check` raises the fault, and waiting ends. `say`
    gets a line when a service goes away and when it is back. `stop` ends all waiting. Safe to share between threads.
    """

    def __init__(
        self,
        services: Mapping[str, Service],
        *,
        patience: float,
        say: Callable[[str], None] = lambda line: None,
        stop: threading.Event | None = None,
    ) -> None:
        self._circuits = {boundary: _Circuit(service) for boundary, service in services.items()}
        self._patience, self._say = patience, say
        self._stop = stop or threading.Event()
        self._changed = threading.Condition()
        self._over: AemError | None = None
        self._interrupted: Counter[Hashable] = Counter()
        self._glanced = 0.0

    def beside(self, services: Mapping[str, Service]) -> "Breaker":
        """One for services that the run can do without for any time: it waits for them as long as the run goes on."""
        return Breaker(services, patience=math.inf, say=self._say, stop=self._stop)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the services inside the block."""
        with ExitStack() as stack:
            for boundary, circuit in self._circuits.items():
                watch = circuit.service.watch(partial(self.trip, boundary))
                circuit.watched = not isinstance(watch, nullcontext)
                stack.enter_context(watch)
            yield

    def check(self) -> None:
        """Raise the fault of a service that was away for too long."""
        if self._over:
            raise self._over

    def ready(self, needs: Sequence[str] = GRADING_NEEDS) -> bool:
        """Wait until all of `needs` are available; False if the run ends instead."""
        self._glance()
        with self._changed:
            while not (self._stop.is_set() or self._over):
                if not any(self._circuits[one].since is not None for one in needs if one in self._circuits):
                    return True
                self._changed.wait(0.2)
        return False

    def broke_since(self, boundary: str, began: float) -> bool:
        """Did the service break off after `began` (monotonic seconds)?"""
        return boundary in self._circuits and self._circuits[boundary].broke >= began

    def interrupts(self, what: Hashable, fault: AemError | None, began: float) -> bool:
        """Did an outage interrupt `what`, which began at `began`? Then it is to be repeated.

        Yes if one explains its fault; without a fault, if the engine broke off meanwhile: such work cannot be trusted.
        No if it was interrupted too often already.
        """
        if fault is None:
            if not self.broke_since("environment", began):
                return False
            fault = EnvironmentFault("the engine broke off meanwhile")
        if self._interrupted[what] >= INTERRUPTIONS or not self._explains(fault, began):
            return False
        self._interrupted[what] += 1
        logger.info("%s was interrupted: %s", what, fault)
        return True

    # --- inside -----------------------------------------------------------------------------------------------------

    def _explains(self, fault: AemError, began: float) -> bool:
        circuit = self._circuits.get(fault.boundary)
        if circuit is None or self._stop.is_set():
            return False
        if isinstance(fault, DiskFault | ServerAway):  # which say themselves that it was away
            self._look(fault.boundary)
            return True
        if circuit.since is not None or circuit.broke >= began or self._look(fault.boundary):
            return True
        deadline = time.monotonic() + (GRACE if circuit.watched else 0)
        while circuit.broke < began and time.monotonic() < deadline:  # it is back, and its watcher just notices
            time.sleep(0.05)
        return circuit.broke >= began

    def _look(self, boundary: str) -> bool:
        """Is the service away now? One thread checks, others use its answer."""
        circuit = self._circuits[boundary]
        asked = time.monotonic()
        with circuit.probing:
            if circuit.since is not None or circuit.broke >= asked:
                return True
            if circuit.well >= asked:
                return False
            began = time.monotonic()
            why = self._wrong(circuit)
            if why:
                self.trip(boundary, why)
            else:
                circuit.well = began
            return bool(why)

    def trip(self, boundary: str, why: str) -> None:
        """The service breaks off, or is found to be away: wait for it."""
        circuit = self._circuits[boundary]
        with self._changed:
            circuit.broke = time.monotonic()
            if circuit.since is not None or self._stop.is_set() or self._over:
                return
            circuit.since = circuit.broke
        waits = (
            "what needs it there waits, or is done elsewhere"
            if self._patience == math.inf
            else f"the run waits for up to {_span(self._patience)} and loses nothing"
        )
        self._tell(f"{circuit.service.name} is away ({why}): {waits}; {circuit.service.remedy}")
        threading.Thread(target=self._probe, args=(boundary,), name="outage", daemon=True).start()

    def _probe(self, boundary: str) -> None:
        circuit, kind = self._circuits[boundary], _KINDS.get(boundary, EnvironmentFault)
        assert circuit.since is not None
        pause = FIRST_PAUSE
        while not self._stop.wait(pause) and not self._over:
            away = time.monotonic() - circuit.since
            why = self._wrong(circuit) or self._unready(circuit)
            if not why:
                with self._changed:
                    circuit.since, circuit.broke = None, time.monotonic()
                    self._changed.notify_all()
                self._tell(f"{circuit.service.name} is back after {_span(away)}: the run continues")
                return
            if away + pause > self._patience:
                self._give_up(
                    kind(
                        f"{circuit.service.name} has been away for {_span(away)} ({why}): {circuit.service.remedy}, "
                        "then run the same command again (-c outage_seconds=N waits longer)"
                    )
                )
                return
            pause = min(LONGEST_PAUSE, 2 * pause, max(0.1, self._patience - away))

    def _wrong(self, circuit: _Circuit) -> str:
        """The problem of a service; one that waiting cannot repair ends the run."""
        try:
            return circuit.service.probe()
        except AemError as error:
            self._give_up(error)
            return str(error)
        except Exception as error:
            return in_one_line(error)

    def _unready(self, circuit: _Circuit) -> str:
        """Why work cannot go on with a service that answers again; it stays away until it can."""
        try:
            circuit.service.recovered()
            return ""
        except Exception as error:
            return in_one_line(error)

    def _give_up(self, error: AemError) -> None:
        with self._changed:
            self._over = self._over or error
            self._changed.notify_all()

    def _glance(self) -> None:
        circuit = self._circuits.get("host")
        if circuit is None or not isinstance(circuit.service, Disk) or time.monotonic() < self._glanced + GLANCE:
            return
        self._glanced = time.monotonic()
        if circuit.since is None and (why := circuit.service.glance()):
            self.trip("host", why)

    def _tell(self, line: str) -> None:
        logger.warning("%s", line)
        self._say(line)


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
