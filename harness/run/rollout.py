"""One rollout: an agent in a fresh container, and what is kept of it, whatever fails meanwhile.

The table of ends (`harness.ends`) says who is to blame for an exit status or an exception. If the agent is, the work is
graded; if not, it is a fault, with its cause, of this rollout alone.
"""

import logging
import shutil
import threading
import time
import traceback
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aem_harness.harness.ends import read_ends
from aem_harness.harness.errors import (
    AemError,
    DiskFault,
    EnvironmentFault,
    HostFault,
    PolicyFault,
    fault_in,
    in_one_line,
    of_disk,
)
from aem_harness.harness.io import write_bytes, write_json
from aem_harness.harness.run.outages import Breaker
from aem_harness.harness.run.places import Places
from aem_harness.harness.run.store import PATCH, Event, RunStore, now
from aem_harness.harness.run.trajectory import Summary, TrajectoryWriter
from aem_harness.harness.sandbox.blame import own_doing, probe
from aem_harness.harness.sandbox.container import Sandbox
from aem_harness.harness.sandbox.worktree import Patch
from aem_harness.harness.types import Agent, AgentExit, ExitStatus, Task

logger = logging.getLogger(__name__)

ENDS = read_ends()  # as shipped: a user's own rows are for those who read outcomes, so that a journal depends on none
RECEIPT = "receipt.json"  # in the rollout's folder: what the patch carries, and what it leaves out


@dataclass
class Left:
    """The result of a rollout: how it ended, its patch, and its fault, if any."""

    ended: AgentExit = field(default_factory=lambda: AgentExit(status=ExitStatus.FAULT))
    patch: Patch = field(default_factory=Patch)
    image_digest: str = ""
    commands: int = 0  # that the agent ran, recorded or not
    fault: AemError | None = None
    began: float = 0.0  # monotonic seconds


class Rollouts:
    """Runs single rollouts of one run. Safe to share between threads; `stop` discards rollouts in progress."""

    def __init__(
        self,
        store: RunStore,
        tasks: Mapping[str, Task],
        agent: Agent,
        places: Places,
        stop: threading.Event,
        breaker: Breaker,
    ) -> None:
        self._store, self._tasks, self._agent, self._places, self._stop = store, tasks, agent, places, stop
        self._breaker = breaker

    def run(self, instance_id: str, seed: int, attempt: int) -> Event | None:
        """One rollout, in its folder and in the journal; None if the run was stopped meanwhile, or if an outage
        interrupted it: then nothing of it is kept, and it is to be done again.

        Raises only HostFault, when its result cannot be written: then the run cannot continue.
        """
        started = time.monotonic()
        key, scratch = (instance_id, seed), Path()

        def make_scratch() -> None:
            nonlocal scratch
            scratch = self._store.scratch(instance_id, seed)

        if not self.written(key, make_scratch):
            return None
        left, trajectory = Left(began=started), None
        try:
            trajectory = TrajectoryWriter(scratch, instance_id)
            self._act(self._tasks[instance_id], seed, trajectory, left)
        except Exception as error:
            logger.warning("%s seed %d attempt %d: a fault", instance_id, seed, attempt, exc_info=error)
            left.fault = fault_of(error)
        facts = {} if self._stop.is_set() else self._keep(scratch, instance_id, trajectory, left)
        if self._stop.is_set() or self._breaker.interrupts(key, left.fault, started):
            shutil.rmtree(scratch, ignore_errors=True)
            return None
        event = {
            "event": "rollout",
            "instance_id": instance_id,
            "seed": seed,
            "attempt": attempt,
            "exit_status": left.ended.status.value,
            "reason": left.ended.reason,
            **facts,
            "commands": max(left.commands, facts["commands"]),
            "seconds": round(time.monotonic() - started, 3),
            "patch_bytes": len(left.patch.data),
            "left_out": left.patch.counts(),
            "image_digest": left.image_digest,
            "fault": described(left.fault),
            "at": now(),
        }
        try:
            if not self.written(key, lambda: self._store.finish_rollout(scratch, event)):
                return None
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        logger.info(
            "%s seed %d attempt %d: %s after %s steps and %.0f s, a patch of %d bytes%s",
            *(instance_id, seed, attempt, event["exit_status"], event["steps"], event["seconds"], event["patch_bytes"]),
            f", lost: {left.fault}" if left.fault else "",
        )
        return event

    def written(self, what: Hashable, write: Callable[[], None]) -> bool:
        """Write to the run's folder, waiting for a disk that takes nothing; False when the run is stopped meanwhile.

        Raises HostFault where waiting does not help.
        """
        while True:
            began = time.monotonic()
            try:
                write()
                return True
            except OSError as error:
                fault = unwritable(self._store.folder, error)
                if not self._breaker.interrupts(("write", what), fault, began):
                    raise fault from error
                if not self._breaker.ready(("host",)):
                    return False

    def _act(self, task: Task, seed: int, trajectory: TrajectoryWriter, left: Left) -> None:
        left.image_digest = self._places.image(task)
        with self._places.open(task) as environment:
            before = environment.commands
            try:
                left.ended = self._drive(task, seed, environment, trajectory)
            except PolicyFault:
                left.patch = environment.patch()  # kept as evidence beside the trajectory, never graded
                raise
            except EnvironmentFault as fault:
                self._blame(environment, fault, probe, left)
            finally:
                left.commands = environment.commands - before
            left.patch = self._patch(environment, left)
        if not ENDS.of(left.ended.status).whose.counts:
            raise AemError(f"the agent ended in {left.ended.status}: {left.ended.reason or 'it gave no reason'}")

    def _patch(self, environment: Sandbox, left: Left) -> Patch:
        if left.ended.patch is not None:
            return Patch(left.ended.patch.encode("utf-8", "surrogateescape"), carried=None)
        try:
            return environment.patch()
        except EnvironmentFault as fault:
            self._blame(environment, fault, Sandbox.patch, left)
            return Patch()

    def _blame(
        self, environment: Sandbox, fault: EnvironmentFault, work: Callable[[Sandbox], object], left: Left
    ) -> None:
        """If the agent destroyed its container, that is an exit status and counts; every other fault is raised."""
        if self._stop.is_set() or self._breaker.broke_since("environment", left.began):
            raise fault
        if not own_doing(environment, fault, work):
            raise fault
        left.ended = AgentExit(status=ExitStatus.SANDBOX_DESTROYED, reason=str(fault))

    def _drive(self, task: Task, seed: int, environment: Sandbox, trajectory: TrajectoryWriter) -> AgentExit:
        """Run the agent. Raises its fault; an exception of the agent itself is a crash, which counts."""
        try:
            ended = self._agent.run(task.instance, environment, trajectory, seed=seed)
            if not isinstance(ended, AgentExit):
                raise TypeError(f"the agent returned {type(ended).__name__}, not an AgentExit")
            return ended
        except (Exception, SystemExit) as error:
            if ENDS.raised(error).whose.counts:
                trajectory.info(traceback=traceback.format_exc())
                return AgentExit(status=ExitStatus.AGENT_CRASH, reason=in_one_line(error))
            fault = fault_in(error) or AemError(in_one_line(error))
            if fault is error:
                raise
            raise fault from error

    def _keep(self, scratch: Path, instance_id: str, trajectory: TrajectoryWriter | None, left: Left) -> dict[str, Any]:
        """Write patch and trajectory. If that fails, the rollout is a fault, and partial files are removed."""
        try:
            if trajectory is None:
                trajectory = TrajectoryWriter(scratch, instance_id)
            write_bytes(scratch / PATCH, left.patch.data)
            write_json(scratch / RECEIPT, left.patch.receipt())
            trajectory.info(agent=self._agent.describe(), fault=described(left.fault))
            trajectory.finish(left.ended.status, left.patch.data.decode("utf-8", "surrogateescape"))
            return trajectory.summary.facts()
        except Exception as error:
            left.fault = left.fault or fault_of(error)
            left.ended, left.patch = AgentExit(status=ExitStatus.FAULT), Patch()
            for path in scratch.iterdir():
                path.unlink(missing_ok=True)
            return (trajectory.summary if trajectory else Summary()).facts()


def fault_of(error: Exception) -> AemError:
    """The fault that a rollout ended in; an exception of unknown kind is the harness's own."""
    return fault_in(error) or AemError(f"unexpected {in_one_line(error)}")


def described(fault: AemError | None) -> dict[str, str] | None:
    """A fault for the journal."""
    return {"boundary": fault.boundary, "message": str(fault)} if fault else None


def unwritable(folder: Path, error: OSError) -> HostFault:
    """The fault that ends a run: its folder cannot be written."""
    kind = DiskFault if of_disk(error) else HostFault
    return kind(f"cannot write to {folder} ({error.strerror}): free or repair it, then run the same command again")
