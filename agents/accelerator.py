"""The time of a server's GPUs, divided among the requests that it works on."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Charge:
    """What a request is charged once it has ended; None where the server's GPUs are not known."""

    gpu_seconds: float | None = None


class GpuClock:
    """At every moment each of the n requests in flight is charged 1/n of the server's `gpus`.

    So the requests of a run add up to GPUs times the time in which any of them was in flight: what a dedicated server
    spent on the run, idle times left out. Requests that queue at the server count as in flight; requests of other
    clients are not seen. Exact, in O(1) a request: the integral of 1/n is kept, and a request is charged what it grew.
    """

    def __init__(self, gpus: float | None, now: Callable[[], float] = time.monotonic) -> None:
        self._gpus = gpus
        self._now = now
        self._lock = threading.Lock()
        self._in_flight = 0
        self._integral = 0.0
        self._at = now()

    @contextmanager
    def request(self) -> Iterator[Charge]:
        """A request is in flight inside the block; its charge is known after it, however it ended."""
        charge, mark = Charge(), self._moved(1)
        try:
            yield charge
        finally:
            share = self._moved(-1) - mark
            charge.gpu_seconds = None if self._gpus is None else self._gpus * share

    def _moved(self, change: int) -> float:
        with self._lock:
            now = self._now()
            if self._in_flight:
                self._integral += (now - self._at) / self._in_flight
            self._at = now
            self._in_flight += change
            return self._integral
