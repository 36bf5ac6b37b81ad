"""The facts of a run that its workers need, wherever they are: small, and fit to be sent to another machine.

Each process that works a run labels its containers with a name of its own, and notes that name in the run's folder, so
that the next one, perhaps on another machine, removes what it left, and nothing else. What a folder says is not enough
for that: folders have one name, begin in the same second, have one inode on two fresh file systems, and are copied.
"""

import functools
import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from aem_harness.harness.config import RunConfig
from aem_harness.harness.errors import AemError
from aem_harness.harness.io import read_json, read_text, write_text
from aem_harness.harness.sandbox.reaping import RUN

logger = logging.getLogger(__name__)

OWNERS = ".owners"  # in a run's folder: a line for each process, the label of its containers and the folder's inode
MOST = 1000  # processes that are remembered


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
        words = f"{_process(os.getpid())} {run['run_id']} {run['created_at']} {place.st_dev} {place.st_ino}"
        own = hashlib.sha256(words.encode()).hexdigest()[:16]
        return cls(
            config=config or RunConfig(**run["config"]),
            labels={"aem.run": run["run_id"], RUN: own},
            dataset_digest=run["dataset"]["digest"],
            earlier=_entered(folder, own, place.st_ino),
        )


@functools.cache
def _process(pid: int) -> str:
    """What no other process has, on any machine."""
    return os.urandom(16).hex()


def _entered(folder: Path, own: str, inode: int) -> frozenset[str]:
    """The labels of earlier processes in this folder; this one's is noted beside them.

    Those noted under another inode are of the folder that this one is a copy of, which may still be worked.
    """
    path = folder / OWNERS
    try:
        lines = [line.split() for line in (read_text(path) if path.exists() else "").splitlines()]
        known = [line[0] for line in lines if len(line) == 2 and line[1] == str(inode)][-MOST:]
        if own not in known:
            write_text(path, "".join(f"{label} {inode}\n" for label in [*known, own]))
        return frozenset(known) - {own}
    except (OSError, AemError) as error:  # then what this process leaves is found by its owner alone
        logger.warning("%s cannot be read or written (%s)", path, error)
        return frozenset()
