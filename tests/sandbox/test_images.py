"""Images on the real engine: built when their recipe changed, pulled from a real registry, removed by task set."""

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.errors import EnvironmentFault
from aem_harness.harness.instances.rows import parse_row
from aem_harness.harness.sandbox import build
from aem_harness.harness.sandbox.engine import client
from aem_harness.harness.sandbox.images import ensure_image, local_images, prune
from aem_harness.harness.types import Task
from aem_harness.harness.web import reserve_port

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("base")]

ROW = {
    "instance_id": "here__box-1",
    "repo": "here/box",
    "base_commit": "0" * 40,
    "problem_statement": "It is broken.",
    "patch": "diff",
    "test_patch": "diff",
    "FAIL_TO_PASS": '["test_it"]',
    "PASS_TO_PASS": "[]",
    "eval_script": "true",
    "log_parser": "pytest",
    "eval_type": "pass_and_fail",
}


@pytest.fixture
def name() -> Iterator[str]:
    """The name of an image of this test alone, removed when it ends."""
    made = f"aem/test-image-{uuid4().hex[:12]}:now"
    yield made
    for tag in (made, f"{made}-below"):
        subprocess.run(["docker", "image", "rm", "--force", tag], capture_output=True)


@pytest.fixture
def task(name: str, tmp_path: Path) -> Task:
    """A task whose image is built here from a folder beside its rows; no other tag names it, left by a killed test."""
    recipe(tmp_path / "box", f"LABEL aem.test={name}", "RUN echo one > /content")
    return parse_row(ROW | {"image": name, "dockerfile": "box"}, folder=tmp_path)


def recipe(folder: Path, *steps: str, parent: str = build.BASE) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "Dockerfile").write_text("\n".join([f"FROM {parent}", *steps]) + "\n")
    return folder


def content(image: str) -> str:
    return client().containers.run(image, ["cat", "/content"], remove=True, labels={"aem.test": "1"}).decode()


def test_an_image_is_built_once_and_again_when_its_recipe_changed(task: Task, name: str, tmp_path: Path) -> None:
    first = ensure_image(task)
    assert (first.source, content(name)) == ("built", "one\n")
    said: list[str] = []
    assert ensure_image(task, say=said.append).digest == first.digest
    assert said == []
    recipe(tmp_path / "box", "RUN echo two > /content")
    second = ensure_image(task, say=said.append)
    assert (second.digest != first.digest, content(name)) == (True, "two\n")
    assert said == [f"building {name}"]


def test_an_image_is_built_again_when_the_recipe_of_its_parent_changed(name: str, tmp_path: Path) -> None:
    below, above = tmp_path / "below", recipe(tmp_path / "above", "RUN echo two >> /content", parent=f"{name}-below")
    for line in ("one", "ONE"):
        build.build_folder(recipe(below, f"RUN echo {line} > /content"), f"{name}-below")
        build.build_folder(above, name)
        assert content(name) == f"{line}\ntwo\n"


def test_those_who_want_the_same_image_at_once_wait_for_one_build(task: Task, name: str) -> None:
    said: list[str] = []
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda _: ensure_image(task, say=said.append), range(4)))
    assert len({image.digest for image in images}) == 1
    assert said == [f"building {name}"]


def test_a_failing_step_is_told_with_the_end_of_its_log(name: str, tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(
        EnvironmentFault, match=r"(?s)building .* failed: .*code: 7; the log ends: .*no such luck"
    ) as error:
        build.build_folder(recipe(tmp_path / "box", "RUN echo no such luck && exit 7"), name, said.append)
    assert error.value.boundary == "environment"
    assert said == [f"building {name}"]


def test_a_build_that_the_network_failed_is_tried_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "WAITS", (0.0, 0.0))
    said: list[str] = []
    with pytest.raises(EnvironmentFault, match="Could not resolve host"):
        build.build_folder(recipe(tmp_path / "box", "RUN echo Could not resolve host && exit 1"), name, said.append)
    assert said == [f"building {name}", *[f"building {name} again in 0 s, the network failed"] * 2]


def test_images_are_listed_and_removed_by_task_set(task: Task, name: str, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(ROW | {"image": name, "dockerfile": "box"}) + "\n")

    def aem(*words: str) -> str:
        done = CliRunner().invoke(app, ["images", *words, "--set", str(rows)])
        assert done.exit_code == 0, done.output
        return done.output

    assert "0 of 1 images" in aem("list")
    assert name in aem("build")
    assert "1 of 1 images" in aem("list")
    assert [(image.name, image.built_here) for image in local_images([task])] == [(name, True)]
    assert "removed 1 of the images" in aem("prune")
    assert local_images([task]) == []


def test_an_image_in_use_stays(task: Task, name: str) -> None:
    ensure_image(task)
    container = client().containers.run(name, ["sleep", "60"], detach=True, labels={"aem.test": "1"})
    try:
        assert prune([task]) == []
    finally:
        container.remove(force=True)
    assert prune([task], dry_run=True) == [name]
    assert prune([task]) == [name]


def test_images_of_an_earlier_recipe_go_with_the_whole_set_alone(task: Task, name: str) -> None:
    ensure_image(task)
    earlier = name.replace(":now", ":before")
    client().images.get(name).tag(earlier)
    assert prune([task], dry_run=True) == [name]
    assert prune([task], whole=True) == [name, earlier]
    assert prune([task], whole=True) == []


# --- a registry ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real registry (Debian's docker-registry) of this test; skips where it is not installed."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("no registry to pull from: apt-get install docker-registry")
    folder = tmp_path_factory.mktemp("registry")
    kept = reserve_port()
    address = f"127.0.0.1:{kept.getsockname()[1]}"
    settings = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": address},
    }
    (folder / "config.yml").write_text(json.dumps(settings))  # JSON is YAML
    process = subprocess.Popen([program, "serve", str(folder / "config.yml")])
    try:
        wait_for(lambda: urllib.request.urlopen(f"http://{address}/v2/", timeout=1).status == 200)
        yield address
    finally:
        process.terminate()
        process.wait()
        kept.close()


def wait_for(answers: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if answers():
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


@pytest.mark.slow
def test_an_image_that_is_not_here_is_pulled_with_its_digest(registry: str, name: str, tmp_path: Path) -> None:
    published = f"{registry}/{name}"
    folder = recipe(tmp_path / "box", "RUN echo pulled > /content", parent=build.DEBIAN)
    client().images.build(path=str(folder), tag=published, labels={build.RECIPE: ""})  # as if somebody else had
    pushed = client().images.push(published)
    assert "sha256:" in pushed, pushed
    client().images.remove(published)
    task = parse_row(ROW | {"image": published})
    with pytest.raises(EnvironmentFault, match="is not in the engine; get it with: aem images pull"):
        ensure_image(task, pull=False)
    image = ensure_image(task)
    try:
        assert (image.source, content(published)) == ("pulled", "pulled\n")
        assert image.digest in pushed
        assert ensure_image(task).source == "local"
    finally:
        client().images.remove(published, force=True)


def test_an_image_that_is_nowhere_is_an_infrastructure_fault_in_one_line(registry: str) -> None:
    task = parse_row(ROW | {"image": f"{registry}/aem/never-pushed:1"})
    with pytest.raises(EnvironmentFault, match="neither in the engine nor in its registry") as error:
        ensure_image(task)
    assert "\n" not in str(error.value)


def test_a_registry_that_does_not_answer_is_an_infrastructure_fault_in_one_line() -> None:
    task = parse_row(ROW | {"image": "127.0.0.1:9/aem/unreachable:1"})
    with pytest.raises(EnvironmentFault, match="cannot be pulled: ") as error:
        ensure_image(task)
    assert "\n" not in str(error.value)
