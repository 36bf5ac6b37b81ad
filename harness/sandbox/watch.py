"""The engine as a service that may be away: whether containers can start, and the moment it breaks off."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from aem_harness.harness.sandbox.engine import explained
from aem_harness.harness.sandbox.reaping import remove_left
from aem_harness.harness.sandbox.trial import why_no_start

RECONNECT = 1.0  # seconds before the engine's events are asked for again
A_WEEK = 7 * 24 * 3600


class Engine:
    """The engine that this process's clients talk to."""

    name = "the container engine"
    remedy = "start or repair it (docker info says whether it answers)"

    def probe(self) -> str:
        """Why no container starts; empty where one does."""
        return why_no_start()

    @contextmanager
    def watch(self, broke: Callable[[str], None]) -> Iterator[None]:
        """Follow the engine's events: their stream ends when it does, so that even a short restart is known."""
        watcher = _Watcher(broke)
        watcher.start()
        try:
            yield
        finally:
            watcher.end()

    def recovered(self) -> None:
        remove_left()


class _Watcher(threading.Thread):
    def __init__(self, broke: Callable[[str], None]) -> None:
        super().__init__(name="engine watch", daemon=True)
        self._broke = broke
        self._over = threading.Event()
        self._stream: object = None

    def run(self) -> None:
        while not self._over.is_set():
            if why := self._follow():
                if self._over.is_set():
                    return
                self._broke(why)
            self._over.wait(RECONNECT)

    def _follow(self) -> str:
        """Read events until the stream ends; why it did, empty when it never began."""
        import docker
        from docker.errors import DockerException

        try:
            # A connection of its own, without a time-out: a quiet engine says nothing for hours.
            engine = docker.from_env(timeout=A_WEEK)
            self._stream = stream = engine.events(filters={"type": "daemon"})
        except (DockerException, OSError):
            return ""
        try:
            for _ in stream:
                pass
            return "its stream of events ended"
        except Exception as error:
            return explained(error)
        finally:
            with suppress(Exception):
                engine.close()

    def end(self) -> None:
        self._over.set()
        with suppress(Exception):
            self._stream.close()  # type: ignore[attr-defined]
