"""Whether the engine can start a container: one that answers calls may still be unable to."""

import io
import re
import tarfile
from contextlib import suppress
from typing import Any

from aem_harness import __version__
from aem_harness.harness.errors import EnvironmentFault
from aem_harness.harness.sandbox.engine import client, explained
from aem_harness.harness.sandbox.reaping import ownership, remove

PROGRAM = "/aem-nothing"
# The program is not there: what an engine says about that comes after everything that can be in the way of a start.
_REACHED = re.compile(
    rf"{PROGRAM}.*(no such file|not found)|(no such file|not found).*{PROGRAM}", re.IGNORECASE | re.DOTALL
)


def why_no_start() -> str:
    """What keeps containers from starting, in the engine's words; empty where they start.

    An image with one empty file is imported and removed again, so that no other image is needed.
    """
    from docker.errors import DockerException

    image, container = "", None
    try:
        image = _import()
        container = client().containers.create(
            image,
            entrypoint=[PROGRAM],
            command=[],
            network_mode="none",
            mem_limit="64m",
            pids_limit=64,
            security_opt=["no-new-privileges"],
            labels={"aem": __version__, **ownership()},
        )
        container.start()
    except (DockerException, EnvironmentFault, OSError) as error:  # the connection's own errors are OSErrors
        said = explained(error)
        return "" if _REACHED.search(said) else said
    finally:
        if container is not None:
            remove(container)
        with suppress(DockerException, EnvironmentFault, OSError):
            if image:
                client().images.remove(image, force=True)
    return ""


def _import() -> str:
    """The id of an image that holds one empty file."""
    from aem_harness.harness.sandbox.build import imported_id

    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("aem-trial"))
    importing: Any = client().api
    return imported_id(importing.import_image_from_data(archive.getvalue()))
