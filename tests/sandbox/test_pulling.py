"""Pulling without an engine: what ends it, and what asks for it twice."""

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from aem_harness.harness.sandbox import fetch, images
from aem_harness.harness.sandbox.images import names_of
from aem_harness.harness.sandbox.pull import NoImage, Pull, PullEnded, RegistryAway


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


DIGEST = "sha256:" + "1" * 64


def test_a_fault_of_a_mirror_names_the_image_as_the_task_does():
    """By that name the losses to one image are one; under the mirror's, a missing image with many seeds ended a run."""
    for pull in (Pull("x/y:1", mirror="m.local:5000/hub"), Pull("x/y:1", mirror="m.local:5000/hub", digest=DIGEST)):
        fault = pull._why("manifest unknown")
        assert isinstance(fault, NoImage)
        assert "image x/y:1 is neither in the engine nor in its registry" in str(fault)
        assert "asked for as m.local:5000/hub/x/y" in str(fault)
    assert "asked for as" not in str(Pull("x/y:1", mirror="")._why("manifest unknown"))


def test_an_image_that_is_named_by_its_digest_is_not_downloaded_from_a_mirror_in_vain():
    """The engine finds a digest under the name of where it came from alone: the image came, and was not found."""
    with pytest.raises(NoImage, match="set the mirror in the engine"):
        Pull(f"x/y@{DIGEST}", mirror="m.local").run()


@pytest.mark.parametrize(
    ("name", "mirror", "tags", "digests", "last"),
    [
        ("x/y:1", "", ["x/y:1"], [f"x/y@{DIGEST}"], [f"x/y@{DIGEST}", "x/y:1"]),
        (
            "x/y:1",
            "m:5/h",
            ["x/y:1", "m:5/h/x/y:1"],
            [f"m:5/h/x/y@{DIGEST}"],
            ["m:5/h/x/y:1", f"m:5/h/x/y@{DIGEST}", "x/y:1"],
        ),
        ("x/y", "m:5", ["x/y:latest", "m:5/x/y:latest"], [], ["m:5/x/y:latest", "x/y"]),
        ("x/y:1", "m:5", ["x/y:1", "mine/x/y:1", "m:5/x/y:2"], [f"mine/x/y@{DIGEST}"], ["x/y:1"]),
        (f"x/y@{DIGEST}", "", [], [f"x/y@{DIGEST}"], [f"x/y@{DIGEST}"]),
    ],
)
def test_the_names_that_hold_an_image_are_those_of_its_pull_and_no_person_s(name, mirror, tags, digests, last):
    image = SimpleNamespace(attrs={"RepoTags": tags, "RepoDigests": digests})
    assert names_of(image, name, mirror) == last
