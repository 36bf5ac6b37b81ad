"""One container per rollout: limited, unprivileged, without network or future, and gone at once when it is done.

Every container carries the label `aem`, and labels that say whose it is (harness/sandbox/reaping.py).
"""

import base64
import contextlib
import io
import os
import shlex
import tarfile
import threading
import time
import zlib
from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from aem_harness import __version__
from aem_harness.harness.config import Limits
from aem_harness.harness.errors import ConfigError, ContainerDied, EnvironmentFault, boundary
from aem_harness.harness.sandbox.channel import Channel, ChannelClosed
from aem_harness.harness.sandbox.engine import Engine, client, current, is_podman
from aem_harness.harness.sandbox.history import remove_future
from aem_harness.harness.sandbox.reaping import ownership, remove
from aem_harness.harness.sandbox.worktree import SECONDS, Patch, Unreadable, listing, patch_of
from aem_harness.harness.types import Observation

if TYPE_CHECKING:
    from docker.models.containers import Container

HEAD_BYTES = TAIL_BYTES = 256 * 1024  # of a command's output that reach the host; agents show their models far less
# Official images keep their environment in conda: commands see it activated, as SWE-bench scaffolds do.
ACTIVATE = "source /opt/miniconda3/bin/activate testbed >/dev/null 2>&1 || true"

SMALL = 64 * 1024  # bytes of a file that fit into a command: Linux takes 128 KiB for one argument

# Output comes out as it is; what is said on stderr comes after it, and only when the command fails.
_APART = """exec 3>&1; said=$({{
{command}
}} 2>&1 >&3); status=$?; [ $status -eq 0 ] || printf '\n%s' "$said" | tail -c 500; exit $status"""

# Process 1 reaps orphans, and no signal from inside ends it: an agent that kills all it can see loses its own processes
# and keeps its container. From outside, the stop signal is one that needs no grace.
IDLE = "trap '' HUP INT TERM; while :; do sleep 3600 & wait; done"
# Of the engine's default capabilities, those that neither tests nor package managers need.
DROPPED = ["AUDIT_WRITE", "MKNOD", "NET_RAW", "SETFCAP", "SYS_CHROOT"]
HEARD = 10  # seconds within which a busy engine says that a container has ended
REVIVAL_PAUSES = (0.0, 0.2, 1.0, 3.0)  # seconds before each try to reach a container whose supervisor is gone

_open: "set[Sandbox]" = set()
_open_lock = threading.Lock()


class Sandbox:
    """A running container as an `Environment`; use it in a `with` block.

    With `scrub_git`, as for an agent, every commit that is not an ancestor of the one checked out is removed, and that
    none is left is proven, before anything else happens; then the tree is listed, for `patch`. `network` False means
    none at all. `prelude` is sourced once by bash; its environment is that of every command. Raises EnvironmentFault
    when the engine or the container fails, naming an out-of-memory kill as such.
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
        self._engine = current()
        self._container: Container | None = None
        self._channel: Channel | None = None
        self._closed = False
        self._began = ""  # when the engine started the container, in its words
        self._before: bytes | None = None
        self.commands = 0  # that were executed so far

    # --- life -------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            with boundary(EnvironmentFault, f"cannot start a container from {self._image}"):
                with _open_lock:
                    _open.add(self)
                with self._engine.starting:
                    self._refuse_if_closed()
                    self._container = self._create()
                    self._alive().start()
                    self._began = self._look()["StartedAt"]
                    self._channel = self._connect()
                self._alive()  # not closed meanwhile
            if self._scrub_git and self._workdir != "/":
                remove_future(self, self.image_id)
                self._before = zlib.compress(self._listed(), 1)
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
            remove(container, self._engine)

    @staticmethod
    def close_all(engine: Engine | None = None, labels: Mapping[str, str] | None = None) -> None:
        """Remove every container this process has open, or those of one engine, or with these labels; what waits in
        them meets a fault."""
        asked = set((labels or {}).items())
        with _open_lock:
            sandboxes = [
                sandbox
                for sandbox in _open
                if (engine is None or sandbox._engine is engine) and asked <= set(sandbox._labels.items())
            ]
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
        self.commands += 1
        try:
            return self._channel.execute(command, timeout, cwd or self._workdir, HEAD_BYTES, TAIL_BYTES)
        except ChannelClosed as closed:
            return self._revive(closed)

    def diff(self) -> str:
        """The text of `patch()`; bytes that are not UTF-8 come as surrogates."""
        return self.patch().data.decode("utf-8", "surrogateescape")

    def patch(self) -> Patch:
        """What the agent left, against the image; see `harness.sandbox.worktree`. Ends every process it left behind.

        Raises EnvironmentFault when that cannot be found out; whose doing that is, others judge (`sandbox.blame`).
        """
        if self._before is None:
            raise EnvironmentFault("this container was not opened for an agent: it has no patch")
        if self._channel is not None:
            with contextlib.suppress(ChannelClosed):
                self._channel.kill_all()
        try:
            return patch_of(self, zlib.decompress(self._before), self._pristine, self._workdir)
        except Unreadable as error:
            raise EnvironmentFault(f"the work tree's patch cannot be made: {error}") from None

    def output(self, command: str, *, bound: int, timeout: float = SECONDS, cwd: str | None = None) -> bytes:
        """What `command` prints, as bytes; Unreadable when it fails or prints more than `bound`."""
        if self._channel is None:
            raise EnvironmentFault("the container is closed")
        try:
            answer = self._channel.ask(_APART.format(command=command), timeout, cwd or self._workdir, bound, 0)
        except ChannelClosed as closed:
            raise Unreadable(self._revive(closed).output, self) from None
        if answer.returncode or answer.timed_out or answer.dropped:
            limits = f"{timeout:g} s" if answer.timed_out else f"{bound} bytes"
            beyond = answer.timed_out or answer.dropped
            last = (answer.head[-2000:].decode("utf-8", "replace").strip().splitlines() or ["no output"])[-1][:200]
            raise Unreadable(f"beyond {limits}" if beyond else f"{last} (exit status {answer.returncode})", self)
        return answer.head

    def put_tar(self, folder: str, archive: bytes) -> None:
        """Unpack an archive as root; a small one by the container's own tar, where it has one."""
        if len(archive) <= SMALL:
            unpack = f"tar -x --no-same-owner -C {shlex.quote(folder)} -f -"
            if self._given(archive, unpack).returncode == 0:
                return
        with boundary(EnvironmentFault, f"cannot write to {folder} in the container"):
            self._alive().put_archive(folder, archive)

    def write_file(self, path: str, data: bytes) -> None:
        """Write a file as root, making the folders above it."""
        folder, name = os.path.split(path)
        if len(data) <= SMALL:
            place = shlex.quote(path)
            made = f"mkdir -p {shlex.quote(folder or '/')} && rm -f {place} && cat > {place} && chmod 644 {place}"
            if self._given(data, f"{{ {made}; }}").returncode == 0:
                return
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
                self._look()  # or is it the container that is gone?
        raise FileNotFoundError(path)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _given(self, data: bytes, command: str) -> Observation:
        """Run `command` with a few bytes as its input: a tenth of what the engine takes to unpack an archive."""
        text = base64.b64encode(data).decode()
        return self.execute(f"set -o pipefail; echo {text} | base64 -d | {command}", cwd="/")

    def _listed(self) -> bytes:
        try:
            found = listing(self, self._workdir)
        except Unreadable as error:
            raise EnvironmentFault(f"cannot list {self._workdir} in {self._image}: {error}") from None
        if found.count(b"\0") <= 2:  # the folder alone, which the engine makes where the image has none
            raise EnvironmentFault(f"{self._workdir} is empty in {self._image}: its work tree must be elsewhere")
        return found

    def _pristine(self) -> "Sandbox":
        """A fresh container of the same image: what the agent never reached."""
        return Sandbox(
            self.image_id,
            workdir=self._workdir,
            limits=self._limits,
            labels=self._labels,
            env=self._env,
            scrub_git=False,
            prelude="",
        )

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
        paused = False
        for pause in REVIVAL_PAUSES:  # a container that is dying is still reported as running for a moment
            time.sleep(pause)
            state = self._look()
            if not state["Running"]:
                raise self._death(state)
            if state["StartedAt"] != self._began:
                raise ContainerDied("the container died: somebody else restarted it")
            if paused := bool(state.get("Paused")):
                continue
            with contextlib.suppress(ChannelClosed, APIError):  # it may die between the look and the connection
                channel = Channel(container, self._workdir, self._prelude)
                channel.kill_all()  # what the old supervisor can no longer end
                self._channel = channel
                self._alive()  # not closed meanwhile
                return Observation(output="Killed: every process of the container\n", returncode=137, seconds=0.0)
        if paused:
            raise ContainerDied("the container takes no more commands: somebody else paused it")
        raise EnvironmentFault(f"the container takes no more commands: {closed}")

    def _look(self) -> Mapping[str, Any]:
        """The container's state, as the engine has it now. Raises ContainerDied where the engine has it no longer."""
        from docker.errors import NotFound

        container = self._alive()
        with boundary(EnvironmentFault, "the engine does not answer"):
            try:
                container.reload()
            except NotFound:
                raise ContainerDied("the container died: somebody else removed it") from None
        state: Mapping[str, Any] = container.attrs["State"]
        return state

    def _death(self, state: Mapping[str, Any]) -> EnvironmentFault:
        """Why the container has ended. ContainerDied where somebody told the engine to end it, or may have.

        The engine calls a container killed for memory where any process of it ever was. It does not say what else ends
        a first process: what runs beside it can give that limits of its own, and write into its memory.
        """
        told = self._was_told_to_end(state["FinishedAt"])
        if state["OOMKilled"] and not told:
            return EnvironmentFault("the container died: it ran out of memory")
        if told is False:
            return EnvironmentFault(f"the container died by itself: exit code {state['ExitCode']}")
        return ContainerDied(f"the container died: exit code {state['ExitCode']}")

    def _was_told_to_end(self, when: str) -> bool | None:
        """Did somebody tell the engine to kill or stop the container, which ended at `when`? None: it does not know.

        It has forgotten, or the process that kept the container for it (the shim) is gone, which alone says how the
        supervisor ended: of the container the engine says 255 then (Docker 20.10) or 137 (from 23), as of one that
        ended by itself. Podman 4.3 notes `podman stop` and `podman rm --force` nowhere.
        """
        supervisor = self._channel.exec_id if self._channel else None
        ended = int(datetime.fromisoformat(when).timestamp())
        span: dict[str, Any] = {"since": ended - 60, "until": ended + HEARD, "filters": {"container": self.id}}
        seen = set()
        with contextlib.suppress(Exception), contextlib.closing(client().events(**span, decode=True)) as events:
            for event in events:
                action = event.get("Action") or event.get("status")
                if action in ("kill", "stop"):
                    return True
                if action == "die" or (action == "exec_die" and event["Actor"]["Attributes"]["execID"] == supervisor):
                    seen.add(action)
                if len(seen) == 2:
                    return None if is_podman() else False
        return None

    def _alive(self) -> "Container":
        self._refuse_if_closed()
        if self._container is None:
            raise EnvironmentFault("the container is closed")
        return self._container

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise EnvironmentFault("the container is closed")
