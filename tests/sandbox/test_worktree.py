"""The patch is what the agent left, whatever it did to the repository; what it cannot carry is named."""

from collections.abc import Iterator

import docker
import pytest

from aem_harness.harness.config import Limits
from aem_harness.harness.errors import EnvironmentFault
from aem_harness.harness.grading.container import apply_patch
from aem_harness.harness.grading.official import apply_commands
from aem_harness.harness.sandbox.container import Sandbox
from aem_harness.harness.sandbox.worktree import PATCH_BYTES, Entry, Patch, _bounded, differing

pytestmark = pytest.mark.docker

IMAGE = "aem-test/worktree:odd"
# Files that trees in the wild have, a submodule, a filter that is configured and not installed, and a build product.
REPOSITORY = r"""
set -e
git init -q /helper; cd /helper; echo one > inside.txt; git add -A; git commit -qm helper
mkdir /repo; cd /repo; git init -q
printf '# caf\351\nNAME = 1\n' > legacy.txt; printf 'one\r\ntwo\r\n' > dos.txt; printf 'no end' > open.txt
printf '\0\1binary' > data.bin; ln -s legacy.txt link; echo 'echo hi' > tool.sh; echo gone > gone.txt
printf '*.log\nbuild/\n' > .gitignore
printf '*.npz filter=lfs -text\n*.u16 working-tree-encoding=UTF-16\n' > .gitattributes
echo pointer > kept.npz
git -c protocol.file.allow=always submodule --quiet add /helper helper
git add -A; git commit -qm base
git config filter.lfs.clean 'not-installed %f'; git config filter.lfs.required true
mkdir build; echo product > build/made.o; head -c 17000000 /dev/zero > ../large
"""


@pytest.fixture(scope="module")
def image(base: str) -> Iterator[str]:
    with Sandbox(base, workdir="/", labels={"aem.test": "worktree"}) as box:
        seen = box.execute(REPOSITORY)
        assert seen.returncode == 0, seen.output
        name, _, tag = IMAGE.partition(":")
        docker.from_env().containers.get(box.id).commit(name, tag)
    yield IMAGE
    docker.from_env().images.remove(IMAGE, force=True)


def opened(image: str, **options) -> Sandbox:
    return Sandbox(image, workdir="/repo", labels={"aem.test": "worktree"}, **options)


EDITS = r"""
sed -i 's/NAME/TITLE/' legacy.txt; sed -i 's/two/TWO/' dos.txt; printf 'changed, still none' > open.txt
printf '\0\2other' > data.bin; chmod +x tool.sh; rm gone.txt; rm link; ln -s dos.txt link
touch $'new\nline.py' 'sp ace.py' 'quo"te.py' ':colon.py'; echo x > $'\351.py'; echo two > helper/inside.txt
git init -q nested; echo y > nested/extra.py; mkdir empty; mkfifo pipe
echo noise > a.log; echo other > build/made.o; echo data > kept.npz; echo u > new.u16; cp /large big.bin
"""
LIST = (
    r"find . -name .git -prune -o \( -type f -o -type l \) -print0 | sort -z | "
    r"""xargs -0 -I{} sh -c 'echo "$1"; readlink "$1" || cksum < "$1"' - {}"""
)


def test_caches_that_running_tests_leaves_are_named_in_the_receipt_and_not_counted_as_left_out(image):
    with opened(image) as agent:
        agent.execute("mkdir -p pkg/__pycache__; echo x > pkg/__pycache__/a.log; echo y > b.log")
        patch = agent.patch()
    assert patch.counts() == {"ignored": 1}
    assert patch.receipt()["counts"] == {"carried": 0, "ignored": 2}
    assert patch.receipt()["left_out"]["ignored"] == ["b.log", "pkg/__pycache__/a.log"]


def test_the_official_way_of_applying_gives_the_tree_that_the_agent_left(image):
    with opened(image) as agent:
        assert agent.execute(EDITS).returncode == 0
        patch = agent.patch()
        assert agent.execute("rm -rf a.log kept.npz new.u16 big.bin build").returncode == 0
        left = agent.execute(LIST).output
    assert sorted(patch.left_out) == [
        "empty folder",
        "filtered: git would convert it from UTF-16",
        "filtered: git would pass it through the filter lfs",
        "ignored",
        "neither file nor link",
        "the history of a nested repository",
        "too large: a patch carries 16 MiB of changed files",
    ]
    assert patch.left_out["ignored"] == ["a.log", "build/made.o"]
    assert len(patch.data) < 10_000
    with opened(image, scrub_git=False) as graded:
        applied, words = apply_patch(graded, patch.data, apply_commands(), "/repo")
        assert applied, words
        assert differing(graded, "/repo", patch.carried) == []
        graded.execute("rm -rf kept.npz build")
        assert graded.execute(LIST).output == left
        graded.execute(
            "echo other > dos.txt; rm tool.sh; chmod +x open.txt; rm link; ln -s open.txt link; echo > gone.txt"
        )
        assert differing(graded, "/repo", patch.carried) == ["dos.txt", "gone.txt", "link", "open.txt", "tool.sh"]


TAMPERED = [
    "rm -f .git/index; touch .git/index.lock",
    "git config core.autocrlf true; git config core.fileMode false; git config diff.noprefix true",
    "git config core.bare true",
    "git config core.worktree /tmp; echo 'dos.txt' >> .git/info/exclude; echo '* filter=x' > .git/info/attributes",
    "git config --global core.excludesFile /repo/dos.txt; git config --system diff.external /bin/false",
    "chown -R 1234 .; find .git/objects -type f -delete",
    "rm -rf .git; git init -q; git add -A; git commit -qm other",
    "rm -rf .git",
]


def test_the_patch_is_the_same_whatever_became_of_the_repository(image):
    with opened(image) as agent:
        flags = "git update-index --assume-unchanged dos.txt; git update-index --skip-worktree legacy.txt; git add -A"
        agent.execute(f"sed -i 's/two/TWO/' dos.txt; echo more >> legacy.txt; echo new > new.py; {flags}")
        patch = agent.patch()
        assert sorted(patch.carried) == ["dos.txt", "legacy.txt", "new.py"]
        for what in TAMPERED:
            agent.execute(what)
            again = agent.patch()
            assert again.data == patch.data, what
            assert again.left_out == patch.left_out, what


def test_a_file_whose_times_and_size_were_put_back_is_still_seen_as_changed(image):
    with opened(image) as agent:
        agent.execute("touch -r dos.txt /tmp/then; sed -i 's/two/TWO/' dos.txt; touch -r /tmp/then dos.txt")
        assert b"+TWO" in agent.patch().data
        agent.execute("sed -i 's/TWO/two/' dos.txt; touch legacy.txt; chown -R 1234 .; chmod 600 open.txt")
        again = agent.patch()
        assert (again.data, again.left_out) == (b"", {})


def test_what_the_agent_left_running_and_a_full_disk_do_not_cost_the_patch(image):
    with opened(image, limits=Limits(pids=40)) as agent:
        agent.execute("echo fixed > open.txt")
        agent.execute("perl -e 'while (1) { fork; select undef, undef, undef, 0.02 }' > /dev/null 2>&1 & sleep 1")
        assert b"+fixed" in agent.patch().data


def test_a_tree_that_cannot_be_read_is_no_empty_patch(image):
    with opened(image) as agent:
        agent.execute("echo fixed > open.txt; rm -f /usr/bin/find")
        with pytest.raises(EnvironmentFault, match="cannot be made"):
            agent.patch()


def test_a_tree_of_another_owner_has_a_patch_and_loses_its_future(base):
    with Sandbox(base, workdir="/", labels={"aem.test": "worktree"}) as box:
        made = "git init -q /repo; cd /repo; echo 1 > f; git add -A; git commit -qm base; git checkout -qb future; "
        made += "echo 2 > f; git commit -qam fix; git checkout -q -; git config --system --unset-all safe.directory; "
        box.execute(made + "chown -R 1234:1234 /repo")
        docker.from_env().containers.get(box.id).commit("aem-test/worktree", "owned")
    try:
        with opened("aem-test/worktree:owned") as agent:
            assert "fix" not in agent.execute("git -c safe.directory=* log --all --format=%s; git log --all").output
            agent.execute("echo 3 > f")
            assert b"+3" in agent.patch().data
    finally:
        docker.from_env().images.remove("aem-test/worktree:owned", force=True)


def test_a_work_tree_that_is_no_repository_has_a_patch(base):
    with Sandbox(base, workdir="/etc/apt", labels={"aem.test": "worktree"}) as agent:
        agent.execute("echo new > new; echo noise >> sources.list")
        assert sorted(agent.patch().carried) == ["new", "sources.list"]


def test_an_image_without_a_work_tree_is_a_fault(base):
    with (
        pytest.raises(EnvironmentFault, match="/nowhere is empty in"),
        Sandbox(base, workdir="/nowhere", labels={"aem.test": "worktree"}),
    ):
        pass


def test_of_too_much_the_smallest_files_are_carried():
    sizes = {b"fix.py": 100, b"dump": PATCH_BYTES, b"half": PATCH_BYTES // 2, b"other": PATCH_BYTES // 2}
    patch = Patch()
    chosen = list(_bounded(list(sizes), {}, {path: Entry("f", size, b"") for path, size in sizes.items()}, patch))
    assert chosen == [b"fix.py", b"half"]
    assert sorted(path for paths in patch.left_out.values() for path in paths) == ["dump", "other"]
