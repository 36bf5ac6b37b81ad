"""Locks on files, also where the file system has none: some NFS, FUSE and Lustre mounts refuse every `flock`."""

import errno
import fcntl
import logging
from typing import IO, Any

log = logging.getLogger(__name__)

HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}  # what "another process has it" is called
_told: set[str] = set()


class Held(Exception):
    """Another process has the lock."""


def lock(handle: IO[Any], *, wait: bool = False, shared: bool = False) -> bool:
    """Take the lock of an open file, exclusive unless `shared`, until it is closed.

    Raises Held, without `wait`, where another process has it.

    False, with one warning, where the file system cannot lock: two processes at once are then the user's to avoid.
    """
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
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
    return True
