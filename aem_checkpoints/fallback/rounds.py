"""Requests that wait, decoded together: a small model costs as much for many rows as for one."""

import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from aem_harness.aem_checkpoints.fallback.decoding import Ask, Decoded, answer
from aem_harness.aem_checkpoints.fallback.models import ServedModel

ROWS = 64  # in one round


@dataclass(frozen=True, eq=False)
class Waiting:
    served: ServedModel
    ask: Ask
    future: Future[Decoded] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


class Rounds:
    """Asks come in from any thread; `run` decodes them in its own, one model and at most `ROWS` of them at a time."""

    def __init__(self) -> None:
        self._arriving: SimpleQueue[Waiting] = SimpleQueue()

    def ask(self, served: ServedModel, ask: Ask) -> Decoded:
        """Wait for the answer; raises what decoding raised."""
        waiting = Waiting(served, ask)
        self._arriving.put(waiting)
        return waiting.future.result()

    def run(self) -> None:
        held: list[Waiting] = []
        while True:
            held += self._arrived(wait=not held)
            served = held[0].served
            now = [one for one in held if one.served is served][:ROWS]
            held = [one for one in held if one not in now]
            began = time.monotonic()
            try:
                replies = answer(served.model, served.tokenizer, served.ends, [one.ask for one in now])
            except Exception as error:
                for one in now:
                    one.future.set_exception(error)
            else:
                for one, reply in zip(now, replies, strict=True):
                    reply.queue_seconds = began - one.since
                    one.future.set_result(reply)

    def _arrived(self, *, wait: bool) -> Iterator[Waiting]:
        if wait:
            yield self._arriving.get()
        while True:
            try:
                yield self._arriving.get_nowait()
            except Empty:
                return
