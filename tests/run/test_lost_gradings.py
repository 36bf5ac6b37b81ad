"""Commands that grade stored patches again end with exit code 3 where gradings were lost, and repeat those alone."""

import json
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from aem_harness.api import grading, running, sites
from aem_harness.cli import app
from aem_harness.harness.config import RunConfig
from aem_harness.harness.errors import EnvironmentFault
from aem_harness.harness.grading.official import REPORT
from aem_harness.harness.grading.regrade import Regrade, digest_of
from aem_harness.harness.instances.load import load
from aem_harness.harness.run import auditing
from aem_harness.harness.run.store import RunStore, now, write_patch
from aem_harness.harness.types import Grade, Outcome, Task

TASKS = load("tiny").tasks[:3]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of three resolved rollouts of `tiny`."""
    facts = {
        "plan": {"instances": [task.instance_id for task in TASKS], "seeds": 1},
        "agent": {"kind": "gold"},
        "dataset": {"name": "tiny", "digest": "d"},
        "versions": {"swebench": "5.0.2"},
    }
    with RunStore(tmp_path / "run", RunConfig(arm="a", agent="gold", dataset="tiny"), facts) as store:
        for task in TASKS:
            key = {"instance_id": task.instance_id, "seed": 0, "attempt": 0, "at": now()}
            scratch = store.scratch(task.instance_id, 0)
            write_patch(scratch / "patch.diff", task.patch)
            event = {"event": "rollout", "exit_status": "submitted", "fault": None, "seconds": 1.0, "steps": 1}
            store.finish_rollout(scratch, {**event, **key})
            (store.rollout_folder(task.instance_id, 0) / REPORT).write_text("{}")
            store.finish_grade({"event": "grade", "outcome": "resolved", "cause": "", "seconds": 1.0, **key})
    return tmp_path / "run"


class Site:
    """An engine that loses the work on those instances; what it was asked for is in `asked`."""

    def __init__(self, lost: set[str]) -> None:
        self.lost, self.asked = lost, list[str]()

    def grade(self, task: Task, *_: Any) -> Grade:
        self.asked.append(task.instance_id)
        if task.instance_id in self.lost:
            raise EnvironmentFault("the engine does not answer")
        return Grade(instance_id=task.instance_id, outcome=Outcome.RESOLVED)

    def audit(self, task: Task, folder: Path, name: str) -> Regrade:
        self.asked.append(task.instance_id)
        if task.instance_id in self.lost:
            return auditing.unaudited(folder, EnvironmentFault("the engine does not answer"), name)
        found = Regrade(state="clean", patch_sha256=digest_of(task.patch))
        (folder / name).write_text(found.model_dump_json())
        return found

    def reap(self) -> int:
        return 0

    def ahead(self, gradings: int) -> int:
        return gradings

    def close_all(self) -> None: ...

    def services(self) -> dict[str, Any]:
        return {}

    def supply(self, *_: object) -> Any:
        return nullcontext()


@pytest.fixture
def command(run: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, list[str]]]:
    """`command(name, lost)`: how `aem NAME` ends where the engine loses those, and what it was asked for."""

    def end(name: str, lost: set[str]) -> tuple[Any, list[str]]:
        site = Site(lost)

        @contextmanager
        def opened(*_: Any, **__: Any) -> Any:
            yield SimpleNamespace(site=site, grade_workers=1)

        monkeypatch.setattr(grading, "opened", opened)
        monkeypatch.setattr(sites, "opened", opened)
        monkeypatch.setenv("XDG_CACHE_HOME", str(run.parent / "cache"))  # variants made here are graded as well
        words = [name, str(run), *(["--canary", "1"] if name == "audit" else [])]
        return CliRunner().invoke(app, words), sorted(site.asked)

    return end


@pytest.mark.parametrize("name", ["regrade", "audit"])
def test_lost_gradings_end_the_command_with_the_code_of_infrastructure_and_are_repeated(command, name):
    """It ended with 0, as if all had been graded."""
    first = TASKS[0].instance_id
    done, asked = command(name, {first})
    assert isinstance(done.exception, EnvironmentFault), done.output
    assert done.exception.exit_code == 3
    assert f"1 {'grading' if name == 'regrade' else 'regrade'} lost to infrastructure" in str(done.exception)
    assert "the same command again" in str(done.exception)
    assert asked == sorted(task.instance_id for task in TASKS)
    assert "flipped" not in done.output.replace("patches flipped", ""), "a lost grading says nothing of the grader"
    done, asked = command(name, set())
    assert (done.exit_code, asked) == (0, [first]), done.output
    done, asked = command(name, {first})
    assert (done.exit_code, asked) == (0, []), "nothing is left to do, so nothing is lost"


def test_a_run_whose_canaries_were_lost_ends_with_the_code_of_infrastructure_and_repeats_them(tmp_path, monkeypatch):
    """It ended with 0, as if all that was asked for had been done."""
    lost: set[str] = set()
    site = Site(lost)
    monkeypatch.setattr(site, "grade", partial(resolved, site))

    @contextmanager
    def opened(*_: Any, **__: Any) -> Any:
        yield SimpleNamespace(site=site, workers=1, grade_workers=1)

    monkeypatch.setattr(running, "opened", opened)
    monkeypatch.chdir(tmp_path)
    gold = [{"instance_id": t.instance_id, "model_name_or_path": "g", "model_patch": t.patch} for t in TASKS]
    Path("gold.json").write_text(json.dumps(gold))
    words = ["grade", "gold.json", "--set", "tiny", "--canary", "1"]
    lost.add(TASKS[0].instance_id)
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 3, done.output
    assert "1 regrade with canaries lost to infrastructure" in " ".join(done.output.split())
    lost.clear()
    site.asked.clear()
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, site.asked) == (0, [TASKS[0].instance_id]), done.output


def resolved(site: Site, task: Task, _: Any, folder: Path, __: Any) -> Grade:
    (folder / REPORT).write_text("{}")
    return Grade(instance_id=task.instance_id, outcome=Outcome.RESOLVED)
