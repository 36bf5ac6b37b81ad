"""`vllm serve` for a checkpoint: found, started, watched, restarted once, and gone with us, however we end.

The server runs under a guard in a process group of its own. The guard's stdin is a pipe from this process: when that
closes, by `stop` or because this process was killed, the guard kills the whole group, engine workers included.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aem_checkpoints.card import Card
from aem_checkpoints.registry import Entry, Registry
from harness.errors import ConfigError, PolicyFault
from harness.run.store import now

START_SECONDS = 3600.0  # a large model on a cold disk takes many minutes to load
RESTARTS = 1
STOP_SECONDS = 10.0

_GUARD = """
"$@" < /dev/null & server=$!
( read -r _; kill -KILL -- -$$ ) <&0 &
wait $server; code=$?
trap '' TERM; kill -TERM -- -$$
exit $code
"""

# What a dying server says, and what its user can do about it.
_REMEDIES = (
    (
        r"out of memory|OutOfMemoryError",
        "out of memory: lower serving.max_model_len or raise serving.tensor_parallel_size",
    ),
    (
        r"number of tokens that can be stored in KV cache|No available memory for the cache blocks",
        "no room for the context: lower serving.max_model_len, or raise the flag gpu-memory-utilization",
    ),
    (r"is greater than the derived max_model_len", "serving.max_model_len is more than the model's own context"),
    (
        r"not a valid model identifier|Repository ?Not ?Found|does not appear to have a file named|couldn't connect to",
        "the model cannot be had: check path, hub and revision of its card, and the network",
    ),
    (r"[Aa]ddress already in use", "the port is taken: choose another with --port"),
    (r"No space left on device", "the disk is full"),
    (r"unrecognized arguments: (.*)", "this vLLM does not know a flag of the card's serving.flags"),
    (r"invalid tool call parser", "this vLLM does not know the card's serving.tool_call_parser"),
)


def find_vllm() -> str:
    """The `vllm` to use: $AEM_VLLM, the one beside this Python, on PATH, or in ./.venv-vllm; else ConfigError."""
    beside = Path(sys.executable).parent / "vllm"
    for candidate in (os.environ.get("AEM_VLLM"), beside, shutil.which("vllm"), Path(".venv-vllm/bin/vllm")):
        if candidate and Path(candidate).is_file():
            return str(candidate)
    raise ConfigError("vLLM is not installed: pip install 'aem-harness[vllm]' on a GPU machine, else make vllm")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def serve_flags(cards: Sequence[Card], registry: Registry) -> list[str]:
    """The arguments of `vllm serve` but for host and port. Several cards must be adapters of one base model.

    A full checkpoint is served under its name; adapters under theirs, on the base that they share.
    """
    entries = [registry.get(card.name) for card in cards]
    first = cards[0]
    if any(card.weights == "full" for card in cards):
        if len(cards) > 1:
            raise ConfigError("one server holds one full checkpoint, or several LoRA adapters of the same base model")
        flags = [_location(entries[0]), "--served-model-name", first.name]
        if first.hub and first.revision:
            flags += ["--revision", first.revision]
    else:
        bases = {card.base_model for card in cards}
        if len(bases) > 1:
            raise ConfigError(f"adapters of different base models cannot share a server: {', '.join(sorted(bases))}")
        modules = [f"{entry.card.name}={_location(entry)}" for entry in entries]
        flags = [_base(first.base_model, registry), "--enable-lora", "--lora-modules", *modules]
    return flags + _options(entries[0])


def _options(entry: Entry) -> list[str]:
    serving = entry.card.serving
    flags: list[str] = []
    for name in ("max_model_len", "tensor_parallel_size", "dtype"):
        if (value := getattr(serving, name)) is not None:
            flags += [f"--{name.replace('_', '-')}", str(value)]
    if serving.chat_template:
        flags += ["--chat-template", str((entry.file.parent / serving.chat_template).resolve())]
    if serving.tool_call_parser:
        flags += ["--enable-auto-tool-choice", "--tool-call-parser", serving.tool_call_parser]
    for name, value in serving.flags.items():
        flags += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return flags


def _location(entry: Entry) -> str:
    return str(entry.folder) if entry.folder else entry.card.hub


def _base(name: str, registry: Registry) -> str:
    """A base model is a card's name, a folder, or an id of the hub."""
    if name in {entry.card.name for entry in registry.entries()}:
        return _location(registry.get(name))
    return name


class Server:
    """One `vllm serve` process. Use in `with`: ready inside the block, gone after it.

    `events` lists what happened ("started", "crashed", "restarted", "stopped") with times and reasons; each is also
    appended to `<log>.events.jsonl`. A crash is answered by one restart on the same port, so that clients that retry
    see no more than a pause; after a second crash `failed` says why and requests fail.
    """

    def __init__(
        self,
        cards: Sequence[Card],
        registry: Registry,
        log: Path,
        *,
        port: int | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.port = port or free_port()
        self.log = log
        self.events: list[dict[str, str]] = []
        self.failed = ""
        self.flags = serve_flags(cards, registry)
        self._command = [find_vllm(), "serve", *self.flags, "--host", "127.0.0.1", "--port", str(self.port)]
        self._say = say
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher = threading.Thread(target=self._watch, name="vllm-watch", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self._start("started")
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server and everything it started; safe to call twice."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._kill()
        if self._watcher.is_alive():
            self._watcher.join()
        self._note("stopped")

    # --- inside -----------------------------------------------------------------------------------------------------

    def _start(self, event: str) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", _GUARD, "guard", *self._command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**_environment(), **os.environ},
            )
        self._note(event, " ".join(self._command))

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and not self._stopping.is_set():
            if self._process is None or self._process.poll() is not None:
                raise PolicyFault(f"vLLM did not start: {self._reason()}")
            if healthy(self.port):
                return
            self._say(self._last_line())
            time.sleep(0.5)
        if not self._stopping.is_set():
            raise PolicyFault(f"vLLM was not ready after {START_SECONDS:.0f} s; its log: {self.log}")

    def _watch(self) -> None:
        restarts = 0
        while not self._stopping.wait(0.2):
            if self._process is None or self._process.poll() is None:
                continue
            why = self._reason()
            self._note("crashed", why)
            self._kill()
            if restarts == RESTARTS:
                self.failed = why
                return
            restarts += 1
            self._start("restarted")
            try:
                self._wait_until_ready()
            except PolicyFault as fault:
                self.failed = str(fault)
                return

    def _kill(self) -> None:
        process = self._process
        if process is None:
            return
        if process.stdin:
            process.stdin.close()  # the guard kills the group
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # workers that outlived the guard
        process.wait()

    def _reason(self) -> str:
        """Why the server ended, with a remedy where its log is understood."""
        text = _tail(self.log)
        for pattern, remedy in _REMEDIES:
            if re.search(pattern, text):
                return f"{remedy} (log: {self.log})"
        return f"{self._last_line() or 'no output'} (log: {self.log})"

    def _last_line(self) -> str:
        lines = [line.strip() for line in _tail(self.log).splitlines() if line.strip()]
        return lines[-1][:200] if lines else ""

    def _note(self, event: str, detail: str = "") -> None:
        entry = {"event": event, "at": now(), "detail": detail}
        self.events.append(entry)
        with self.log.with_suffix(".events.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")


def healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _environment() -> dict[str, str]:
    """Settings for machines without a GPU, under those of the user; the GPU build ignores them.

    The CPU build binds its threads to cores by default and two servers, or a small machine, then share the same ones.
    """
    if shutil.which("nvidia-smi"):
        return {}
    cores = max(1, (os.cpu_count() or 2) // 2)
    return {"VLLM_CPU_OMP_THREADS_BIND": f"0-{cores - 1}", "VLLM_CPU_KVCACHE_SPACE": "1"}


def _tail(path: Path, size: int = 20_000) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def ask(url: str) -> Any:
    """The JSON answer of a GET; None when there is none."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)
    except (urllib.error.URLError, OSError, ValueError):
        return None
