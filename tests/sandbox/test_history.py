"""The future of a repository holds the fix: it is removed, and that none is left is proven."""

import pytest

from aem_harness.harness.errors import EnvironmentFault
from aem_harness.harness.sandbox import history
from aem_harness.harness.sandbox.history import remove_future

pytestmark = pytest.mark.docker

# A repository whose work tree stands at `base`, with the future in every place where git can keep one.
WITH_FUTURE = """
set -e
rm -rf /repo /upstream && mkdir /repo && cd /repo && git init -q -b main
for n in 1 2 3; do echo $n > file; git add -A; git commit -qm "past $n"; done
git tag -a v1 -m v1 HEAD~1; git tag base
for n in 4 5; do echo $n > file; git commit -qam "future $n"; done
git tag -a v2 -m v2; git tag light
git branch other; git clone -q --bare /repo /upstream && git remote add origin /upstream && git fetch -q origin
git checkout -q base; git branch -D -q main
echo stashed > file; git stash -q
git checkout -q -b side base; echo lost > file; git commit -qam 'future, unreachable'
git checkout -q --detach base; git branch -D -q side
git gc -q; git notes add -m 'a note' other
"""


@pytest.fixture
def repo(open_sandbox):
    box = open_sandbox()
    box._workdir = "/"
    assert box.execute(WITH_FUTURE).returncode == 0
    box._workdir = "/repo"
    return box


def commits(box):
    return box.execute("git cat-file --batch-all-objects --batch-check | grep -c ' commit '").output.strip()


def test_no_commit_beyond_the_base_survives_and_the_past_does(repo):
    assert int(commits(repo)) > 3
    remove_future(repo, "image with a future")
    assert commits(repo) == "3"
    assert repo.execute("git log --format=%s").output == "past 3\npast 2\npast 1\n"
    assert repo.execute("git describe --tags --long").output.startswith("base-0-")
    assert repo.execute("git tag").output == "base\nv1\n"
    assert repo.execute("git remote; git stash list; git reflog; git branch --list 'o*'").output == ""
    assert repo.execute("git fsck --full --strict 2>&1; git status --porcelain").output == ""


def test_a_future_of_thousands_of_commits_is_removed_too(repo):
    stream = (
        "for n in $(seq 4000); do printf 'commit refs/heads/long\\ncommitter a <a@b> %d +0000\\ndata 1\\nx\\n' $n; done"
    )
    assert repo.execute(f"{stream} | git fast-import --quiet").returncode == 0
    assert int(commits(repo)) > 4000
    remove_future(repo, "image with a long future")
    assert commits(repo) == "3"


def test_a_future_that_cannot_be_removed_is_a_fault(repo, monkeypatch):
    monkeypatch.setattr(history, "_REMOVE", "true")
    with pytest.raises(EnvironmentFault, match="beyond its base"):
        remove_future(repo, "image with a future")


def test_a_folder_that_is_no_repository_is_left_alone(open_sandbox):
    assert open_sandbox(workdir="/etc").execute("ls -d /etc/hosts").output == "/etc/hosts\n"
