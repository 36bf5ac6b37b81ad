"""The connection to the Docker engine: one client per thread, since its HTTP sessions are not to be shared."""

import re
import threading
from typing import TYPE_CHECKING, Any

from aem_harness.harness.errors import EnvironmentFault

if TYPE_CHECKING:
    from docker import DockerClient

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


def client() -> "DockerClient":
    """This thread's client. Raises EnvironmentFault, with the remedy, when no engine answers."""
    import docker
    from docker.errors import DockerException

    if not hasattr(_local, "client"):
        try:
            _local.client = docker.from_env(timeout=600)
            # docker-py 7.1 keeps a connection for each of the last 25 URLs: 64 workers would hold 1600 idle sockets.
            _local.client.api.headers["Connection"] = "close"
            _local.client.close()  # the one that asked for the version; later calls make their own
        except DockerException as error:
            raise EnvironmentFault(
                f"no Docker engine answers ({error}); start it, or as root on Debian/Ubuntu: make engine"
            ) from None
    connected: DockerClient = _local.client
    return connected
