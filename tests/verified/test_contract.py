"""The stand-in images keep the contract of the official ones, and the sandbox keeps its promises on them."""

from collections.abc import Mapping

import pytest

from aem_harness.harness.sandbox.build import BASE
from aem_harness.harness.sandbox.container import Sandbox
from aem_harness.harness.sandbox.engine import client
from aem_harness.harness.types import Task
from tests.verified import build
from tests.verified.patches import NO_OP

pytestmark = [pytest.mark.extended, pytest.mark.docker, pytest.mark.slow, pytest.mark.network]


@pytest.mark.parametrize("instance_id", build.instance_ids())
def test_an_agent_starts_at_the_base_commit_sees_no_future_and_leaves_a_diff_of_its_edits(
    tasks: Mapping[str, Task], instance_id: str
) -> None:
    task = tasks[instance_id]
    commit = task.instance.base_commit
    assert commit in task.eval_script  # untouched: no other name for the commit was put into it
    with Sandbox(task.instance.image) as environment:
        assert environment.execute("git status --porcelain").output == environment.diff() == ""
        commits = environment.execute(
            "git rev-list HEAD | wc -l; git cat-file --batch-all-objects --batch-check='%(objecttype)' | grep -c commit"
        )
        assert commits.output.split() == ["2", "2"]  # the tree, and what setting it up changed
        environment.write_file("/tmp/no-op.diff", NO_OP.encode())
        done = environment.execute("git apply /tmp/no-op.diff && python -m compileall -q -l .")
        assert done.returncode == 0, done.output
        assert environment.diff() == NO_OP  # no bytecode in it
        reset = environment.execute(f"git checkout {commit} . && git diff --stat {commit}")
        assert (reset.returncode, "changed" in reset.output) == (0, False), reset.output  # it names the tree itself


@pytest.mark.parametrize("instance_id", ["django__django-16901", "pytest-dev__pytest-7571", "pydata__xarray-7233"])
def test_an_agent_works_offline_in_the_activated_environment(tasks: Mapping[str, Task], instance_id: str) -> None:
    task = tasks[instance_id]
    with Sandbox(task.instance.image) as environment:
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
        network = environment.execute("cat /proc/net/route | wc -l; getent hosts example.org; ls /sys/class/net")
        assert network.output.split() == ["1", "lo"]


def test_a_real_image_of_the_same_name_is_never_built_over(tasks: Mapping[str, Task]) -> None:
    name = "aem/verified-probe:real"
    base = client().images.get(BASE)
    base.tag(*name.split(":"))  # an image without the label of stand-ins
    try:
        build.ensure(build.Layer(name, BASE, "RUN false"), print)
        assert client().images.get(name).id == base.id
    finally:
        client().images.remove(name)
