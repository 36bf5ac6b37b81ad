"""A pool of sites: distributes rollouts, gradings and audits, and repeats elsewhere what is lost with a site.

A task goes where its image is if a slot is free there, else where most slots are free. Waiting work is served in order
of arrival; work lost with its site keeps its turn. A lost site is tried again at intervals, and takes part once it is
back. A site whose registry is away, or has not an image, keeps its other work, and what needs the image goes elsewhere.
"""

import itertools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from aem_harness.harness.errors import (
    AemError,
    EnvironmentFault,
    ImageAway,
    ImageNowhere,
    NoSite,
    SiteLost,
    in_one_line,
)
from aem_harness.harness.grading.regrade import Regrade
from aem_harness.harness.run.auditing import CANARY, unaudited
from aem_harness.harness.run.outages import Breaker, Service
from aem_harness.harness.run.rollout import Worked
from aem_harness.harness.run.sites import Member
from aem_harness.harness.types import Grade, Prediction, Task

logger = logging.getLogger(__name__)

Kind = Literal["rollout", "grade"]  # an audit takes a grading's slot
Result = TypeVar("Result")

PATIENCE = 600.0  # seconds without any site, then the run ends
LOSSES = 5  # sites that one piece of work may be lost with: then it is probably the cause
LACKING = 120.0  # seconds for which an image that could not be had at a site is rather looked for elsewhere
PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0)  # seconds before each new look at a site that was lost; the last one repeats


class Stopped(EnvironmentFault):
    """Raised for work that waited for a slot when the pool was stopped."""


@dataclass
class Place:
    """A site in the pool: its slots of each kind, those in use, and the images it is known to have."""

    site: Member
    slots: Mapping[Kind, int]
    busy: "Counter[Kind]" = field(default_factory=Counter)
    images: set[str] = field(default_factory=set)
    up: bool = True
    lost: int = 0  # pieces of work that were lost with it
    lacking: dict[str, float] = field(default_factory=dict)  # images that could not be had there, until then

    def free(self, kind: Kind) -> int:
        return self.slots[kind] - self.busy[kind] if self.up else 0


class Pool:
    """Sites as one. `tell` gets a line for people when a site is lost or back."""

    name = "the pool"

    def __init__(
        self,
        places: Sequence[Place],
        tasks: Mapping[str, Task],
        *,
        tell: Callable[[str], None] = lambda line: None,
        patience: float = PATIENCE,
    ) -> None:
        self.places = list(places)
        self._tasks, self._tell, self._patience = tasks, tell, patience
        self._changed = threading.Condition()
        self._tickets = itertools.count()
        self._waiting: dict[Kind, set[int]] = {"rollout": set(), "grade": set()}
        self._ended = 0  # how often everything was ended
        self._closed = threading.Event()
        self._since = time.monotonic()  # when there last was a site
        for place in self.places:
            try:
                place.images |= place.site.images()
            except AemError as error:
                self._lose(place, error)
        if not any(place.up for place in self.places):
            self.__exit__()
            raise EnvironmentFault(f"none of {self._names()} answers: start one of them, or look with aem doctor")

    # --- a site's own calls -----------------------------------------------------------------------------------------

    def rollout(self, scratch: Path, instance_id: str, seed: int, attempt: int) -> Worked | None:
        def work(site: Member) -> Worked | None:
            for left in scratch.iterdir():  # from a site that was lost
                left.unlink()
            return site.rollout(scratch, instance_id, seed, attempt)

        try:
            return self._anywhere("rollout", self._tasks[instance_id], work)
        except Stopped:
            return None

    def grade(self, task: Task, prediction: Prediction, folder: Path, left: Mapping[str, str | None] | None) -> Grade:
        return self._anywhere("grade", task, lambda site: site.grade(task, prediction, folder, left))

    def ahead(self, gradings: int) -> int:
        return gradings  # a site's slots count whole gradings

    def audit(self, task: Task, folder: Path, name: str = CANARY) -> Regrade:
        try:
            return self._anywhere("grade", task, lambda site: site.audit(task, folder, name))
        except ImageNowhere as fault:
            return unaudited(folder, fault, name)

    def architecture(self) -> str:
        found = {place.site.architecture() for place in self._up()}
        return found.pop() if len(found) == 1 else ""

    def services(self) -> Mapping[str, Service]:
        """Those that all sites stand on; an engine that is away is the pool's to wait for."""
        return {name: one for place in self.places for name, one in place.site.services().items()}

    @contextmanager
    def supply(self, upcoming: Callable[[], Sequence[Task]], breaker: Breaker, stop: threading.Event) -> Iterator[None]:
        with ExitStack() as stack:
            for place in self.places:
                stack.enter_context(place.site.supply(upcoming, breaker, stop))
            yield

    def reap(self) -> int:
        """On every site that answers: one that does not is reaped when it is back."""
        removed = 0
        for place in self._up():
            try:
                removed += place.site.reap()
            except AemError as error:
                self._lose(place, error)
        return removed

    def close_all(self) -> None:
        with self._changed:
            self._ended += 1
            self._changed.notify_all()
        for place in list(self.places):  # also where work of a site that went away has not noticed it yet
            place.site.close_all()

    # --- the sites --------------------------------------------------------------------------------------------------

    def add(self, place: Place) -> None:
        """Add a site that joined later."""
        place.images |= place.site.images()
        with self._changed:
            self.places.append(place)
            self._changed.notify_all()
        self._tell(f"{place.site.name} has joined")

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        """Close all sites, in parallel."""
        self._closed.set()
        with ThreadPoolExecutor(len(self.places)) as closing:
            list(closing.map(lambda place: place.site.close(), self.places))

    # --- inside -----------------------------------------------------------------------------------------------------

    def _names(self) -> str:
        return ", ".join(place.site.name for place in self.places)

    def _up(self) -> list[Place]:
        with self._changed:
            return [place for place in self.places if place.up]

    def _anywhere(self, kind: Kind, task: Task, work: Callable[[Member], Result]) -> Result:
        ticket, image = next(self._tickets), task.instance.image
        losses, since = 0, 0.0  # when the image could first not be had
        without: list[Place] = []  # that neither have the image nor find it
        while losses < LOSSES:
            place = self._take(kind, image, ticket, without)
            try:
                return work(place.site)
            except SiteLost as lost:
                losses, place.lost = losses + 1, place.lost + 1
                self._lose(place, lost)
            except ImageNowhere as missing:
                self._lacks(place, image, missing)
                without.append(place)
                if all(one in without for one in self._up()):
                    raise
            except ImageAway as away:
                self._lacks(place, image, away)
                since = since or time.monotonic()
                if time.monotonic() - since > self._patience:
                    raise NoSite(
                        f"none of {self._names()} could get an image for {self._patience:.0f} s ({away}): repair that, "
                        "then run the same command again; nothing was lost"
                    ) from None
            finally:
                with self._changed:
                    place.busy[kind] -= 1
                    self._changed.notify_all()

        raise NoSite(
            f"{LOSSES} sites went away in succession with {task.instance_id} on them: check what it does there, and "
            "leave it out until then; nothing was lost"
        )

    def _take(self, kind: Kind, image: str, ticket: int, without: Sequence[Place] = ()) -> Place:
        waiting = self._waiting[kind]
        with self._changed:
            waiting.add(ticket)
            ended = self._ended
            try:
                while True:
                    if self._ended != ended:
                        raise Stopped("everything was ended")
                    if ticket == min(waiting) and (place := self._best(kind, image, without)):
                        place.busy[kind] += 1
                        place.images.add(image)  # from now on, or soon: others of this task go there too
                        return place
                    if any(place.up for place in self.places):
                        self._since = time.monotonic()
                    elif time.monotonic() - self._since > self._patience:
                        raise NoSite(
                            f"none of {self._names()} has answered for {self._patience:.0f} s: repair that, then run "
                            "the same command again; nothing was lost"
                        )
                    self._changed.wait(1.0)
            finally:
                waiting.discard(ticket)
                self._changed.notify_all()

    def _best(self, kind: Kind, image: str, without: Sequence[Place] = ()) -> Place | None:
        up = [place for place in self.places if place.up and place not in without]
        up = up or [place for place in self.places if place.up]  # those left have gone away meanwhile
        able = [place for place in up if time.monotonic() >= place.lacking.get(image, 0.0)]
        free = [place for place in able or up if place.free(kind) > 0]
        return max(free, key=lambda place: (image in place.images, place.free(kind)), default=None)

    def _lacks(self, place: Place, image: str, why: Exception) -> None:
        with self._changed:
            first = not any(until > time.monotonic() for until in place.lacking.values())
            place.lacking[image] = time.monotonic() + LACKING
            place.images.discard(image)
        logger.warning("%s lacks an image: %s", place.site.name, in_one_line(why))
        if first:
            self._tell(f"{place.site.name} gets no image ({why}): what needs one is done elsewhere if possible")

    def _lose(self, place: Place, why: Exception) -> None:
        with self._changed:
            if not place.up:
                return
            place.up = False
            place.images.clear()
            if not any(other.up for other in self.places):
                self._since = time.monotonic()
            self._changed.notify_all()
        logger.warning("%s is lost: %s", place.site.name, in_one_line(why))
        if self._closed.is_set():
            return
        self._tell(f"{place.site.name} is away ({why}): its work is done elsewhere until it is back")
        threading.Thread(target=self._await, args=(place,), name=f"await {place.site.name}", daemon=True).start()

    def _await(self, place: Place) -> None:
        """Try again at intervals, until the site is back or the pool is closed."""
        for pause in itertools.chain(PAUSES, itertools.repeat(PAUSES[-1])):
            if self._closed.wait(pause):
                return
            try:
                back = place.site.returned()
                images = place.site.images() if back else set()
            except Exception as error:
                logger.info("%s is not back: %s", place.site.name, in_one_line(error))
                continue
            if back:
                break
        with self._changed:
            place.up, place.images = True, images
            self._changed.notify_all()
        self._tell(f"{place.site.name} is back")


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """Distribute `total` slots in proportion to `weights`, at least one each."""
    return [max(1, round(total * weight / sum(weights))) for weight in weights]
