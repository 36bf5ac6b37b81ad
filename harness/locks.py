"""Locks on files, also where the file system has none: some NFS, FUSE and Lustre mounts refuse every `flock`."""

import errno
import fcntl
import logging
from time import monotonic, sleep
from typing import IO, Any

log = logging.getLogger(__name__)

LOOK = 0.02  # seconds: who only looks whether a run is being written holds its lock for a thousandth of that
HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}  # what "another process has it" is called
_told: set[str] = set()


class Held(Exception):
    """Another process has the lock."""


def lock(handle: IO[Any], *, wait: bool = False, shared: bool = False) -> bool:
    """Take the lock of an open file, exclusive unless `shared`, until it is closed.

    Raises Held, without `wait`, where another process has it for longer than to look whether somebody does.

    False, with one warning, where the file system cannot lock: two processes at once are then the user's to avoid.
    """
    until = monotonic() + LOOK
    try:
        while True:
            try:
                fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
                return True
            except OSError as error:
                if error.errno not in HELD or monotonic() > until:
                    raise
            sleep(LOOK / 20)
    except OSError as error:
        if error.errno in HELD and not wait:
            raise Held from None
        folder = str(handle.name).rpartition("/")[0]
        if folder not in _told:
            _told.add(folder)
            log.warning(
                "%s: its file system has no locks (%s): do not run two aem processes on it", folder, error.strerror
            )
        return False
