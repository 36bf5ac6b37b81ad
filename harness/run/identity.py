"""The facts of a run that its workers need, wherever they are: small, and fit to be sent to another machine.

Each process that works a run labels its containers with a name of its own, and notes that name in the run's folder, so
that the next one, perhaps on another machine, removes what it left, and nothing else. What a folder says is not enough
for that: folders have one name, begin in the same second, have one inode on two fresh file systems, and are copied.
"""

import functools
import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from aem_harness.harness.config import RunConfig
from aem_harness.harness.errors import AemError
from aem_harness.harness.io import read_json, write_text
from aem_harness.harness.sandbox.reaping import RUN

logger = logging.getLogger(__name__)

OWNERS = ".owners"  # in a run's folder: a line for each process, the label of its containers and the folder's inode
MOST = 1000  # processes that are remembered
LONGEST = 2**20  # bytes that are read of it: more is nothing that was noted


@dataclass(frozen=True)
class Identity:
    """The settings of a run, the labels of its containers, and the digest of its dataset, which its grades carry.

    `earlier` are the labels (`RUN`) by which earlier processes called containers of this run.
    """

    config: RunConfig
    labels: Mapping[str, str]
    dataset_digest: str
    earlier: frozenset[str] = frozenset()

    @classmethod
    def of(cls, folder: Path, config: RunConfig | None = None) -> Self:
        """As run.json has it, for the process that writes the run; `config` saves reading the settings."""
        run, place = read_json(folder / "run.json"), folder.stat()
        begun = f"{run['run_id']} {run['created_at']}"
        own = _label(f"{_process(os.getpid())} {begun} {place.st_dev} {place.st_ino}")
        return cls(
            config=config or RunConfig(**run["config"]),
            labels={"aem.run": run["run_id"], RUN: own},
            dataset_digest=run["dataset"]["digest"],
            earlier=_entered(folder, own, place.st_ino, (_label(begun), _label(f"{begun} {place.st_ino}"))),
        )


@functools.cache
def _process(pid: int) -> str:
    """What no other process has, on any machine."""
    return os.urandom(16).hex()


def _label(words: str) -> str:
    return hashlib.sha256(words.encode()).hexdigest()[:16]


def _entered(folder: Path, own: str, inode: int, unnoted: Sequence[str]) -> frozenset[str]:
    """The labels of earlier processes in this folder; this one's is noted beside them.

    Those noted under another inode are of the folder that this one is a copy of, which may still be worked. `unnoted`
    are what releases that noted nothing called their containers, for a run that one of them began.
    """
    path = folder / OWNERS
    try:
        known = _noted(path, inode) if path.exists() else [*unnoted] if _has_begun(folder) else []
    except OSError as error:
        logger.warning("%s cannot be read (%s): what earlier processes left is found by its owner alone", path, error)
        return frozenset()
    try:
        if own not in known:
            write_text(path, "".join(f"{label} {inode}\n" for label in [*known, own]))
    except (OSError, AemError) as error:
        logger.warning("%s cannot be written (%s): what this process leaves is found by its owner alone", path, error)
    return frozenset(known) - {own}


def _noted(path: Path, inode: int) -> list[str]:
    if not path.is_file():
        raise OSError("it is no file")
    with path.open("rb") as file:
        lines = [line.split() for line in file.read(LONGEST).decode("utf-8", "replace").splitlines()]
    return [line[0] for line in lines if len(line) == 2 and line[1] == str(inode)][-MOST:]


def _has_begun(folder: Path) -> bool:
    journal = folder / "journal.jsonl"
    return journal.is_file() and journal.stat().st_size > 0
