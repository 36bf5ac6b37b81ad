"""The connection to the Docker engine: one client per thread, since its HTTP sessions are not to be shared."""

import threading
from typing import TYPE_CHECKING

from aem_harness.harness.errors import EnvironmentFault

if TYPE_CHECKING:
    from docker import DockerClient

_local = threading.local()


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
