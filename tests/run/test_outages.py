"""What a run stands on is away for a while: the run waits, goes on by itself, and spends no attempt on it."""

import errno
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aem_harness.agents.refusals import unanswered
from aem_harness.api.running import Selection, open_run
from aem_harness.harness.config import RunConfig
from aem_harness.harness.errors import EnvironmentFault, PolicyFault, ServerAway
from aem_harness.harness.instances.load import load
from aem_harness.harness.run import outages
from aem_harness.harness.run.outages import INTERRUPTIONS, Disk
from aem_harness.harness.run.runner import Runner
from aem_harness.harness.run.store import RunStore, read_journal
from tests.run.faulty import Doubler, Folders, Injector

NAMES = [f"folder__number-{n}" for n in range(1, 21)]
KEYS = [(name, 0) for name in NAMES]


class Flag:
    """A service that a test takes away; it is back once it was looked at `looks` times."""

    name, remedy = "the thing", "bring it back"

    def __init__(self, looks: float = float("inf")) -> None:
        self.wrong = ""
        self.looks = looks
        self.broke: Callable[[str], None] = lambda why: None
        self.recoveries = 0

    def probe(self) -> str:
        if self.wrong:
            self.looks -= 1
            if self.looks < 0:
                self.wrong = ""
        return self.wrong

    @contextmanager
    def watch(self, broke: Callable[[str], None]) -> Iterator[None]:
        self.broke = broke
        yield

    def recovered(self) -> None:
        self.recoveries += 1


class Acting(Doubler):
    """An agent that does what the test says first."""

    def __init__(self, act: Callable[[int], None]) -> None:
        super().__init__(Injector({}))
        self.act, self.starts, self.counting = act, Counter[str](), threading.Lock()

    def run(self, instance: Any, environment: Any, record: Any, *, seed: int) -> Any:
        with self.counting:
            self.starts[instance.instance_id] += 1
            total = self.starts.total()
        self.act(total)
        return super().run(instance, environment, record, seed=seed)


@pytest.fixture(scope="module")
def selection() -> Selection:
    loaded = load("sample")
    model = loaded.tasks[0]
    made = [model.instance.model_copy(update={"instance_id": name}) for name in NAMES]
    return Selection([model.model_copy(update={"instance": one}) for one in made], loaded)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "FIRST_PAUSE", 0.1)


def run(
    folder: Path,
    selection: Selection,
    agent: Doubler,
    services: Mapping[str, Any],
    *,
    prepare: Callable[[RunStore], None] = lambda store: None,
    **config: Any,
) -> list[str]:
    """Run it all; what was said of outages."""
    said: list[str] = []
    settings = RunConfig(arm="a", agent="doubler", infra_retries=0, **config)
    with open_run(folder, settings, selection, agent, 1) as store:
        prepare(store)
        tasks = {task.instance_id: task for task in selection.tasks}
        places = Folders(agent.injector)
        Runner(store, tasks, agent, places=places, services=services, say=said.append).run(KEYS)
    return said


def whole(folder: Path) -> None:
    """Every rollout and every grade is there once, none lost, each on its first attempt, with no half of one beside."""
    events = list(read_journal(folder))
    assert Counter((e["event"], e["instance_id"]) for e in events) == Counter(
        [(kind, name) for kind in ("rollout", "grade") for name in NAMES]
    )
    assert all(e["attempt"] == 0 for e in events)
    assert not any(e["fault"] for e in events if e["event"] == "rollout")
    assert all(e["outcome"] != "error" for e in events if e["event"] == "grade")
    assert sorted(path.name for path in folder.glob("rollouts/*/*")) == ["0"] * len(NAMES)


def test_a_server_that_is_away_for_a_while_costs_no_rollout_and_no_attempt(tmp_path, selection):
    server = Flag(looks=3)

    def act(total: int) -> None:
        if total == 8:
            server.wrong = "connection refused"
        if server.wrong:
            raise PolicyFault("the call failed 8 times")

    agent = Acting(act)
    said = run(tmp_path / "r", selection, agent, {"policy": server})
    whole(tmp_path / "r")
    assert len(said) == 2, said
    assert "the thing is away (connection refused): the run waits for up to 30 min" in said[0]
    assert "bring it back" in said[0]
    assert "the thing is back after" in said[1]
    assert server.recoveries == 1
    assert agent.starts.total() <= len(KEYS) + 4, "what was under way is done again, and no more"


def test_a_service_whose_recovery_fails_stays_away_until_that_works(tmp_path, selection):
    """The thread that looked at it ended with the exception, and the run waited for ever."""
    server = Flag(looks=2)

    def act(total: int) -> None:
        if total == 8:
            server.wrong = "connection refused"
        if server.wrong:
            raise PolicyFault("the call failed 8 times")

    def recovered() -> None:
        server.recoveries += 1
        if server.recoveries == 1:
            raise RuntimeError("not yet")

    server.recovered = recovered
    run(tmp_path / "r", selection, Acting(act), {"policy": server})
    whole(tmp_path / "r")
    assert server.recoveries == 2


def test_many_faults_at_once_need_few_looks_at_a_service(monkeypatch):
    """Each look may start a container; 64 rollouts that waited for 64 of them stood still for a minute."""
    looks, asked, all_asked = [], set[int](), threading.Event()

    def clock() -> float:
        asked.add(threading.get_ident())  # a thread reads it first when it asks
        if len(asked) == 30:
            all_asked.set()
        return time.monotonic()

    class Slow(Flag):
        def probe(self) -> str:
            looks.append(all_asked.wait(60))
            return ""

    breaker, began = outages.Breaker({"policy": Slow()}, patience=1.0), time.monotonic()
    monkeypatch.setattr(outages, "time", SimpleNamespace(monotonic=clock, sleep=time.sleep))
    threads = [
        threading.Thread(target=breaker.interrupts, args=(number, PolicyFault("x"), began)) for number in range(30)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert looks == [True, True], "the one under way when they asked, and one that began later"


def test_a_fault_that_names_an_outage_which_is_over_by_then_is_one_all_the_same(tmp_path, selection):
    def act(total: int) -> None:
        if total == 3:
            raise ServerAway("nobody answers")

    assert run(tmp_path / "r", selection, Acting(act), {"policy": Flag()}) == []
    whole(tmp_path / "r")


def test_what_was_under_way_when_the_engine_broke_off_is_done_again_whatever_came_of_it(tmp_path, selection):
    engine = Flag()

    def act(total: int) -> None:
        if total == 5:  # a restart so short that nothing but its watcher saw it
            engine.broke("its stream of events ended")

    agent = Acting(act)
    said = run(tmp_path / "r", selection, agent, {"environment": engine})
    whole(tmp_path / "r")
    assert agent.starts.total() > len(KEYS)
    assert len(said) == 2


def test_a_service_that_stays_away_ends_the_run_with_the_remedy_and_nothing_is_lost(tmp_path, selection):
    server = Flag()
    server.wrong = "connection refused"

    def act(total: int) -> None:
        raise ServerAway("nobody answers")

    with pytest.raises(PolicyFault, match=r"has been away for .*bring it back, then run the same command again") as end:
        run(tmp_path / "r", selection, Acting(act), {"policy": server}, outage_seconds=0.5)
    assert end.value.exit_code == 3
    assert list(read_journal(tmp_path / "r")) == []
    run(tmp_path / "r", selection, Acting(lambda total: None), {"policy": Flag()})
    whole(tmp_path / "r")


def test_what_waiting_cannot_repair_is_not_waited_for(tmp_path, selection):
    class Broken(Flag):
        def probe(self) -> str:
            raise PolicyFault("the server crashed again after its restart")

    def act(total: int) -> None:
        raise PolicyFault("the call failed")

    began = time.monotonic()
    with pytest.raises(PolicyFault, match="crashed again"):
        run(tmp_path / "r", selection, Acting(act), {"policy": Broken()})
    assert time.monotonic() - began < 60
    assert list(read_journal(tmp_path / "r")) == []


def test_a_fault_that_no_outage_explains_is_a_loss_as_ever(tmp_path, selection):
    def act(total: int) -> None:
        if total == 3:
            raise EnvironmentFault("out of memory")

    run(tmp_path / "r", selection, Acting(act), {"environment": Flag()})
    lost = [e for e in read_journal(tmp_path / "r") if e["event"] == "rollout" and e["fault"]]
    assert [e["fault"]["message"] for e in lost] == ["out of memory"]


def test_a_rollout_that_takes_its_server_away_each_time_is_a_loss_in_the_end(tmp_path, selection):
    class Poison(Acting):
        def run(self, instance: Any, environment: Any, record: Any, *, seed: int) -> Any:
            self.starts[instance.instance_id] += instance.instance_id == NAMES[0]
            if instance.instance_id == NAMES[0]:
                raise ServerAway("nobody answers")
            return super().run(instance, environment, record, seed=seed)

    agent = Poison(lambda total: None)
    run(tmp_path / "r", selection, agent, {"policy": Flag()})
    lost = [e["instance_id"] for e in read_journal(tmp_path / "r") if e["event"] == "rollout" and e["fault"]]
    assert lost == NAMES[:1]
    assert agent.starts[NAMES[0]] == INTERRUPTIONS + 1


def test_a_journal_whose_disk_is_full_for_a_while_gets_each_line_once(tmp_path, selection, monkeypatch):
    """The failure that hurts most: the rollout is in its place, and the line that says so cannot be written."""

    def prepare(store: RunStore) -> None:
        append, failures = store._append, Counter[tuple[str, str]]()

        def full(event: dict[str, Any]) -> None:
            failures[event["event"], event["instance_id"]] += 1
            if event["instance_id"] in NAMES[3:6] and failures[event["event"], event["instance_id"]] <= 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            append(event)

        monkeypatch.setattr(store, "_append", full)

    run(tmp_path / "r", selection, Acting(lambda total: None), {}, prepare=prepare)
    whole(tmp_path / "r")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("cannot mount a small file system: needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_run_on_a_disk_that_fills_waits_until_there_is_space(small_disk, selection):
    ballast = small_disk / "ballast"

    def act(total: int) -> None:
        if total == 5:
            with suppress(OSError), ballast.open("wb", buffering=0) as file:
                while file.write(bytes(1 << 16)):
                    pass

    class Freeing(Disk):
        def probe(self) -> str:
            if wrong := super().probe():
                ballast.unlink(missing_ok=True)  # somebody makes space
            return wrong

    said = run(small_disk / "r", selection, Acting(act), {"host": Freeing(small_disk / "r")})
    whole(small_disk / "r")
    assert [line.partition(" (")[0].partition(" after")[0] for line in said] == ["the disk is away", "the disk is back"]


def test_a_server_is_away_when_nobody_answers_or_a_gateway_finds_nobody(httpserver_of: Callable[[int], str]):
    assert "refused" in unanswered(["http://127.0.0.1:9/v1"])
    assert "HTTP 503" in unanswered([httpserver_of(503)])
    for status in (200, 401, 404, 500):  # it is there, whatever it says
        assert unanswered(["http://127.0.0.1:9/v1", httpserver_of(status)]) == ""


@pytest.fixture
def httpserver_of() -> Iterator[Callable[[int], str]]:
    """Starts servers that answer everything with one status."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    servers: list[ThreadingHTTPServer] = []

    def start(status: int) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/v1"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
