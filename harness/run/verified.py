"""Which finished rollouts were read and matched their hashes, so that opening a run need not read them all again.

A run of 40,000 rollouts holds gigabytes, and hashing them at each opening takes minutes. A record in this file saves
that for a folder, and is trusted only if nothing can have changed the files unnoticed:

* The folder and each journaled file have the inode, size and change time (ctime) that they had when they were hashed.
Only a changed clock could forge a change time; a write, a rename and a new file all change it, or the folder's.

* They were hashed at least two seconds after their change time, by the file system's own clock: a later change then has
another time, however coarse it is.

* The machine has not restarted since. A power loss can leave a file of the right length and times without its content,
but only with a restart: then every file is hashed again.

The records are bound to the journal: another attempt, verdict or hash in it makes them invalid. They cannot detect a
disk that corrupts data at rest; `aem fsck` hashes everything and ignores them. Deleting `.verified` is safe.
"""

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

logger = logging.getLogger(__name__)

FILE = ".verified"
SETTLED = 2_000_000_000  # ns that a file must have been left alone: the coarsest file systems count in two seconds
BOOT = Path("/proc/sys/kernel/random/boot_id")

Key = tuple[str, int]


class Verified:
    """The records of one run, opened by the one process that writes it. Safe to share by threads for `add`."""

    def __init__(self, run: Path) -> None:
        self._path = run / FILE
        self._known: dict[Key, str] = {}
        self._file: IO[str] | None = None
        with suppress(OSError, ValueError):
            head = f"1 {BOOT.read_text().strip()}\n"
            self._known = self._read(head)
            self._file = self._path.open("a" if self._known else "w")
            if not self._known:
                self._file.write(head)
                self._file.flush()

    def _read(self, head: str) -> dict[Key, str]:
        if not self._path.is_file():
            return {}
        first, *lines = self._path.read_text(errors="replace").split("\n")
        if first + "\n" != head:
            return {}
        known = {}
        for line in lines[:-1]:  # the last one is empty, or torn
            name, _, rest = line.partition("\t")
            seed, _, mark = rest.partition("\t")
            if seed.isdigit():
                known[name, int(seed)] = mark
        return known

    def close(self) -> None:
        if self._file:
            self._file.close()

    def holds(self, key: Key, folder: str, events: Mapping[str, Any]) -> bool:
        """Are the files of a rollout those that were hashed? `events` as for `mark_of`."""
        return key in self._known and self._known[key] == mark_of(folder, events)[0]

    def now(self) -> int:
        """The time by the clock of the run's file system, ns; 0 if it is unknown."""
        try:
            os.utime(self._path)
            return self._path.stat().st_mtime_ns
        except OSError:
            return 0

    def add(self, key: Key, folder: str, events: Mapping[str, Any], began: int) -> None:
        """Record that the files were hashed, from the moment `began` (of `now`) on, and matched."""
        mark, changed = mark_of(folder, events)
        if not mark or not self._file or changed + SETTLED > began or "\n" in key[0] or "\t" in key[0]:
            return
        try:
            self._file.write(f"{key[0]}\t{key[1]}\t{mark}\n")
            self._file.flush()
        except OSError as error:  # a full disk: what matters says so itself
            logger.info("%s: not written (%s)", self._path, error)


def mark_of(folder: str, events: Mapping[str, Any]) -> tuple[str, int]:
    """A digest of the metadata of a rollout's files, without reading them, and their latest change, ns.

    `events` are its newest ones by kind. Empty where a file is missing, or where the journal has no hashes.
    """
    rollout, grade = events["rollout"], events.get("grade")
    parts: list[Any] = [rollout["attempt"], grade is not None and grade.get("at")]
    latest = 0
    try:
        known = os.stat(folder)  # noqa: PTH116 - hundreds of thousands of times
        parts += (known.st_ino, known.st_mtime_ns, known.st_ctime_ns)
        latest = known.st_ctime_ns
        if rollout["fault"] is None:
            for event in (rollout, grade or {"files": {}}):
                for name, proof in event["files"].items():
                    known = os.stat(f"{folder}/{name}")  # noqa: PTH116
                    parts += (name, proof["sha256"], known.st_ino, known.st_size, known.st_ctime_ns)
                    latest = max(latest, known.st_ctime_ns)
    except (OSError, KeyError):
        return "", 0
    return blake2b(repr(parts).encode(), digest_size=16).hexdigest(), latest
