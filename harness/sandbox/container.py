"""One container per rollout: limited, unprivileged, without network or future, and gone at once when it is done.

Every container carries the label `aem`, and labels that say whose it is (harness/sandbox/reaping.py).
"""

import contextlib
import io
import os
import shlex
import tarfile
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from aem_harness import __version__
from aem_harness.harness.config import Limits
from aem_harness.harness.errors import ConfigError, ContainerDied, EnvironmentFault, boundary
from aem_harness.harness.sandbox.channel import Channel, ChannelClosed
from aem_harness.harness.sandbox.engine import client
from aem_harness.harness.sandbox.history import remove_future
from aem_harness.harness.sandbox.reaping import ownership, remove
from aem_harness.harness.types import Observation

if TYPE_CHECKING:
    from docker.models.containers import Container

HEAD_BYTES = TAIL_BYTES = 256 * 1024  # of a command's output that reach the host; agents show their models far less
# Official images keep their environment in conda: commands see it activated, as SWE-bench scaffolds do.
ACTIVATE = "source /opt/miniconda3/bin/activate testbed >/dev/null 2>&1 || true"

# Process 1 reaps orphans, and no signal from inside ends it: an agent that kills all it can see loses its own processes
# and keeps its container. From outside, the stop signal is one that needs no grace.
IDLE = "trap '' HUP INT TERM; while :; do sleep 3600 & wait; done"
# Of the engine's default capabilities, those that neither tests nor package managers need.
DROPPED = ["AUDIT_WRITE", "MKNOD", "NET_RAW", "SETFCAP", "SYS_CHROOT"]
REVIVAL_PAUSES = (0.0, 0.2, 1.0, 3.0)  # seconds before each try to reach a container whose supervisor is gone

_PATCH, _INDEX = "/tmp/.aem-patch", "/tmp/.aem-index"
# Exit status: 3 no repository with that commit, 4 git will not make the patch, above 128 git was killed. Repositories
# inside the work tree that have no commit yet cannot be added; without --ignore-errors they would cost the whole patch.
_DIFF = f"""
cd "$workdir" && git cat-file -e "$base^{{tree}}" || exit 3
rm -rf {_PATCH} {_INDEX} {_INDEX}.lock; cp "$(git rev-parse --git-dir)/index" {_INDEX}; export GIT_INDEX_FILE={_INDEX}
git add --all --ignore-errors; status=$?
if [ $status -lt 128 ]; then
  git diff --cached --binary --no-color --no-ext-diff --no-textconv --src-prefix=a/ --dst-prefix=b/ "$base" > {_PATCH}
  status=$?
fi
[ $status -eq 0 ] || [ $status -gt 128 ] || status=4
exit $status
"""
_NO_REPOSITORY, _NO_PATCH = 3, 4

DIFF_SECONDS = 300.0  # for git to look at the whole work tree; the largest official ones take some seconds

_open: "set[Sandbox]" = set()
_open_lock = threading.Lock()


class Sandbox:
    """A running container as an `Environment`; use it in a `with` block.

    The base commit is the one that is checked out when it starts. With `scrub_git` every commit that is not an ancestor
    of it is removed, and that none is left is proven, before anything else happens. `network` False means none at all.
    `prelude` is sourced once by bash; its environment is that of every command. Raises EnvironmentFault when the engine
    or the container fails, naming an out-of-memory kill as such.
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
        self._closed = False
        self._base = ""

    # --- life -------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            with boundary(EnvironmentFault, f"cannot start a container from {self._image}"):
                with _open_lock:
                    _open.add(self)
                self._container = self._create()
                self._alive().start()
                self._channel = self._connect()
                self._alive()  # not closed meanwhile
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

    def fresh(self) -> "Sandbox":
        """Another container of the same image, limits and network, not started yet: the control beside this one."""
        return Sandbox(
            self._image,
            workdir=self._workdir,
            network=self._network,
            limits=self._limits,
            labels=self._labels,
            env=self._env,
            scrub_git=self._scrub_git,
            prelude=self._prelude,
        )

    def close(self) -> None:
        """Kill and remove the container, with its volumes. Safe to call twice, and from another thread.

        What another thread is just making, it finds closed at its next step, and closes again.
        """
        with _open_lock:
            _open.discard(self)
        self._closed = True
        channel, self._channel = self._channel, None
        container, self._container = self._container, None
        if channel:
            channel.close()
        if container:
            remove(container)

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
        as surrogates. Empty when the agent destroyed the repository. Where processes that the agent left behind keep
        the patch from being made, they are ended first. Raises EnvironmentFault when it cannot be made in time, or for
        want of disk or memory.
        """
        script = f"workdir={shlex.quote(self._workdir)}; base={self._base or 'HEAD'}{_DIFF}"
        seen = self.execute(script, timeout=DIFF_SECONDS, cwd="/")
        if seen.returncode not in (0, _NO_REPOSITORY) and self._channel is not None:
            with contextlib.suppress(ChannelClosed):
                self._channel.kill_all()
            seen = self.execute(script, timeout=DIFF_SECONDS, cwd="/")
        starved = "No space left" in seen.output or seen.returncode not in (0, _NO_REPOSITORY, _NO_PATCH)
        if seen.timed_out or starved:
            last = (seen.output.strip().splitlines() or ["no output"])[-1][:200]
            raise EnvironmentFault(f"the work tree's patch cannot be made (exit status {seen.returncode}): {last}")
        return self.read_file(_PATCH).decode("utf-8", "surrogateescape") if seen.returncode == 0 else ""

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
            "cap_drop": DROPPED,
            "security_opt": ["no-new-privileges"],
            "stop_signal": "SIGKILL",
            "log_config": {"type": "none"},  # what a command writes to process 1 must not fill the host's disk
            "environment": self._env,
            "labels": {"aem": __version__, **ownership(), **self._labels},
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
            if not state["Running"] and state["OOMKilled"]:
                raise EnvironmentFault("the container died: it ran out of memory")
            if not state["Running"]:
                raise ContainerDied(f"the container died: exit code {state['ExitCode']}")
            with contextlib.suppress(ChannelClosed, APIError):  # it may die between the look and the connection
                channel = Channel(container, self._workdir, self._prelude)
                channel.kill_all()  # what the old supervisor can no longer end
                self._channel = channel
                self._alive()  # not closed meanwhile
                return Observation(output="Killed: every process of the container\n", returncode=137, seconds=0.0)
        raise EnvironmentFault(f"the container takes no more commands: {closed}")

    def _alive(self) -> "Container":
        if self._container is None or self._closed:
            raise EnvironmentFault("the container is closed")
        return self._container
