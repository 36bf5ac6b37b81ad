"""Which Docker engine a thread works with, and its connection: one client per thread and engine.

HTTP sessions are not to be shared between threads. A thread works with the engine of the environment (DOCKER_HOST, or
the local socket), unless it is `at` another one.
"""

import atexit
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aem_harness.harness.errors import ConfigError, EnvironmentFault
from aem_harness.harness.sandbox.tunnel import Tunnel

if TYPE_CHECKING:
    from docker import DockerClient

# Containers that start at a time on one engine. More are not up sooner, and the first of them much later
# (docs/benchmarks.md): agents would wait for the last.
STARTS = 8

_local = threading.local()

_HELPER = re.compile(r"(docker-credential-[\w.-]+)[^']*not installed|credential helper.*?(docker-credential-[\w.-]+)")
_UNREACHED = re.compile(
    r"connection refused|no such host|timeout|timed out|dial tcp|pinging container registry|network is unreachable"
    r"|name resolution|proxyconnect|TLS handshake",
    re.IGNORECASE,
)


def explained(error: Exception) -> str:
    """What the engine says is wrong, on one line, without the address of the call; with the remedy if it is known."""
    text = " ".join(str(getattr(error, "explanation", None) or error).split())
    if found := _HELPER.search(text):
        return (
            f"the credential helper {found[1] or found[2]} is not installed: install it, or take `credsStore` and "
            "`credHelpers` out of ~/.docker/config.json"
        )
    return text[:500]


def unreached(error: Exception) -> bool:
    """Does the engine say that it could not reach a registry?"""
    return bool(_UNREACHED.search(str(getattr(error, "explanation", None) or error)))


def raise_for(step: Any) -> None:
    """The engine reports errors of a pull as a line of its progress stream."""
    if "error" in step:
        raise EnvironmentFault(" ".join(str(step["error"]).split()))


class Engine:
    """An engine by its address: `unix:///path`, `tcp://host:2375`, `ssh://[user@]host[:port][/path/of/socket]`, or
    `context:NAME` of the Docker CLI. The empty address is the engine of the environment.

    `losses` counts how often it was found to be gone, and `gone` says that it is now (`harness.sandbox.watch`).
    `starting` is held by whoever starts a container.
    """

    def __init__(self, address: str = "") -> None:
        self.address = address
        self.losses, self.gone = 0, False
        self.starting = threading.BoundedSemaphore(STARTS)
        self._opening = threading.Lock()
        self._tunnel: Tunnel | None = None
        if address and not address.startswith(("unix:///", "tcp://", "ssh://", "context:")):
            raise ConfigError(f"engine {address!r}: give ssh://HOST, tcp://HOST:PORT, unix:///PATH or context:NAME")

    def __str__(self) -> str:
        return self.address or "the engine"

    def connect(self, timeout: float) -> "DockerClient":
        """A client of its own. Raises DockerException when no engine answers, ConfigError for an unknown context."""
        import docker
        from docker.context import ContextAPI
        from docker.utils import kwargs_from_env

        if not self.address:
            return docker.from_env(timeout=timeout)  # type: ignore[arg-type]
        address = self.address
        tls: Any = kwargs_from_env().get("tls", False) if self.address.startswith("tcp:") else False
        if address.startswith("context:"):
            context = ContextAPI.get_context(address.removeprefix("context:"))
            if context is None:
                raise ConfigError(f"there is no Docker context {address.removeprefix('context:')!r}: docker context ls")
            address, tls = str(context.Host), context.TLSConfig or False
        if address.startswith("ssh://"):
            address = self._forwarded(address)
        return docker.DockerClient(base_url=address, tls=tls, timeout=timeout)  # type: ignore[arg-type]

    def _forwarded(self, address: str) -> str:
        with self._opening:
            if self._tunnel is None:
                self._tunnel = Tunnel(address)
                atexit.register(self._tunnel.close)
            return self._tunnel.open()


HERE = Engine()  # of the environment


def on_this_machine(engine: Engine) -> bool:
    """Are the engine's folders this machine's? Not those of an engine that is reached over the network."""
    address = engine.address or os.environ.get("DOCKER_HOST", "")
    return not address or address.startswith("unix:")


def current() -> Engine:
    """The engine that this thread works with."""
    engine: Engine = getattr(_local, "engine", HERE)
    return engine


@contextmanager
def at(engine: Engine) -> Iterator[None]:
    """Inside the block this thread works with `engine`."""
    before = current()
    _local.engine = engine
    try:
        yield
    finally:
        _local.engine = before


_PODMAN = "BuildahVersion"  # what a Podman alone says of itself


def identity() -> str:
    """What tells the thread's engine from every other one, whatever its address.

    Its own id alone does not: Docker 20.10 takes it from /etc/docker/key.json, which engines of a machine share, and
    machines that were made from one image. Podman makes up another one for each answer.
    """
    info = client().info()
    known = {**info, "ID": "" if _PODMAN in info else info.get("ID", "")}
    return " ".join(str(known.get(name, "")) for name in ("ID", "Name", "DockerRootDir"))


def is_podman() -> bool:
    """Is the thread's engine a Podman behind its Docker-compatible socket?"""
    return _PODMAN in client().info()


def architecture() -> str:
    """The architecture of the thread's engine, as images name theirs: amd64, arm64."""
    said = str(client().info().get("Architecture", ""))
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(said, said)


def client() -> "DockerClient":
    """This thread's client of its engine. Raises EnvironmentFault, with the remedy, when no engine answers."""
    from docker.errors import DockerException

    engine = current()
    clients: dict[str, DockerClient] = _local.__dict__.setdefault("clients", {})
    if engine.address not in clients:
        try:
            made = engine.connect(timeout=600)
        except DockerException as error:
            which = f" at {engine}" if engine.address else ""
            raise EnvironmentFault(
                f"no Docker engine answers{which} ({error}); start it, or as root on Debian/Ubuntu: make engine"
            ) from None
        # docker-py 7.1 keeps a connection for each of the last 25 URLs: 64 workers would hold 1600 idle sockets.
        made.api.headers["Connection"] = "close"
        made.close()  # the one that asked for the version; later calls make their own
        clients[engine.address] = made
    return clients[engine.address]
