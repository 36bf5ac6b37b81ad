"""One training run on disk: `config.json`, `metrics.jsonl`, `state.pt`, and at the end `checkpoint/`.

A run is continued only under the settings it was started with. After a kill, metrics later than the last saved state
are dropped: the steps that wrote them are done again and give the same numbers.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aem_harness.harness.errors import ConfigError
from aem_harness.harness.io import append_line, write_json_lines, write_text
from aem_harness.training.checkpoint import load_state, save_state
from aem_harness.training.config import Common


class Folder:
    """The folder of one run. Use as a context manager: it owns the open metrics file and TensorBoard's writer."""

    def __init__(self, path: Path, config: Common, *, resume: bool) -> None:
        self.path = path
        self.config = config
        self.state = load_state(path)
        if self.state is not None and not resume:
            raise ConfigError(f"{path} holds a run at step {self.state['step']}: give --resume, or another --out")
        if self.state is not None and self.state["digest"] != config.digest:
            raise ConfigError(
                f"{path} was started under other settings (digest {self.state['digest']}, now {config.digest}): "
                "give its own config, or another --out"
            )
        path.mkdir(parents=True, exist_ok=True)
        write_text(path / "config.json", config.model_dump_json(indent=2) + "\n")
        self._keep_metrics_up_to(self.step)

    def __enter__(self) -> "Folder":
        self._metrics = (self.path / "metrics.jsonl").open("a")
        self._board = _board(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        self._metrics.close()
        if self._board is not None:
            self._board.close()

    @property
    def step(self) -> int:
        """Steps that are done and saved."""
        return int(self.state["step"]) if self.state else 0

    def save(self, step: int, **state: Any) -> None:
        self._metrics.flush()
        os.fsync(self._metrics.fileno())
        self.state = {"step": step, "digest": self.config.digest, **state}
        save_state(self.path, self.state)

    def log(self, metrics: Mapping[str, Any]) -> None:
        append_line(self._metrics, json.dumps(metrics))
        if self._board is not None:
            for name, value in metrics.items():
                if isinstance(value, int | float) and name != "step":
                    self._board.add_scalar(name, value, metrics["step"])

    def _keep_metrics_up_to(self, step: int) -> None:
        file = self.path / "metrics.jsonl"
        kept = [line for line in read_metrics(file) if line["step"] <= step]
        write_json_lines(file, kept)


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; a torn last line (killed while writing) is left out."""
    lines = file.read_text().split("\n") if file.is_file() else []
    return [json.loads(line) for line in lines[:-1] if line]


def _board(path: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(path / "tensorboard"))
