"""One container per rollout: limited, unprivileged, without network or future, and gone at once when it is done.

Every container carries the label `aem`, and in `aem.owner` the process that made it, so that after a kill -9 the next
run can tell what was left behind from what other live runs are using (`reap`).
"""

import contextlib
import io
import os
import shlex
import socket
import tarfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from harness import __version__
from harness.config import Limits
from harness.errors import ConfigError, EnvironmentFault, boundary
from harness.sandbox.channel import Channel, ChannelClosed
from harness.sandbox.engine import client
from harness.sandbox.history import remove_future
from harness.types import Observation

if TYPE_CHECKING:
    from docker.models.containers import Container

HEAD_BYTES = TAIL_BYTES = 256 * 1024  # of a command's output that reach the host; agents show their models far less
# Official images keep their environment in conda: commands see it activated, as SWE-bench scaffolds do.
ACTIVATE = "source /opt/miniconda3/bin/activate testbed >/dev/null 2>&1 || true"

# Process 1 cannot be killed from inside, reaps orphans, and goes at the first SIGTERM.
IDLE = "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait; done"
REVIVAL_PAUSES = (0.0, 0.2, 1.0, 3.0)  # seconds before each try to reach a container whose supervisor is gone

_open: "set[Sandbox]" = set()
_open_lock = threading.Lock()


class Sandbox:
    """A running container as an `Environment`; use it in a `with` block.

    `base_commit` "" means the commit that is checked out. With `scrub_git` every commit that is not an ancestor of the
    checked out one is removed, and that none is left is proven, before anything else happens. `network` False means
    none at all. Raises EnvironmentFault when the engine or the container fails, naming an out-of-memory kill as such.
    """

    def __init__(
        self,
        image: str,
        *,
        workdir: str = "/testbed",
        network: bool = False,
        limits: Limits | None = None,
        labels: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        scrub_git: bool = True,
        prelude: str = ACTIVATE,
    ) -> None:
        self._image = image
        self._workdir = workdir
        self._network = network
        self._limits = limits or Limits()
        self._labels = dict(labels or {})
        self._env = dict(env or {})
        self._scrub_git = scrub_git
        self._prelude = prelude
        self._container: Container | None = None
        self._channel: Channel | None = None
        self._base = ""

    # --- life -------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            with boundary(EnvironmentFault, f"cannot start a container from {self._image}"):
                self._container = self._create()
                with _open_lock:
                    _open.add(self)
                self._container.start()
                self._channel = self._connect()
            self._base = self.execute("git rev-parse --verify HEAD 2>/dev/null").output.strip()
            if self._scrub_git and self._base:
                remove_future(self, self.image_id)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill and remove the container, with its volumes. Safe to call twice, and from another thread."""
        with _open_lock:
            _open.discard(self)
        channel, self._channel = self._channel, None
        container, self._container = self._container, None
        if channel:
            channel.close()
        if container:
            _remove(container)

    @staticmethod
    def close_all() -> None:
        """Remove every container this process has open; commands waiting in them raise EnvironmentFault."""
        with _open_lock:
            sandboxes = list(_open)
        for sandbox in sandboxes:
            sandbox.close()

    @property
    def id(self) -> str:
        return str(self._alive().id)

    @property
    def image_id(self) -> str:
        """The digest of the image the container runs."""
        return str(self._alive().attrs["Image"])

    # --- work -------------------------------------------------------------------------------------------------------

    def execute(self, command: str, *, timeout: float = 60.0, cwd: str | None = None) -> Observation:
        """Run `command` in a fresh bash; see `harness.types.Environment` and `harness.sandbox.channel`."""
        if self._channel is None:
            raise EnvironmentFault("the container is closed")
        try:
            return self._channel.execute(command, timeout, cwd or self._workdir, HEAD_BYTES, TAIL_BYTES)
        except ChannelClosed as closed:
            return self._revive(closed)

    def diff(self) -> str:
        """The work tree against the commit the container started from, as `git apply` reads it.

        New files are in it, ignored ones are not; the agent's own index is left alone. Bytes that are not UTF-8 come
        as surrogates. Empty when the agent destroyed the repository.
        """
        patch = "/tmp/.aem-patch"
        index = "/tmp/.aem-index"
        self.execute(
            f'rm -f {patch} {index}; cp "$(git rev-parse --git-dir)/index" {index}; export GIT_INDEX_FILE={index}; '
            f"git add -A && git -c core.fileMode=false diff --cached --binary --no-color --no-ext-diff --no-textconv "
            f"--src-prefix=a/ --dst-prefix=b/ {self._base or 'HEAD'} > {patch}",
            timeout=300.0,
        )
        try:
            return self.read_file(patch).decode("utf-8", "surrogateescape")
        except FileNotFoundError:
            return ""

    def write_file(self, path: str, data: bytes) -> None:
        """Write a file as root, making the folders above it."""
        folder, name = os.path.split(path)
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(data), 0o644, int(time.time())
            tar.addfile(entry, io.BytesIO(data))
        self.execute(f"mkdir -p {shlex.quote(folder or '/')}")
        with boundary(EnvironmentFault, f"cannot write {path} in the container"):
            self._alive().put_archive(folder or "/", archive.getvalue())

    def read_file(self, path: str) -> bytes:
        """The whole content of a regular file; FileNotFoundError when there is none."""
        from docker.errors import NotFound

        with boundary(EnvironmentFault, f"cannot read {path} in the container"):
            try:
                chunks, _ = self._alive().get_archive(path)
                with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
                    content = tar.extractfile(tar.getmembers()[0])
                    if content is not None:
                        return content.read()
            except NotFound:
                pass
        raise FileNotFoundError(path)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _create(self) -> "Container":
        from docker.errors import APIError

        options: dict[str, Any] = {
            "entrypoint": ["bash", "-c", IDLE],
            "command": [],
            "user": "root",
            "working_dir": self._workdir,
            "network_mode": "bridge" if self._network else "none",
            "nano_cpus": int(self._limits.cpus * 1e9),
            "mem_limit": self._limits.memory,
            "memswap_limit": self._limits.memory,
            "pids_limit": self._limits.pids,
            "security_opt": ["no-new-privileges"],
            "environment": self._env,
            "labels": {"aem": __version__, "aem.owner": owner(), **self._labels},
        }
        if self._limits.disk:
            options["storage_opt"] = {"size": self._limits.disk}
        try:
            return client().containers.create(self._image, **options)
        except APIError as error:
            if self._limits.disk and "storage-opt" in str(error):
                raise ConfigError("this engine's storage driver cannot limit disk: leave limits.disk out") from None
            raise

    def _connect(self) -> Channel:
        try:
            return Channel(self._alive(), self._workdir, self._prelude)
        except ChannelClosed as closed:
            raise EnvironmentFault(f"no shell in {self._image}: {closed or 'bash and perl are needed'}") from None

    def _revive(self, closed: ChannelClosed) -> Observation:
        """After the supervisor's end: a fault if the container is gone, else the command killed its own shell."""
        from docker.errors import APIError

        container, channel = self._container, self._channel
        if container is None or channel is None:
            raise EnvironmentFault("the container was closed under a running command")
        channel.close()
        for pause in REVIVAL_PAUSES:  # a container that is dying is still reported as running for a moment
            time.sleep(pause)
            with boundary(EnvironmentFault, "the engine does not answer"):
                container.reload()
            state = container.attrs["State"]
            if not state["Running"]:
                why = "it ran out of memory" if state["OOMKilled"] else f"exit code {state['ExitCode']}"
                raise EnvironmentFault(f"the container died: {why}")
            with contextlib.suppress(ChannelClosed, APIError):  # it may die between the look and the connection
                self._channel = Channel(container, self._workdir, self._prelude)
                return Observation(output="Killed: every process of the container\n", returncode=137, seconds=0.0)
        raise EnvironmentFault(f"the container takes no more commands: {closed}")

    def _alive(self) -> "Container":
        if self._container is None:
            raise EnvironmentFault("the container is closed")
        return self._container


def owner() -> str:
    """This process, told from every other one of any machine: host, pid, and when the pid was given out."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def reap() -> int:
    """Remove the containers whose process on this host is dead; returns how many. Other hosts' are left alone."""
    with boundary(EnvironmentFault, "the Docker engine does not answer; start it, or see aem doctor"):
        containers = client().containers.list(all=True, filters={"label": "aem.owner"}, ignore_removed=True)
    dead = [container for container in containers if _is_dead(container.labels["aem.owner"])]
    for container in dead:
        _remove(container)
    return len(dead)


def _is_dead(who: str) -> bool:
    host, pid, started = who.rsplit(":", 2)
    return host == socket.gethostname() and _started(int(pid)) != started


def _started(pid: int) -> str:
    """When the kernel started a process, in clock ticks since boot; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _remove(container: "Container") -> None:
    """Kill and remove at once; whatever is gone already is fine."""
    from docker.errors import APIError, NotFound

    with contextlib.suppress(NotFound, APIError):
        container.remove(force=True, v=True)
