"""A run's images as a flow: fetched ahead while agents work, removed when others need their place, within a budget.

While it comes, an image takes its compressed size beside what it takes in the end: that is not counted in the budget.
The order of what is to come is the runner's; what to do about it is decided by `harness.run.shelf`. One image is
downloaded at a time, the soonest needed first, so that it has the whole link; the next begins as soon as only unpacking
is left. Who needs an image waits for it here, and holds it while working with it. A registry or an engine that is away
is waited for (harness/run/outages.py). A missing image fails those alone who need it.

Every engine has a flow of its own. What an engine of several will work on is not known ahead, so there images are
fetched when someone waits for them. If its registry stays away, or has no such image, who waits is sent elsewhere
(ImageAway).

Ours to remove are images that a run of this user has fetched (harness/sandbox/fetched.py).
"""

import hashlib
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import IO

from aem_harness.harness.errors import (
    AemError,
    ConfigError,
    EnvironmentFault,
    ImageAway,
    ImageNowhere,
    fault_in,
    in_one_line,
)
from aem_harness.harness.io import cache_folder
from aem_harness.harness.locks import Held, lock
from aem_harness.harness.run.outages import Breaker
from aem_harness.harness.run.shelf import Shelf
from aem_harness.harness.sandbox import fetched
from aem_harness.harness.sandbox.engine import HERE, Engine, at, client, current, on_this_machine
from aem_harness.harness.sandbox.images import ensure_image, find, ref_of, remove
from aem_harness.harness.sandbox.layers import layers_of
from aem_harness.harness.sandbox.pull import (
    MIRROR,
    NoImage,
    Pull,
    PullEnded,
    RegistryAway,
    at_mirror,
    mirror_or_default,
)
from aem_harness.harness.types import ImageRef, Task

logger = logging.getLogger(__name__)

REGISTRY = "registry"  # the circuit of registries, beside those of harness/run/outages.py
ERRORS, PAUSE = 5, 1.0  # of the engine in a row, until nothing is fetched any more; seconds after the first of them
PULLS = 3  # at most at a time: one that downloads, others that unpack
ELSEWHERE = 30.0  # seconds without a registry, until work of one engine of several is sent elsewhere
RESERVE = 10 << 30  # bytes of the engine's disk that images leave free, or a twentieth of a small disk


@dataclass(frozen=True)
class Supply:
    """How a run gets its images: `budget` bytes of the disk for all of them, None for what is free less a reserve.

    `others`: images of the set that were here before, or were fetched by other programs, may be removed, too.
    `mirror`: the registry to pull from instead of an image's own, None for the one that AEM_IMAGE_MIRROR names, if any.
    """

    budget: float | None = None
    others: bool = False
    mirror: str | None = None

    @classmethod
    def of_environment(cls) -> "Supply":
        """As AEM_DISK_BUDGET, AEM_EVICT_OTHERS and AEM_IMAGE_MIRROR say. Raises ConfigError for a size that is none."""
        budget, others = os.environ.get("AEM_DISK_BUDGET", ""), os.environ.get("AEM_EVICT_OTHERS", "")
        mirror = os.environ.get(MIRROR) or None
        return cls(size_of(budget) if budget else None, others.lower() not in ("", "0", "false"), mirror)


def size_of(text: str) -> float:
    """Bytes of a size as people write it: 200GB, 1.5TiB, 500M."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", text, re.IGNORECASE)
    if not found or not float(found[1]):
        raise ConfigError(f"{text!r} is no size for a disk budget: write 200GB, or 1.5TiB")
    power = "KMGT".find(found[2].upper()) + 1 if found[2] else 0
    return float(found[1]) * float((1024 if found[3] else 1000) ** power)


@dataclass(frozen=True)
class Missed:
    """A pull that failed, and from where."""

    image: str
    mirror: str | None = None
    engine: Engine = HERE
    digest: str = ""


class ImageRegistries:
    """The registries that an engine pulls from, as one service: back when the pull that failed works."""

    remedy = "check the registry, the network and docker login; work with present images continues"

    def __init__(self, engine: Engine = HERE) -> None:
        self.name = "the image registry" + f" of {engine}" * bool(engine.address)
        self.last = Missed("")

    def probe(self) -> str:
        try:
            with at(self.last.engine):
                Pull(self.last.image, digest=self.last.digest, mirror=self.last.mirror).run()
        except RegistryAway as fault:
            return str(fault)
        except AemError:
            return ""  # it answers; what it says is the next pull's concern
        return ""

    def watch(self, broke: Callable[[str], None]) -> AbstractContextManager[None]:
        return nullcontext()

    def recovered(self) -> None: ...


@dataclass(eq=False)
class ImageDemand:
    """A run that needs images at `engine`: `upcoming()` gives its tasks under way and to come, soonest first.

    `ahead` False: it is not known which of them come to this engine.
    """

    upcoming: Callable[[], Sequence[Task]]
    breaker: Breaker
    registry: ImageRegistries
    stop: threading.Event
    engine: Engine = HERE
    ahead: bool = True


class Flow:
    """Makes images present in the order in which the runs that `join` it need them. Safe to share between threads."""

    def __init__(self, supply: Supply, engine: Engine = HERE) -> None:
        self._supply, self._engine = supply, engine
        self._sources: list[ImageDemand] = []
        self._over = threading.Event()
        self._changed = threading.Condition()
        self._shelf = Shelf()
        self._failed: dict[str, AemError] = {}
        self._broken: AemError | None = None  # why nothing is fetched any more
        self._refs: dict[str, ImageRef] = {}  # also of images that are gone: fetched again, they must be the same
        self._pulls: dict[str, Pull] = {}
        self._looked: set[str] = set()
        self._stuck: set[str] = set()  # kept because it could not be removed
        self._wanted: list[str] = []  # waited for now, whether or not it is among what was to come
        self._away: dict[str, tuple[float, str]] = {}  # images whose registry is away: since when, and why
        self._root: Path | None = None

    @contextmanager
    def join(self, source: ImageDemand) -> Iterator["Flow"]:
        """Fetch for this run, too, inside the block."""
        with self._changed:
            self._sources.append(source)
            if len(self._sources) == 1:  # what an earlier run of this process could not have may be there now
                self._failed.clear()
                self._broken = None
                self._shelf.failed.clear()
                self._over = threading.Event()  # of its own: the thread of an earlier run may still be there
                threading.Thread(target=self._run, args=(self._over,), name="images", daemon=True).start()
        try:
            yield self
        finally:
            with self._changed:
                self._sources.remove(source)
                last = not self._sources
                pulls = list(self._pulls.values()) if last else []
                if last:
                    self._over.set()
                self._changed.notify_all()
            for pull in pulls:
                pull.end()  # and not waited for: nothing here may keep an interrupted run

    @contextmanager
    def hold(self, task: Task, stop: threading.Event) -> Iterator[ImageRef]:
        """Wait for the task's image; it stays while the block runs. Raises the fault of an image that cannot be had."""
        name = task.instance.image
        if not _managed(task):
            yield ensure_image(task, mirror=self._supply.mirror)
            return
        held = False
        try:
            with _in_use(name):
                while not held:  # or another program removed it
                    self._take(name, stop)
                    held = True  # whatever comes next: what is held for ever would keep all others waiting
                    held = self._is_here(name)
                yield self._refs[name]
        finally:
            if held:  # and the lock is free: else the thread that removes images could take it for another run's
                with self._changed:
                    self._shelf.release(name)
                    if name in self._stuck and name not in self._shelf.held:  # who kept it may have been in this run
                        self._stuck.discard(name)
                        self._shelf.kept.discard(name)
                    self._changed.notify_all()

    @property
    def peak(self) -> float:
        """The most bytes that the images took together, those that were coming included."""
        return self._shelf.peak

    def _take(self, name: str, stop: threading.Event) -> None:
        began = time.monotonic()
        with self._changed:
            if name not in self._wanted and not isinstance(self._failed.get(name), NoImage | None):
                del self._failed[name]  # an engine's error of some time ago: this attempt tries again
                self._shelf.failed.discard(name)
            if self._engine is not HERE:
                self._broken = None  # the pool sends work to an engine that answers again
            self._wanted.append(name)
            self._changed.notify_all()
            try:
                while name not in self._shelf.present:
                    if fault := self._broken or self._failed.get(name):
                        several = self._engine is not HERE and isinstance(fault, NoImage)
                        raise ImageNowhere(str(fault)) if several else fault
                    if stop.is_set() or self._over.is_set():
                        raise EnvironmentFault(f"image {name} is not here, and the run ends")
                    if current().gone:
                        raise EnvironmentFault(f"image {name} is not here, and {current()} is gone")
                    away = self._kept_back(name)
                    if away and time.monotonic() - max(away[0], began) > ELSEWHERE:
                        raise ImageAway(away[1])
                    self._changed.wait(0.2)
                self._shelf.take(name)
            finally:
                self._wanted.remove(name)

    def _kept_back(self, name: str) -> tuple[float, str] | None:
        """Since when a registry that is away keeps an image from an engine of several, and why: its own registry, or
        that of all images that are coming."""
        if self._engine is HERE:
            return None
        others = next(iter(self._away.values()), None) if len(self._away) >= PULLS else None
        return self._away.get(name) or others

    def _is_here(self, name: str) -> bool:
        """Is an image that was taken still in the engine? If not, nobody holds it now."""
        if find(name) is not None:
            return True
        with self._changed:
            self._shelf.release(name)
            self._shelf.gone(name)
            self._changed.notify_all()
        return False

    # --- the thread that decides ------------------------------------------------------------------------------------

    def _run(self, over: threading.Event) -> None:
        errors = 0  # in a row, which no outage explains
        while not over.is_set():
            try:
                with at(self._engine):
                    names = self._names()
                    self._look_around(names)
                    busy = self._step(names)  # of the same ones: an image is looked for before it is fetched
                errors = 0
            except Exception as error:
                busy = True
                if self._waited_for(error):
                    continue
                if any(source.engine.gone for source in list(self._sources)):  # its pool does without it until then
                    over.wait(PAUSE)
                    continue
                errors += 1
                logger.exception("the flow of images failed, %d in a row", errors)
                if errors >= ERRORS:
                    with self._changed:
                        self._broken = fault_in(error) or EnvironmentFault(f"images: unexpected {in_one_line(error)}")
                        self._changed.notify_all()
                    if self._engine is HERE:
                        return
                over.wait(min(errors, ERRORS) * PAUSE)  # an engine of a pool may come back
            if not busy:
                with self._changed:
                    self._changed.wait(0.5)

    def _waited_for(self, error: Exception) -> bool:
        """Whether an outage of the engine explains it, after waiting for its end."""
        source = self._source()
        if source is None:
            return True
        fault = fault_in(error) or EnvironmentFault(str(error))
        now = time.monotonic()
        return source.breaker.interrupts(("images", now), fault, now) and source.breaker.ready()  # however often

    def _source(self) -> ImageDemand | None:
        sources = list(self._sources)
        return sources[0] if sources else None

    def _names(self) -> list[str]:
        """The images that are waited for now, then of all that is to come, soonest first; several runs take turns.

        Without the first, one that is here for later could keep out another for which all workers wait.
        """
        orders = [[task.instance.image for task in one.upcoming() if _managed(task)] for one in list(self._sources)]
        listed = [name for turn in zip_longest(*orders) for name in turn if name is not None]
        return [*self._wanted, *listed]

    def _look_around(self, names: Sequence[str]) -> None:
        """Which of the images are here already, and how large."""
        for name in dict.fromkeys(names):
            if name not in self._looked:
                if find(name) is not None:
                    self._here(name, ours=None)
                self._looked.add(name)

    def _step(self, names: Sequence[str]) -> bool:
        """Do one thing; False where there is nothing to do now."""
        with self._changed:
            running = list(self._pulls.values())
        if len(running) >= PULLS or not all(pull.arrived.is_set() for pull in running):
            return False
        with self._changed:
            self._shelf.budget = self._budget()
            ahead = any(source.ahead for source in self._sources)
            move = self._shelf.next(names, among=None if ahead else set(self._wanted))
        if move.fetch is None:
            return False
        for name in move.evict:
            self._evict(name)
        with self._changed:
            self._pulls[move.fetch] = Pull(move.fetch)
        threading.Thread(target=self._fetch, args=(move.fetch,), name=f"image {move.fetch}", daemon=True).start()
        return True

    def _budget(self) -> float | None:
        """Bytes for all images of the run: what was given, and never more than leaves the reserve free."""
        free = self._free()
        room = None if free is None else self._shelf.used - sum(self._shelf.coming.values()) + free
        return min((one for one in (self._supply.budget, room) if one is not None), default=None)

    def _free(self) -> float | None:
        """Bytes that images may still take of the engine's disk; None where that is another machine's."""
        if not on_this_machine(self._engine):
            return None
        if self._root is None:
            with suppress(Exception):
                self._root = Path(client().info()["DockerRootDir"])
        try:
            disk = shutil.disk_usage(self._root or "")
        except OSError:
            return None
        return disk.free - min(RESERVE, disk.total / 20)

    # --- fetching and removing --------------------------------------------------------------------------------------

    def _fetch(self, name: str) -> None:
        with at(self._engine):
            self._pull(name)

    def _pull(self, name: str) -> None:
        known, mirror = self._refs.get(name), self._supply.mirror
        digest = known.digest if known and known.source == "pulled" and "@" not in name else ""
        ours: bool | None = None  # or a person's own, under the mirror's name
        try:
            while not self._over.is_set() and (source := self._source()):
                began = time.monotonic()
                pull = Pull(name, digest=digest, mirror=mirror, grew=lambda size: self._grew(name, size))
                with self._changed:
                    self._pulls[name] = pull
                try:
                    if ours is None:
                        ours = not self._at_mirror(name)
                    pull.run()
                    self._here(name, ours=ours, compressed=pull.size)
                    logger.info("image %s is here after %.1f s", name, time.monotonic() - began)
                    return
                except PullEnded:
                    return
                except RegistryAway as fault:
                    source.registry.last = Missed(name, mirror, self._engine, digest)
                    self._away.setdefault(name, (began, str(fault)))
                    source.breaker.trip(REGISTRY, str(fault))
                    if not source.breaker.ready((REGISTRY,)) and not source.stop.is_set():  # it was away for too long
                        self._cannot(name, fault)
                        return
                except NoImage as fault:
                    self._cannot(name, fault)
                    return
                except Exception as error:
                    known_as = fault_in(error)
                    if known_as is None:
                        raise
                    if not source.breaker.interrupts(("image", name), known_as, began):
                        self._cannot(name, known_as)
                        return
                    source.breaker.ready()
        except Exception as error:
            logger.exception("the pull of %s failed", name)
            self._cannot(name, EnvironmentFault(f"image {name} cannot be had: unexpected {in_one_line(error)}"))
        finally:
            with self._changed:
                self._pulls.pop(name, None)
                self._away.pop(name, None)
                self._shelf.not_coming(name)  # if it is not here: the next run would wait for it for ever
                self._changed.notify_all()

    def _at_mirror(self, name: str) -> bool:
        """Is the image here under its mirror's name, so that a person has fetched it?"""
        mirror = mirror_or_default(self._supply.mirror)
        return bool(mirror) and "@" not in name and find(at_mirror(name, mirror)) is not None

    def _cannot(self, name: str, fault: AemError) -> None:
        with self._changed:
            self._shelf.not_coming(name, failed=True)
            self._failed[name] = fault
            self._changed.notify_all()
        logger.warning("%s", fault)

    def _here(self, name: str, *, ours: bool | None, compressed: float = 0.0) -> None:
        """An image is present; `ours` None: it was before, and the list says whose it is."""
        image, ref = find(name), ref_of(name, "pulled" if ours else "local")
        layers = layers_of(image)
        if ours:
            fetched.note(name, str(image.id))
        mine = ours or fetched.is_ours(name, str(image.id))
        with self._changed:
            self._refs[name] = (
                ref.model_copy(update={"source": "pulled"}) if mine and image.attrs.get("RepoDigests") else ref
            )
            if not (mine or self._supply.others):
                self._shelf.kept.add(name)
            self._shelf.arrived(name, layers, compressed)
            self._changed.notify_all()
        budget = self._supply.budget
        if ours and budget is not None and self._shelf.used > budget and len(self._shelf.present) == 1:
            words = "image %s alone takes %s, more than the disk budget of %s"
            logger.warning(words, name, _gb(self._shelf.used), _gb(budget))

    def _grew(self, name: str, compressed: float) -> None:
        """More is known of what a pull brings: make room for it, or put it off."""
        with self._changed:
            self._shelf.grew(name, compressed)
            budget = self._shelf.budget
            if budget is None or self._shelf.used <= budget:
                return
            evict = self._shelf.relief(self._names())
            alone = not self._shelf.held and len(self._shelf.coming) == 1
            pull = self._pulls.get(name)
        for one in evict or ():
            self._evict(one)
        if evict is None and not alone and pull is not None and self._shelf.cannot_fit(name, compressed):
            logger.info("image %s is larger than expected: put off until it fits", name)
            pull.end()

    def _evict(self, name: str) -> None:
        """Remove an image that nobody holds; one that a container uses, or another run, stays."""
        from docker.errors import DockerException

        with self._changed:
            if name in self._shelf.held:
                return
            self._shelf.gone(name)  # from now on who needs it waits for it
        try:
            with _unused(name):
                image = find(name)
                if image is not None:
                    remove(image, name, self._supply.mirror)
            fetched.forget(name)  # who fetches it next says whose it is
            logger.info("image %s was removed", name)
        except (DockerException, EnvironmentFault, Held, OSError) as error:
            logger.info("image %s stays: %s", name, error)
            with suppress(AemError):
                if find(name) is not None:
                    self._here(name, ours=None)
                    with self._changed:
                        if name not in self._shelf.kept:
                            self._stuck.add(name)
                            self._shelf.kept.add(name)


_flows: dict[tuple[Supply, str], Flow] = {}
_making = threading.Lock()


def flow_of(supply: Supply, engine: Engine = HERE) -> Flow:
    """The one flow of an engine in this process: two arms of a gate must not remove each other's images."""
    with _making:
        return _flows.setdefault((supply, engine.address), Flow(supply, engine))


def _managed(task: Task) -> bool:
    """Images with a recipe are built when they are needed, and stay."""
    return not task.dockerfile


def _lock_file(name: str) -> IO[str]:
    folder = cache_folder() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / hashlib.sha256(fetched.key(name).encode()).hexdigest()[:24]).open("w")


@contextmanager
def _in_use(name: str) -> Iterator[None]:
    """No other run of this user removes the image meanwhile."""
    with _lock_file(name) as handle:
        lock(handle, wait=True, shared=True)
        yield


@contextmanager
def _unused(name: str) -> Iterator[None]:
    """Raises Held where a run needs the image now."""
    with _lock_file(name) as handle:
        lock(handle)
        yield


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
