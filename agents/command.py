"""The command agent: any program on this machine that works in the container, through `docker exec` for example.

The program gets one JSON object on stdin (the fields of `Instance`, `seed`, `container`, `workdir`) and the same two
in its environment as AEM_CONTAINER and AEM_WORKDIR. Exit code 0 hands in; the work tree's diff is the prediction,
whatever the exit code. Exit code 75 (EX_TEMPFAIL) says that infrastructure failed: the rollout is lost, and
`--retry infra` repeats it.
"""

import contextlib
import json
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from pydantic import Field

from aem_harness.agents.messages import ended, observed, plain
from aem_harness.harness.errors import ConfigError, HostFault, PolicyFault
from aem_harness.harness.types import AgentExit, Environment, ExitStatus, Instance, Record, Recorder

KEPT = 64 * 1024  # bytes of what the program prints that go into the trajectory, from its end
TEMPORARY = 75


class CommandOptions(Record):
    """Wall time is the only limit that can be set on a foreign program, so it is a safety: choose it generously."""

    wall_seconds: float = Field(3600, gt=0)


class CommandAgent:
    """Runs one program per rollout. ConfigError at once when there is no such program."""

    name = "command"

    def __init__(self, command: str, options: CommandOptions | None = None) -> None:
        try:
            self._command: Sequence[str] = shlex.split(command)
        except ValueError as error:
            raise ConfigError(f"agent command:{command} is no command line ({error})") from None
        if not self._command or shutil.which(self._command[0]) is None:
            raise ConfigError(f"agent command:{command}: there is no program {command.split(' ')[0]!r} on this machine")
        self._options = options or CommandOptions()

    def describe(self) -> Mapping[str, Any]:
        return {"kind": self.name, "command": list(self._command), **self._options.model_dump(mode="json")}

    def run(self, instance: Instance, environment: Environment, record: Recorder, *, seed: int) -> AgentExit:
        """One rollout. Raises PolicyFault when the program says that infrastructure failed."""
        container = str(getattr(environment, "id", ""))
        job = {**instance.model_dump(mode="json"), "seed": seed, "container": container}
        record.message(plain("user", json.dumps(job)))
        began = time.monotonic()
        # Its id raises EnvironmentFault once the container is closed under the program, as when the run is interrupted.
        code, printed = self._run(json.dumps(job), container, instance.workdir, lambda: getattr(environment, "id", ""))
        output = {"output": printed, "returncode": code, "exception_info": "" if code is not None else "timed out"}
        record.message(observed(printed, output, seconds=time.monotonic() - began))
        last = (printed.strip().splitlines() or ["it printed nothing"])[-1][:200]
        if code == TEMPORARY:
            raise PolicyFault(f"{self._command[0]} reported an infrastructure failure (exit code {code}): {last}")
        if code is None:
            limit = f"{self._options.wall_seconds:g} s of wall time are used up"
            end = AgentExit(status=ExitStatus.WALL_LIMIT, reason=limit)
        elif code == 0:
            end = AgentExit(status=ExitStatus.SUBMITTED)
        else:
            end = AgentExit(status=ExitStatus.AGENT_CRASH, reason=f"exit code {code}: {last}")
        record.message(ended(end))
        return end

    def _run(self, job: str, container: str, workdir: str, check: Callable[[], object]) -> tuple[int | None, str]:
        """The exit code (None: out of time) and the end of what was printed. Nothing it started outlives it.

        `check` is called all the while, and ends the program by what it raises.
        """
        with tempfile.TemporaryFile("w+") as stdin:
            stdin.write(job)
            stdin.seek(0)
            try:
                process = subprocess.Popen(
                    self._command,
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "AEM_CONTAINER": container, "AEM_WORKDIR": workdir},
                    start_new_session=True,
                )
            except OSError as error:
                raise HostFault(f"{self._command[0]} cannot be started: {error.strerror}") from error
        assert process.stdout is not None
        with process.stdout as stdout:
            try:
                tail = _tail(process, stdout, time.monotonic() + self._options.wall_seconds, check)
                code = process.poll()
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return code, tail.decode("utf-8", "replace")


def _tail(process: "subprocess.Popen[bytes]", stdout: IO[bytes], deadline: float, check: Callable[[], object]) -> bytes:
    """Read until the program ends or the deadline passes, keeping the last bytes."""
    kept = bytearray()
    os.set_blocking(stdout.fileno(), False)
    with selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ)
        while time.monotonic() < deadline:
            check()
            over = process.poll() is not None
            selector.select(0 if over else 0.05)
            chunk = stdout.read(65536)
            if chunk:
                kept += chunk
                del kept[:-KEPT]
            elif over:
                break
            elif chunk == b"":  # closed its output, and works on
                time.sleep(0.05)
    return bytes(kept)
