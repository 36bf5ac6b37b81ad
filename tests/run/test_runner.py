"""A run as a user sees it: what becomes of agents that crash, faults, limits and retries."""

import errno
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docker
import pytest

from aem_harness.api.running import Selection, open_run
from aem_harness.harness.config import RunConfig
from aem_harness.harness.errors import EnvironmentFault, PolicyFault, fault_in
from aem_harness.harness.instances.load import load
from aem_harness.harness.run.identity import Identity
from aem_harness.harness.run.places import Containers, Places
from aem_harness.harness.run.reports import write_reports
from aem_harness.harness.run.runner import FAULTS_IN_A_ROW, Runner
from aem_harness.harness.run.store import read_journal
from aem_harness.harness.sandbox import container
from aem_harness.harness.types import (
    AgentExit,
    Environment,
    ExitStatus,
    Grade,
    Instance,
    Outcome,
    Prediction,
    Recorder,
    Task,
)
from tests.run.faulty import Folders, Injector


class Unresolved(Folders):
    """Folders for containers, where every patch is graded, and none is right."""

    def __init__(self) -> None:
        super().__init__(Injector({}))

    def grade(self, task: Task, prediction: Prediction, folder: Path, left: Mapping[str, str | None] | None) -> Grade:
        graded = super().grade(task, prediction, folder, left)
        return graded.model_copy(update={"outcome": Outcome.UNRESOLVED})


class Scripted:
    """An agent whose behaviour is a function; counts how often each rollout was started."""

    name = "scripted"

    def __init__(self, act) -> None:
        self.act = act
        self.starts: Counter[tuple[str, int]] = Counter()

    def describe(self) -> Mapping[str, Any]:
        return {"kind": self.name}

    def run(self, instance: Instance, environment: Environment, record: Recorder, *, seed: int) -> AgentExit:
        self.starts[instance.instance_id, seed] += 1
        record.message({"role": "assistant", "content": "working", "extra": {"actions": []}})
        environment.execute("echo '# touched' >> README.md")
        return self.act(self.starts[instance.instance_id, seed])


@pytest.fixture(scope="module")
def selection() -> Selection:
    loaded = load("sample")
    return Selection(loaded.tasks[:2], loaded)


def perform(
    folder: Path,
    selection: Selection,
    act,
    *,
    seeds: int = 1,
    retry: bool = False,
    places: Places | None = None,
    **config: Any,
):
    """The agent that was run, and the end of each rollout; in folders, unless `places` are others."""
    agent = Scripted(act)
    keys = [(task.instance_id, seed) for seed in range(seeds) for task in selection.tasks]
    with open_run(folder, RunConfig(arm="a", agent="scripted", **config), selection, agent, seeds) as store:
        runner = Runner(
            store, {task.instance_id: task for task in selection.tasks}, agent, places=places or Unresolved()
        )
        runner.run(keys, retry_infrastructure=retry)
        return agent, {key: store.progress[key] for key in keys}


def submit(_: int) -> AgentExit:
    return AgentExit(status=ExitStatus.SUBMITTED)


@pytest.mark.parametrize("crash_with", [ZeroDivisionError("a bug of the agent's"), SystemExit("a bug of the agent's")])
def test_a_crash_of_the_agent_is_its_own_and_its_work_is_graded(tmp_path, selection, crash_with):
    def crash(_: int) -> AgentExit:
        raise crash_with

    _, done = perform(tmp_path / "r", selection, crash)
    for (instance_id, seed), progress in done.items():
        assert progress.rollout["exit_status"] == "agent_crash"
        assert progress.rollout["fault"] is None
        assert progress.grade["outcome"] == "unresolved"
        folder = tmp_path / "r" / "rollouts" / instance_id / str(seed)
        assert "touched" in (folder / "patch.diff").read_text()
        document = json.loads((folder / f"{instance_id}.traj.json").read_text())
        assert "a bug of the agent's" in document["info"]["traceback"]


@pytest.mark.docker
@pytest.mark.usefixtures("engine")
def test_bytes_that_are_no_text_cost_neither_the_rollout_nor_its_siblings(tmp_path, selection):
    class Latin(Scripted):
        def run(self, instance, environment, record, *, seed):
            environment.execute(r"printf 'caf\351\n' > legacy.txt")
            return super().run(instance, environment, record, seed=seed)

    agent = Latin(submit)
    keys = [(task.instance_id, 0) for task in selection.tasks]
    with open_run(tmp_path / "r", RunConfig(arm="a", agent="scripted"), selection, agent, 1) as store:
        Runner(store, {task.instance_id: task for task in selection.tasks}, agent).run(keys)
        assert {store.progress[key].grade["outcome"] for key in keys} == {"unresolved"}
    for name, seed in keys:
        assert b"+caf\xe9\n" in (tmp_path / "r" / "rollouts" / name / str(seed) / "patch.diff").read_bytes()


@pytest.mark.parametrize(
    ("error", "boundary"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "host"),
        (OSError(errno.EMFILE, "Too many open files"), "host"),
        (MemoryError(), "host"),
        (RuntimeError("can't start new thread"), "host"),
        (ConnectionResetError("reset"), "host"),
        (docker.errors.APIError("the engine is busy"), "environment"),
    ],
)
def test_what_this_machine_refuses_an_agent_is_no_crash_of_the_agent(error, boundary):
    assert fault_in(error).boundary == boundary
    wrapped = RuntimeError("the agent's own words")
    wrapped.__cause__ = error
    assert fault_in(wrapped).boundary == boundary


def test_an_agents_own_slips_are_no_faults():
    for own in (FileNotFoundError("x"), ValueError("x"), SystemExit(2), TimeoutError("x")):
        assert fault_in(own) is None


def test_a_limit_keeps_the_work_tree_as_the_prediction(tmp_path, selection):
    _, done = perform(tmp_path / "r", selection, lambda _: AgentExit(status=ExitStatus.STEP_LIMIT))
    assert {p.rollout["exit_status"] for p in done.values()} == {"step_limit"}
    assert all(p.rollout["patch_bytes"] > 0 and p.grade["outcome"] == "unresolved" for p in done.values())


@pytest.mark.parametrize("fault", [PolicyFault("the server went away"), EnvironmentFault("the daemon went away")])
def test_a_fault_is_retried_once_and_then_counts_as_infrastructure(tmp_path, selection, fault):
    def lose(_: int) -> AgentExit:
        raise fault

    agent, done = perform(tmp_path / "r", selection, lose, infra_retries=1)
    assert set(agent.starts.values()) == {2}
    for progress in done.values():
        assert progress.rollout["fault"] == {"boundary": fault.boundary, "message": str(fault)}
        assert progress.grade is None
        assert progress.infrastructure


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.usefixtures("engine")
def test_in_containers_too_faults_leave_the_healthy_rollouts_as_they_are(tmp_path, selection):
    """The small version with real containers of what tests/run/test_faults.py does in hundreds of folders."""
    first, second = (task.instance_id for task in selection.tasks)
    faults = {(first, 1): OSError(errno.ENOSPC, "struck 1"), (second, 0): docker.errors.APIError("struck 2")}

    class Struck(Scripted):
        def run(self, instance, environment, record, *, seed):
            ended = super().run(instance, environment, record, seed=seed)
            if error := faults.get((instance.instance_id, seed)):
                raise error
            return ended

    keys = [(task.instance_id, seed) for seed in range(2) for task in selection.tasks]
    tasks = {task.instance_id: task for task in selection.tasks}
    results = []
    for faulty, agent in ((False, Scripted(submit)), (True, Struck(submit))):
        config = RunConfig(arm="a", agent="scripted", infra_retries=0)
        with open_run(tmp_path / str(faulty), config, selection, agent, 2) as store:
            Runner(store, tasks, agent).run(keys if faulty else [key for key in keys if key not in faults])
            results.append(dict(store.progress))
    for key in keys:
        disturbed = results[1][key]
        if key in faults:
            assert "struck" in disturbed.rollout["fault"]["message"]
        else:
            undisturbed = results[0][key]
            assert disturbed.grade["outcome"] == undisturbed.grade["outcome"] == "unresolved"
            assert disturbed.rollout["files"]["patch.diff"] == undisturbed.rollout["files"]["patch.diff"]
            assert disturbed.grade["tree_differs"] == []


def test_what_was_lost_is_repeated_on_request_and_nothing_else(tmp_path, selection):
    def lose_first(start: int) -> AgentExit:
        if start == 1:
            raise PolicyFault("the server went away")
        return submit(start)

    folder = tmp_path / "r"
    perform(folder, selection, lambda start: lose_first(1), infra_retries=0)
    agent, done = perform(folder, selection, submit, infra_retries=0)
    assert not agent.starts, "a plain continuation does not repeat losses"
    agent, done = perform(folder, selection, submit, infra_retries=0, retry=True)
    assert set(agent.starts.values()) == {1}
    assert {p.grade["outcome"] for p in done.values()} == {"unresolved"}
    agent, _ = perform(folder, selection, submit, infra_retries=0, retry=True)
    assert not agent.starts


def test_when_everything_is_lost_the_run_stops_instead_of_losing_the_rest(tmp_path, selection):
    def lose(_: int) -> AgentExit:
        raise PolicyFault("the server went away")

    with pytest.raises(EnvironmentFault, match=rf"{FAULTS_IN_A_ROW} losses in a row.*server went away"):
        perform(tmp_path / "r", selection, lose, seeds=20)


@pytest.mark.docker
@pytest.mark.usefixtures("engine")
def test_official_files_describe_the_run(tmp_path, selection):
    places = Containers(Identity(RunConfig(arm="a", agent="scripted"), {}, selection.loaded.digest))
    _, done = perform(tmp_path / "r", selection, submit, seeds=2, places=places)
    assert len([e for e in read_journal(tmp_path / "r") if e["event"] == "grade"]) == 4
    write_reports(tmp_path / "r", selection.tasks, done)
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert report["completed_instances"] == report["unresolved_instances"] == 2
    predictions = [json.loads(line) for line in (tmp_path / "r" / "predictions.seed1.jsonl").read_text().splitlines()]
    assert [set(p) for p in predictions] == [{"instance_id", "model_name_or_path", "model_patch"}] * 2


@pytest.mark.docker
@pytest.mark.usefixtures("engine")
def test_what_a_rollout_does_to_its_own_container_counts_and_is_no_fault(tmp_path, selection, monkeypatch):
    monkeypatch.setattr(container, "REVIVAL_PAUSES", (0.0, 0.2))  # it lives, and will not be reached later either

    class Breaking(Scripted):
        def run(self, instance, environment, record, *, seed):
            remove = "mv /bin/bash /bin/elsewhere; kill -9 $(pgrep -x aem-supervisor)"
            docker.from_env().containers.get(environment.id).exec_run(["bash", "-c", remove])
            environment.execute("echo on")
            return AgentExit(status=ExitStatus.SUBMITTED)

    one = Selection(selection.tasks[:1], selection.loaded)
    agent = Breaking(submit)
    with open_run(tmp_path / "r", RunConfig(arm="a", agent="scripted"), one, agent, 1) as store:
        key = one.tasks[0].instance_id, 0
        Runner(store, {key[0]: one.tasks[0]}, agent).run([key])
        rollout, grade = store.progress[key].rollout, store.progress[key].grade
    assert rollout["fault"] is None
    assert rollout["exit_status"] == "sandbox_destroyed"
    assert "takes no more commands" in rollout["reason"]
    assert grade["outcome"] == "empty_patch"
