"""What the look at an image before the first rollout says, and what it leaves to the run; no engine is needed."""

from types import SimpleNamespace

import pytest

from aem_harness.api.running import Selection, require
from aem_harness.api.sites import Where
from aem_harness.harness import preflight
from aem_harness.harness.config import Limits, RunConfig
from aem_harness.harness.errors import EnvironmentFault
from aem_harness.harness.instances.load import load
from aem_harness.harness.preflight import unusable


@pytest.mark.parametrize(
    ("its", "starts", "said"), [("arm64", False, True), ("arm64", True, False), ("amd64", False, False)]
)
def test_an_image_for_another_architecture_is_named_where_it_starts_no_container(
    monkeypatch: pytest.MonkeyPatch, its: str, starts: bool, said: bool
) -> None:
    """Every rollout was lost to a container that died at once; with an emulator such images work."""

    def look(task: object, limits: object) -> list[object]:
        if starts:
            return []
        raise EnvironmentFault("the container died: exit code 1")

    monkeypatch.setattr(preflight, "look", look)
    monkeypatch.setattr(preflight, "ensure_image", lambda task, mirror: SimpleNamespace(source="local"))
    monkeypatch.setattr(preflight, "find", lambda name: SimpleNamespace(id="1", attrs={"Architecture": its}))
    monkeypatch.setattr(preflight, "architecture", lambda: "amd64")
    why = unusable(load("tiny").tasks[:1], Limits())
    assert ("the image is for arm64, and the engine for amd64; take images for amd64" in why) == said
    assert bool(why) == said


def test_an_image_that_another_run_removes_during_the_look_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended the command with a traceback."""
    monkeypatch.setattr(preflight, "ensure_image", lambda task, mirror: SimpleNamespace(source="pulled"))
    monkeypatch.setattr(preflight, "find", lambda name: None)

    def look(task: object, limits: object) -> list[object]:
        raise EnvironmentFault("cannot start a container: no such image")

    monkeypatch.setattr(preflight, "look", look)
    monkeypatch.setattr(preflight, "architecture", lambda: "amd64")
    assert unusable(load("tiny").tasks[:1], Limits()) == ""


@pytest.mark.parametrize("built", [True, False])
def test_an_engine_that_is_gone_at_the_look_is_left_to_the_run_which_waits_for_it_or_works_elsewhere(
    built: bool,
) -> None:
    tasks = [task if built else task.model_copy(update={"dockerfile": None}) for task in load("tiny").tasks[:3]]
    selection = Selection(tasks, load("tiny"))
    where = Where(("unix:///nowhere/docker.sock", "unix:///var/run/docker.sock"))
    require(selection, [task.instance_id for task in tasks], RunConfig(arm="a", agent="gold"), where)
