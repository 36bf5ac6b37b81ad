"""A registry of one's own behind a link of a given speed: Debian's docker-registry, and a proxy that slows it.

Images are named `HOST:PORT/...` by the proxy, so that the engine pulls them through it. The link can be taken away and
brought back, and it counts what went through it.
"""

import contextlib
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aem_harness.harness.web import reserve_port

CHUNK = 256 << 10
BURST = 1.0  # seconds of late sending that are made up for: a busy machine wakes threads late


class Link:
    """A TCP proxy to `target`. `rate`: bytes per second towards the client, over all connections; None for no limit.

    `sent` counts bytes while there is a rate, `refused` connections while it is away.
    """

    def __init__(self, target: tuple[str, int], rate: float | None = None) -> None:
        self.rate, self.sent, self.refused = rate, 0, 0
        self.target, self._next = target, 0.0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._away = False
        threading.Thread(target=self._accept, daemon=True).start()

    def away(self) -> None:
        """From now on nobody answers: what is open is cut, and new connections are closed at once."""
        self._away = True
        with self._lock:
            doomed = list(self._open)
        for one in doomed:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def back(self) -> None:
        self._away = False

    def close(self) -> None:
        self.away()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._away:
                self.refused += 1
                client.close()
                continue
            try:
                server = socket.create_connection(self.target)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open |= {client, server}
            threading.Thread(target=self._copy, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._copy, args=(server, client, True), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket, slowed: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                if slowed and self.rate:
                    self._wait(len(data))
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            with self._lock:
                self._open.discard(one)

    def _wait(self, size: int) -> None:
        with self._lock:
            assert self.rate
            now = time.monotonic()
            self._next = max(self._next, now - BURST) + size / self.rate
            self.sent += size
            pause = self._next - now
        if pause > 0:
            time.sleep(pause)


@contextmanager
def registry(folder: Path, rate: float | None = None) -> Iterator[Link]:
    """A registry with its data in `folder`, and the link to it. Raises FileNotFoundError where none is installed."""
    program = shutil.which("docker-registry")
    if program is None:
        raise FileNotFoundError("docker-registry: apt-get install docker-registry")
    kept = reserve_port()
    port = kept.getsockname()[1]
    settings = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yml").write_text(json.dumps(settings))  # JSON is YAML
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    link = Link(("127.0.0.1", port), rate)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"http://{link.address}/v2/", timeout=1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        yield link
    finally:
        link.close()
        process.terminate()
        process.wait()
        kept.close()
