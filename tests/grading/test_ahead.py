"""Gradings whose containers are opened ahead and removed behind, while others run tests."""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from aem_harness.harness.config import RunConfig
from aem_harness.harness.grading import official
from aem_harness.harness.instances.load import load
from aem_harness.harness.run import places
from aem_harness.harness.run.identity import Identity
from aem_harness.harness.run.places import Containers, GradingTurn
from aem_harness.harness.types import Grade, Observation, Outcome, Prediction, Task

PATIENCE = 60


class Box:
    """An environment in which every command succeeds; the eval script waits until it may end."""

    def __init__(self, may_end: threading.Event) -> None:
        self.testing, self.may_end = threading.Event(), may_end

    def execute(self, command: str, *, timeout: float = 60.0, cwd: str | None = None) -> Observation:
        if "/eval.sh" in command:
            self.testing.set()
            assert self.may_end.wait(PATIENCE)
        return Observation(output="", returncode=0, seconds=0.0)

    def write_file(self, path: str, data: bytes) -> None: ...

    def read_file(self, path: str) -> bytes:
        return b""

    def diff(self) -> str:
        return ""


class Opener:
    """Opens a box; says when it is open, and holds back its removal until that may end."""

    def __init__(self, *, removable: bool = True, ends: bool = True) -> None:
        self.open, self.removing = threading.Event(), threading.Event()
        self.may_go, may_end = threading.Event(), threading.Event()
        self.box = Box(may_end)
        if removable:
            self.may_go.set()
        if ends:
            may_end.set()

    @contextmanager
    def __call__(self) -> Iterator[Box]:
        self.open.set()
        yield self.box
        self.removing.set()
        assert self.may_go.wait(PATIENCE)


@pytest.fixture(scope="module")
def task() -> Task:
    return load("tiny").tasks[0]


def test_the_next_container_is_open_before_its_turn_and_a_removal_keeps_no_turn(task):
    turns = threading.Semaphore(1)
    first, second = Opener(ends=False, removable=False), Opener()

    def grade(opener: Opener) -> object:
        return official.try_patch(task, task.patch, opener, 60, turn=GradingTurn(turns))

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(grade, first)
        assert first.box.testing.wait(PATIENCE)
        two = pool.submit(grade, second)
        assert second.open.wait(PATIENCE), "opened while the first one runs its tests"
        assert not second.box.testing.is_set(), "but its tests wait"
        first.box.may_end.set()
        assert first.removing.wait(PATIENCE)
        two.result(PATIENCE)
        assert not one.done(), "the second one was graded while the first container was removed"
        first.may_go.set()
        one.result(PATIENCE)


def test_at_most_one_container_is_opened_ahead_for_each_grading_that_runs():
    containers = Containers(Identity(RunConfig(arm="a"), {}, ""))
    assert containers.ahead(3) == 6


def test_the_seconds_of_a_grading_leave_out_what_it_waited_for_its_turn(task, tmp_path, monkeypatch):
    def grade(task: Task, prediction: Prediction, *, turn: GradingTurn, **_: Any) -> Grade:
        with turn:
            turn.waited += 2.0
        return Grade(instance_id=task.instance_id, outcome=Outcome.RESOLVED, seconds=5.0)

    monkeypatch.setattr(places.official, "grade", grade)
    containers = Containers(Identity(RunConfig(arm="a"), {}, ""))
    monkeypatch.setattr(containers, "image", lambda task: nullcontext(""))
    prediction = Prediction(instance_id=task.instance_id, model_name_or_path="gold", model_patch=task.patch)
    left: Mapping[str, str | None] | None = None
    assert 2.5 < containers.grade(task, prediction, Path(tmp_path), left).seconds <= 3.0


def test_a_turn_is_given_back_when_a_container_fails(task):
    turns = threading.Semaphore(1)

    @contextmanager
    def failing() -> Iterator[Any]:
        yield None  # no environment: the first step raises

    with pytest.raises(AttributeError):
        official.try_patch(task, task.patch, failing, 60, turn=GradingTurn(turns))
    assert turns.acquire(blocking=False)
