"""The label by which containers belong to a run: what carries another run's is removed from under its agents."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aem_harness.harness.config import RunConfig
from aem_harness.harness.run import identity
from aem_harness.harness.run.identity import OWNERS, Identity
from aem_harness.harness.sandbox import reaping
from aem_harness.harness.sandbox.reaping import OWNER, RUN

PRINT = "import sys, pathlib; from aem_harness.harness.run.identity import Identity as I; from json import dumps; "
PRINT += "one = I.of(pathlib.Path(sys.argv[1])); print(dumps([dict(one.labels), sorted(one.earlier)]))"


def run(folder):
    folder.mkdir(parents=True)
    facts = {
        "run_id": folder.name,
        "created_at": "2026-11-30T05:03:08+00:00",
        "config": RunConfig(arm="a").model_dump(),
        "dataset": {"digest": "d"},
    }
    (folder / "run.json").write_text(json.dumps(facts))
    return folder


def label(folder):
    return Identity.of(folder).labels[RUN]


def of_another_process(folder):
    """Its label, and those that it takes for earlier ones of its run."""
    done = subprocess.run([sys.executable, "-c", PRINT, folder], check=True, capture_output=True, text=True)
    labels, earlier = json.loads(done.stdout)
    return labels[RUN], set(earlier)


def test_runs_of_one_name_that_began_in_the_same_second_are_two(tmp_path):
    assert label(run(tmp_path / "monday" / "base")) != label(run(tmp_path / "tuesday" / "base"))


def test_a_copy_of_a_run_is_another_run(tmp_path):
    folder = run(tmp_path / "base")
    known = label(folder)
    shutil.copytree(folder, tmp_path / "copies" / "base")
    assert label(tmp_path / "copies" / "base") != known
    assert Identity.of(tmp_path / "copies" / "base").earlier == frozenset()


def test_a_run_that_is_continued_is_the_same_also_from_elsewhere(tmp_path, monkeypatch):
    folder = run(tmp_path / "base")
    known = label(folder)
    (tmp_path / "mounted").symlink_to(tmp_path)
    assert label(tmp_path / "mounted" / "base") == known
    monkeypatch.chdir(folder.parent)
    assert label(type(folder)("base")) == known


def test_who_continues_a_run_knows_what_all_before_called_their_containers(tmp_path):
    folder = run(tmp_path / "base")
    first, none = of_another_process(folder)
    assert none == set()
    second, before = of_another_process(folder)
    assert (first != second, before) == (True, {first})
    folder = folder.rename(tmp_path / "moved")
    assert Identity.of(folder).earlier == {first, second}


def test_runs_in_folders_of_one_inode_on_two_file_systems_are_two(tmp_path, monkeypatch):
    """As on two fresh disks of CI jobs that share an engine: each removed the other's containers."""
    stat = Path.stat
    twins = [run(tmp_path / disk / "base") for disk in "ab"]

    def same(path, **how):
        found = stat(path, **how)
        return os.stat_result((found.st_mode, 13, *found[2:])) if path in twins else found

    monkeypatch.setattr(Path, "stat", same)
    monkeypatch.setattr(identity, "_process", lambda pid: "a")
    one = Identity.of(twins[0])
    monkeypatch.setattr(identity, "_process", lambda pid: "b")
    other = Identity.of(twins[1])
    assert one.labels[RUN] != other.labels[RUN]
    assert one.earlier == other.earlier == frozenset()


def test_a_run_restored_twice_is_two_runs_also_where_the_folders_have_the_inode_of_the_original(tmp_path):
    folder = run(tmp_path / "base")
    first, _ = of_another_process(folder)
    copies = [Path(shutil.copytree(folder, tmp_path / name / "base")) for name in "ab"]
    for copy in copies:
        (copy / OWNERS).write_text(f"{first} {copy.stat().st_ino}\n")
    (one, before), (other, too) = map(of_another_process, copies)
    assert one != other
    assert before == too == {first}


def test_a_folder_that_cannot_be_written_or_a_damaged_note_costs_no_run(tmp_path):
    folder = run(tmp_path / "base")
    (folder / OWNERS).mkdir()
    assert label(folder)
    (folder / OWNERS).rmdir()
    (folder / OWNERS).write_bytes(b"\xff\xfe torn\nabc")
    assert Identity.of(folder).earlier == frozenset()


@pytest.mark.parametrize("what", ["a pipe", "more than anybody noted"])
def test_a_note_that_is_none_of_ours_is_not_waited_for_and_not_read_into_memory(tmp_path, what):
    folder = run(tmp_path / "base")
    if what == "a pipe":
        os.mkfifo(folder / OWNERS)
    else:
        with (folder / OWNERS).open("wb") as file:
            file.truncate(2**36)  # takes no space
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32)); {PRINT}"
    done = subprocess.run([sys.executable, "-c", limited, folder], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[1] == []


def test_a_full_disk_takes_nothing_from_what_was_noted_before(tmp_path, monkeypatch):
    """What earlier processes left on other machines was not removed then."""
    folder = run(tmp_path / "base")
    first, _ = of_another_process(folder)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(identity, "write_text", full)
    assert Identity.of(folder).earlier == {first}


def test_who_continues_a_run_of_a_release_that_noted_nothing_knows_what_that_called_its_containers(tmp_path):
    folder = run(tmp_path / "base")
    (folder / "journal.jsonl").write_text("{}\n")
    begun = "base 2026-11-30T05:03:08+00:00"
    labels = {hashlib.sha256(one.encode()).hexdigest()[:16] for one in (begun, f"{begun} {folder.stat().st_ino}")}
    first, before = of_another_process(folder)
    assert before == labels
    assert of_another_process(folder)[1] == {first, *labels}


@pytest.fixture
def alive(monkeypatch):
    monkeypatch.setattr(reaping, "_inside", lambda engine: "")
    return reaping.ownership()[OWNER]


def test_what_an_earlier_process_left_is_removed_unless_it_lives_here(alive):
    """One that lives has the original of a copy with all that is noted in it, as a snapshot is."""
    elsewhere = {OWNER: "another/0123/pid:[4026531836]:77:88", RUN: "old"}
    assert reaping._is_left(elsewhere, "new", {"old"}, False, "mine")
    assert not reaping._is_left(elsewhere, "new", set(), False, "mine")
    assert not reaping._is_left({OWNER: alive, RUN: "old"}, "new", {"old"}, False, "mine")
    assert not reaping._is_left({OWNER: "mine", RUN: "new"}, "new", {"old"}, False, "mine")
    assert reaping._is_left({OWNER: "mine", RUN: "new"}, "new", {"old"}, True, "mine")
    assert reaping._is_left({OWNER: alive, RUN: "new"}, "new", {"old"}, False, "mine")
    assert not reaping._is_left({OWNER: alive}, "", {"old"}, False, "mine")


@pytest.mark.parametrize("owner", ["", "team-web", "a:b", "host:pid:started", "host:12:", ":::"])
def test_a_label_of_somebody_else_ends_no_command(alive, owner):
    """AEM is also the name of other programs, and their containers are theirs."""
    labels = {OWNER: owner}
    assert not reaping._is_dead(labels)
    assert not reaping._is_left(labels, "new", {"old"}, True, "mine")


def test_a_process_that_was_killed_and_that_nobody_asked_for_is_dead(alive):
    """As where process 1 of a container takes no orphans: its containers stayed as long as that container."""
    with subprocess.Popen(["sleep", "600"]) as child:
        labels = {OWNER: f"{reaping._here()}:{child.pid}:{reaping._started(child.pid)}", RUN: "old"}
        assert reaping._lives(labels)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is still listed
        assert reaping._is_dead(labels)
        assert reaping._is_left(labels, "new", {"old"}, False, "mine")
