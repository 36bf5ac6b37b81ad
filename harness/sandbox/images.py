"""Where a task's image comes from: the engine's own, else a registry, else built here; what is there; what may go."""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aem_harness.harness.errors import EnvironmentFault, boundary
from aem_harness.harness.sandbox.build import BASE, RECIPE, Say, build_folder, silent
from aem_harness.harness.sandbox.engine import client, current, explained, raise_for, unreached
from aem_harness.harness.types import ImageRef, ImageSource, Task

PULL_TRIES = 4
PULL_PAUSE = 20.0  # seconds before the second try, doubled each time: registries limit pulls for minutes, not hours

_locks: dict[tuple[str, str], threading.Lock] = {}  # by engine and image
_locks_lock = threading.Lock()


@dataclass(frozen=True)
class LocalImage:
    """An image of a task set in the engine."""

    name: str
    digest: str
    bytes: int
    built_here: bool


def ensure_image(task: Task, *, pull: bool = True, build: bool = True, say: Say = silent) -> ImageRef:
    """Make a task's image present and say which content it is.

    A task with a Dockerfile is built here (and kept current); any other image is the local one of its name, else
    pulled. Threads that want the same image wait for each other. Raises EnvironmentFault naming what was tried.
    """
    name = task.instance.image
    with _lock_of(name):
        if task.dockerfile and build:
            existed = _find(name) is not None
            build_folder(Path(task.dockerfile), name, say, task.build_args)
            return _ref(name, "local" if existed else "built")
        if _find(name) is not None:
            return _ref(name, "local")
        if not pull:
            raise EnvironmentFault(f"image {name} is not in the engine; get it with: aem images pull")
        _pull(name, say)
        return _ref(name, "pulled")


def local_images(tasks: Iterable[Task]) -> list[LocalImage]:
    """Those images of `tasks` that the engine has, each once."""
    with boundary(EnvironmentFault, "the Docker engine does not answer"):
        present = [(name, _find(name)) for name in dict.fromkeys(task.instance.image for task in tasks)]
    return [
        LocalImage(name, image.id, image.attrs["Size"], RECIPE in image.labels)
        for name, image in present
        if image is not None
    ]


def prune(tasks: Iterable[Task], *, base: bool = False, whole: bool = False, dry_run: bool = False) -> list[str]:
    """Remove the images of `tasks` and with `base` the base image; returns their names. Images in use stay.

    `whole` says that `tasks` are a whole set: images of it that were built here under an earlier tag then go too.
    `dry_run` removes nothing.
    """
    from docker.errors import APIError, ImageNotFound

    names = [*dict.fromkeys(task.instance.image for task in tasks), *([BASE] if base else [])]
    removed: list[str] = []
    for name in [*(name for name in names if _find(name) is not None), *(_earlier(names) if whole else [])]:
        try:
            if not dry_run:
                client().images.remove(name)
            removed.append(name)
        except ImageNotFound:
            continue
        except APIError as error:
            if error.status_code != 409:  # in use by a container, or a layer of another image
                raise EnvironmentFault(f"cannot remove {name}: {error.explanation}") from None
    return removed


def _earlier(names: Iterable[str]) -> list[str]:
    """Images of a bundled set under a tag that it no longer uses: its recipe has changed since they were built."""
    with boundary(EnvironmentFault, "the Docker engine does not answer"):
        built = client().images.list(filters={"label": RECIPE})
    current = set(names)
    repositories = {name.rpartition(":")[0] for name in current if name.startswith("aem/") and name != BASE}
    return [
        tag for image in built for tag in image.tags if tag not in current and tag.rpartition(":")[0] in repositories
    ]


def _pull(name: str, say: Say) -> None:
    from docker.errors import APIError, DockerException, ImageNotFound, NotFound

    repository, _, tag = name.rpartition(":") if ":" in name.rsplit("/", 1)[-1] else (name, "", "latest")
    pause = PULL_PAUSE
    for attempt in range(1, PULL_TRIES + 1):
        try:
            for step in client().api.pull(repository, tag=tag, stream=True, decode=True):
                raise_for(step)
                if "progress" in step:
                    say(f"{name}: {step.get('status', '')} {step['progress']}")
            return
        except (ImageNotFound, NotFound) as error:
            if unreached(error):  # Podman says "not found" also of a registry that does not answer
                raise EnvironmentFault(f"image {name} cannot be pulled: {explained(error)}") from None
            raise EnvironmentFault(f"image {name} is neither in the engine nor in its registry") from None
        except (DockerException, EnvironmentFault) as error:
            limited = "toomanyrequests" in str(error).lower() or "rate limit" in str(error).lower()
            if not limited or attempt == PULL_TRIES or not isinstance(error, APIError | EnvironmentFault):
                why = "the registry's pull limit is reached; log in with docker login" if limited else explained(error)
                raise EnvironmentFault(f"image {name} cannot be pulled: {why}") from None
            say(f"{name}: the registry limits pulls, waiting {pause:.0f} s")
            time.sleep(pause)
            pause *= 2


def _find(name: str) -> Any:
    from docker.errors import ImageNotFound

    with boundary(EnvironmentFault, f"cannot look for image {name}"):
        try:
            return client().images.get(name)
        except ImageNotFound:
            return None


def _ref(name: str, source: ImageSource) -> ImageRef:
    """The content of a present image: its registry digest if it came from one, else its id.

    Podman gives every image such a digest, also those that were built here and are in no registry.
    """
    image = _find(name)
    if image is None:
        raise EnvironmentFault(f"image {name} vanished")
    digests = [] if image.labels.get(RECIPE) else image.attrs.get("RepoDigests") or []
    return ImageRef(name=name, digest=digests[0].rpartition("@")[2] if digests else image.id, source=source)


def _lock_of(name: str) -> threading.Lock:
    with _locks_lock:
        return _locks.setdefault((current().address, name), threading.Lock())
