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

# Words of Docker, of its image store in containerd, and of Podman; the kinds are looked for in this order.
_FULL = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_LIMITED = re.compile(r"too ?many ?requests|rate limit|429 Too Many|\bHTTP 429\b|quota exceeded", re.IGNORECASE)
# What no waiting repairs, and is not the image's: settings of the engine, of a proxy, or the engine's own store.
_BROKEN = re.compile(
    r"x509|HTTP response to HTTPS client|malformed HTTP|unsupported protocol|executable file not found"
    r"|tls: (?:failed to verify|first record|handshake failure|protocol version|unrecognized name|unknown|bad cert)"
    r"|https?://[^\s\"]+\"?: (?:Forbidden|Proxy Authentication Required)"
    r"|(?<!denied: )permission denied|snapshot sha256:\w+ does not exist|layer does not exist|lease \S+: not found",
    re.IGNORECASE,
)
_FAILING = re.compile(
    r"unexpected (?:http )?status.*: 5\d\d|\b50[0234]\b|\b(?:HTTP|status code|StatusCode:|registry) 5\d\d\b|\bEOF\b"
    r"|connection reset|broken pipe|request canceled|deadline exceeded|context canceled|i/o error"
    r"|verification failed for digest|bad record MAC|unexpected commit|failed size validation|digest did not match"
    r"|closed (?:idle|network) connection|connection closed|net/http: |http2: |stream error",
    re.IGNORECASE,
)
_NOWHERE = re.compile(
    r"manifest unknown|name unknown|not found|does not exist|no matching manifest|no image found|denied|unauthorized",
    re.IGNORECASE,
)
# An engine's request that had no answer at all, whatever the words: Go's form of it. A few of these last.
_UNANSWERED = re.compile(r"""\b(?:Get|Head|Post|Put) "?https?://[^\s"]+"?: """)
_LASTING = re.compile(r"tls: |credentials|redirects", re.IGNORECASE)
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


def mirror_or_default(mirror: str | None) -> str:
    """The mirror to ask: None means the one that AEM_IMAGE_MIRROR names; empty where none is to be asked."""
    return os.environ.get(MIRROR, "") if mirror is None else mirror


class Pull:
    """A pull of `name`, from a `mirror` if there is one, under its own name all the same.

    `mirror` as for `mirror_or_default`. `digest` is the content that is wanted, whatever the name stands for by now.

    `run` raises NoImage, RegistryAway, DiskFault, PullEnded, or EnvironmentFault (the engine). `say` is told each step;
    `grew(bytes)` the compressed size of all layers known so far that are not here yet; `arrived` is set when all is
    downloaded, and only unpacking is left.
    """

    def __init__(
        self,
        name: str,
        *,
        digest: str = "",
        mirror: str | None = None,
        say: Callable[[str], None] = lambda line: None,
        grew: Callable[[int], None] = lambda size: None,
    ) -> None:
        self.name = name
        self._mirror = mirror_or_default(mirror)
        there = at_mirror(name, self._mirror) if self._mirror else name
        self._there = f"{split(there)[0]}@{digest}" if digest else there
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
            if self._mirror and "@" in self.name:
                raise NoImage(
                    f"image {self.name} cannot come from a mirror: its name is a digest, under which an engine finds "
                    "only what came from there; set the mirror in the engine, or name the image by a tag"
                )
            self._pull()
            if self._there != self.name:
                self._rename()
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

    def _pull(self) -> None:
        from docker.errors import DockerException
        from urllib3.exceptions import HTTPError  # of a stream that breaks off

        repository, tag = split(self._there)
        engine = None
        try:
            engine = current().connect(timeout=600)
            engine.api.hooks["response"] = [self._begun]
            for step in engine.api.pull(repository, tag=tag, stream=True, decode=True):
                if self._ended.is_set():
                    raise PullEnded(f"the pull of {self.name} was ended")
                if "error" in step:
                    raise self._why(" ".join(str(step["error"]).split()))
                self._follow(step)
            if self._ended.is_set():  # a closed stream looks like one that is over
                raise PullEnded(f"the pull of {self.name} was ended")
        except (DockerException, HTTPError, OSError) as error:
            if self._ended.is_set():
                raise PullEnded(f"the pull of {self.name} was ended") from None
            raise self._why(explained(error), error) from None
        finally:
            if engine is not None:
                engine.close()

    def _begun(self, response: Any, *_: object, **__: object) -> None:
        from docker.types import CancellableStream

        self._stream = CancellableStream(iter(()), response)

    def _why(self, words: str, error: Exception | None = None) -> EnvironmentFault | DiskFault:
        """What a failed pull means. It names the image by its own name: by that, the losses to one image are one."""
        bare = _without(self._there, words)
        fault = _kind(bare, error)
        shown = words if self._there == self.name else f"{words}, asked for as {self._there}"
        if fault is NoImage:
            return NoImage(f"image {self.name} is neither in the engine nor in its registry ({shown})")
        if fault is RegistryAway and _LIMITED.search(bare):
            shown = "the registry's pull limit is reached; log in with docker login"
        return fault(f"image {self.name} cannot be pulled: {shown}")

    def _follow(self, step: dict[str, Any]) -> None:
        layer, status = step.get("id"), step.get("status", "")
        if "progress" in step:
            self._say(f"{self.name}: {status} {step['progress']}")
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

    def _rename(self) -> None:
        """Give an image that came from a mirror, or by its digest, its own name."""
        from docker.errors import DockerException

        try:
            client().images.get(self._there).tag(*split(self.name))
        except (DockerException, OSError) as error:
            raise EnvironmentFault(f"image {self._there} cannot be named {self.name}: {explained(error)}") from None


def _without(image: str, words: str) -> str:
    """An engine's words without the image's name, in which `503` means nothing. A name that is a word is left in."""
    repository, tag = split(image)
    path = repository.partition("/")[2] or repository
    for one in (f"{repository}:{tag}", repository, path, f"manifests/{tag}", f"manifest {tag}"):
        if not one.isalpha():
            words = re.sub(rf"(?<![\w.-]){re.escape(one)}(?![\w-])", "", words)
    return words


def _kind(words: str, error: Exception | None) -> type[EnvironmentFault | DiskFault]:
    """What a failed pull means."""
    from docker.errors import APIError

    status = error.status_code if isinstance(error, APIError) else None
    if _FULL.search(words):
        return DiskFault
    if _LIMITED.search(words):
        return RegistryAway
    if error is not None and status is None:  # the engine's connection
        return EnvironmentFault
    if _BROKEN.search(words):
        return EnvironmentFault
    if unreached(Exception(words)) or _FAILING.search(words):  # Podman says "not found" of a registry that is away
        return RegistryAway
    if status == 404 or _NOWHERE.search(words):
        return NoImage
    return RegistryAway if _UNANSWERED.search(words) and not _LASTING.search(words) else EnvironmentFault
