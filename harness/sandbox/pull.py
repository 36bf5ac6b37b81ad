"""Pulling one image: what it brings, how far it is, why it failed, and how another thread ends it at once."""

import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aem_harness.harness.errors import DiskFault, EnvironmentFault
from aem_harness.harness.sandbox.engine import client, current, explained, unreached

MIRROR = "AEM_IMAGE_MIRROR"  # environment variable: a registry that is asked in the place of an image's own

_LIMITED = re.compile(r"toomanyrequests|rate limit|429 Too Many", re.IGNORECASE)
_FAILING = re.compile(
    r"unexpected (?:http )?status.*: 5\d\d|\b50[0234]\b|EOF|connection reset|broken pipe|request canceled"
    r"|deadline exceeded|context canceled|filesystem layer verification failed|i/o error",
    re.IGNORECASE,
)
_FULL = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_NOWHERE = re.compile(
    r"manifest unknown|not found|does not exist|no matching manifest|denied|unauthorized", re.IGNORECASE
)
_HERE = ("Download complete", "Extracting", "Pull complete", "Already exists")


class NoImage(EnvironmentFault):
    """An image that is neither here nor where it is looked for: waiting does not help."""


class RegistryAway(EnvironmentFault):
    """A registry that does not answer, fails, or limits pulls for a while."""


class PullEnded(EnvironmentFault):
    """Another thread has ended the pull."""


def split(name: str) -> tuple[str, str]:
    """Repository and tag of an image's name, or repository and digest of a pinned one."""
    if "@" in name:
        repository, _, digest = name.partition("@")
        return repository.rpartition(":")[0] if ":" in repository.rsplit("/", 1)[-1] else repository, digest
    repository, _, tag = name.rpartition(":") if ":" in name.rsplit("/", 1)[-1] else (name, "", "latest")
    return repository, tag


def at_mirror(name: str, mirror: str) -> str:
    """The name of the same image at a mirror: `HOST[/PREFIX]` in the place of the image's own registry."""
    first, slash, rest = name.partition("/")
    own = slash and ("." in first or ":" in first or first == "localhost")
    path = rest if own else (name if slash else f"library/{name}")
    return f"{mirror.removeprefix('https://').removeprefix('http://').rstrip('/')}/{path}"


class Pull:
    """A pull of `name`, from a `mirror` if there is one, under its own name all the same.

    `mirror` None: the one that AEM_IMAGE_MIRROR names, if it does.

    `run` raises NoImage, RegistryAway, DiskFault, PullEnded, or EnvironmentFault (the engine). `say` is told each step;
    `grew(bytes)` the compressed size of all layers known so far that are not here yet; `arrived` is set when all is
    downloaded, and only unpacking is left.
    """

    def __init__(
        self,
        name: str,
        *,
        mirror: str | None = None,
        say: Callable[[str], None] = lambda line: None,
        grew: Callable[[int], None] = lambda size: None,
    ) -> None:
        self.name = name
        self._mirror = os.environ.get(MIRROR, "") if mirror is None else mirror
        self.arrived = threading.Event()
        self._say, self._grew = say, grew
        self._ended = threading.Event()
        self._stream: Any = None
        self._layers: dict[str, str] = {}
        self._sizes: dict[str, int] = {}

    @property
    def size(self) -> int:
        """Compressed bytes of the layers that came over the network, as far as they are known."""
        return sum(self._sizes.values())

    def run(self) -> None:
        try:
            there = at_mirror(self.name, self._mirror) if self._mirror else self.name
            self._pull(there)
            if self._mirror:
                self._rename(there)
        finally:
            self.arrived.set()

    def end(self) -> None:
        """End it, from another thread; the engine drops what it has not finished."""
        self._ended.set()
        self.arrived.set()
        with suppress(Exception):
            self._stream.close()

    def ends_within(self, seconds: float) -> bool:
        """Wait, at most so long; whether it was ended meanwhile."""
        return self._ended.wait(seconds)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _pull(self, name: str) -> None:
        from docker.errors import DockerException
        from urllib3.exceptions import HTTPError  # of a stream that breaks off

        repository, tag = split(name)
        engine = None
        try:
            engine = current().connect(timeout=600)
            engine.api.hooks["response"] = [self._begun]
            for step in engine.api.pull(repository, tag=tag, stream=True, decode=True):
                if self._ended.is_set():
                    raise PullEnded(f"the pull of {name} was ended")
                if "error" in step:
                    raise _why(name, " ".join(str(step["error"]).split()))
                self._follow(name, step)
            if self._ended.is_set():  # a closed stream looks like one that is over
                raise PullEnded(f"the pull of {name} was ended")
        except (DockerException, HTTPError, OSError) as error:
            if self._ended.is_set():
                raise PullEnded(f"the pull of {name} was ended") from None
            raise _why(name, explained(error), error) from None
        finally:
            if engine is not None:
                engine.close()

    def _begun(self, response: Any, *_: object, **__: object) -> None:
        from docker.types import CancellableStream

        self._stream = CancellableStream(iter(()), response)

    def _follow(self, name: str, step: dict[str, Any]) -> None:
        layer, status = step.get("id"), step.get("status", "")
        if "progress" in step:
            self._say(f"{name}: {status} {step['progress']}")
        if not layer or status.startswith("Pulling from"):
            return
        self._layers[layer] = status
        total = (step.get("progressDetail") or {}).get("total")
        if status == "Downloading" and total and layer not in self._sizes:
            self._sizes[layer] = total
            self._grew(self.size)
        if all(one in _HERE for one in self._layers.values()):
            self.arrived.set()
        else:
            self.arrived.clear()

    def _rename(self, there: str) -> None:
        """Give an image from a mirror its own name; a pinned one is known by its digest, which stays the same."""
        from docker.errors import DockerException

        try:
            image = client().images.get(there)
            image.tag(*split(self.name))
        except (DockerException, OSError) as error:
            raise EnvironmentFault(f"image {there} cannot be named {self.name}: {explained(error)}") from None


def _why(name: str, words: str, error: Exception | None = None) -> EnvironmentFault | DiskFault:
    """What a failed pull means."""
    from docker.errors import APIError

    status = error.status_code if isinstance(error, APIError) else None
    if _FULL.search(words):
        return DiskFault(f"image {name} cannot be pulled: {words}")
    if _LIMITED.search(words):
        why = "the registry's pull limit is reached; log in with docker login"
        return RegistryAway(f"image {name} cannot be pulled: {why}")
    if error is not None and status is None:  # the engine's connection
        return EnvironmentFault(f"image {name} cannot be pulled: {words}")
    if unreached(Exception(words)) or _FAILING.search(words):  # Podman says "not found" of a registry that is away
        return RegistryAway(f"image {name} cannot be pulled: {words}")
    if status == 404 or _NOWHERE.search(words):
        return NoImage(f"image {name} is neither in the engine nor in its registry ({words})")
    return EnvironmentFault(f"image {name} cannot be pulled: {words}")
