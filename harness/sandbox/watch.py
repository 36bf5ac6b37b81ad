"""Is an engine available: can containers start, and when did it break off, even if it is back a second later?

The engine's own stream of events is kept open, filtered so that nothing comes through it: it ends when the engine does.
A host that is switched off ends nothing, so the stream is opened again every few seconds.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aem_harness.harness.sandbox.engine import Engine, current
from aem_harness.harness.sandbox.reaping import remove_left
from aem_harness.harness.sandbox.trial import why_no_start

logger = logging.getLogger(__name__)

SECONDS = 5.0  # how long one look at the stream lasts
ANSWER = 30.0  # seconds until an engine that does not answer counts as gone: a busy one is slow
RECONNECT = 1.0  # seconds between looks at an engine that is gone
NOTHING = '{"label": ["aem.nothing-bears-this-label"]}'


class EngineService:
    """The engine that this process's clients use, as a service that a run may have to wait for."""

    name = "the container engine"
    remedy = "start or repair it (docker info says whether it answers)"

    def probe(self) -> str:
        """Why no container starts; empty if one does."""
        return why_no_start()

    @contextmanager
    def watch(self, broke: Callable[[str], None]) -> Iterator[None]:
        """Inside the block `broke(why)` is called, from another thread, whenever the engine breaks off."""
        watch = Watch(current(), lambda: broke("its stream of events ended"))
        try:
            yield
        finally:
            watch.close()
            remove_left()  # of threads that found out only after the recovery

    def recovered(self) -> None:
        current().gone = False  # the watch finds that out some seconds later; until then no container would be removed
        remove_left()


class Watch:
    """Counts the `losses` of an engine, from a thread of its own, until closed; `on_loss` is called after each."""

    def __init__(self, engine: Engine, on_loss: Callable[[], None] = lambda: None) -> None:
        self._engine, self._on_loss = engine, on_loss
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look, name=f"watch {engine}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()

    def _look(self) -> None:
        gone = False
        while not self._closed.is_set():
            if self._until_it_ends():
                gone = self._engine.gone = False
                continue
            if not gone and not self._closed.is_set():
                gone = self._engine.gone = True
                self._engine.losses += 1
                logger.warning("%s is gone", self._engine)
                self._on_loss()
            self._closed.wait(RECONNECT)

    def _until_it_ends(self) -> bool:
        """Look for some seconds; whether the engine was there all the time."""
        from docker.errors import DockerException
        from requests.exceptions import RequestException

        from aem_harness.harness.errors import AemError

        try:
            client = self._engine.connect(timeout=ANSWER)
            api: Any = client.api
            try:
                # docker-py's own `events` takes no time-out, and would wait for ever for a host that is switched off.
                stream = api._get(api._url("/events"), params={"filters": NOTHING}, stream=True, timeout=SECONDS)
                for _ in stream.iter_content(1):
                    pass
                return False  # the stream ended
            finally:
                client.close()
        except RequestException as error:
            return "read timed out" in str(error).lower()  # nothing happened for `SECONDS`, as is meant
        except (DockerException, AemError, OSError):
            return False


def answers(engine: Engine) -> bool:
    """Does the engine answer now?"""
    try:
        engine.connect(timeout=ANSWER).close()
        return True
    except Exception:  # of docker-py, requests or ssh: any error means that it does not
        return False
