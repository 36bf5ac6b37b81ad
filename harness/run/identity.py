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
        # The name of a run's folder is not unique; with the time of its start it is, on every machine.
        own = hashlib.sha256(f"{run['run_id']} {run['created_at']}".encode()).hexdigest()[:16]
        return cls(
            config=config or RunConfig(**run["config"]),
            labels={"aem.run": run["run_id"], RUN: own},
            dataset_digest=run["dataset"]["digest"],
        )
