"""A pool of sites: what is lost with one is done elsewhere, at the same attempt; order, images and slots are kept."""

import itertools
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker.errors
import pytest
from rich.console import Console

from aem_harness.api.running import Selection, open_run, perform
from aem_harness.api.sites import AtATime, Driver, Where, _slots, _tell_of_architectures, engines, split
from aem_harness.harness.config import RunConfig
from aem_harness.harness.errors import (
    AemError,
    ConfigError,
    EnvironmentFault,
    ImageAway,
    ImageNowhere,
    NoSite,
    SiteLost,
)
from aem_harness.harness.instances.load import load
from aem_harness.harness.run import sites
from aem_harness.harness.run.identity import Identity
from aem_harness.harness.run.pool import Place, Pool
from aem_harness.harness.run.runner import Runner
from aem_harness.harness.run.sites import Here
from aem_harness.harness.run.store import read_journal
from aem_harness.harness.sandbox.engine import Engine
from aem_harness.harness.types import Grade, Outcome, Prediction
from tests.run.faulty import Doubler, Folders, Injector

IDENTITY = Identity(RunConfig(arm="a", agent="doubler"), {"aem.run-id": "x"}, "")
KEYS = [(f"folder__number-{n}", seed) for seed in range(2) for n in range(1, 21)]


class Machine(Here):
    """A site whose places are folders, and that can be switched off and on."""

    def __init__(self, name: str, tasks: Mapping[str, Any], identity: Identity, images: set[str] = frozenset()) -> None:
        injector = Injector({})
        super().__init__(tasks, Doubler(injector), Folders(injector), identity)
        self.name, self.off, self._images = name, threading.Event(), set(images)
        self.begun: list[tuple[str, int]] = []
        self.at_once, self.most = 0, 0
        self._counting = threading.Lock()
        self.before = lambda: None

    def rollout(self, scratch, instance_id, seed, attempt):
        with self._counting:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            self.begun.append((instance_id, seed))
        try:
            self.before()
            self._require()
            event = super().rollout(scratch, instance_id, seed, attempt)
            self._require()
            return event
        finally:
            with self._counting:
                self.at_once -= 1

    def grade(self, task, prediction, folder, left):
        self._require()
        grade = super().grade(task, prediction, folder, left)
        self._require()
        return grade

    def reap(self) -> int:
        return 0

    def images(self) -> set[str]:
        if self.off.is_set():
            raise EnvironmentFault("no engine answers")
        return self._images

    def returned(self) -> bool:
        return not self.off.is_set()

    def _require(self) -> None:
        if self.off.is_set():
            raise SiteLost(f"{self.name} went away")


@pytest.fixture
def selection() -> Selection:
    loaded = load("sample")
    model = loaded.tasks[0]

    def task(name: str) -> Any:
        own = {"instance_id": name, "image": f"image/{name}:1"}
        return model.model_copy(update={"instance": model.instance.model_copy(update=own)})

    return Selection([task(name) for name in dict.fromkeys(name for name, _ in KEYS)], loaded)


def tasks_of(selection: Selection) -> dict[str, Any]:
    return {task.instance_id: task for task in selection.tasks}


def results(folder: Path) -> dict[tuple[str, int], tuple[Any, ...]]:
    """What the journal says of each rollout; fails where one is there twice."""
    seen: dict[tuple[str, int], Any] = {}
    for event in read_journal(folder):
        key = event["instance_id"], event["seed"]
        if event["event"] == "rollout":
            assert key not in seen, "a rollout was journaled twice"
            seen[key] = [event["attempt"], event["exit_status"], event["patch_bytes"], event["fault"]]
        else:
            assert len(seen[key]) == 4, "a grade was journaled twice"
            seen[key] += [event["outcome"]]
    return {key: tuple(found) for key, found in seen.items()}


def run(
    folder: Path,
    selection: Selection,
    names: str,
    slots: int = 2,
    off: str = "",
    together: bool = False,
    **options: Any,
) -> list[Machine]:
    """The whole set in a pool of machines, of which the one named in `off` dies in its third rollout, for good.

    `together`: the first rollouts go on once all slots are taken.
    """
    all_busy = threading.Barrier(slots * len(names))
    agent = Doubler(Injector({}))
    with open_run(folder, RunConfig(arm="a", agent="doubler", infra_retries=0), selection, agent, 2) as store:
        identity = Identity.of(store.folder)
        machines = [Machine(name, tasks_of(selection), identity) for name in names]
        for machine in machines:

            def before(machine: Machine = machine) -> None:
                if together and len(machine.begun) <= slots:
                    all_busy.wait(60)
                if machine.name == off and len(machine.begun) >= 3:
                    machine.off.set()

            machine.before = before
        places = [Place(machine, {"rollout": slots, "grade": 1}) for machine in machines]
        with Pool(places, tasks_of(selection), **options) as pool:
            runner = Runner(
                store, tasks_of(selection), agent, workers=slots * len(names), grade_workers=len(names), site=pool
            )
            runner.run(KEYS)
    return machines


def test_a_site_that_dies_costs_no_attempt_and_no_verdict(tmp_path, selection):
    agent = Doubler(Injector({}))
    with open_run(tmp_path / "one", RunConfig(arm="a", agent="doubler", infra_retries=0), selection, agent, 2) as store:
        places = Folders(Injector({}))
        perform(store, selection, Driver(agent), KEYS, Console(quiet=True), AtATime(2, 1), places=places)
    said: list[str] = []
    machines = run(tmp_path / "three", selection, "abc", off="b", tell=said.append)
    assert results(tmp_path / "three") == results(tmp_path / "one")
    assert {attempt for attempt, *_ in results(tmp_path / "three").values()} == {0}
    begun = [key for machine in machines for key in machine.begun]
    assert len(begun) > len(KEYS) == len(set(begun)), "what was under way on it was begun again elsewhere"
    assert any("b is away" in line for line in said)
    scratch = [path.name for path in (tmp_path / "three").glob("rollouts/*/.*")]
    assert scratch == [], "nothing is left of what was lost"


def test_an_image_that_one_site_cannot_get_costs_that_site_nothing_else(tmp_path, selection):
    """With the registry of one engine away, its rollouts waited until the run was given up."""
    said, agent = [], Doubler(Injector({}))
    images = {task.instance.image for task in selection.tasks[::2]}  # many: of a single one it might never be asked
    asked: dict[str, list[str]] = {"a": [], "b": []}
    with open_run(tmp_path / "r", RunConfig(arm="a", agent="doubler", infra_retries=0), selection, agent, 2) as store:
        identity = Identity.of(store.folder)
        tasks = tasks_of(selection)

        class Lacking(Machine):
            def rollout(self, scratch, instance_id, seed, attempt):
                asked[self.name].append(instance_id)
                if self.name == "a" and tasks[instance_id].instance.image in images:
                    raise ImageAway("no route to the registry")
                return super().rollout(scratch, instance_id, seed, attempt)

        places = [Place(Lacking(name, tasks, identity), {"rollout": 1, "grade": 1}) for name in "ab"]
        with Pool(places, tasks, tell=said.append) as pool:
            Runner(store, tasks, agent, workers=2, grade_workers=2, site=pool).run(KEYS)
    assert len(results(tmp_path / "r")) == len(KEYS)
    assert not [found for found in results(tmp_path / "r").values() if found[3]], "nothing is lost"
    assert len(set(asked["a"])) > 1, "its other work goes on"
    assert [line for line in said if "gets no image" in line] == [
        "a gets no image (no route to the registry): what needs one is done elsewhere if possible"
    ]


def test_an_image_that_no_site_can_get_ends_the_run_in_the_end_and_nothing_is_lost(tmp_path, selection):
    agent = Doubler(Injector({}))
    with open_run(tmp_path / "r", RunConfig(arm="a", agent="doubler", infra_retries=0), selection, agent, 2) as store:
        identity, tasks = Identity.of(store.folder), tasks_of(selection)

        class Lacking(Machine):
            def rollout(self, *_):
                self.off.wait(0.05)
                raise ImageAway("no route to the registry")

        places = [Place(Lacking(name, tasks, identity), {"rollout": 1, "grade": 1}) for name in "ab"]
        with Pool(places, tasks, patience=0.5) as pool, pytest.raises(NoSite, match="no route to the registry"):
            Runner(store, tasks, agent, workers=2, grade_workers=2, site=pool).run(KEYS)
        assert not store.progress


def test_an_image_that_one_site_alone_has_is_worked_with_there_and_one_that_none_has_costs_its_own_work(
    tmp_path, selection
):
    """Loaded into one engine of several and in no registry: what came to another one was lost."""
    agent, tasks = Doubler(Injector({})), tasks_of(selection)
    nowhere = KEYS[4][0]

    class Holding(Machine):
        def rollout(self, scratch, instance_id, seed, attempt):
            self.require(instance_id)
            return super().rollout(scratch, instance_id, seed, attempt)

        def require(self, instance_id):
            if instance_id == nowhere or (self.name == "a") == (list(tasks).index(instance_id) % 2 == 0):
                raise ImageNowhere(f"image {tasks[instance_id].instance.image} is nowhere")

        def audit(self, task, folder, name="canary.json"):
            self.require(task.instance_id)

    with open_run(tmp_path / "r", RunConfig(arm="a", agent="doubler", infra_retries=1), selection, agent, 2) as store:
        identity = Identity.of(store.folder)
        places = [Place(Holding(name, tasks, identity), {"rollout": 2, "grade": 1}) for name in "ab"]
        with Pool(places, tasks) as pool:
            Runner(store, tasks, agent, workers=4, grade_workers=2, site=pool).run(KEYS)
            folder = store.rollout_folder(*KEYS[0])
            found = pool.audit(tasks[nowhere], folder)
        lost = {key for key, known in store.progress.items() if known.rollout["fault"]}
        assert lost == {(nowhere, 0), (nowhere, 1)}
        assert {known.rollout["attempt"] for key, known in store.progress.items() if key not in lost} == {0}
        assert len(store.progress) == len(KEYS)
    assert (found.state, "is nowhere" in found.reason) == ("unaudited", True)
    assert (folder / "canary.json").is_file()


@pytest.mark.parametrize("wrong", ["no space left on device", ""])
def test_an_engine_that_answers_and_starts_no_container_is_a_lost_site(tmp_path, selection, monkeypatch, wrong):
    """It lost one rollout after the other, was free for the next at once, and so ended the run."""

    class Full(Folders):
        def grade(self, task, *_: Any) -> Any:
            return Grade(instance_id=task.instance_id, outcome=Outcome.ERROR, cause="environment: cannot start")

    task = selection.tasks[0]
    engine = Engine("unix:///nowhere")
    site = Here({}, Doubler(Injector({})), Full(Injector({})), IDENTITY, engine=engine)
    site._watch = SimpleNamespace(close=lambda: None)
    monkeypatch.setattr(sites, "SETTLING", 0.0)
    monkeypatch.setattr(sites, "why_no_start", lambda: wrong)
    monkeypatch.setattr(sites, "answers", lambda engine: True)
    monkeypatch.setattr(sites, "remove_left", lambda: None)
    monkeypatch.setattr(sites, "reap", lambda run, **_: 0)
    prediction = Prediction(instance_id=task.instance_id, model_name_or_path="a", model_patch="x")
    if wrong:
        with pytest.raises(SiteLost, match="starts no container: no space left"):
            site.grade(task, prediction, tmp_path, None)
    else:
        assert site.grade(task, prediction, tmp_path, None).outcome is Outcome.ERROR, "it was the container's own"
    assert site.returned() == (not wrong)


def test_engines_of_different_architectures_are_said_once_and_for_all(selection):
    tasks, said = tasks_of(selection), list[str]()
    machines = [Machine(name, tasks, IDENTITY) for name in "abc"]
    for machine, one in zip(machines, ("amd64", "arm64", "amd64"), strict=True):
        machine.architecture = lambda one=one: one
    for several in (machines[::2], machines):
        with Pool([Place(machine, {"rollout": 1, "grade": 1}) for machine in several], tasks) as pool:
            _tell_of_architectures(pool, said.append)
            assert pool.architecture() == ("amd64" if len(several) == 2 else "")
    [line] = said
    assert "(a: amd64, b: arm64)" in line


def test_slots_are_each_machines_own(tmp_path, selection):
    machines = run(tmp_path / "run", selection, "ab", slots=3, together=True)
    assert all(1 <= machine.most <= 3 for machine in machines)
    assert all(machine.begun for machine in machines)


def test_without_any_site_a_run_waits_and_then_ends_as_an_infrastructure_failure(tmp_path, selection):
    began = time.monotonic()
    with pytest.raises(EnvironmentFault, match=r"none of b has answered for 2 s.*same command again"):
        run(tmp_path / "run", selection, "b", off="b", patience=2.0)
    assert time.monotonic() - began < 60
    lost = [event for event in read_journal(tmp_path / "run") if event["event"] == "rollout" and event["fault"]]
    assert lost == [], "no attempt was spent"
    run(tmp_path / "run", selection, "a")
    assert len(results(tmp_path / "run")) == len(KEYS), "the same run goes on elsewhere"


def test_a_grading_without_any_site_stays_pending(tmp_path, selection):
    """It was journaled as lost, under a message that nothing was."""
    keys = KEYS[:3]
    tasks, agent = tasks_of(selection), Doubler(Injector({}))

    def work(machine: Machine, store: Any, **options: Any) -> None:
        with Pool([Place(machine, {"rollout": 1, "grade": 1})], tasks, **options) as pool:
            Runner(store, tasks, agent, workers=1, grade_workers=1, site=pool).run(keys)

    with open_run(tmp_path / "r", RunConfig(arm="a", agent="doubler", infra_retries=0), selection, agent, 2) as store:
        machine = Machine("b", tasks, Identity.of(store.folder))
        machine.grade = lambda *_: machine.off.set() or machine._require()
        with pytest.raises(NoSite, match="same command again; nothing was lost"):
            work(machine, store, patience=0.5)
        assert not any(known.grade for known in store.progress.values())
        work(Machine("b", tasks, Identity.of(store.folder)), store)
        assert all(store.progress[key].grade["outcome"] != "error" for key in keys)


def test_an_error_of_a_site_is_one_rollouts_fault_and_ends_no_other(tmp_path, selection):
    """Such as a result that cannot be sent from a node: it ended the whole run."""
    keys = KEYS[:4]
    tasks, agent = tasks_of(selection), Doubler(Injector({}))

    class Failing(Machine):
        def rollout(self, scratch, instance_id, seed, attempt):
            if (instance_id, seed) == keys[1]:
                (scratch / "half").write_text("of a result")
                raise AemError("on node b: TypeError: cannot pickle")
            return super().rollout(scratch, instance_id, seed, attempt)

    with open_run(tmp_path / "r", RunConfig(arm="a", agent="doubler", infra_retries=1), selection, agent, 2) as store:
        site = Failing("b", tasks, Identity.of(store.folder))
        with Pool([Place(site, {"rollout": 2, "grade": 1})], tasks) as pool:
            Runner(store, tasks, agent, workers=2, grade_workers=1, site=pool).run(keys)
        faults = {key: store.progress[key].rollout["fault"] for key in keys}
        assert [key for key in keys if faults[key]] == [keys[1]]
        assert "cannot pickle" in faults[keys[1]]["message"]
        assert store.progress[keys[1]].rollout["attempt"] == 1
        assert not (store.rollout_folder(*keys[1]) / "half").exists()


def test_an_engine_that_goes_away_before_a_container_is_there_is_a_lost_site_too(tmp_path, selection):
    """Its error came as an exception, which was taken for one of the grading, and cost its attempt."""
    engine = Engine("unix:///nowhere")

    class Going(Folders):
        def grade(self, *_: Any) -> Any:
            raise EnvironmentFault("cannot look for image x")

    task = selection.tasks[0]
    identity = Identity(RunConfig(arm="a", agent="doubler"), {}, "")
    site = Here({}, Doubler(Injector({})), Going(Injector({})), identity, engine=engine)
    site._watch = SimpleNamespace(close=lambda: None)  # a real one finds at once that there is no such engine

    def noticed(_: float) -> None:  # in the moment that its watch is given
        engine.losses += 1

    site._stop = SimpleNamespace(wait=noticed)
    prediction = Prediction(instance_id=task.instance_id, model_name_or_path="a", model_patch="x")
    with pytest.raises(SiteLost, match="went away"):
        site.grade(task, prediction, tmp_path, None)


def test_images_of_an_engine_are_listed_while_another_run_removes_some(monkeypatch, selection):
    class Client:
        class api:
            images = staticmethod(lambda: [{"RepoTags": ["a:1", "docker.io/b/c:1"]}, {"RepoTags": None}])

        class images:
            @staticmethod
            def list() -> Any:
                raise docker.errors.ImageNotFound("No such image")

    monkeypatch.setattr(sites, "client", Client)
    identity = Identity(RunConfig(arm="a", agent="doubler"), {}, "")
    assert Here({}, Doubler(Injector({})), Folders(Injector({})), identity).images() == {
        "a:1",
        "docker.io/b/c:1",
        "b/c:1",
    }, "Podman's too, as tasks name them"


def test_the_end_of_a_run_reaches_work_at_a_site_that_went_away(selection):
    tasks, ended = tasks_of(selection), []
    machine = Machine("a", tasks, Identity(RunConfig(arm="a", agent="doubler"), {}, ""))
    machine.close_all = lambda: ended.append("a")
    pool = Pool([Place(machine, {"rollout": 1, "grade": 1}, up=True)], tasks)
    pool.places[0].up = False
    pool.close_all()
    assert ended == ["a"]


def test_a_site_that_is_back_takes_part_again(tmp_path, selection, monkeypatch):
    monkeypatch.setattr("aem_harness.harness.run.pool.PAUSES", (0.1,))
    said: list[str] = []

    def tell(line: str) -> None:
        said.append(line)
        if "away" in line:
            machines[0].off.clear()

    agent, numbers = Doubler(Injector({})), itertools.count(1)
    with open_run(tmp_path / "run", RunConfig(arm="a", agent="doubler"), selection, agent, 2) as store:
        machines = [Machine("a", tasks_of(selection), Identity.of(store.folder))]
        machines[0].before = lambda: machines[0].off.set() if next(numbers) == 3 else None
        with Pool([Place(machines[0], {"rollout": 2, "grade": 1})], tasks_of(selection), tell=tell) as pool:
            Runner(store, tasks_of(selection), agent, workers=2, grade_workers=1, site=pool).run(KEYS)
    assert len(results(tmp_path / "run")) == len(KEYS)
    for thread in threading.enumerate():
        if thread.name == "await a":  # which may say last that it is back
            thread.join(60)
    times = len(said) // 2  # the other rollout that was under way may tell of it later, when it was back
    assert [line.split()[:3] for line in said] == [["a", "is", "away"], ["a", "is", "back"]] * times
    assert times >= 1


def test_a_task_goes_where_its_image_is_if_a_slot_is_free_there(tmp_path, selection):
    tasks = tasks_of(selection)
    identity = Identity(RunConfig(arm="a", agent="doubler"), {}, "")
    images = {task.instance.image for task in selection.tasks[:10]}
    first, second = Machine("a", tasks, identity), Machine("b", tasks, identity, images)
    pool = Pool([Place(first, {"rollout": 4, "grade": 1}), Place(second, {"rollout": 2, "grade": 1})], tasks)
    for name in [task.instance_id for task in selection.tasks[:12]]:
        (tmp_path / name).mkdir()
        pool.rollout(tmp_path / name, name, 0, 0)
    assert [name for name, _ in second.begun] == [task.instance_id for task in selection.tasks[:10]]
    assert len(first.begun) == 2, "what nobody has goes where most slots are free"
    pool.rollout(tmp_path / first.begun[0][0], first.begun[0][0], 1, 0)
    assert len(first.begun) == 3, "and its other seeds follow it"


def test_waiting_work_is_served_in_its_order_and_what_was_lost_keeps_its_turn(tmp_path, selection, monkeypatch):
    monkeypatch.setattr("aem_harness.harness.run.pool.PAUSES", (0.1,))
    tasks = tasks_of(selection)
    machine = Machine("a", tasks, Identity(RunConfig(arm="a", agent="doubler"), {}, ""))
    gate = threading.Semaphore(0)

    def before() -> None:
        gate.acquire()
        if len(machine.begun) == 2:  # the second is lost, and the machine back when it is looked at again
            raise SiteLost("a went away")

    machine.before = before
    pool = Pool([Place(machine, {"rollout": 1, "grade": 1})], tasks)
    names = [task.instance_id for task in selection.tasks[:6]]
    threads = []
    for n, name in enumerate(names):
        (tmp_path / name).mkdir()
        threads.append(threading.Thread(target=pool.rollout, args=(tmp_path / name, name, 0, 0)))
        threads[-1].start()
        while len(pool._waiting["rollout"]) + len(machine.begun) <= n:
            threading.Event().wait(0.01)
    for _ in [*names, "the lost one"]:
        gate.release()
    for thread in threads:
        thread.join(timeout=30)
    assert [name for name, _ in machine.begun] == [names[0], names[1], *names[1:]]


def test_ending_a_run_wakes_what_waits_for_a_slot(tmp_path, selection):
    tasks = tasks_of(selection)
    machine = Machine("a", tasks, Identity(RunConfig(arm="a", agent="doubler"), {}, ""))
    pool = Pool([Place(machine, {"rollout": 0, "grade": 0})], tasks)
    (tmp_path / "x").mkdir()
    ended: list[Any] = []
    name = selection.tasks[0].instance_id
    waiting = threading.Thread(target=lambda: ended.append(pool.rollout(tmp_path / "x", name, 0, 0)))
    waiting.start()
    while waiting.is_alive():
        pool.close_all()
        waiting.join(timeout=0.05)
    assert ended == [None]


def test_addresses_of_engines_say_their_slots():
    given = split(["ssh://big*48,unix:///run/docker.sock", "tcp://host:2375*4"])
    assert given == ("ssh://big*48", "unix:///run/docker.sock", "tcp://host:2375*4")
    assert [str(engine) for engine in engines(Where(given))] == [
        "ssh://big",
        "unix:///run/docker.sock",
        "tcp://host:2375",
    ]
    assert _slots(given, AtATime(30, 6)) == [(48, 5), (10, 1), (4, 1)]
    assert _slots(given, AtATime(1, 30, "grade_workers")) == [(1, 48), (1, 10), (1, 4)]
    assert Where(given).halved().engines == ("ssh://big*24", "unix:///run/docker.sock", "tcp://host:2375*2")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["box:2375"], "give ssh://HOST"),
        (["ssh://a", "ssh://a*4"], "named twice"),
        (["docker"], "give ssh://HOST"),
    ],
)
def test_an_address_that_makes_no_sense_is_refused_with_what_would(given, words):
    with pytest.raises(ConfigError, match=words):
        engines(Where(given))
