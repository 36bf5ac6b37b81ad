"""Locks: another process is told from a file system without locks."""

import errno
import fcntl
import logging
import threading

import pytest

from aem_harness.harness import locks


def test_a_lock_that_another_holds_is_refused_and_freed_with_its_file(tmp_path):
    path = tmp_path / "lock"
    with path.open("w") as first, path.open("w") as second:
        assert locks.lock(first)
        with pytest.raises(locks.Held):
            locks.lock(second)
        first.close()
        assert locks.lock(second)


def test_who_only_looks_whether_a_run_is_written_keeps_nobody_from_writing_it(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    with path.open("w") as mine, path.open("w") as looking:
        locks.lock(looking, shared=True)
        with pytest.raises(locks.Held):
            locks.lock(mine)
        monkeypatch.setattr(locks, "LOOK", 30)
        threading.Timer(0.05, looking.close).start()
        assert locks.lock(mine)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_locks_is_one_warning_and_no_other_process(tmp_path, monkeypatch, caplog, code):
    def refuse(handle, operation):
        raise OSError(code, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with caplog.at_level(logging.WARNING), (tmp_path / "lock").open("w") as handle:
        assert locks.lock(handle) is False
        assert locks.lock(handle, wait=True) is False
    assert caplog.text.count("has no locks") == 1
