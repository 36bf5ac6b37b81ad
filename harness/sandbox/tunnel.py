"""An engine behind ssh: its socket forwarded to one of this machine, by one connection of the `ssh` program.

docker-py's own `ssh://` opens a connection for each request, which servers refuse when many come at once (MaxStartups),
and its streams are no sockets. One forwarding carries any number of streams, with the user's own ssh configuration.
"""

import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from aem_harness.harness.errors import ConfigError, EnvironmentFault

SOCKET = "/var/run/docker.sock"  # of the engine on the other machine, where the address names no other
PATIENCE = 20.0  # seconds until a connection is given up
OPTIONS = (
    "BatchMode=yes",  # never asks for a password: nobody would answer
    "ExitOnForwardFailure=yes",
    "StreamLocalBindUnlink=yes",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    f"ConnectTimeout={PATIENCE:.0f}",
)

# ssh ends with this process, also when that is killed: then its end of the pipe at the script's stdin closes.
_TIED = 'exec 3<&0; "$@" < /dev/null 3<&- & ssh=$!; (read -r _ <&3; kill $ssh) & reader=$!; wait $ssh; kill $reader'


class Tunnel:
    """The forwarding of one engine's socket, opened when it is first needed and again after it broke."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        if not parts.hostname:
            raise ConfigError(f"engine {address!r} has no host: ssh://[user@]host[:port][/path/of/socket]")
        self._address = address
        self._host = f"{parts.username}@{parts.hostname}" if parts.username else parts.hostname
        self._port = ["-p", str(parts.port)] if parts.port else []
        self._remote = parts.path.rstrip("/") or SOCKET
        self._folder = Path(tempfile.mkdtemp(prefix="aem-ssh-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def open(self) -> str:
        """The address of the local socket. Raises EnvironmentFault, with the message of ssh, without a connection."""
        local = self._folder / "docker.sock"
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start(local)
        return f"unix://{local}"

    def close(self) -> None:
        with self._lock:
            self._end()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()  # which ends ssh, and then the script
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def _start(self, local: Path) -> None:
        if shutil.which("ssh") is None:
            raise ConfigError(f"engine {self._address} needs the program ssh: install openssh-client")
        local.unlink(missing_ok=True)
        options = [word for option in OPTIONS for word in ("-o", option)]
        said = self._folder / "said"
        with said.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "bash",
                    "-c",
                    _TIED,
                    "bash",
                    "ssh",
                    *options,
                    *self._port,
                    "-N",
                    "-L",
                    f"{local}:{self._remote}",
                    self._host,
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the run, which then still removes its containers
            )
        deadline = time.monotonic() + PATIENCE + 5
        while not _listens(local):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._end()
                words = " ".join(said.read_text(errors="replace").split())[-300:]
                raise EnvironmentFault(f"no connection to {self._address}: {words or 'ssh gave no reason'}")
            time.sleep(0.05)


def _listens(path: Path) -> bool:
    """Whether connections to a socket are taken; its file is there a moment earlier."""
    try:
        with socket.socket(socket.AF_UNIX) as trial:
            trial.connect(str(path))
    except OSError:
        return False
    return True
