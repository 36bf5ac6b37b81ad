"""Commands through one long-lived exec per container: a fresh bash each, without the cost of an exec each.

A supervisor (supervisor.pl) is started once in the container and speaks frames on its stdin and stdout:

    -> "<timeout s> <head bytes> <tail bytes> <cwd length> <command length>\n" cwd command
    <- "<returncode> <timed out 0|1> <dropped bytes> <head length> <tail length>\n" head tail

    -> "kill\n"
    <- "killed\n"

It runs `bash -c command` in a session of its own with stdin closed, keeps the head and the tail of what it prints, and
at the timeout kills every process the command started, also those that left its process group. So a flood of output
never leaves the container, and a step costs one fork instead of a `docker exec`. `kill` ends every process but the
supervisor and process 1.

A command runs as root beside the supervisor, so it can kill it, stop it, or write into its pipes. Whatever comes out of
the container is bounded here, and answers that are none, or that do not come, close the channel.
"""

import contextlib
import re
import socket
import struct
import threading
import time
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

from aem_harness.harness.types import Observation

if TYPE_CHECKING:
    from docker.models.containers import Container

STDOUT = 1  # kind of frame in the engine's stream
MAX_LINE = 200  # bytes of an answer's first line
CHUNK = 1 << 16  # bytes read at a time
MAX_ERRORS = 10_000  # bytes kept of what the supervisor itself complains about
PATIENCE = 60.0  # seconds beyond a command's own timeout before a silent container counts as broken
STARTING = 60.0  # seconds within which a new supervisor answers


@cache
def _supervisor() -> str:
    return (resources.files("aem_harness.harness.sandbox") / "supervisor.pl").read_text()


class ChannelClosed(Exception):
    """The supervisor is gone or silent: its container died, or a command killed or stopped it. Stays in this folder."""


class Answer(NamedTuple):
    """What a command gave back: the head and the tail of its output, and how much was dropped in between."""

    returncode: int
    timed_out: bool
    dropped: int
    head: bytes
    tail: bytes
    seconds: float


class Channel:
    """One supervisor in one container. Commands run one at a time; `close` may be called from another thread."""

    def __init__(self, container: "Container", workdir: str, prelude: str) -> None:
        """Start the supervisor; `prelude` is sourced by bash first, and every command inherits its environment."""
        self._lock = threading.Lock()
        api: Any = container.client.api  # type: ignore[union-attr]
        started = api.exec_create(
            container.id,
            ["bash", "-c", f'{prelude}\nexec perl -e "$0"', _supervisor()],
            stdin=True,
            workdir=workdir,
        )
        self.exec_id: str = started["Id"]
        wrapped = api.exec_start(self.exec_id, socket=True)
        self._socket: socket.socket = getattr(wrapped, "_sock", wrapped)
        self._wrapped = wrapped  # keeps the HTTP response, and with it the socket, alive
        self._received = bytearray()  # of the engine's stream, not yet taken apart; at most `CHUNK` beyond a frame
        self._buffer = bytearray()
        self._errors = bytearray()
        # The supervisor never speaks first: what arrives together with the engine's HTTP headers would be lost with
        # the buffer that docker-py reads them through.
        self._send(b"ready?\n")
        self._expect(time.monotonic() + STARTING, b"ready\n")

    def execute(self, command: str, timeout: float, cwd: str, head: int, tail: int) -> Observation:
        """Run one command. Raises ChannelClosed when the supervisor is gone or silent."""
        answer = self.ask(command, timeout, cwd, head, tail)
        gap = f"\n[... {answer.dropped} bytes left out ...]\n".encode() if answer.dropped else b""
        return Observation(
            output=(answer.head + gap + answer.tail).decode("utf-8", "replace"),
            returncode=answer.returncode,
            timed_out=answer.timed_out,
            dropped_bytes=answer.dropped,
            seconds=answer.seconds,
        )

    def ask(self, command: str, timeout: float, cwd: str, head: int, tail: int) -> "Answer":
        """As `execute`, with the output as the bytes it is."""
        encoded, folder = command.encode("utf-8", "surrogateescape"), cwd.encode()
        if b"\0" in encoded:
            return Answer(126, False, 0, b"bash: a command cannot contain a NUL byte\n", b"", 0.0)
        header = f"{timeout:.3f} {head} {tail} {len(folder)} {len(encoded)}\n".encode()
        with self._lock:
            began = time.monotonic()
            deadline = began + timeout + PATIENCE
            self._send(header + folder + encoded)
            answer = self._line(deadline)
            found = re.fullmatch(rb"(-?\d+) ([01]) (\d+) (\d+) (\d+)\n", answer)
            if not found:
                raise ChannelClosed(f"unexpected answer {answer[:80]!r}")
            returncode, timed_out, dropped, head_size, tail_size = (int(group) for group in found.groups())
            if head_size > head or tail_size > tail:
                raise ChannelClosed(f"an answer of {head_size} + {tail_size} bytes, beyond its bounds")
            first, last = self._take(head_size, deadline), self._take(tail_size, deadline)
            seconds = time.monotonic() - began
        return Answer(returncode, bool(timed_out), dropped, first, last, seconds)

    def kill_all(self) -> None:
        """End every process in the container but the supervisor and process 1. Raises as `execute` does."""
        with self._lock:
            self._send(b"kill\n")
            self._expect(time.monotonic() + PATIENCE, b"killed\n")

    def close(self) -> None:
        """Hang up: the supervisor ends when its stdin does, and a waiting `execute` raises ChannelClosed."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        # Not before that `execute` is out: another thread's next socket may get the number it waits for an answer on.
        with self._lock:
            self._wrapped.close()
            self._socket.close()  # the file around it does not, and its HTTP response is in a reference cycle

    # --- frames -----------------------------------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        try:
            self._socket.settimeout(PATIENCE)
            self._socket.sendall(data)
        except TimeoutError:
            raise ChannelClosed(f"the container took no command within {PATIENCE:.0f} s") from None
        except OSError as error:
            raise ChannelClosed(str(error)) from None

    def _expect(self, deadline: float, wanted: bytes) -> None:
        got = self._line(deadline)
        if got != wanted:
            raise ChannelClosed(f"expected {wanted!r}, got {got[:80]!r}")

    def _line(self, deadline: float) -> bytes:
        while b"\n" not in self._buffer:
            if len(self._buffer) > MAX_LINE:
                raise ChannelClosed(f"unexpected answer {bytes(self._buffer[:80])!r}")
            self._receive(deadline)
        return self._cut(self._buffer.index(b"\n") + 1)

    def _take(self, size: int, deadline: float) -> bytes:
        while len(self._buffer) < size:
            self._receive(deadline)
        return self._cut(size)

    def _cut(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _receive(self, deadline: float) -> None:
        """Read one frame of the engine's multiplexed stream: kind, three zero bytes, big-endian length, payload."""
        kind, size = struct.unpack(">BxxxL", self._raw(8, deadline))
        payload = self._raw(size, deadline)
        if kind == STDOUT:
            self._buffer += payload
        elif len(self._errors) < MAX_ERRORS:
            self._errors += payload[:MAX_ERRORS]

    def _raw(self, size: int, deadline: float) -> bytes:
        while len(self._received) < size:
            try:
                self._socket.settimeout(max(0.01, deadline - time.monotonic()))
                got = self._socket.recv(CHUNK)
            except TimeoutError:
                raise ChannelClosed("the container stopped answering") from None
            except OSError as error:
                raise ChannelClosed(str(error)) from None
            if not got:
                raise ChannelClosed(self._errors.decode("utf-8", "replace").strip()[-300:])
            self._received += got
        data = bytes(self._received[:size])
        del self._received[:size]
        return data
