"""What is wrong with an image is said before hours are spent in it."""

import docker
import pytest

from aem_harness.harness.instances.load import load
from aem_harness.harness.preflight import look
from aem_harness.harness.sandbox.container import Sandbox

pytestmark = pytest.mark.docker

REPOSITORY = r"""
git init -q /odd; cd /odd; echo '*.npz filter=lfs' > .gitattributes; git add -A; git commit -qm base
git config filter.lfs.clean cat; mkdir inner; echo > inner/file; chown -R 1234 /odd
"""


@pytest.fixture(scope="module")
def image(base):
    name = "aem-test/preflight"
    with Sandbox(base, workdir="/", labels={"aem.test": "preflight"}) as box:
        assert box.execute(REPOSITORY).returncode == 0
        docker.from_env().containers.get(box.id).commit(name, "odd")
    yield f"{name}:odd"
    docker.from_env().images.remove(f"{name}:odd", force=True)


def findings(image: str, workdir: str) -> dict[str, str]:
    task = load("sample").tasks[0]
    instance = task.instance.model_copy(update={"image": image, "workdir": workdir, "base_commit": "0" * 40})
    found = look(task.model_copy(update={"instance": instance}))
    return {one.detail.replace(f"{workdir} of {image}", "").strip(" :"): one.level for one in found}


def test_owner_filters_and_a_missing_base_commit_are_warnings(image):
    assert findings(image, "/odd") == {
        "lacks the base commit 000000000000": "warning",
        "belongs to user 1234": "warning",
        "passes files through the git filter lfs": "warning",
    }


def test_a_work_tree_that_is_not_there_is_a_problem_and_one_without_git_is_not(image):
    assert findings(image, "/nowhere") == {"is empty": "problem"}
    assert findings(image, "/etc") == {"is no git repository": "warning"}


def test_a_work_tree_inside_another_repository_is_a_problem(image):
    """`git apply` does nothing there and ends with 0 (findings/git-apply-below-*.sh)."""
    assert findings(image, "/odd/inner") == {
        "lies inside the git repository /odd": "problem",
        "belongs to user 1234": "warning",
    }
