"""Where a task's image comes from: the engine's own, else a registry, else built here; what is there; what may go."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aem_harness.harness.errors import EnvironmentFault, boundary
from aem_harness.harness.sandbox.build import BASE, RECIPE, Say, build_folder, silent
from aem_harness.harness.sandbox.engine import client, current
from aem_harness.harness.sandbox.pull import Pull, PullEnded, RegistryAway, at_mirror, mirror_or_default, split
from aem_harness.harness.types import ImageRef, ImageSource, Task

_ADDED = ("docker.io/library/", "docker.io/", "localhost/")  # by Podman, to names without a registry
PULL_TRIES = 4
PULL_PAUSE = 20.0  # seconds before the second try, doubled each time: registries limit pulls for minutes, not hours

_locks: dict[tuple[str, str], threading.Lock] = {}  # by engine and image
_locks_lock = threading.Lock()
_pulls: set[Pull] = set()  # under way in `ensure_image`


@dataclass(frozen=True)
class LocalImage:
    """An image of a task set in the engine."""

    name: str
    digest: str
    bytes: int
    built_here: bool


def ensure_image(
    task: Task, *, pull: bool = True, build: bool = True, mirror: str | None = None, say: Say = silent
) -> ImageRef:
    """Make a task's image present and say which content it is.

    A task with a Dockerfile is built here (and kept current); any other image is the local one of its name, else
    pulled (`mirror`: as for `Pull`). Threads that want the same image wait for each other. Raises EnvironmentFault
    naming what was tried.
    """
    name = task.instance.image
    with _lock_of(name):
        if task.dockerfile and build:
            existed = find(name) is not None
            build_folder(Path(task.dockerfile), name, say, task.build_args)
            return ref_of(name, "local" if existed else "built")
        if find(name) is not None:
            return ref_of(name, "local")
        if not pull:
            raise EnvironmentFault(f"image {name} is not in the engine; get it with: aem images pull")
        _pull(name, mirror, say)
        return ref_of(name, "pulled")


def local_images(tasks: Iterable[Task]) -> list[LocalImage]:
    """Those images of `tasks` that the engine has, each once."""
    with boundary(EnvironmentFault, "the Docker engine does not answer"):
        present = [(name, find(name)) for name in dict.fromkeys(task.instance.image for task in tasks)]
    return [
        LocalImage(name, image.id, image.attrs["Size"], RECIPE in image.labels)
        for name, image in present
        if image is not None
    ]


def all_here(names: Iterable[str]) -> bool:
    """Has the engine all these images? One question for any number of them."""
    with boundary(EnvironmentFault, "the Docker engine does not answer"):
        images = client().api.images()
    have = listed(images)
    return all(name in have or f"{name}:latest" in have for name in names)


def listed(images: Iterable[Any]) -> set[str]:
    """The names in an engine's list of its images, also as tasks write them: Podman lists them with a registry."""
    found = {name for image in images for name in (*(image.get("RepoTags") or ()), *(image.get("RepoDigests") or ()))}
    return found | {name.removeprefix(prefix) for name in found for prefix in _ADDED if name.startswith(prefix)}


def prune(
    tasks: Iterable[Task],
    *,
    base: bool = False,
    whole: bool = False,
    dry_run: bool = False,
    mirror: str | None = None,
) -> list[str]:
    """Remove the images of `tasks` and with `base` the base image; returns their names. Images in use stay.

    `whole` says that `tasks` are a whole set: images of it that were built here under an earlier tag then go too.
    `dry_run` removes nothing. `mirror` (as for `Pull`) is where they may have been pulled from.
    """
    from docker.errors import APIError

    names = [*dict.fromkeys(task.instance.image for task in tasks), *([BASE] if base else [])]
    removed: list[str] = []
    for name in [*names, *(_earlier(names) if whole else [])]:
        image = find(name)
        if image is None:
            continue
        try:
            if not dry_run:
                remove(image, name, mirror)
            removed.append(name)
        except APIError as error:
            if error.status_code != 409:  # in use by a container, or a layer of another image
                raise EnvironmentFault(f"cannot remove {name}: {error.explanation}") from None
    return removed


def _earlier(names: Iterable[str]) -> list[str]:
    """Images of a bundled set under a tag that it no longer uses: its recipe has changed since they were built."""
    with boundary(EnvironmentFault, "the Docker engine does not answer"):
        # not docker-py's images.list(): it asks for each one, and fails for one that is removed meanwhile
        built = client().api.images(filters={"label": RECIPE})
    current = set(names)
    repositories = {name.rpartition(":")[0] for name in current if name.startswith("aem/") and name != BASE}
    return [
        tag
        for image in built
        for tag in image.get("RepoTags") or ()
        if tag not in current and tag.rpartition(":")[0] in repositories
    ]


def _pull(name: str, mirror: str | None, say: Say) -> None:
    """Pull it; a registry that limits pulls is waited for, since that is over in minutes."""
    pause = PULL_PAUSE
    for attempt in range(1, PULL_TRIES + 1):
        pull = Pull(name, mirror=mirror, say=say)
        _pulls.add(pull)
        try:
            pull.run()
            return
        except RegistryAway as fault:
            if "pull limit" not in str(fault) or attempt == PULL_TRIES:
                raise
            say(f"{name}: the registry limits pulls, waiting {pause:.0f} s")
            if pull.ends_within(pause):
                raise PullEnded(f"the pull of {name} was ended") from None
            pause *= 2
        finally:
            _pulls.discard(pull)


def end_pulls() -> None:
    """End every pull of this process that `ensure_image` waits for, from another thread."""
    for pull in list(_pulls):
        pull.end()


def find(name: str) -> Any:
    """The engine's image of that name, None where there is none."""
    from docker.errors import ImageNotFound

    with boundary(EnvironmentFault, f"cannot look for image {name}"):
        try:
            return client().images.get(name)
        except ImageNotFound:
            return None


def names_of(image: Any, name: str, mirror: str | None) -> list[str]:
    """All by which an image is held that was pulled as `name`, from its registry or from a mirror; its name is last.

    An image is gone, and its disk free, once none is left.
    """
    there = mirror_or_default(mirror)
    other, tag = split(at_mirror(name, there)) if there else ("", "")
    places = {split(name)[0], other}
    tags = [one for one in image.attrs.get("RepoTags") or () if one == f"{other}:{tag}"]
    digests = [one for one in image.attrs.get("RepoDigests") or () if one.rpartition("@")[0] in places]
    return [one for one in (*tags, *digests) if one != name] + [name]


def remove(image: Any, name: str, mirror: str | None) -> None:
    """Remove an image that was pulled as `name`, with all its names. Raises APIError where something still uses it."""
    from docker.errors import APIError, NotFound

    for one in names_of(image, name, mirror):
        try:
            client().images.remove(one)
        except NotFound:
            continue
        except APIError as error:
            if one == name or "@" not in one or error.status_code == 409:
                raise
            continue  # Podman has no digest without a tag


def ref_of(name: str, source: ImageSource) -> ImageRef:
    """The content of a present image: its registry digest if it came from one, else its id.

    Podman gives every image such a digest, also those that were built here and are in no registry.
    """
    image = find(name)
    if image is None:
        raise EnvironmentFault(f"image {name} vanished")
    digests = [] if image.labels.get(RECIPE) else image.attrs.get("RepoDigests") or []
    return ImageRef(
        name=name,
        digest=digests[0].rpartition("@")[2] if digests else image.id,
        source=source,
        architecture=image.attrs.get("Architecture") or "",
    )


def _lock_of(name: str) -> threading.Lock:
    with _locks_lock:
        return _locks.setdefault((current().address, name), threading.Lock())
