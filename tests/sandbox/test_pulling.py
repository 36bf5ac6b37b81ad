"""Pulling without an engine: what ends it, and what asks for it twice."""

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from aem_harness.harness.sandbox import fetch, images
from aem_harness.harness.sandbox.pull import Pull, PullEnded, RegistryAway


def test_the_end_of_a_run_ends_pulls_and_the_wait_for_a_registry_that_limits_them(monkeypatch: pytest.MonkeyPatch):
    """Ctrl-C in a run on several engines waited for minutes."""

    class Limited(Pull):
        def run(self) -> None:
            raise RegistryAway("the registry's pull limit is reached")

    def say(line: str) -> None:
        assert "waiting" in line
        threading.Timer(0.1, images.end_pulls).start()

    monkeypatch.setattr(images, "Pull", Limited)
    monkeypatch.setattr(images, "PULL_PAUSE", 600.0)
    began = time.monotonic()
    with pytest.raises(PullEnded):
        images._pull("x:1", None, say)
    assert time.monotonic() - began < 120
    assert images._pulls == set()


def test_an_image_of_several_tasks_is_fetched_once(monkeypatch: pytest.MonkeyPatch):
    """The second one was waited for, for ever."""
    task: Any = SimpleNamespace(dockerfile=None, instance=SimpleNamespace(image="x:1"))
    monkeypatch.setattr(fetch, "find", lambda name: object())
    monkeypatch.setattr(fetch, "ref_of", lambda name, source: None)
    found: list[Any] = []
    fetching = threading.Thread(target=lambda: found.extend(fetch.Fetcher(workers=2).fetch([task, task])), daemon=True)
    fetching.start()
    fetching.join(60)
    assert [one.name for one in found] == ["x:1", "x:1"]
