"""A server for checkpoints: started, watched, restarted once, and stopped when this process ends, however it ends.

It is `vllm serve`, or the fallback where vLLM is not installed, under a guard in a process group of its own. The
guard's stdin is a pipe from this process: when that closes, by `stop` or because this process was killed, the guard
ends the whole group, engine workers included.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from aem_harness.aem_checkpoints import client
from aem_harness.aem_checkpoints.command import Program, arguments, explain, find_program
from aem_harness.aem_checkpoints.registry import Entry, Registry
from aem_harness.harness.errors import PolicyFault
from aem_harness.harness.io import append_line
from aem_harness.harness.run.store import now
from aem_harness.harness.web import reserve_port

START_SECONDS = 3600.0  # a large model on a cold disk takes many minutes to load
RESTARTS = 1
POLL_SECONDS = 0.2
HEALTH_EVERY = 10  # polls
SILENT_SECONDS = 300.0  # without an answer to /health; a busy server is silent for seconds, a hung one for ever
STOP_SECONDS = 10

_DTYPE = re.compile(r"(?:dtype=torch\.|torch [\w.+]+, )(\w+)(?=[,)\s])")

_GUARD = f"""
"$@" < /dev/null & server=$!
( read -r _; kill -TERM $server; sleep {STOP_SECONDS}; kill -KILL -- -$$ ) <&0 2> /dev/null &
wait $server; echo "server ended with exit status $?"
trap '' TERM; kill -TERM -- -$$; sleep 0.5; kill -KILL -- -$$
"""


class Server:
    """One server process. Use in `with`: ready inside the block, gone after it.

    `events` lists what happened ("started", "crashed", "restarted", "stopped") with times and reasons; each is also
    appended to `<log>.events.jsonl`. A crash (the process gone, or its engine dead behind a living front) is answered
    by one restart on the same port; `await_ready` lets clients wait for it. After a second crash `failed` says why.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        registry: Registry,
        log: Path,
        *,
        port: int | None = None,
        program: Program | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.program = program or find_program()
        self._kept = contextlib.ExitStack()  # of the port, also during a restart
        self.port: int = port or self._kept.enter_context(reserve_port()).getsockname()[1]
        self.log = log
        self.events: list[dict[str, str]] = []
        self.failed = ""
        self._command = [*self.program.words, *arguments(entries, registry, self.program)]
        self._command += ["--host", "127.0.0.1", "--port", str(self.port)]
        self._environment = {**(_cpu_settings() if self.program.cpu else {}), **os.environ}
        self._say = say
        self._settled = threading.Event()  # ready, failed or stopped: nothing to wait for
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._watcher = threading.Thread(target=self._watch, name="server-watch", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def dtype(self) -> str:
        """What it computes in, by its log: the files' own type is not always kept. Empty where the log does not say."""
        found = _DTYPE.findall(self.log.read_text("utf-8", "replace")[-200_000:]) if self.log.is_file() else []
        return str(found[-1]) if found else ""

    @property
    def pid(self) -> int | None:
        """Of the guard, which is also the process group of everything the server starts."""
        return self._process.pid if self._process else None

    def __enter__(self) -> Self:
        try:
            self._start("started")
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        self._settled.set()
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def await_ready(self) -> None:
        """Return at once while the server runs, after its restart while that is under way; PolicyFault if neither."""
        self._settled.wait()
        if self.failed:
            raise PolicyFault(f"the server crashed again after its restart: {self.failed}")
        if self._stopping.is_set():
            raise PolicyFault("the server was stopped during a call")

    def stop(self) -> None:
        """End the server and everything it started, and wake whoever waits for it; safe to call twice."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._settled.set()
        if self._watcher.is_alive():
            self._watcher.join()
        self._end()
        self._kept.close()
        self._note("stopped")

    # --- inside -----------------------------------------------------------------------------------------------------

    def _start(self, event: str) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._note(event, " ".join(self._command))
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                ["bash", "-c", _GUARD, "guard", *self._command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=self._environment,
            )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._stopping.is_set():
            if self._process is None or self._process.poll() is not None:
                raise PolicyFault(f"{self.program.name} did not start: {self._reason()}")
            if client.health(self.url) is client.Health.READY:
                return
            if time.monotonic() > deadline:
                raise PolicyFault(f"{self.program.name} was not ready after {START_SECONDS:.0f} s; its log: {self.log}")
            self._say(_last_line(self._own_log()))
            self._stopping.wait(POLL_SECONDS)

    def _watch(self) -> None:
        for restarts_left in range(RESTARTS, -1, -1):
            why = self._until_crash()
            if not why:
                return
            self._settled.clear()
            self._note("crashed", why)
            self._end()
            if restarts_left and not self._stopping.is_set():
                try:
                    self._start("restarted")
                    self._wait_until_ready()
                except (PolicyFault, OSError) as fault:
                    self.failed = str(fault)
            else:
                self.failed = why
            self._settled.set()
            if self.failed:
                return

    def _until_crash(self) -> str:
        """Why the server ended, once it has; empty when it was stopped.

        A process may live on and keep its open connections, which are ours, while it listens no more (seen with vLLM
        0.32): refused twice in a row it is taken for ended. So is one that has said nothing for SILENT_SECONDS.
        """
        polls = refused = 0
        heard = time.monotonic()
        while not self._stopping.wait(POLL_SECONDS):
            polls += 1
            if self._process is None or self._process.poll() is not None:
                return self._reason()
            if polls % HEALTH_EVERY:
                continue
            health = client.health(self.url)
            refused = refused + 1 if health is client.Health.REFUSED else 0
            if refused > 1:
                return f"it no longer accepts connections; log: {self.log}"
            heard = heard if health is client.Health.SILENT else time.monotonic()
            if (silent := time.monotonic() - heard) > SILENT_SECONDS:
                return f"it has not answered for {silent:.0f} s; log: {self.log}"
            if health is client.Health.DEAD:
                return self._reason()
        return ""

    def _end(self) -> None:
        process = self._process
        if process is None:
            return
        if process.stdin:
            process.stdin.close()  # the guard sees it: TERM for the server, KILL for the group after a while
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=STOP_SECONDS + 2)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # workers that outlived the guard
        process.wait()

    def _reason(self) -> str:
        return f"{explain(self._own_log())}; log: {self.log}"

    def _own_log(self) -> str:
        """What the present process wrote, or the end of it."""
        return _tail(self.log, self._log_start)

    def _note(self, event: str, detail: str = "") -> None:
        entry = {"event": event, "at": now(), "detail": detail}
        self.events.append(entry)
        with self.log.with_suffix(".events.jsonl").open("a") as file:
            append_line(file, json.dumps(entry))


def _cpu_settings() -> dict[str, str]:
    """For the CPU build, under those of the user.

    By default it binds its threads to cores, so that two servers on a small machine fight for the same ones and each
    spins while the other computes.
    """
    threads = max(1, (os.cpu_count() or 2) // 2)
    return {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(threads), "VLLM_CPU_KVCACHE_SPACE": "1"}


def _tail(path: Path, start: int, size: int = 1 << 20) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(start, path.stat().st_size - size))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
