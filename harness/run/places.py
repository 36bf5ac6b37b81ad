"""Where a run's rollouts and gradings take place: containers of the engine."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Protocol

from aem_harness.harness.errors import AemError, EnvironmentFault, boundary
from aem_harness.harness.grading import official
from aem_harness.harness.run.auditing import Auditor
from aem_harness.harness.run.flow import REGISTRY, Flow, ImageDemand, ImageRegistries, Supply, flow_of
from aem_harness.harness.run.identity import Identity
from aem_harness.harness.run.outages import Breaker, Service
from aem_harness.harness.sandbox.container import Sandbox
from aem_harness.harness.sandbox.engine import HERE, Engine, architecture, at
from aem_harness.harness.sandbox.images import end_pulls, ensure_image
from aem_harness.harness.sandbox.watch import EngineService
from aem_harness.harness.types import Grade, Prediction, Task


class Places(Protocol):
    """What a runner needs beside agent and store. An exception costs one rollout or grading."""

    def supply(
        self, upcoming: Callable[[], Sequence[Task]], breaker: Breaker, stop: threading.Event
    ) -> AbstractContextManager[None]:
        """Inside the block, make images present ahead of need: `upcoming()` gives the tasks to come, soonest first."""
        ...

    def image(self, task: Task) -> AbstractContextManager[str]:
        """The task's image, present while the block runs; its digest."""
        ...

    def open(self, task: Task) -> AbstractContextManager[Any]:
        """A fresh `Sandbox` for an agent."""
        ...

    def grade(
        self, task: Task, prediction: Prediction, folder: Path, left: Mapping[str, str | None] | None
    ) -> Grade: ...

    def ahead(self, gradings: int) -> int:
        """How many gradings to hand over at a time, so that `gradings` of them run."""
        ...

    def architecture(self) -> str:
        """That of the machine where the containers are, as images name theirs; empty where it is unknown."""
        ...

    def services(self) -> Mapping[str, Service]:
        """What all of it stands on, by the boundary of the faults that its outages cause (harness/run/outages.py)."""
        ...

    def close_all(self) -> None:
        """Close everything that is open, from another thread."""
        ...


class GradingTurn:
    """One grading's share of the `turns` that all have together; `waited`: seconds until it got one."""

    def __init__(self, turns: threading.Semaphore) -> None:
        self._turns = turns
        self.waited = 0.0

    def __enter__(self) -> None:
        began = time.monotonic()
        self._turns.acquire()
        self.waited += time.monotonic() - began

    def __exit__(self, *_: object) -> None:
        self._turns.release()


class Containers:
    """A container for every rollout and grading, under the limits of the run, at the engine here or at another one.

    `supply` says how images get there; None: as the environment says. After `ahead(n)`, at most n gradings run tests at
    a time; others have their container opened or removed meanwhile.
    """

    def __init__(self, run: Identity, supply: Supply | None = None, *, engine: Engine = HERE) -> None:
        self._config, self._labels, self._dataset_digest = run.config, dict(run.labels), run.dataset_digest
        self._supply, self._registry, self._engine = supply or Supply.of_environment(), ImageRegistries(engine), engine
        self._flow: Flow | None = None
        self._turns = threading.Semaphore(2**20)

    def ahead(self, gradings: int) -> int:
        self._turns = threading.Semaphore(gradings)
        return 2 * gradings

    @contextmanager
    def supply(self, upcoming: Callable[[], Sequence[Task]], breaker: Breaker, stop: threading.Event) -> Iterator[None]:
        source = ImageDemand(upcoming, breaker, self._registry, stop, self._engine, ahead=self._engine is HERE)
        with flow_of(self._supply, self._engine).join(source) as flow:
            self._flow, self._stop = flow, stop
            try:
                yield
            finally:
                self._flow = None

    @contextmanager
    def image(self, task: Task) -> Iterator[str]:
        if self._flow is None:
            yield ensure_image(task, mirror=self._supply.mirror).digest
            return
        with self._flow.hold(task, self._stop) as ref:
            yield ref.digest

    def open(self, task: Task) -> Sandbox:
        return Sandbox(
            task.instance.image,
            workdir=task.instance.workdir,
            network=self._config.agent_network,
            limits=self._config.limits,
            labels={**self._labels, "aem.instance": task.instance_id},
        )

    def grade(self, task: Task, prediction: Prediction, folder: Path, left: Mapping[str, str | None] | None) -> Grade:
        turn = GradingTurn(self._turns)
        with self.image(task) if prediction.model_patch else nullcontext():
            grade = official.grade(
                task,
                prediction,
                folder=folder,
                timeout=self._config.grade_timeout,
                limits=self._config.limits,
                labels=self._labels,
                dataset_digest=self._dataset_digest,
                left=left,
                turn=turn,
            )
        return grade.model_copy(update={"seconds": grade.seconds - turn.waited})

    def architecture(self) -> str:
        with suppress(AemError), boundary(EnvironmentFault, "the engine does not answer"), at(self._engine):
            return architecture()
        return ""

    def services(self) -> Mapping[str, Service]:
        return {"environment": EngineService(), REGISTRY: self._registry}

    def close_all(self) -> None:
        Sandbox.close_all(labels=self._labels)
        end_pulls()


class AuditedContainers(Containers):
    """The same, with resolved patches graded again with canaries before their grade is journaled."""

    def __init__(self, run: Identity, supply: Supply | None = None, *, engine: Engine = HERE) -> None:
        super().__init__(run, supply, engine=engine)
        self._auditor = Auditor(self._labels, timeout=self._config.grade_timeout, limits=self._config.limits)

    def grade(self, task: Task, prediction: Prediction, folder: Path, left: Mapping[str, str | None] | None) -> Grade:
        grade = super().grade(task, prediction, folder, left)
        if grade.resolved:
            with self.image(task), self._turns:
                self._auditor.audit(task, folder)
        return grade
