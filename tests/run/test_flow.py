"""Images that a run fetches as it needs them, from a real registry whose link is slow, or away for a while."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from aem_harness.api.running import Selection, open_run
from aem_harness.cli import app
from aem_harness.harness.config import RunConfig
from aem_harness.harness.errors import ConfigError
from aem_harness.harness.grading import official
from aem_harness.harness.grading.regrade import Regrade, digest_of
from aem_harness.harness.instances.load import load
from aem_harness.harness.run import auditing, flow, outages
from aem_harness.harness.run.flow import Supply, size_of
from aem_harness.harness.run.identity import Identity
from aem_harness.harness.run.outages import Breaker
from aem_harness.harness.run.places import Containers
from aem_harness.harness.run.runner import Runner
from aem_harness.harness.run.store import RunStore, read_journal
from aem_harness.harness.sandbox.engine import client
from aem_harness.harness.sandbox.images import local_images
from aem_harness.harness.sandbox.pull import split
from aem_harness.harness.types import Grade, Outcome, Task
from benchmarks.link import Link, registry
from tests.run.faulty import Doubler, Folders, Injector

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("engine")]

SIZE = 1_000_000  # bytes of an image; they share no layer


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Link]:
    try:
        with registry(tmp_path_factory.mktemp("registry")) as made:
            yield made
    except FileNotFoundError as error:
        pytest.skip(str(error))


def ballast() -> bytes:
    """The archive of an image with one file of random bytes."""
    archive, file = io.BytesIO(), tarfile.TarInfo("ballast")
    file.size = SIZE
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(file, io.BytesIO(os.urandom(SIZE)))
    return archive.getvalue()


@pytest.fixture
def images(link: Link, unique: Callable[[str], str]) -> Iterator[list[str]]:
    """Five images that are in the registry and not in the engine."""
    link.back()
    link.rate = None
    names = [f"{link.address}/aem/{unique('flow')}:1" for _ in range(5)]
    for name in names:
        # Imported with its name: what a build has not named yet may be removed by another test's clean-up.
        client().api.import_image_from_data(ballast(), *name.rsplit(":", 1))
        client().images.push(name)
        client().images.remove(name)
    yield names
    link.back()
    if left := sorted(on_disk(names)):
        subprocess.run(["docker", "image", "rm", "--force", *left], capture_output=True)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(outages, "FIRST_PAUSE", 0.2)
    monkeypatch.setattr(flow, "_flows", {})


class Pulled(Folders):
    """Folders for containers, and real images."""

    def __init__(self, store: RunStore, supply: Supply) -> None:
        super().__init__(Injector({}))
        self.containers = Containers(Identity.of(store.folder, store.config), supply)

    def services(self) -> Any:
        return self.containers.services()

    def supply(self, *how: Any) -> AbstractContextManager[None]:
        return self.containers.supply(*how)

    def image(self, task: Task) -> AbstractContextManager[str]:
        return self.containers.image(task)


class Looking(Doubler):
    """An agent that looks which of the images are here while it works."""

    def __init__(self, names: Sequence[str], seconds: float = 0.3) -> None:
        super().__init__(Injector({}))
        self.names, self.seconds, self.most = names, seconds, 0

    def run(self, instance: Any, environment: Any, record: Any, *, seed: int) -> Any:
        time.sleep(self.seconds)
        self.most = max(self.most, len(on_disk(self.names)))
        return super().run(instance, environment, record, seed=seed)


def here(names: Sequence[str]) -> set[str]:
    """Those of the images that are in the engine at one moment: asked for one by one, others come and go meanwhile."""
    return {tag for image in client().api.images() for tag in image.get("RepoTags") or ()} & set(names)


def on_disk(names: Sequence[str]) -> set[str]:
    """The ids of those images that the engine has, under whatever registry's name."""
    paths = {name.rpartition(":")[0].partition("/")[2] for name in names}

    def refers(image: Any) -> bool:
        known = [*(image.get("RepoTags") or ()), *(image.get("RepoDigests") or ())]
        return any(split(one)[0].partition("/")[2] in paths for one in known)

    return {image["Id"] for image in client().api.images() if refers(image)}


def mirrored(names: Sequence[str]) -> list[str]:
    """The same images by names of a registry that does not exist."""
    return [f"registry.example.invalid/{name.partition('/')[2]}" for name in names]


def tasks_of(names: Sequence[str]) -> Selection:
    loaded = load("sample")
    model = loaded.tasks[0]
    made = [
        model.model_copy(
            update={
                "dockerfile": None,
                "instance": model.instance.model_copy(update={"instance_id": f"x__y-{n}", "image": name}),
            }
        )
        for n, name in enumerate(names, start=1)
    ]
    return Selection(made, loaded)


def run(
    folder: Path,
    names: Sequence[str],
    supply: Supply,
    *,
    seeds: int = 2,
    hear: Callable[[str], object] = len,
    together: bool = True,
) -> tuple[Any, list[str]]:
    """Run it all, the rollouts of one instance `together`, or one seed after the other; the agent, and what was said of
    outages.

    `hear` is called with each line of the latter, when it is said.
    """
    selection, agent, said = tasks_of(names), Looking(names), list[str]()

    def say(line: str) -> None:
        said.append(line)
        hear(line)

    keys = [(task.instance_id, seed) for task in selection.tasks for seed in range(seeds)]
    keys = keys if together else sorted(keys, key=lambda key: key[1])
    with open_run(folder, RunConfig(arm="a", agent="doubler"), selection, agent, seeds) as store:
        tasks = {task.instance_id: task for task in selection.tasks}
        places = Pulled(store, supply)
        Runner(store, tasks, agent, workers=2, places=places, say=say).run(keys)
    return agent, said


def losses(folder: Path) -> set[str]:
    return {e["instance_id"] for e in read_journal(folder) if e["event"] == "rollout" and e["fault"]}


def graded(folder: Path) -> int:
    return sum(event["event"] == "grade" for event in read_journal(folder))


def test_a_run_stays_within_its_disk_budget_and_leaves_the_users_own_images(tmp_path, images):
    client().images.pull(images[2])  # the user's own
    agent, _ = run(tmp_path / "r", images, Supply(budget=3.2 * SIZE))
    assert graded(tmp_path / "r") == 10
    assert losses(tmp_path / "r") == set()
    assert 2 <= agent.most <= 3
    assert images[2] in here(images)

    order = [images[2], *images[:2], *images[3:]]
    agent, _ = run(tmp_path / "again", order, Supply(budget=3.2 * SIZE, others=True))
    assert graded(tmp_path / "again") == 10
    assert images[2] not in here(images), "it was allowed to go once it was done with"


def test_a_budget_holds_for_images_of_a_mirror_and_they_are_fetched_again_as_they_were(tmp_path, images, link):
    """They stayed under the mirror's name: nothing was freed. By its digest, none could be given its own name again."""
    names, before = mirrored(images), link.sent
    link.rate = 1e9
    agent, _ = run(tmp_path / "r", names, Supply(budget=2.2 * SIZE, mirror=link.address), together=False)
    assert graded(tmp_path / "r") == 10
    assert losses(tmp_path / "r") == set()
    assert agent.most <= 2
    assert len(on_disk(names)) <= 2
    assert link.sent - before > 7 * SIZE, "what had to go was fetched again"
    digests = {(e["instance_id"], e["image_digest"]) for e in read_journal(tmp_path / "r") if e["event"] == "rollout"}
    assert len(digests) == 5, "the same for both seeds"


def test_an_image_that_a_mirror_serves_otherwise_by_now_is_fetched_again_as_it_was(images, link):
    [task, other] = tasks_of(mirrored(images)[:2]).tasks
    stop = threading.Event()
    late = threading.Timer(60, stop.set)
    late.start()
    source = flow.ImageDemand(list, Breaker({}, patience=1.0), flow.ImageRegistries(), stop)
    with flow.Flow(Supply(budget=1.1 * SIZE, mirror=link.address)).join(source) as made:
        with made.hold(task, stop) as ref:
            first = ref
        repository, tag = images[0].rsplit(":", 1)
        client().api.import_image_from_data(ballast(), repository, tag)
        client().images.push(images[0])
        client().images.remove(images[0])
        with made.hold(other, stop):
            assert not here([task.instance.image])
        with made.hold(task, stop) as again:
            assert again == first
    late.cancel()


def test_a_budget_that_is_smaller_than_any_image_leaves_one_at_a_time(tmp_path, images):
    agent, _ = run(tmp_path / "r", images, Supply(budget=0.1 * SIZE))
    assert graded(tmp_path / "r") == 10
    assert losses(tmp_path / "r") == set()
    assert agent.most == 1


@pytest.mark.parametrize("command", ["regrade", "audit"])
def test_what_is_graded_again_heeds_mirror_and_budget_and_waits_for_the_registry(
    tmp_path, images, link, monkeypatch, command
):
    """Its images came from the public registry, or filled the disk."""
    names, budget = mirrored(images), 2.2 * SIZE
    run(tmp_path / "r", names, Supply(budget=budget, mirror=link.address), seeds=1)
    for name in on_disk(names):
        client().images.remove(name, force=True)
    seen: list[int] = []

    def grade(task: Task, prediction: Any, **_: Any) -> Grade:
        seen.append(len(on_disk(names)))
        return Grade(instance_id=task.instance_id, outcome=Outcome.RESOLVED)

    class Regrader:
        def __init__(self, task: Task, **_: Any) -> None: ...

        def regrade(self, patch: str, passed: Any) -> Regrade:
            seen.append(len(on_disk(names)))
            return Regrade(state="clean", patch_sha256=digest_of(patch))

    monkeypatch.setattr(official, "grade", grade)
    monkeypatch.setattr(auditing, "Regrader", Regrader)
    for report in (tmp_path / "r").glob("rollouts/*/*"):
        (report / "report.json").write_text("{}")
    monkeypatch.setattr(flow, "_flows", {})
    words = ["--canary", "1"] if command == "audit" else []
    words += ["--disk-budget", "2.2MB", "--mirror", link.address, "-w", "3"]
    link.away()
    before = link.refused

    def return_once_missed() -> None:
        while link.refused == before:
            time.sleep(0.05)
        time.sleep(0.5)
        link.back()

    threading.Thread(target=return_once_missed, daemon=True).start()
    dataset = rows(tmp_path / "rows.jsonl", names)
    done = CliRunner().invoke(app, [command, str(tmp_path / "r"), "--set", str(dataset), *words])
    assert done.exit_code == 0, done.output
    assert "the image registry is away" in done.output
    assert len(seen) == {"regrade": 5, "audit": 3}[command]
    assert 1 <= max(seen) <= 2
    assert len(on_disk(names)) <= 2


def test_without_a_budget_each_image_is_fetched_once_and_stays(tmp_path, images, link):
    link.rate, before = 1e9, link.sent
    run(tmp_path / "r", images, Supply(), seeds=3)
    assert graded(tmp_path / "r") == 15
    assert here(images) == set(images)
    assert 5 * SIZE <= link.sent - before < 6 * SIZE


def test_a_registry_that_is_away_for_some_seconds_is_waited_for(tmp_path, images, link):
    link.away()
    _, said = run(tmp_path / "r", images, Supply(), hear=lambda line: threading.Timer(2, link.back).start())
    assert graded(tmp_path / "r") == 10
    assert {event["attempt"] for event in read_journal(tmp_path / "r")} == {0}
    assert losses(tmp_path / "r") == set()
    assert "the image registry is away" in said[0]
    assert "the image registry is back" in said[1]


@pytest.mark.parametrize("by", ["registry", "mirror"])
def test_a_missing_image_costs_its_own_rollouts_alone_however_many_seeds(tmp_path, images, link, by):
    names = [f"{link.address}/aem/never-pushed:1", *images[:2]]
    supply = Supply(mirror=link.address) if by == "mirror" else Supply()
    run(tmp_path / "r", mirrored(names) if by == "mirror" else names, supply, seeds=8)
    assert losses(tmp_path / "r") == {"x__y-1"}
    assert graded(tmp_path / "r") == 16
    fault = next(event["fault"] for event in read_journal(tmp_path / "r") if event.get("fault"))
    assert fault["boundary"] == "environment"
    assert "is neither in the engine nor in its registry" in fault["message"]


def rows(path: Path, names: Sequence[str]) -> Path:
    import json

    row = json.loads((Path(load.__code__.co_filename).parent / "tiny" / "rows.jsonl").read_text().splitlines()[0])
    row = {key: value for key, value in row.items() if key != "dockerfile"}
    lines = [json.dumps({**row, "instance_id": f"x__y-{n}", "image": name}) for n, name in enumerate(names, start=1)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_pulling_goes_on_past_a_missing_image_and_lists_it(tmp_path, images, link):
    missing = f"{link.address}/aem/never-pushed:1"
    dataset = rows(tmp_path / "rows.jsonl", [missing, *images])
    done = CliRunner().invoke(app, ["images", "pull", "--set", str(dataset)])
    assert done.exit_code == 3
    assert f"failed  {missing}: image {missing} is neither" in done.output
    assert "1 of 6 images could not be fetched" in done.output
    assert here(images) == set(images)


@pytest.mark.parametrize("by", ["option", "variable", "run"])
def test_images_come_from_a_mirror_under_their_own_names(tmp_path, images, link, monkeypatch, by):
    owner, name = "registry.example.invalid", images[0].partition("/")[2]
    if by == "variable":
        monkeypatch.setenv("AEM_IMAGE_MIRROR", link.address)
    dataset = rows(tmp_path / "rows.jsonl", [f"{owner}/{name}"])
    words = ["--mirror", link.address] if by == "option" else []
    try:
        if by == "run":
            run(tmp_path / "r", [f"{owner}/{name}"], Supply(mirror=link.address), seeds=1)
            assert graded(tmp_path / "r") == 1
        else:
            done = CliRunner().invoke(app, ["images", "pull", "--set", str(dataset), *words])
            assert done.exit_code == 0, done.output
        assert len(local_images(tasks_of([f"{owner}/{name}"]).tasks)) == 1
    finally:
        subprocess.run(["docker", "image", "rm", "--force", f"{owner}/{name}"], capture_output=True)


def test_images_that_came_from_a_mirror_are_pruned_with_all_their_names(tmp_path, images, link):
    """They lost their own names alone, and stayed."""
    names = mirrored(images)
    dataset, mirror = str(rows(tmp_path / "rows.jsonl", names)), ["--mirror", link.address]
    assert CliRunner().invoke(app, ["images", "pull", "--set", dataset, *mirror]).exit_code == 0
    assert len(on_disk(names)) == 5
    done = CliRunner().invoke(app, ["images", "prune", "--set", dataset, *mirror])
    assert "removed 5 of the images" in done.output
    assert on_disk(names) == set()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["run", "pull", "regrade"])
def test_an_interrupt_during_pulls_is_heeded_at_once(tmp_path, images, link, command):
    if command == "regrade":
        run(tmp_path / "r", images, Supply(), seeds=1)
        for image in on_disk(images):
            client().images.remove(image, force=True)
    link.rate = 10_000  # an image takes 100 s
    dataset = rows(tmp_path / "rows.jsonl", images)
    words = {
        "run": ["run", "--agent", "gold", "--out", str(tmp_path / "r")],
        "pull": ["images", "pull"],
        "regrade": ["regrade", str(tmp_path / "r")],
    }[command]
    before = link.sent
    process = subprocess.Popen(
        [sys.executable, "-m", "aem_harness.cli", *words, "--set", str(dataset)],
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # type: ignore[arg-type, return-value]
    )
    try:
        while link.sent < before + 20_000:
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert process.wait(timeout=90) == 130
        assert time.monotonic() - began < 45
    finally:
        process.kill()
        process.wait()


def test_sizes_are_read_as_people_write_them():
    assert [size_of(text) for text in ("200GB", "1.5TiB", "500M", "12")] == [200e9, 1.5 * 2**40, 500e6, 12]
    for wrong in ("", "lots", "-3GB", "0GB", "3XB"):
        with pytest.raises(ConfigError, match="is no size"):
            size_of(wrong)
