"""One rollout: an agent in a fresh container, and what is kept of it, whatever fails meanwhile.

The table of ends (`harness.ends`) says who is to blame for an exit status or an exception. If the agent is, the work is
graded; if not, it is a fault, with its cause, of this rollout alone.
"""

import logging
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from aem_harness.harness.ends import read_ends
from aem_harness.harness.errors import AemError, EnvironmentFault, PolicyFault, fault_in, in_one_line
from aem_harness.harness.io import write_bytes, write_json
from aem_harness.harness.run.places import Places
from aem_harness.harness.run.store import PATCH, Event, now
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


class Worked(NamedTuple):
    """The result of a rollout: its event for the journal, and the fault that the event describes."""

    event: Event
    fault: AemError | None


class Rollouts:
    """Runs single rollouts of one run. Safe to share between threads; `stop` discards rollouts in progress."""

    def __init__(self, tasks: Mapping[str, Task], agent: Agent, places: Places, stop: threading.Event) -> None:
        self._tasks, self._agent, self._places, self._stop = tasks, agent, places, stop

    def work(self, scratch: Path, instance_id: str, seed: int, attempt: int) -> Worked | None:
        """One rollout with its files in `scratch`; returns its event, or None if the run was stopped meanwhile.

        Raises nothing: what goes wrong is the rollout's fault.
        """
        started = time.monotonic()
        left, trajectory = Left(), None
        try:
            trajectory = TrajectoryWriter(scratch, instance_id)
            self._act(self._tasks[instance_id], seed, trajectory, left)
        except Exception as error:
            logger.warning("%s seed %d attempt %d: a fault", instance_id, seed, attempt, exc_info=error)
            left.fault = fault_of(error)
        if self._stop.is_set():
            return None
        facts = self._keep(scratch, instance_id, trajectory, left)
        event = _event(instance_id, seed, attempt, left, facts, started)
        logger.info(
            "%s seed %d attempt %d: %s after %s steps and %.0f s, a patch of %d bytes%s",
            *(instance_id, seed, attempt, event["exit_status"], event["steps"], event["seconds"], event["patch_bytes"]),
            f", lost: {left.fault}" if left.fault else "",
        )
        return Worked(event, left.fault)

    def _act(self, task: Task, seed: int, trajectory: TrajectoryWriter, left: Left) -> None:
        with self._places.image(task) as left.image_digest, self._places.open(task) as environment:
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
        if self._stop.is_set() or not own_doing(environment, fault, work):
            raise fault
        left.ended = AgentExit(status=ExitStatus.SANDBOX_DESTROYED, reason=str(fault))

    def _drive(self, task: Task, seed: int, environment: Sandbox, trajectory: TrajectoryWriter) -> AgentExit:
        """Run the agent. Raises its fault; an exception of the agent itself is a crash, which counts."""
        try:
            ended = self._agent.run(task.instance, environment, trajectory, seed=seed)
            if not isinstance(ended, AgentExit):
                raise TypeError(f"the agent returned {type(ended).__name__}, not an AgentExit")
            return ended
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also asyncio's CancelledError, which would end the whole run
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


def _event(
    instance_id: str, seed: int, attempt: int, left: Left, facts: Mapping[str, Any], started: float
) -> dict[str, Any]:
    return {
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


def unworked(scratch: Path, instance_id: str, seed: int, attempt: int, error: Exception, started: float) -> Worked:
    """A rollout whose site failed with `error` before it had a result; what half of one left in `scratch` is removed.

    `started`: monotonic seconds.
    """
    for path in scratch.iterdir():
        path.unlink()
    fault = fault_of(error)
    return Worked(_event(instance_id, seed, attempt, Left(fault=fault), Summary().facts(), started), fault)


def fault_of(error: Exception) -> AemError:
    """The fault that a rollout ended in; an exception of unknown kind is the harness's own."""
    return fault_in(error) or AemError(f"unexpected {in_one_line(error)}")


def described(fault: AemError | None) -> dict[str, str] | None:
    """A fault for the journal."""
    return {"boundary": fault.boundary, "message": str(fault)} if fault else None
