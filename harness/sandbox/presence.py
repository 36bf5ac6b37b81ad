"""Notices that an engine goes away, also when it is back a second later: what ran there then is lost, whatever it says.

The engine's own stream of events is kept open, filtered so that nothing comes through it: it ends when the engine does.
A host that is switched off ends nothing, so the engine is asked again every few seconds.
"""

import logging
import threading
from collections.abc import Callable

from aem_harness.harness.sandbox.engine import Engine

logger = logging.getLogger(__name__)

SECONDS = 5.0  # how long one look at the stream lasts
NOTHING = {"label": "aem.nothing-bears-this-label"}


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
        while not self._closed.is_set():
            if self._until_it_ends():
                self._engine.gone = False
                continue
            if not self._engine.gone and not self._closed.is_set():
                self._engine.losses, self._engine.gone = self._engine.losses + 1, True
                logger.warning("%s is gone", self._engine)
                self._on_loss()
            self._closed.wait(1.0)

    def _until_it_ends(self) -> bool:
        """Look for some seconds; whether the engine was there all the time."""
        from docker.errors import DockerException
        from requests.exceptions import RequestException

        from aem_harness.harness.errors import AemError

        try:
            client = self._engine.connect(timeout=SECONDS)
            try:
                for _ in client.api.events(filters=NOTHING, decode=True):
                    pass
                return False  # the stream ended
            finally:
                client.close()
        except RequestException as error:
            return "read timed out" in str(error).lower()  # nothing happened for `SECONDS`, as is meant
        except (DockerException, AemError, OSError):
            return False


def answers(engine: Engine, seconds: float = SECONDS) -> bool:
    """Does the engine answer now?"""
    try:
        engine.connect(timeout=seconds).close()
        return True
    except Exception:  # of docker-py, requests, ssh: whatever it is, it does not
        return False
