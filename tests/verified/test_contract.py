"""The stand-in images keep the contract of the official ones, and the sandbox keeps its promises on them."""

from collections.abc import Mapping

import pytest

from harness.sandbox.container import Sandbox
from harness.types import Task
from tests.verified import build
from tests.verified.patches import NO_OP

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.network]


def sandbox(task: Task, *, agent: bool = True) -> Sandbox:
    """As the runner opens it for an agent, or as grading does."""
    return Sandbox(task.instance.image, workdir=task.instance.workdir, network=not agent, scrub_git=agent)


@pytest.mark.parametrize("instance_id", build.instance_ids())
def test_an_image_holds_the_base_commit_of_its_row_and_a_clean_tree(
    tasks: Mapping[str, Task], instance_id: str
) -> None:
    task = tasks[instance_id]
    commit = task.instance.base_commit
    assert commit in task.eval_script  # untouched: no other name for the commit was put into it
    with sandbox(task, agent=False) as environment:
        status = environment.execute("git status --porcelain && git log --oneline | wc -l")
        assert status.output.split() == ["2"]  # the base commit, and that of the set-up
        files = environment.execute(f"git checkout {commit} . && git diff --stat {commit}")
        assert files.returncode == 0, files.output
        assert "file" not in files.output  # the row's commit names the tree itself


@pytest.mark.parametrize("instance_id", ["django__django-16901", "pytest-dev__pytest-7571", "pydata__xarray-7233"])
def test_an_agent_works_offline_in_the_activated_environment(tasks: Mapping[str, Task], instance_id: str) -> None:
    task = tasks[instance_id]
    with sandbox(task) as environment:
        activated = environment.execute(
            "source /opt/miniconda3/bin/activate && conda activate testbed && which python && echo $CONDA_DEFAULT_ENV"
        )
        assert activated.output.split() == ["/opt/miniconda3/envs/testbed/bin/python", "testbed"]
        package = {"django": "django", "pytest-dev": "pytest", "pydata": "xarray"}[instance_id.split("__")[0]]
        found = environment.execute(
            "source /opt/miniconda3/bin/activate; conda activate testbed; "
            f"cd / && python -c 'import {package}; print({package}.__file__)'"
        )
        assert found.output.startswith("/testbed/"), found.output
        network = environment.execute("cat /proc/net/route | wc -l; getent hosts pypi.org; ls /sys/class/net")
        assert network.output.split() == ["1", "lo"]


@pytest.mark.parametrize("instance_id", build.instance_ids())
def test_an_agent_sees_the_past_only_and_its_diff_holds_its_edits_only(
    tasks: Mapping[str, Task], instance_id: str
) -> None:
    task = tasks[instance_id]
    with sandbox(task) as environment:
        assert environment.diff() == ""
        past, every = environment.execute(
            "git rev-list HEAD | wc -l; git cat-file --batch-all-objects --batch-check='%(objecttype)' | grep -c commit"
        ).output.split()
        assert past == every == "2"
        environment.write_file("/tmp/no-op.diff", NO_OP.encode())
        done = environment.execute("git apply /tmp/no-op.diff && python -m compileall -q -l .")
        assert done.returncode == 0, done.output
        assert environment.diff() == NO_OP
