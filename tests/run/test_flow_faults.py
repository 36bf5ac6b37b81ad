"""The flow of images without an engine: what must not stop it, and whose the images are."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from types import SimpleNamespace
from typing import Any

import docker.errors
import pytest

from aem_harness.api.running import Selection, open_run
from aem_harness.harness.config import RunConfig
from aem_harness.harness.errors import EnvironmentFault, ImageAway, ImageNowhere
from aem_harness.harness.instances.load import load
from aem_harness.harness.run import flow, outages
from aem_harness.harness.run.flow import Flow, ImageDemand, ImageRegistries, Supply, _unused
from aem_harness.harness.run.outages import Breaker
from aem_harness.harness.run.runner import Runner
from aem_harness.harness.run.shelf import Shelf
from aem_harness.harness.sandbox import fetched
from aem_harness.harness.sandbox import images as sandbox_images
from aem_harness.harness.sandbox.engine import Engine, at
from aem_harness.harness.sandbox.pull import NoImage, RegistryAway
from aem_harness.harness.types import ImageRef, Task
from tests.checkpoints.processes import until
from tests.run.faulty import Doubler, Folders, Injector

ENGINE = Engine("unix:///another.sock")  # of a pool


@pytest.fixture
def tasks() -> list[Task]:
    model = load("sample").tasks[0].model_copy(update={"dockerfile": None})
    made = [{"instance_id": f"x__y-{n}", "image": f"image-{n}:1"} for n in range(1, 4)]
    return [model.model_copy(update={"instance": model.instance.model_copy(update=own)}) for own in made]


class Images:
    """The engine's images, and a registry that has them all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.here: set[str] = set()
        self.pulled: list[str] = []
        self.fails: dict[str, list[Exception]] = {}  # by "find NAME" or "pull NAME", what comes next
        self.removed: list[str] = []
        images = self

        class Pull(flow.Pull):
            def run(self) -> None:
                self.arrived.set()
                images.pulled.append(self.name)
                images._fail(f"pull {self.name}")
                images.here.add(self.name)

        def find(name: str) -> Any:
            self._fail(f"find {name}")
            return SimpleNamespace(id=f"id of {name}", attrs={}) if name in self.here else None

        def remove(name: str) -> None:
            self.here.discard(name)
            self.removed.append(name)

        monkeypatch.setattr(flow, "Pull", Pull)
        monkeypatch.setattr(flow, "find", find)
        monkeypatch.setattr(flow, "ref_of", lambda name, source: ImageRef(name=name, digest="sha256:1", source=source))
        monkeypatch.setattr(flow, "layers_of", lambda image: {str(image.id): 10})
        monkeypatch.setattr(sandbox_images, "client", lambda: SimpleNamespace(images=SimpleNamespace(remove=remove)))

    def _fail(self, what: str) -> None:
        if self.fails.get(what):
            raise self.fails[what].pop(0)


@pytest.fixture(autouse=True)
def images(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Images]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield Images(monkeypatch)
    for thread in threading.enumerate():  # of flows that have ended: the next test's images are none of theirs
        if thread.name.partition(" ")[0] in ("images", "image"):
            thread.join(60)


@contextmanager
def joined(made: Flow, tasks: Sequence[Task]) -> Iterator[Callable[[Task], str]]:
    """Takes part in a flow for the images of `tasks`, which it may fetch, and remove, at any moment.

    Yields what waits for a task's image, of these or another one, and lets it go, or raises after a minute.
    """
    stop = threading.Event()
    with made.join(ImageDemand(lambda: tasks, Breaker({}, patience=1.0), ImageRegistries(), stop)):

        def use(task: Task) -> str:
            late = threading.Timer(60, stop.set)
            late.start()
            try:
                with made.hold(task, stop) as ref:
                    return ref.name
            finally:
                late.cancel()

        yield use


def test_images_to_come_can_be_asked_for_while_the_runner_takes_the_next(tmp_path):
    """It is another thread that asks, at any moment; a list that changes under it failed the whole flow."""
    loaded = load("sample")
    names = [f"folder__number-{n}" for n in range(1, 21)]
    made = [loaded.tasks[0].instance.model_copy(update={"instance_id": name}) for name in names]
    selection = Selection([loaded.tasks[0].model_copy(update={"instance": one}) for one in made], loaded)
    wrong: list[Exception] = []

    class Asked(Folders):
        @contextmanager
        def supply(self, upcoming: Any, breaker: Any, stop: Any) -> Iterator[None]:
            over = threading.Event()

            def ask() -> None:
                while not over.is_set():
                    try:
                        upcoming()
                    except RuntimeError as error:
                        wrong.append(error)

            asking = threading.Thread(target=ask)
            asking.start()
            yield
            over.set()
            asking.join()

    agent, before = Doubler(Injector({})), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with open_run(tmp_path / "r", RunConfig(arm="a", agent="doubler"), selection, agent, 1) as store:
            tasks = {task.instance_id: task for task in selection.tasks}
            Runner(store, tasks, agent, places=Asked(Injector({}))).run([(name, 0) for name in names])
    finally:
        sys.setswitchinterval(before)
    assert wrong == []


def test_an_engine_that_fails_once_leaves_no_image_held(tasks, images):
    """Held for ever, it kept a budget of one image from all others: the run hung."""
    made = Flow(Supply(budget=15))
    with joined(made, tasks) as use:
        use(tasks[0])
        images.fails["find image-1:1"] = [EnvironmentFault("no answer")]
        with pytest.raises(EnvironmentFault, match="no answer"):
            use(tasks[0])
        assert not made._shelf.held


def test_what_one_run_could_not_have_the_next_one_of_the_process_tries_again(tasks, images):
    made = Flow(Supply())
    images.fails["pull image-1:1"] = [NoImage("image image-1:1 is nowhere")]
    with joined(made, tasks[:1]) as use, pytest.raises(NoImage):
        use(tasks[0])
    with joined(made, tasks[:1]) as use:
        assert use(tasks[0]) == "image-1:1"


def test_an_image_that_a_person_fetched_again_stays(tasks, images):
    """The list of what runs have fetched says nothing of an image that was removed meanwhile."""
    with joined(Flow(Supply(budget=15)), tasks[:1]) as use:
        use(tasks[0])
    with joined(Flow(Supply(budget=15)), tasks[1:2]) as use:
        use(tasks[1])
    assert fetched.is_ours("image-1:1", "id of image-1:1")
    Flow(Supply(budget=15))._evict("image-1:1")  # of a flow that fetches nothing meanwhile
    assert images.removed == ["image-1:1"]
    assert not fetched.is_ours("image-1:1", "id of image-1:1")
    assert fetched.is_ours("image-2:1", "id of image-2:1"), "others stay the runs' own"


def test_an_engine_s_error_while_an_image_gets_its_name_is_a_fault_of_the_engine(tasks, images):
    """So an outage explains it, and the image is not given up for the rest of the run."""
    made, asked = Flow(Supply()), []
    breaker = Breaker({}, patience=1.0)
    breaker.interrupts = lambda what, fault, began: asked.append(fault) or len(asked) == 1  # type: ignore[method-assign]
    images.fails["pull image-1:1"] = [docker.errors.DockerException("connection refused")]
    stop = threading.Event()
    with made.join(ImageDemand(lambda: tasks[:1], breaker, ImageRegistries(), stop)), made.hold(tasks[0], stop) as ref:
        assert ref.name == "image-1:1"
    assert [type(fault) for fault in asked] == [EnvironmentFault]


def test_an_image_that_could_not_be_removed_may_go_once_nobody_works_with_it(tasks, images):
    """It stayed for the rest of the run, and the budget shrank by it."""
    made = Flow(Supply(budget=100))
    with joined(made, []) as use:
        use(tasks[0])
        with flow._in_use("image-1:1"):  # who is about to take it
            made._evict("image-1:1")
        assert images.removed == []
        assert "image-1:1" in made._shelf.present
        assert "image-1:1" in made._shelf.kept
        use(tasks[0])
        assert made._shelf.kept == set()


def test_what_was_fetched_at_one_engine_is_not_said_to_be_so_at_another():
    with at(Engine("tcp://elsewhere:2375")):
        fetched.note("x:1", "sha256:1")
        assert fetched.is_ours("x:1", "sha256:1")
    assert not fetched.is_ours("x:1", "sha256:1"), "here a person may have fetched it"


def test_runs_one_after_another_have_one_thread_that_decides(tasks, images):
    made = Flow(Supply())
    for _ in range(20):
        with joined(made, tasks[:1]):
            pass
    with joined(made, tasks[:1]) as use:
        use(tasks[0])
        deadline = time.monotonic() + 60
        while (deciding := [one.name for one in threading.enumerate()].count("images")) > 1:
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        assert deciding == 1


def test_a_passing_error_of_the_engine_costs_one_attempt_and_a_missing_image_is_not_asked_for_again(tasks, images):
    """One error made an image fail for the rest of the run, for all its seeds and attempts."""
    images.fails["pull image-1:1"] = [EnvironmentFault("the engine was busy")]
    images.fails["pull image-2:1"] = [NoImage("image image-2:1 is nowhere")]
    made = Flow(Supply())
    with joined(made, tasks[:2]) as use:
        deadline = time.monotonic() + 60
        while len(made._failed) < 2 and time.monotonic() < deadline:  # fetched ahead
            time.sleep(0.05)
        assert use(tasks[0]) == "image-1:1"
        for _ in range(2):
            with pytest.raises(NoImage):
                use(tasks[1])
    assert images.pulled.count("image-2:1") == 1


def test_when_nothing_is_fetched_any_more_those_who_ask_later_are_told_so(tasks, images, monkeypatch):
    """Who asked for an image that was not in the list by then waited for ever."""
    monkeypatch.setattr(flow, "PAUSE", 0.01)
    made = Flow(Supply())
    images.fails["find image-1:1"] = [EnvironmentFault("the engine is broken")] * flow.ERRORS
    with joined(made, tasks[:1]) as use:
        with pytest.raises(EnvironmentFault, match="is broken"):
            use(tasks[0])
        with pytest.raises(EnvironmentFault, match="is broken"):
            use(tasks[2])


def test_one_error_while_looking_which_images_are_here_ends_no_flow(tasks, images, monkeypatch):
    """It ended the fetching of all images, and so the run."""
    monkeypatch.setattr(flow, "PAUSE", 0.01)
    images.fails["find image-1:1"] = [EnvironmentFault("the engine was busy")]
    with joined(Flow(Supply()), tasks[:1]) as use:
        assert use(tasks[0]) == "image-1:1"


def test_an_image_that_comes_to_be_needed_between_looking_and_fetching_is_looked_for_first(tasks, images):
    """It was fetched again, and then taken for the user's own: it was never removed."""
    images.here.add("image-1:1")
    asked = count()
    made, stop = Flow(Supply()), threading.Event()
    with made.join(
        ImageDemand(lambda: tasks[:1] if next(asked) else [], Breaker({}, patience=1.0), ImageRegistries(), stop)
    ):
        assert until(lambda: "image-1:1" in made._shelf.present)
    assert images.pulled == []


def test_an_image_that_nobody_holds_any_more_can_be_removed_at_once(tasks, images, monkeypatch):
    """Its lock outlived its hold by a moment, in which it was taken for another run's and kept, beyond the budget."""
    let_go, free = Shelf.release, []

    def release(self, name):
        with _unused(name):
            free.append(name)
        let_go(self, name)

    monkeypatch.setattr(Shelf, "release", release)
    made, stop = Flow(Supply(budget=15)), threading.Event()
    with (
        made.join(ImageDemand(lambda: tasks, Breaker({}, patience=1.0), ImageRegistries(), stop)),
        made.hold(tasks[0], stop),
    ):
        pass
    assert free == ["image-1:1"]


def test_two_runs_with_room_for_one_image_never_wait_for_each_other(tasks, images):
    """An image that is here for work that has no worker yet kept out the one for which all workers waited."""
    made, stop = Flow(Supply(budget=15)), threading.Event()
    # The first is under way, and nobody takes it.
    one = ImageDemand(lambda: [tasks[0]], Breaker({}, patience=1.0), ImageRegistries(), stop)
    other = ImageDemand(lambda: [tasks[1], tasks[2]], Breaker({}, patience=1.0), ImageRegistries(), stop)
    late = threading.Timer(20, stop.set)
    late.start()
    with made.join(one), made.join(other):
        with made.hold(tasks[0], stop):
            pass
        for task in (tasks[1], tasks[2]):
            with made.hold(task, stop) as ref:
                assert images.here == {ref.name}, "and never more than the budget has room for"
    late.cancel()
    assert not stop.is_set()


def test_an_engine_of_a_pool_fetches_what_is_waited_for_within_its_own_budget(tasks, images):
    made, stop, engine = Flow(Supply(budget=15), ENGINE), threading.Event(), ENGINE
    late = threading.Timer(20, stop.set)
    late.start()
    source = ImageDemand(lambda: tasks, Breaker({}, patience=1.0), ImageRegistries(), stop, engine, ahead=False)
    with made.join(source), at(engine):
        for task in (tasks[2], tasks[0]):
            with made.hold(task, stop) as ref:
                assert images.here == {ref.name}
    late.cancel()
    assert images.pulled == ["image-3:1", "image-1:1"], "nothing ahead: another engine may take it"


def test_who_waits_for_an_image_of_an_engine_that_is_gone_is_sent_elsewhere_and_the_flow_goes_on_when_it_is_back(
    tasks, images
):
    made, stop, engine = Flow(Supply(), ENGINE), threading.Event(), Engine("unix:///nowhere.sock")
    source = ImageDemand(lambda: tasks, Breaker({}, patience=1.0), ImageRegistries(), stop, engine, ahead=False)
    late = threading.Timer(20, stop.set)
    late.start()
    engine.gone = True
    images.fails["find image-1:1"] = [EnvironmentFault("no answer")]
    with made.join(source), at(engine):
        with pytest.raises(EnvironmentFault, match="is gone"), made.hold(tasks[0], stop):
            pass
        engine.gone = False
        with made.hold(tasks[0], stop) as ref:
            assert ref.name == "image-1:1"
    late.cancel()


def test_a_registry_that_is_away_for_one_engine_of_a_pool_is_waited_for(tasks, images, monkeypatch):
    monkeypatch.setattr(outages, "FIRST_PAUSE", 0.05)
    registry, stop, said = ImageRegistries(ENGINE), threading.Event(), list[str]()
    breaker = Breaker({flow.REGISTRY: registry}, patience=60.0, say=said.append, stop=stop)
    images.fails["pull image-1:1"] = [RegistryAway("no route"), RegistryAway("no route")]
    late = threading.Timer(20, stop.set)
    late.start()
    source = ImageDemand(lambda: tasks, breaker, registry, stop, ENGINE, ahead=False)
    with Flow(Supply(mirror="m.local"), ENGINE).join(source) as made, at(ENGINE), made.hold(tasks[0], stop) as ref:
        assert ref.name == "image-1:1"
    late.cancel()
    assert ["is away" in line for line in said] == [True, False]
    assert registry.last == flow.Missed("image-1:1", "m.local", ENGINE), "it is looked for from where it was missed"


def test_work_of_an_engine_whose_registry_stays_away_is_sent_elsewhere_and_the_image_is_fetched_once_it_is_back(
    tasks, images, monkeypatch
):
    """The run ended when one engine of several had no registry for ten minutes."""
    monkeypatch.setattr(outages, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(flow, "ELSEWHERE", 0.3)
    registry, stop, back = ImageRegistries(ENGINE), threading.Event(), threading.Event()
    run = Breaker({}, patience=0.5, stop=stop)

    class Away(list):
        """An error each time until the registry is back."""

        def __bool__(self):
            return not back.is_set()

        def pop(self, *_):
            return RegistryAway("no route")

    images.fails["pull image-1:1"] = Away()
    source = ImageDemand(lambda: tasks, run.beside({flow.REGISTRY: registry}), registry, stop, ENGINE, ahead=False)
    late = threading.Timer(20, stop.set)
    late.start()
    with Flow(Supply(), ENGINE).join(source) as made, at(ENGINE):
        for _ in range(2):
            with pytest.raises(ImageAway, match="no route"), made.hold(tasks[0], stop):
                pass
        with made.hold(tasks[1], stop) as ref:
            assert ref.name == "image-2:1", "what can be had there is worked with"
        run.check()  # and the run does not end for it
        back.set()
        monkeypatch.setattr(flow, "ELSEWHERE", 20.0)
        with made.hold(tasks[0], stop) as ref:
            assert ref.name == "image-1:1"
    late.cancel()
    assert not stop.is_set()


def test_an_image_that_one_engine_of_a_pool_finds_nowhere_is_another_s_to_work_with(tasks, images):
    """It may have been loaded into that one alone: its rollouts were lost."""
    stop, several = threading.Event(), [NoImage("image image-1:1 is nowhere")]
    images.fails["pull image-1:1"] = several
    late = threading.Timer(20, stop.set)
    late.start()
    source = ImageDemand(lambda: tasks, Breaker({}, patience=1.0), ImageRegistries(), stop, ENGINE, ahead=False)
    with Flow(Supply(), ENGINE).join(source) as made, at(ENGINE):
        with pytest.raises(ImageNowhere, match="image-1:1 is nowhere"), made.hold(tasks[0], stop):
            pass
        with made.hold(tasks[1], stop) as ref:
            assert ref.name == "image-2:1"
    late.cancel()


def test_who_waits_for_an_image_is_told_when_its_registry_was_away_for_too_long(tasks, images, monkeypatch):
    """Where no run looked at the outage, as after one, it was asked for again and again, without a pause, for ever."""
    monkeypatch.setattr(outages, "FIRST_PAUSE", 0.05)
    asked = 0

    class Away(list):
        def pop(self, *_):
            nonlocal asked
            asked += 1
            return RegistryAway("no route")

    images.fails["pull image-1:1"] = Away([True])
    registry, stop, said = ImageRegistries(), threading.Event(), list[str]()
    breaker = Breaker({flow.REGISTRY: registry}, patience=0.3, say=said.append, stop=stop)
    late = threading.Timer(20, stop.set)
    late.start()
    with Flow(Supply()).join(ImageDemand(list, breaker, registry, stop)) as made:
        for _ in range(2):
            with pytest.raises(RegistryAway, match="no route"), made.hold(tasks[0], stop):
                pass
        with made.hold(tasks[1], stop) as ref:
            assert ref.name == "image-2:1"
    late.cancel()
    assert asked < 20
    assert not stop.is_set()


def test_an_image_that_a_person_has_under_a_mirror_s_name_stays(tasks, images):
    """It was named anew, taken for the run's own, and removed."""
    images.here.add("m.local/library/image-1:1")
    with joined(Flow(Supply(budget=15, mirror="m.local")), tasks) as use:
        for task in tasks:
            use(task)
    assert "image-1:1" not in images.removed
    assert "image-2:1" in images.removed


def test_the_free_disk_of_an_engine_on_another_machine_is_not_that_of_this_one(monkeypatch):
    """A budget was made of this machine's /var/lib/docker."""
    monkeypatch.setattr(flow, "client", lambda: SimpleNamespace(info=lambda: {"DockerRootDir": "/"}))
    for host, known in (("", True), ("unix:///x.sock", True), ("tcp://big:2375", False), ("ssh://big", False)):
        monkeypatch.setenv("DOCKER_HOST", host)
        assert (Flow(Supply())._free() is not None) == known, host
    monkeypatch.delenv("DOCKER_HOST")
    assert Flow(Supply(), Engine("ssh://big"))._free() is None


def test_an_engine_of_a_pool_that_failed_for_long_is_of_use_again_when_it_answers(tasks, images, monkeypatch):
    monkeypatch.setattr(flow, "PAUSE", 0.01)
    stop = threading.Event()
    images.fails["find image-1:1"] = [EnvironmentFault("no answer") for _ in range(2 * flow.ERRORS)]
    source = ImageDemand(lambda: tasks[:1], Breaker({}, patience=1.0), ImageRegistries(), stop, ENGINE, ahead=False)
    refused = 0
    with Flow(Supply(), ENGINE).join(source) as made, at(ENGINE):
        for _ in range(2 * flow.ERRORS + 1):  # each that is refused has met a failure of its own
            try:
                with made.hold(tasks[0], stop):
                    break
            except EnvironmentFault:
                refused += 1
        else:
            pytest.fail("never again")
    assert refused <= 2 * flow.ERRORS
