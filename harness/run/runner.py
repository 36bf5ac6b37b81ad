"""One rollout, and many: drive the agent through fresh containers, grade each patch as soon as it exists.

Faults are classified where they cross a boundary and recorded once, here. A lost rollout never cancels its siblings;
when the engine or the server is plainly gone (many faults in a row) the run stops instead of losing the rest.
"""

import math
import shutil
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from aem_harness.harness.config import RunConfig
from aem_harness.harness.errors import AemError, EnvironmentFault, PolicyFault
from aem_harness.harness.grading import official
from aem_harness.harness.run.store import Event, Key, RunStore, now, write_patch
from aem_harness.harness.run.trajectory import TrajectoryWriter
from aem_harness.harness.sandbox.container import Sandbox
from aem_harness.harness.sandbox.images import ensure_image
from aem_harness.harness.types import Agent, AgentExit, ExitStatus, Outcome, Prediction, Task

FAULTS_IN_A_ROW = 12  # then the engine or the server is gone, and going on would only lose rollouts


def loss(event: Event) -> str:
    """What infrastructure failure a rollout or grading was lost to; empty when it was not."""
    if event["event"] == "rollout":
        return event["fault"]["message"] if event["fault"] else ""
    return event["cause"] or "no cause given" if event["outcome"] == Outcome.ERROR.value else ""


class Runner:
    """Runs what a store owes. `on_event(kind, event)` is called with "started", "rollout" and "grade", one at a time.

    No rollout is started while more than `ahead` wait for their verdict: for runs that a verdict may end.
    Set `stop` to end early: queued rollouts are cancelled, running ones are discarded and stay owed. `release` is then
    called, to wake rollouts that wait for something outside their containers, such as a model.
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
    ) -> None:
        self.store = store
        self.tasks = tasks
        self.agent = agent
        self.config: RunConfig = store.config
        self.stop = threading.Event()
        self._workers, self._grade_workers, self._ahead = workers, grade_workers, ahead
        self._on_event = on_event
        self._release = release
        self._view = threading.Lock()

    def run(self, keys: Sequence[Key], *, retry_infrastructure: bool = False) -> None:
        """Do everything owed among `keys`, in their order. Raises EnvironmentFault after too many faults in a row."""
        owed = self.store.owed(list(keys), retry_infrastructure=retry_infrastructure)
        waiting = deque(owed.rollouts)
        faults_in_a_row = 0
        with (
            ThreadPoolExecutor(self._workers, "rollout") as rollouts,
            ThreadPoolExecutor(self._grade_workers, "grade") as grades,
        ):
            rolling: set[Future[Event | None]] = set()
            grading = {grades.submit(self._grade, *key) for key in owed.grades}
            try:
                while (waiting or rolling or grading) and not self.stop.is_set():
                    while waiting and len(rolling) < self._workers and len(grading) <= self._ahead:
                        rolling.add(rollouts.submit(self._rollout, *waiting.popleft()))
                    done, _ = wait(rolling | grading, timeout=0.2, return_when=FIRST_COMPLETED)
                    rolling -= done
                    grading -= done
                    for event in filter(None, (future.result() for future in done)):
                        lost = loss(event)
                        faults_in_a_row = faults_in_a_row + 1 if lost else 0
                        if faults_in_a_row >= FAULTS_IN_A_ROW:
                            raise EnvironmentFault(
                                f"{faults_in_a_row} losses in a row, the last to: {lost}; mend that, then run the same "
                                "command with --retry infra"
                            )
                        if event["event"] == "rollout":
                            key = event["instance_id"], event["seed"]
                            if not lost:
                                grading.add(grades.submit(self._grade, *key))
                            elif event["attempt"] < self.config.infra_retries:
                                waiting.appendleft((*key, event["attempt"] + 1))
            finally:
                # Leaving early, by a verdict, an error or Ctrl-C: what runs is discarded and stays owed.
                self.stop.set()
                rollouts.shutdown(wait=False, cancel_futures=True)
                grades.shutdown(wait=False, cancel_futures=True)
                if rolling or grading:
                    self._release()
                while running := [future for future in rolling | grading if not future.done()]:
                    Sandbox.close_all()  # again and again: another container may just be starting
                    wait(running, timeout=0.5)

    # --- one rollout ------------------------------------------------------------------------------------------------

    def _rollout(self, instance_id: str, seed: int, attempt: int) -> Event | None:
        if self.stop.is_set():
            return None
        task = self.tasks[instance_id]
        self._tell("started", {"instance_id": instance_id, "seed": seed})
        scratch = self.store.scratch(instance_id, seed)
        trajectory = TrajectoryWriter(scratch, instance_id)
        started = time.monotonic()
        fault: dict[str, str] | None = None
        ended, patch, image_digest = AgentExit(status=ExitStatus.FAULT), "", ""
        try:
            image = ensure_image(task)
            image_digest = image.digest
            with self._sandbox(task) as environment:
                try:
                    ended = self.agent.run(task.instance, environment, trajectory, seed=seed)
                except PolicyFault:
                    patch = environment.diff()  # kept as evidence beside the trajectory, never graded
                    raise
                except AemError:
                    raise
                except Exception as error:
                    reason = f"{type(error).__name__}: {error}"
                    trajectory.info(traceback=traceback.format_exc())
                    ended = AgentExit(status=ExitStatus.AGENT_CRASH, reason=reason)
                patch = ended.patch if ended.patch is not None else environment.diff()
        except AemError as error:
            fault = {"boundary": error.boundary, "message": str(error)}
        if self.stop.is_set():
            shutil.rmtree(scratch)
            return None
        write_patch(scratch / "patch.diff", patch)
        trajectory.info(agent=self.agent.describe(), fault=fault)
        trajectory.finish(ended.status, patch)
        event = {
            "event": "rollout",
            "instance_id": instance_id,
            "seed": seed,
            "attempt": attempt,
            "exit_status": ended.status.value,
            "reason": ended.reason,
            **trajectory.summary.facts(),
            "seconds": round(time.monotonic() - started, 3),
            "patch_bytes": len(patch.encode()),
            "image_digest": image_digest,
            "fault": fault,
            "at": now(),
        }
        self.store.finish_rollout(scratch, event)
        self._tell("rollout", event)
        return event

    def _sandbox(self, task: Task) -> Sandbox:
        return Sandbox(
            task.instance.image,
            workdir=task.instance.workdir,
            network=self.config.agent_network,
            limits=self.config.limits,
            labels={"aem.run": self.store.folder.name, "aem.instance": task.instance_id},
        )

    # --- one grading ------------------------------------------------------------------------------------------------

    def _grade(self, instance_id: str, seed: int) -> Event | None:
        task = self.tasks[instance_id]
        folder = self.store.rollout_folder(instance_id, seed)
        prediction = Prediction(
            instance_id=instance_id,
            model_name_or_path=self.config.arm,
            model_patch=self.store.patch(instance_id, seed),
        )
        for _ in range(1 + self.config.infra_retries):
            if self.stop.is_set():
                return None
            grade = official.grade(
                task,
                prediction,
                folder=folder,
                timeout=self.config.grade_timeout,
                limits=self.config.limits,
                labels={"aem.run": self.store.folder.name},
                dataset_digest=self.store.facts["dataset"]["digest"],
            )
            if grade.outcome is not Outcome.ERROR:
                break
        if self.stop.is_set():
            return None
        event = {
            "event": "grade",
            "instance_id": instance_id,
            "seed": seed,
            "attempt": self.store.progress[instance_id, seed].rollout["attempt"],
            "outcome": grade.outcome.value,
            "cause": grade.cause,
            "seconds": round(grade.seconds, 3),
            "versions": dict(grade.versions),
            "at": now(),
        }
        self.store.finish_grade(event)
        self._tell("grade", event)
        return event

    def _tell(self, kind: str, event: Mapping[str, Any]) -> None:
        with self._view:
            self._on_event(kind, dict(event))
