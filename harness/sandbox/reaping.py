"""Containers that go: at once when their sandbox closes, and by the next run when their own was killed.

The label `aem.owner` names a process: the host and process namespace it counts in, its pid, and when the kernel
started it (a pid alone is soon given out again). A harness that runs in a container of this same engine says so in
`aem.inside`: nobody else can look into its namespace, but everybody can see whether its container still runs.
"""

import functools
import os
import re
import socket
import time
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aem_harness.harness.errors import EnvironmentFault, boundary, counted
from aem_harness.harness.sandbox.engine import Engine, client, current

if TYPE_CHECKING:
    from docker.models.containers import Container
    from rich.console import Console

OWNER, INSIDE, RUN = "aem.owner", "aem.inside", "aem.run-id"
MACHINE = Path("/etc/machine-id")
PAUSES = (0.5, 2.0)  # seconds before the second and third try to remove a container that a busy engine would not let go


_left: "defaultdict[str, set[str]]" = defaultdict(set)  # by engine, containers that could not be removed: it was gone


def ownership() -> dict[str, str]:
    """The labels that make a container this process's."""
    inside = _inside(current().address)
    return {OWNER: f"{_here()}:{os.getpid()}:{_started(os.getpid())}", **({INSIDE: inside} if inside else {})}


def reap(run: str = "", *, earlier: Collection[str] = (), own: bool = False) -> int:
    """Remove the containers whose process is dead; returns how many. Those nobody here can judge are left alone.

    `run` is the label of what this process alone works at this engine: containers of it that are another process's are
    removed too, also of one on another machine; `own`: and its own, when it has finished there. `earlier` are the
    labels of processes that worked the same before: theirs are removed as well, unless the process still lives here,
    which has a copy of the run then.
    """
    with boundary(EnvironmentFault, "the Docker engine does not answer; start it, or see aem doctor"):
        containers = client().containers.list(all=True, filters={"label": OWNER}, ignore_removed=True)
        mine = ownership()[OWNER]
        dead = [one for one in containers if _is_dead(one.labels) or _is_left(one.labels, run, earlier, own, mine)]
    return sum(map(remove, dead))


def say_reaped(removed: int, console: "Console") -> None:
    if removed:
        console.print(f"[dim]removed {counted(removed, 'container')} left behind by a killed run[/]")


def _is_left(labels: Mapping[str, str], run: str, earlier: Collection[str], own: bool, mine: str) -> bool:
    """Is it a container of the run that nobody works with any more?"""
    label, owner = labels.get(RUN, ""), labels[OWNER]
    if run and label == run:
        return own or owner != mine
    return label in earlier and owner != mine and not _lives(labels)


def remove(container: "Container", engine: Engine | None = None) -> bool:
    """Kill and remove a container with its volumes; whether it is gone. One that stays is left for the next `reap`.

    `engine` is where it is (default: the thread's). One that is known to be gone is not asked, which may take minutes.
    """
    from docker.errors import APIError, DockerException, NotFound

    engine = engine or current()
    if engine.gone:
        _left[engine.address].add(str(container.id))
        return False
    for pause in (*PAUSES, None):
        try:
            container.remove(force=True, v=True)
            return True
        except NotFound:
            return True
        except APIError as error:
            if error.status_code == 409:  # somebody is removing it already
                return True
            if pause is not None:
                time.sleep(pause)
        except (DockerException, OSError):  # no engine answers
            _left[engine.address].add(str(container.id))
            return False
    _left[engine.address].add(str(container.id))
    return False


def remove_left() -> None:
    """Remove what `remove` could not, now that the thread's engine answers again."""
    from docker.errors import DockerException, NotFound

    left = _left[current().address]
    for one in list(left):
        left.discard(one)
        try:
            remove(client().containers.get(one))
        except NotFound:
            continue
        except (DockerException, EnvironmentFault, OSError):
            left.add(one)
            return


def _is_dead(labels: Mapping[str, str]) -> bool:
    owner = _Owner.of(labels)
    if owner is None:
        return False
    if owner.where == _here():
        return _started(owner.pid) != owner.started
    inside = labels.get(INSIDE, "")
    return bool(inside) and (
        inside == _inside(current().address) or not _runs(inside)
    )  # ours, but another life of it: restarted


def _lives(labels: Mapping[str, str]) -> bool:
    """Is its process known to live, on this machine?"""
    owner = _Owner.of(labels)
    return owner is not None and owner.where == _here() and _started(owner.pid) == owner.started


class _Owner(NamedTuple):
    """A process, as the label `aem.owner` names it."""

    where: str
    pid: int
    started: str

    @classmethod
    def of(cls, labels: Mapping[str, str]) -> "_Owner | None":
        """None for a label that is not ours: others may call theirs the same."""
        where, pid, started = ("", "", *labels[OWNER].rsplit(":", 2))[-3:]
        return cls(where, int(pid), started) if pid.isdecimal() and started.isdecimal() else None


def _here() -> str:
    """Where this process's pid counts: containers may share their host's name, and still have pids of their own.

    Hosts may share a name as well (localhost, those made from one image), and an engine that both use over the network.
    """
    try:
        machine = MACHINE.read_text().strip()
    except OSError:
        machine = ""
    return f"{socket.gethostname()}/{machine}/{Path('/proc/self/ns/pid').readlink()}"


@functools.cache
def _inside(engine: str) -> str:
    """The id of the container this process runs in, if it is one of the thread's engine `engine`; else empty."""
    found = re.search(r"/containers/([0-9a-f]{64})/hostname ", Path("/proc/self/mountinfo").read_text())
    return found[1] if found and _runs(found[1]) else ""


def _runs(container_id: str) -> bool:
    from docker.errors import NotFound

    try:
        return bool(client().containers.get(container_id).attrs["State"]["Running"])
    except NotFound:
        return False


def _started(pid: int) -> str:
    """When the kernel started a process, in clock ticks since boot; empty when there is no such process.

    One that has ended is there until its parent asks for it, which process 1 of many a container never does.
    """
    try:
        state, *facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else facts[18]
