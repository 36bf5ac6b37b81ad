"""The bundled sample set: its files agree with each other, and every instance is what it claims to be."""

import json
import re
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import yaml

from aem_harness.agents.scripted import load_replay, shipped_replays
from aem_harness.harness.instances import bundled
from aem_harness.harness.instances.load import load
from aem_harness.harness.types import ExitStatus, Outcome, Prediction
from tests.instances.observe import base_commit, observe

WORKERS = 4
SAMPLE = load("sample", strict=True)
TASKS = {task.instance_id: task for task in SAMPLE.tasks}


def by_id(*values):
    return pytest.mark.parametrize("instance_id", TASKS)(*values)


def test_the_set_is_broad():
    projects = Counter(bundled.project_of(instance_id) for instance_id in TASKS)
    difficulties = Counter(task.instance.difficulty for task in SAMPLE.tasks)
    assert len(TASKS) >= 12
    assert len(projects) >= 4
    assert difficulties["<15 min fix"] >= 3
    assert difficulties["1-4 hours"] >= 2
    assert set(difficulties) == {"<15 min fix", "15 min - 1 hour", "1-4 hours"}


@by_id
def test_rows_are_complete(instance_id):
    task = TASKS[instance_id]
    assert task.provenance == {}
    assert task.fail_to_pass
    assert len(task.pass_to_pass) >= 3
    assert not task.network
    assert len(task.instance.problem_statement.split()) >= 20
    assert not re.search(r"[\s]", "".join(task.fail_to_pass + task.pass_to_pass)), "log parsers cut ids at spaces"
    assert all(name.startswith("tests/") for name in re.findall(r"^diff --git a/(\S+)", task.test_patch, re.MULTILINE))
    assert not re.findall(r"^diff --git a/tests/", task.patch, re.MULTILINE)


@by_id
def test_the_base_commit_is_the_same_on_every_machine(instance_id):
    assert base_commit(instance_id) == TASKS[instance_id].instance.base_commit


@by_id
def test_the_eval_script_is_valid_bash(instance_id):
    script = TASKS[instance_id].eval_script
    assert subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True).stderr == ""
    assert script.index(">>>>> Start Test Output") < script.index(">>>>> End Test Output")


def test_all_files_of_the_set_are_used():
    tasks = bundled.ROOT / "tasks"
    names = {"task.yaml", "tests.json", "problem_statement.md", "hints.md", "gold.patch", "test.patch"}
    assert {path.name for path in tasks.glob("*/*")} == names
    projects = {path.name for path in (bundled.ROOT / "projects").iterdir()}
    assert projects == {bundled.project_of(instance_id) for instance_id in TASKS}
    for folder in tasks.iterdir():
        assert yaml.safe_load((folder / "task.yaml").read_text())["version"]
        assert json.loads((folder / "tests.json").read_text()).keys() == {"FAIL_TO_PASS", "PASS_TO_PASS"}


@pytest.mark.parametrize("name", ["careful", "hasty"])
def test_the_scripted_policies_cover_the_set(name):
    assert name in shipped_replays()
    scripts = load_replay(name)
    assert {instance_id for instance_id, _ in scripts} == TASKS.keys()
    assert all((instance_id, None) in scripts for instance_id in TASKS), "every seed has a script"
    assert len({instance_id for instance_id, seed in scripts if seed is not None}) >= 4, "seeds differ"


# --- in containers --------------------------------------------------------------------------------------------------


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.extended
def test_gold_resolves_another_patch_does_not_and_the_test_lists_are_exact(engine, tmp_path):
    with ThreadPoolExecutor(WORKERS) as pool:
        observed = dict(zip(TASKS, pool.map(lambda task: observe(task, tmp_path), TASKS.values()), strict=True))
    assert {name: found.gold.outcome for name, found in observed.items()} == dict.fromkeys(TASKS, Outcome.RESOLVED)
    assert {name: found.unrelated.outcome for name, found in observed.items()} == dict.fromkeys(
        TASKS, Outcome.UNRESOLVED
    )
    assert {name: found.lists for name, found in observed.items()} == {
        name: {"FAIL_TO_PASS": [*task.fail_to_pass], "PASS_TO_PASS": [*task.pass_to_pass]}
        for name, task in TASKS.items()
    }


@pytest.mark.docker
def test_an_image_holds_one_commit_and_no_trace_of_the_fix(engine):
    from aem_harness.harness.sandbox.container import Sandbox
    from aem_harness.harness.sandbox.images import ensure_image

    task = TASKS["aem-sample__spans-52"]
    with Sandbox(ensure_image(task).name, scrub_git=False) as sandbox:
        assert sandbox.execute("git rev-list --all --reflog").output.strip() == task.instance.base_commit
        assert sandbox.execute("git status --porcelain").output == ""
        objects = "git cat-file --batch-all-objects --batch"
        assert sandbox.execute(f"{objects} | grep -ac 'def split_by_day'").output.strip() == "1"
        assert sandbox.execute(f"{objects} | grep -ac 'def elapsed(start, end)'").output.strip() == "0"
        places = "/testbed /tmp /root /home /opt/miniconda3/envs/testbed/lib"
        assert sandbox.execute(f"grep -rl 'def elapsed(start, end)' {places}").output == ""


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.extended
def test_the_scripted_policies_work_in_the_containers(engine, tmp_path):
    """Seed 0 of each policy: careful resolves most, hasty about half, with an empty patch among the rest."""
    from aem_harness.agents.scripted import ReplayAgent
    from aem_harness.harness.grading.official import grade
    from aem_harness.harness.run.trajectory import TrajectoryWriter
    from aem_harness.harness.sandbox.container import Sandbox
    from aem_harness.harness.sandbox.images import ensure_image

    def rollout(policy: str, instance_id: str) -> Outcome:
        task, folder = TASKS[instance_id], tmp_path / policy / instance_id
        folder.mkdir(parents=True)
        record = TrajectoryWriter(folder, instance_id)
        with Sandbox(ensure_image(task).name) as sandbox:
            end = ReplayAgent(load_replay(policy)).run(task.instance, sandbox, record, seed=0)
            patch = sandbox.diff()
        record.finish(end.status, patch)
        assert end.status is ExitStatus.SUBMITTED
        prediction = Prediction(instance_id=instance_id, model_name_or_path=policy, model_patch=patch)
        return grade(task, prediction, folder=folder, timeout=120).outcome

    with ThreadPoolExecutor(WORKERS) as pool:
        careful, hasty = (list(pool.map(partial(rollout, policy), TASKS)) for policy in ("careful", "hasty"))
    assert Counter(careful) == {Outcome.RESOLVED: 17, Outcome.UNRESOLVED: 2}
    assert Counter(hasty) == {Outcome.RESOLVED: 9, Outcome.UNRESOLVED: 9, Outcome.EMPTY_PATCH: 1}
