"""A site: where rollouts, gradings and audits run. The one interface between a run and one machine or many.

`Here` is an engine that this process reaches, `Pool` (harness/run/pool.py) distributes work among sites, and a node of
a Ray cluster (harness/run/cluster.py) is a site whose process is elsewhere. The run that asked for a result writes it,
so that there is one journal, with every result once.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol, TypeVar

from aem_harness.harness.errors import AemError, EnvironmentFault, ImageAway, SiteLost, boundary, told_of
from aem_harness.harness.grading.regrade import Regrade
from aem_harness.harness.run.auditing import CANARY, Auditor
from aem_harness.harness.run.flow import REGISTRY, Supply
from aem_harness.harness.run.identity import Identity
from aem_harness.harness.run.outages import Breaker, Disk, Service
from aem_harness.harness.run.places import AuditedContainers, Containers, Places
from aem_harness.harness.run.rollout import Rollouts, Worked
from aem_harness.harness.sandbox.container import Sandbox
from aem_harness.harness.sandbox.engine import HERE, Engine, at, client
from aem_harness.harness.sandbox.images import listed
from aem_harness.harness.sandbox.reaping import RUN, reap, remove_left
from aem_harness.harness.sandbox.trial import why_no_start
from aem_harness.harness.sandbox.watch import Watch, answers
from aem_harness.harness.types import Agent, Grade, Outcome, Prediction, Task

Result = TypeVar("Result")

SETTLING = 1.0  # seconds within which a watch notices that the engine went, after a rollout under it failed


class Site(Protocol):
    """Safe to share between threads. A call may raise SiteLost or ImageAway: it left nothing; repeat it elsewhere."""

    name: str

    def rollout(self, scratch: Path, instance_id: str, seed: int, attempt: int) -> Worked | None:
        """One rollout, its files into `scratch`; None when `close_all` ended it."""
        ...

    def grade(
        self, task: Task, prediction: Prediction, folder: Path, left: Mapping[str, str | None] | None
    ) -> Grade: ...

    def ahead(self, gradings: int) -> int:
        """How many gradings to hand over at a time, so that `gradings` of them run: more where containers are opened
        ahead."""
        ...

    def audit(self, task: Task, folder: Path, name: str = CANARY) -> Regrade:
        """Grade the resolved rollout in `folder` again, with canaries or with held-out variants."""
        ...

    def architecture(self) -> str:
        """That of all its machines, as images name theirs; empty where they differ, or it is unknown."""
        ...

    def services(self) -> Mapping[str, Service]:
        """The services that a run must wait for there, by the boundary of their faults (harness/run/outages.py)."""
        ...

    def supply(
        self, upcoming: Callable[[], Sequence[Task]], breaker: Breaker, stop: threading.Event
    ) -> AbstractContextManager[None]:
        """Inside the block, fetch images ahead: `upcoming()` gives the tasks to come, soonest first."""
        ...

    def reap(self) -> int:
        """Remove the containers whose owner is gone; returns their number."""
        ...

    def close_all(self) -> None:
        """End all work in progress, from another thread."""
        ...


class Member(Site, Protocol):
    """A site that a pool can do without for a while."""

    def images(self) -> set[str]:
        """The names of the images that are there."""
        ...

    def returned(self) -> bool:
        """After a loss: is it usable again? Its containers of this run are removed first."""
        ...

    def close(self) -> None:
        """The run has finished there."""
        ...


class Here:
    """An engine used by this process. `watched`: work in progress when the engine goes away is lost, not failed."""

    def __init__(
        self,
        tasks: Mapping[str, Task],
        agent: Agent,
        places: Places,
        identity: Identity,
        *,
        engine: Engine = HERE,
        watched: bool = False,
    ) -> None:
        self.name = str(engine)
        self.engine = engine
        self._tasks, self._agent, self._places, self._identity = tasks, agent, places, identity
        self._stop = threading.Event()  # of what is under way
        self._auditors: dict[str, Auditor] = {}
        self._watch = Watch(engine, lambda: Sandbox.close_all(engine)) if watched else None

    def rollout(self, scratch: Path, instance_id: str, seed: int, attempt: int) -> Worked | None:
        rollouts = Rollouts(self._tasks, self._agent, self._places, self._stop)
        return self._there(
            lambda: rollouts.work(scratch, instance_id, seed, attempt), lambda worked: worked.fault if worked else None
        )

    def grade(self, task: Task, prediction: Prediction, folder: Path, left: Mapping[str, str | None] | None) -> Grade:
        return self._there(
            lambda: self._places.grade(task, prediction, folder, left),
            lambda grade: told_of(grade.cause) if grade.outcome is Outcome.ERROR else None,
        )

    def ahead(self, gradings: int) -> int:
        return self._places.ahead(gradings)

    def audit(self, task: Task, folder: Path, name: str = CANARY) -> Regrade:
        auditor = self._auditors.setdefault(name, auditor_of(self._identity, name))
        return self._there(
            lambda: auditor.audit(task, folder, self._places.image(task)),
            lambda found: told_of(found.reason) if found.state == "unaudited" else None,
        )

    def architecture(self) -> str:
        return self._places.architecture()

    def services(self) -> Mapping[str, Service]:
        return self._places.services() if self._watch is None else {}  # others can do the work of a pool's engine

    def supply(
        self, upcoming: Callable[[], Sequence[Task]], breaker: Breaker, stop: threading.Event
    ) -> AbstractContextManager[None]:
        if self._watch is not None:
            breaker = breaker.beside({REGISTRY: self._places.services()[REGISTRY]})
        return self._places.supply(upcoming, breaker, stop)

    def reap(self) -> int:
        with at(self.engine):
            return reap(self._identity.labels[RUN], earlier=self._identity.earlier)

    def close_all(self) -> None:
        self._stop.set()
        self._stop = threading.Event()
        self._places.close_all()

    def images(self) -> set[str]:
        with at(self.engine), boundary(EnvironmentFault, f"{self.name} does not list its images"):
            # not docker-py's images.list(): it asks for each one, and fails for one that is removed meanwhile
            return listed(client().api.images())

    def returned(self) -> bool:
        if self.engine.gone or not answers(self.engine):
            return False
        with at(self.engine):
            remove_left()
            if why_no_start():
                return False
        self.reap()
        return True

    def close(self) -> None:
        """Release the engine, and leave nothing of the run there."""
        if self._watch is not None:
            self._watch.close()
        if not self.engine.gone:
            with suppress(AemError), at(self.engine):
                reap(self._identity.labels[RUN], own=True)

    def _there(self, work: Callable[[], Result], failed: Callable[[Result], AemError | None]) -> Result:
        """What `work` results in at the engine. `failed` says which fault of the infrastructure a result tells of.

        Raises SiteLost where the engine went away meanwhile, or answers and starts no container: it would lose one
        piece of work after the other, and so be free for the next.
        """
        if self._watch is None:
            return work()
        if self.engine.gone:
            raise SiteLost(f"{self.name} is gone")
        losses, stop = self.engine.losses, self._stop
        try:
            with at(self.engine):
                result = work()
            fault = failed(result)
        except Exception:
            if self._went_since(losses, stop):
                raise SiteLost(f"{self.name} went away") from None
            raise
        if self._went_since(losses, stop if fault else None):
            raise SiteLost(f"{self.name} went away")
        if isinstance(fault, ImageAway):
            raise fault
        if isinstance(fault, EnvironmentFault) and not stop.is_set():
            with at(self.engine):
                if why := why_no_start():
                    raise SiteLost(f"{self.name} starts no container: {why}")
        return result

    def _went_since(self, losses: int, settle: threading.Event | None) -> bool:
        """Has the engine gone since it had `losses`? After a failure, its watch is given a moment to notice."""
        if settle is not None and self.engine.losses == losses:
            settle.wait(SETTLING)
        return self.engine.losses != losses


@contextmanager
def supplied(
    site: Site, folder: Path, patience: float, say: Callable[[str], None] = lambda line: None
) -> Iterator[Callable[[], None]]:
    """Inside the block, images that are waited for are fetched, and removed within the budget, though no run goes on.

    `folder` is where results go; a registry, engine or disk that is away is waited for, for `patience` seconds. Yields
    what ends all that is under way there, the waiting for images with it.
    """
    stop = threading.Event()
    services = {**site.services(), "host": Disk(folder)}

    def end() -> None:
        stop.set()
        site.close_all()

    try:
        with site.supply(list, Breaker(services, patience=patience, say=say, stop=stop), stop):
            yield end
    finally:
        stop.set()


def auditor_of(identity: Identity, name: str = CANARY) -> Auditor:
    config = identity.config
    return Auditor(identity.labels, timeout=config.grade_timeout, limits=config.limits, name=name)


def containers(
    identity: Identity, supply: Supply | None = None, *, audited: bool = False, engine: Engine = HERE
) -> Containers:
    """The containers of a run; `audited`: resolved patches are graded again with canaries before the grade counts."""
    return (AuditedContainers if audited else Containers)(identity, supply, engine=engine)
