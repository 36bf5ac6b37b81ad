"""Many images ahead of any run: what cannot be had is named, and keeps nobody else; ended at once on an interrupt."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aem_harness.harness.errors import AemError, DiskFault, EnvironmentFault
from aem_harness.harness.sandbox.images import ensure_image, find, ref_of
from aem_harness.harness.sandbox.pull import Pull, PullEnded, RegistryAway
from aem_harness.harness.types import ImageRef, Task

PATIENCE = 1800.0  # seconds that a registry may be away
PAUSES = (1.0, 30.0)  # seconds between tries: the first, and the longest, doubled each time


@dataclass(frozen=True)
class Fetched:
    """An image of a task set, or why it could not be had."""

    name: str
    ref: ImageRef | None = None
    why: str = ""


class Fetcher:
    """Fetches images with several workers, from a `mirror` as `Pull` does.

    `say` is told what is being done, `tell` each image that is done with.
    """

    def __init__(
        self,
        *,
        workers: int,
        mirror: str | None = None,
        patience: float = PATIENCE,
        say: Callable[[str], None] = lambda line: None,
        tell: Callable[[Fetched], None] = lambda done: None,
    ) -> None:
        self._workers, self._mirror, self._patience, self._say, self._tell = workers, mirror, patience, say, tell
        self._stop = threading.Event()
        self._pulls: set[Pull] = set()
        self._full = ""

    def fetch(self, tasks: Sequence[Task]) -> list[Fetched]:
        """All of them, in their order. On an interrupt the pulls end at once, and what is here stays."""
        todo: queue.SimpleQueue[Task] = queue.SimpleQueue()
        done: queue.SimpleQueue[Fetched] = queue.SimpleQueue()
        each = {task.instance.image: task for task in tasks}
        for task in each.values():
            todo.put(task)

        def work() -> None:
            while not self._stop.is_set():
                try:
                    task = todo.get_nowait()
                except queue.Empty:
                    return
                done.put(self._one(task))

        for _ in range(self._workers):
            threading.Thread(target=work, name="fetch", daemon=True).start()
        found: dict[str, Fetched] = {}
        try:
            while len(found) < len(each):
                try:
                    one = done.get(timeout=0.2)  # so that an interrupt is heard
                except queue.Empty:
                    continue
                found[one.name] = one
                self._tell(one)
        finally:
            self._stop.set()
            for pull in list(self._pulls):
                pull.end()
        return [found[task.instance.image] for task in tasks]

    def _one(self, task: Task) -> Fetched:
        name = task.instance.image
        try:
            if task.dockerfile:
                return Fetched(name, ensure_image(task, say=self._say))
            if find(name) is not None:
                return Fetched(name, ref_of(name, "local"))
            if self._full:
                return Fetched(name, why=self._full)
            self._pull(name)
            return Fetched(name, ref_of(name, "pulled"))
        except DiskFault as fault:
            self._full = str(fault)
            return Fetched(name, why=str(fault))
        except AemError as fault:
            return Fetched(name, why=str(fault))
        except Exception as error:
            return Fetched(name, why=f"unexpected {error!r}")

    def _pull(self, name: str) -> None:
        began, (pause, longest) = time.monotonic(), PAUSES
        while True:
            pull = Pull(name, mirror=self._mirror, say=self._say)
            self._pulls.add(pull)
            try:
                if self._stop.is_set():
                    raise PullEnded(f"the pull of {name} was ended")
                pull.run()
                return
            except RegistryAway as fault:
                if time.monotonic() - began + pause > self._patience:
                    raise EnvironmentFault(f"{fault}, for {self._patience:.0f} s") from None
                self._say(f"{fault}: again in {pause:.0f} s")
                self._stop.wait(pause)
                pause = min(longest, 2 * pause)
            finally:
                self._pulls.discard(pull)
