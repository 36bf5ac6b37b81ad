"""Many containers that are wanted at once are started a few at a time."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from aem_harness.harness.errors import EnvironmentFault
from aem_harness.harness.sandbox.container import Sandbox
from aem_harness.harness.sandbox.engine import STARTS, Engine, at


class Unmade(Sandbox):
    """A container whose making takes until `STARTS` of them are being made, and fails."""

    lock = threading.Lock()
    now = most = made = 0
    full = threading.Event()

    def _create(self):
        kind = type(self)
        with self.lock:
            kind.made += 1
            kind.now += 1
            kind.most = max(kind.most, kind.now)
            if kind.now == STARTS:
                self.full.set()
        assert self.full.wait(60)
        with self.lock:
            kind.now -= 1
        raise EnvironmentFault("no container today")


def opened(engine, box):
    with at(engine), pytest.raises(EnvironmentFault) as fault, box:
        pass
    return str(fault.value)


def test_no_more_than_a_few_start_at_a_time():
    engine = Engine("unix:///nowhere/docker.sock")
    with at(engine):
        boxes = [Unmade("none") for _ in range(3 * STARTS)]
    with ThreadPoolExecutor(len(boxes)) as threads:
        ends = list(threads.map(lambda box: opened(engine, box), boxes))
    assert all("no container today" in end for end in ends)
    assert Unmade.most == STARTS


def test_a_container_that_is_closed_while_it_waits_for_its_turn_is_never_made():
    engine, made = Engine("unix:///nowhere/docker.sock"), Unmade.made
    with at(engine):
        box = Unmade("none")
    for _ in range(STARTS):
        engine.starting.acquire()
    with ThreadPoolExecutor(1) as threads:
        end = threads.submit(opened, engine, box)
        Sandbox.close_all(engine)
        box.close()  # also where it had not even begun to wait
        engine.starting.release()
        assert "closed" in end.result(timeout=60)
    assert Unmade.made == made
