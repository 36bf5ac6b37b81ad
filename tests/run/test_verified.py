"""A run that was opened before is opened quickly, and what changed since is found all the same."""

import os
import time
from pathlib import Path

import pytest

from aem_harness.harness.run import proof, verified
from aem_harness.harness.run.fsck import check
from tests.run.test_durability import LOG, finished, judge, roll
from tests.run.test_store import KEYS, open_store

PATCH, GRADED = "patch.diff", KEYS[0]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was hashed at a first opening, its files long unchanged."""
    monkeypatch.setattr(verified, "SETTLED", -1)
    finished(tmp_path / "r")
    with open_store(tmp_path / "r"):
        pass
    monkeypatch.setattr(verified, "SETTLED", 2_000_000_000)
    return tmp_path / "r"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are hashed from now on."""
    names: list[str] = []
    real = proof._sha256
    monkeypatch.setattr(proof, "_sha256", lambda path: names.append(path.name) or real(path))
    return names


def folder(run: Path) -> Path:
    return run / "rollouts" / GRADED[0] / str(GRADED[1])


def test_a_run_that_was_hashed_is_opened_again_without_hashing(run, hashed):
    with open_store(run) as store:
        assert store.pending(KEYS[:2]).grades == [KEYS[1]]
        assert store.damaged == {}
    assert hashed == []


@pytest.mark.parametrize("forge", [False, True])
@pytest.mark.parametrize(("name", "again"), [(PATCH, "rollouts"), (LOG, "grades")])
def test_content_that_changed_in_place_is_found_even_with_its_old_length_and_time(run, name, again, forge):
    path = folder(run) / name
    was = path.stat()
    with path.open("r+b") as file:
        file.write(b"\0" * was.st_size)
    if forge:
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    with open_store(run) as store:
        assert GRADED in store.damaged
        assert len(getattr(store.pending([GRADED]), again)) == 1


def test_a_file_that_was_replaced_or_lost_is_found(run):
    other = folder(run) / "other"
    other.write_bytes(b"\0" * (folder(run) / PATCH).stat().st_size)
    other.replace(folder(run) / PATCH)
    (run / "rollouts" / KEYS[1][0] / str(KEYS[1][1]) / PATCH).unlink()
    with open_store(run) as store:
        assert set(store.damaged) == set(KEYS[:2])


def test_after_a_new_start_of_the_machine_everything_is_hashed_once_more(run, hashed, tmp_path, monkeypatch):
    (tmp_path / "boot").write_text("another\n")
    monkeypatch.setattr(verified, "BOOT", tmp_path / "boot")
    with open_store(run):
        pass
    assert {PATCH, LOG} <= set(hashed)
    everything = len(hashed)
    hashed.clear()
    monkeypatch.setattr(verified, "SETTLED", -1)
    for _ in range(2):
        with open_store(run):
            pass
    assert len(hashed) == everything  # once: their change times lay too near at the opening before


def test_files_that_have_just_changed_are_not_taken_for_settled(tmp_path, hashed):
    finished(tmp_path / "r")
    for _ in range(2):
        hashed.clear()
        with open_store(tmp_path / "r"):
            pass
        assert {PATCH, LOG} <= set(hashed)


def test_a_grade_or_an_attempt_that_came_later_is_not_covered_by_the_old_note(run, hashed):
    with open_store(run) as store:
        judge(store, KEYS[1])
        roll(store, GRADED, attempt=1)
    (folder(run) / PATCH).write_text("")
    with open_store(run) as store:
        assert GRADED in store.damaged
        assert store.pending(KEYS[1:2]) == store.pending([])


def test_what_ended_in_a_long_run_is_noted_while_it_runs(tmp_path, hashed, monkeypatch):
    monkeypatch.setattr("aem_harness.harness.run.store.SETTLED", -1)
    monkeypatch.setattr(verified, "SETTLED", -1)
    finished(tmp_path / "r")
    time.sleep(0.01)
    hashed.clear()
    with open_store(tmp_path / "r"):
        pass
    assert LOG not in hashed


@pytest.mark.parametrize("text", ["", "junk", "1 other boot\nx\t0\tabc\n", "\udcff\n\t\t\n"])
def test_damaged_notes_cost_time_and_nothing_else(run, text):
    (run / verified.FILE).write_bytes(text.encode("utf-8", "surrogateescape"))
    with open_store(run) as store:
        assert store.damaged == {}
        assert store.pending(KEYS[:1]) == store.pending([])


def test_fsck_hashes_everything_whatever_was_noted(run, hashed):
    assert check(run).sound
    assert {PATCH, LOG} <= set(hashed)
