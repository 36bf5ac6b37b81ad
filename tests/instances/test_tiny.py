"""The bundled tiny set: its bytes can be made anew, and every instance is what it claims to be."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aem_harness.harness.grading import official
from aem_harness.harness.grading.audit import audit_log, audit_patch
from aem_harness.harness.instances import bundled
from aem_harness.harness.instances.load import load
from aem_harness.harness.types import Outcome, Prediction, Task
from tests.instances.observe import observe

WORKERS = 2
SET = load("tiny", strict=True)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_set_is_what_its_seed_makes(tmp_path):
    from aem_harness.training.export import export_bundled

    export_bundled(tmp_path)
    made, bundle = files(tmp_path), files(bundled.TINY)
    bundle.pop("README.md")
    assert made == bundle


def test_it_holds_no_task_that_training_or_its_evaluation_has_used():
    from aem_harness.training.export import BUNDLED_COUNT, BUNDLED_SEED
    from aem_harness.training.tasks import TEST_SEED, TRAIN_SEED, tasks

    ours = {(task.gold, task.bug) for task in tasks("test", seed=BUNDLED_SEED, count=BUNDLED_COUNT)}
    assert len(ours) == len(SET.tasks) == BUNDLED_COUNT
    assert not ours & {(task.gold, task.bug) for task in tasks("test", seed=TEST_SEED, count=300)}
    assert not {gold for gold, _ in ours} & {task.gold for task in tasks("train", seed=TRAIN_SEED, count=2000)}


def test_one_image_serves_all_rows_and_no_issue_gives_a_hidden_test_away():
    assert (
        len({task.instance.image for task in SET.tasks}) == len({task.instance.base_commit for task in SET.tasks}) == 1
    )
    for task in SET.tasks:
        assert task.provenance == {}
        assert task.fail_to_pass
        assert not task.network
        added = [line[1:] for line in task.test_patch.splitlines() if line.startswith("+") and line[:3] != "+++"]
        assert len(added) == 8
        assert not [call for call in added if call.partition(" == ")[0] in task.instance.problem_statement]


# --- in containers --------------------------------------------------------------------------------------------------


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.extended
def test_gold_resolves_without_a_grave_mark_another_patch_does_not_and_the_test_lists_are_exact(engine, tmp_path):
    with ThreadPoolExecutor(WORKERS) as pool:
        observed = list(pool.map(lambda task: observe(task, tmp_path), SET.tasks))
    for task, found in zip(SET.tasks, observed, strict=True):
        assert found.gold.outcome is Outcome.RESOLVED, found.gold.cause
        assert found.unrelated.outcome is Outcome.UNRESOLVED
        lists = {"FAIL_TO_PASS": [*task.fail_to_pass], "PASS_TO_PASS": [*task.pass_to_pass]}
        assert {name: set(tests) for name, tests in found.lists.items()} == {
            name: set(tests) for name, tests in lists.items()
        }
        log = (tmp_path / "gold" / task.instance_id / official.TEST_OUTPUT).read_text()
        assert audit_log(log, task) == []
        assert not [mark for mark in audit_patch(task.patch, task) if mark.grave]


@pytest.mark.docker
@pytest.mark.slow
def test_an_edit_that_runs_forever_is_unresolved_within_the_runner_s_own_limit(engine, tmp_path):
    task = next(task for task in SET.tasks if "for x in items" in _module(task))
    endless = _module(task).replace("    for x in items:", "    for x in items:\n        while True: pass", 1)
    from aem_harness.training.export import patch_of

    patch = patch_of(_path(task), _module(task), endless)
    prediction = Prediction(instance_id=task.instance_id, model_name_or_path="endless", model_patch=patch)
    limited = "\ntimeout 20 python t.py "
    assert all(limited in one.eval_script for one in SET.tasks)
    task = task.model_copy(update={"eval_script": task.eval_script.replace(limited, limited.replace("20", "3"))})
    grade = official.grade(task, prediction, folder=tmp_path, timeout=300)
    assert grade.outcome is Outcome.UNRESOLVED
    assert grade.cause.endswith("ended its tests (exit status 124); the gold patch has no such trouble")
    assert (tmp_path / official.REPORT).is_file(), "as the official harness writes one"


@pytest.mark.docker
@pytest.mark.slow
def test_a_machine_that_is_too_slow_for_the_runner_s_own_limit_is_no_failure_of_the_patch(engine, tmp_path):
    task = SET.tasks[0]
    limited = "\ntimeout 20 python t.py "
    slow = task.eval_script.replace(limited, limited.replace("python", "sh -c 'sleep 60' python").replace("20", "1"))
    assert slow != task.eval_script
    task = task.model_copy(update={"eval_script": slow})
    prediction = Prediction(instance_id=task.instance_id, model_name_or_path="good", model_patch=task.patch)
    grade = official.grade(task, prediction, folder=tmp_path, timeout=300)
    assert grade.outcome is Outcome.ERROR
    assert "a time limit of the eval script ended its tests" in grade.cause
    assert not (tmp_path / official.REPORT).exists()


def _path(task: Task) -> str:
    return f"lib/{task.instance_id.removeprefix('aem__tiny-bugs-')}.py"


def _module(task: Task) -> str:
    return (bundled.TINY / "project" / "files" / _path(task)).read_text()
