"""Where a run's rollouts and gradings take place: containers of the engine."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from aem_harness.harness.grading import official
from aem_harness.harness.run.auditing import Auditor
from aem_harness.harness.run.identity import Identity
from aem_harness.harness.run.outages import Service
from aem_harness.harness.sandbox.container import Sandbox
from aem_harness.harness.sandbox.images import ensure_image
from aem_harness.harness.sandbox.watch import EngineService
from aem_harness.harness.types import Grade, Prediction, Task


class Places(Protocol):
    """What a runner needs beside agent and store. An exception costs one rollout or grading."""

    def image(self, task: Task) -> str:
        """Make the task's image present; returns its digest."""
        ...

    def open(self, task: Task) -> AbstractContextManager[Any]:
        """A fresh `Sandbox` for an agent."""
        ...

    def grade(
        self, task: Task, prediction: Prediction, folder: Path, left: Mapping[str, str | None] | None
    ) -> Grade: ...

    def services(self) -> Mapping[str, Service]:
        """What all of it stands on, by the boundary of the faults that its outages cause (harness/run/outages.py)."""
        ...

    def close_all(self) -> None:
        """Close everything that is open, from another thread."""
        ...


class Containers:
    """A container for every rollout and grading, under the limits of the run."""

    def __init__(self, run: Identity) -> None:
        self._config, self._labels, self._dataset_digest = run.config, dict(run.labels), run.dataset_digest

    def image(self, task: Task) -> str:
        return ensure_image(task).digest

    def open(self, task: Task) -> Sandbox:
        return Sandbox(
            task.instance.image,
            workdir=task.instance.workdir,
            network=self._config.agent_network,
            limits=self._config.limits,
            labels={**self._labels, "aem.instance": task.instance_id},
        )

    def grade(self, task: Task, prediction: Prediction, folder: Path, left: Mapping[str, str | None] | None) -> Grade:
        return official.grade(
            task,
            prediction,
            folder=folder,
            timeout=self._config.grade_timeout,
            limits=self._config.limits,
            labels=self._labels,
            dataset_digest=self._dataset_digest,
            left=left,
        )

    def services(self) -> Mapping[str, Service]:
        return {"environment": EngineService()}

    def close_all(self) -> None:
        Sandbox.close_all()


class AuditedContainers(Containers):
    """The same, with resolved patches graded again with canaries before their grade is journaled."""

    def __init__(self, run: Identity) -> None:
        super().__init__(run)
        self._auditor = Auditor(self._labels, timeout=self._config.grade_timeout, limits=self._config.limits)

    def grade(self, task: Task, prediction: Prediction, folder: Path, left: Mapping[str, str | None] | None) -> Grade:
        grade = super().grade(task, prediction, folder, left)
        if grade.resolved:
            self._auditor.audit(task, folder)
        return grade
