"""Of two hundred rollouts, of which one in ten meets a fault, every healthy one ends as in an undisturbed run."""

import asyncio
from pathlib import Path

import pytest
from rich.console import Console

from aem_harness.api.running import Selection, open_run, perform
from aem_harness.api.sites import AtATime, Driver
from aem_harness.harness.config import RunConfig
from aem_harness.harness.ends import Whose, read_ends
from aem_harness.harness.errors import HostFault, PolicyFault
from aem_harness.harness.instances.load import load
from aem_harness.harness.run import rollout
from aem_harness.harness.run.runner import Runner
from aem_harness.harness.run.store import read_journal
from aem_harness.harness.types import AgentExit, ExitStatus
from tests.run.faulty import FAULTS, Doubler, Folders, Injector, words_of

KEYS = [(f"folder__number-{n}", 0) for n in range(1, 201)]


@pytest.fixture(scope="module")
def selection() -> Selection:
    loaded = load("sample")
    model = loaded.tasks[0]
    tasks = [
        model.model_copy(update={"instance": model.instance.model_copy(update={"instance_id": name})})
        for name, _ in KEYS
    ]
    return Selection(tasks, loaded)


def finish(folder: Path, selection: Selection, injector: Injector, *, retry: bool = False):
    """The run, up to the exit code that its command would have."""
    agent = Doubler(injector)
    config = RunConfig(arm="a", agent="doubler", infra_retries=0)
    with open_run(folder, config, selection, agent, 1) as store:
        finished = perform(
            store,
            selection,
            Driver(agent),
            KEYS,
            Console(quiet=True),
            AtATime(8, 2),
            retry_infrastructure=retry,
            places=Folders(injector),
        )
        return finished.exit_code, {key: store.progress[key] for key in KEYS}


def result(progress) -> tuple[str, str, int, str]:
    rollout = progress.rollout
    return rollout["exit_status"], rollout["reason"], rollout["patch_bytes"], progress.grade["outcome"]


def test_an_agent_that_is_cancelled_crashed_and_ends_no_other_rollout(tmp_path, selection):
    """asyncio's CancelledError is no Exception: it ended the whole run, and each that continued it."""

    class Cancelled(Doubler):
        def run(self, instance, environment, record, *, seed):
            if instance.instance_id.endswith("-3"):
                raise asyncio.CancelledError("timed out")
            return super().run(instance, environment, record, seed=seed)

    agent, keys = Cancelled(Injector({})), KEYS[:5]
    with open_run(tmp_path / "r", RunConfig(arm="a", agent="doubler"), selection, agent, 1) as store:
        tasks = {task.instance_id: task for task in selection.tasks}
        Runner(store, tasks, agent, places=Folders(Injector({}))).run(keys)
        assert all(store.progress[key].grade for key in keys)
        assert store.progress[keys[2]].rollout["exit_status"] == "agent_crash"


@pytest.mark.parametrize("seed", [20260501])
def test_one_rollouts_fault_is_that_rollouts_alone_and_names_its_cause(tmp_path, selection, seed):
    code, undisturbed = finish(tmp_path / "undisturbed", selection, Injector({}))
    assert code == 0
    injector = Injector.drawn(KEYS, seed)
    assert len(injector.struck) == 20
    code, disturbed = finish(tmp_path / "disturbed", selection, injector)
    assert code == 3, "losses end a run with the exit code of infrastructure"
    for key in KEYS:
        if key not in injector.struck:
            assert result(disturbed[key]) == result(undisturbed[key])
            continue
        progress = disturbed[key]
        assert progress.infrastructure, injector.struck[key]
        cause = progress.grade["cause"] if progress.grade else progress.rollout["fault"]["message"]
        assert words_of(key) in cause, injector.struck[key]
    journal = list(read_journal(tmp_path / "disturbed"))
    assert len({(e["instance_id"], e["seed"]) for e in journal if e["event"] == "rollout"}) == len(KEYS)

    code, again = finish(tmp_path / "disturbed", selection, Injector({}), retry=True)
    assert code == 0, "what was lost is repeated on request, and nothing else"
    assert {key: result(one) for key, one in again.items()} == {key: result(one) for key, one in undisturbed.items()}
    assert len(list(read_journal(tmp_path / "disturbed"))) < 2 * len(KEYS) + 2 * len(injector.struck) + 1


@pytest.mark.parametrize("kind", sorted(FAULTS))
def test_every_kind_of_fault_is_infrastructure_with_its_cause(tmp_path, selection, kind):
    few = Selection(selection.tasks[:3], selection.loaded)
    keys = KEYS[:3]
    injector = Injector({keys[1]: kind})
    agent = Doubler(injector)
    with open_run(tmp_path / "r", RunConfig(arm="a", agent="doubler", infra_retries=0), few, agent, 1) as store:
        Runner(store, {task.instance_id: task for task in few.tasks}, agent, places=Folders(injector)).run(keys)
        struck = store.progress[keys[1]]
        assert struck.infrastructure
        assert words_of(keys[1]) in str(struck.grade or struck.rollout["fault"])
        assert [store.progress[key].infrastructure for key in keys] == [False, True, False]
    assert "struck" in (tmp_path / "r" / "run.log").read_text()


def test_a_run_folder_that_takes_no_results_ends_the_run_in_one_line_and_loses_nothing(
    tmp_path, selection, monkeypatch
):
    few = Selection(selection.tasks[:3], selection.loaded)
    agent = Doubler(Injector({}))
    with open_run(tmp_path / "r", RunConfig(arm="a", agent="doubler"), few, agent, 1) as store:

        def full(*_: object) -> Path:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(store, "scratch", full)
        runner = Runner(store, {task.instance_id: task for task in few.tasks}, agent, places=Folders(agent.injector))
        with pytest.raises(HostFault, match=r"No space left on device.*run the same command again"):
            runner.run(KEYS[:3])
    with open_run(tmp_path / "r", RunConfig(arm="a", agent="doubler"), few, agent, 1) as store:
        assert [key[:2] for key in store.pending(KEYS[:3]).rollouts] == KEYS[:3]


class Ending(Doubler):
    """An agent that says itself how it ended, or raises."""

    def __init__(self, end: ExitStatus | Exception) -> None:
        super().__init__(Injector({}))
        self.end = end

    def run(self, instance, environment, record, *, seed):
        environment.execute("work")
        if isinstance(self.end, Exception):
            raise self.end
        return AgentExit(status=self.end, reason="so it was")


def one_rollout(folder: Path, selection: Selection, end: ExitStatus | Exception):
    few, agent = Selection(selection.tasks[:1], selection.loaded), Ending(end)
    with open_run(folder, RunConfig(arm="a", agent="doubler", infra_retries=0), few, agent, 1) as store:
        Runner(store, {one.instance_id: one for one in few.tasks}, agent, places=Folders(agent.injector)).run(KEYS[:1])
        return store.progress[KEYS[0]]


@pytest.mark.parametrize("status", ExitStatus)
def test_an_end_is_graded_where_the_table_of_ends_counts_it_and_lost_where_not(tmp_path, selection, status):
    progress = one_rollout(tmp_path / "r", selection, status)
    counts = read_ends().of(status).whose.counts
    assert (progress.grade is not None) == counts
    assert progress.infrastructure == (not counts)
    if not counts:
        assert "so it was" in progress.rollout["fault"]["message"]


@pytest.mark.parametrize(
    ("error", "word", "whose"),
    [
        (ZeroDivisionError("slip"), "agent_crash", Whose.INFRASTRUCTURE),
        (PolicyFault("away"), "fault: policy", Whose.AGENT),
    ],
)
def test_the_runner_asks_the_table_and_nothing_else_whose_fault_an_exception_is(
    tmp_path, selection, monkeypatch, error, word, whose
):
    before = one_rollout(tmp_path / "shipped", selection, error)
    monkeypatch.setattr(rollout, "ENDS", read_ends({word: whose}))
    after = one_rollout(tmp_path / "turned", selection, error)
    assert before.infrastructure != after.infrastructure
