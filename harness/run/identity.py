"""The facts of a run that its workers need, wherever they are: small, and fit to be sent to another machine."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from aem_harness.harness.config import RunConfig
from aem_harness.harness.io import read_json
from aem_harness.harness.sandbox.reaping import RUN


@dataclass(frozen=True)
class Identity:
    """The settings of a run, the labels of its containers, and the digest of its dataset, which its grades carry."""

    config: RunConfig
    labels: Mapping[str, str]
    dataset_digest: str

    @classmethod
    def of(cls, folder: Path, config: RunConfig | None = None) -> Self:
        """As run.json has it; `config` saves reading the settings."""
        run = read_json(folder / "run.json")
        # Runs of one name may begin in the same second, and folders are copied: only the folder itself is one of a
        # kind, and its inode is the same for every machine that has it mounted.
        own = f"{run['run_id']} {run['created_at']} {folder.stat().st_ino}"
        return cls(
            config=config or RunConfig(**run["config"]),
            labels={"aem.run": run["run_id"], RUN: hashlib.sha256(own.encode()).hexdigest()[:16]},
            dataset_digest=run["dataset"]["digest"],
        )
