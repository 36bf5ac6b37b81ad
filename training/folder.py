"""One training run on disk: `config.json`, `card.yaml`, `metrics.jsonl`, `state.pt`, and at the end `checkpoint/`.

A run is continued only under the settings it was started with; `threads` may change, and where the learning rate does
not depend on them also `steps`, which extends a finished run. After a kill, metrics later than the last saved state are
dropped: the steps that wrote them are done again and give the same numbers.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from aem_harness.aem_checkpoints.card import CARD, Card
from aem_harness.harness.errors import ConfigError
from aem_harness.harness.io import append_line, write_json_lines, write_text
from aem_harness.training.checkpoint import load_state, save_state
from aem_harness.training.config import RlConfig, Settings, WarmStartConfig


class Folder:
    """The folder of one run. Use as a context manager: it owns the open metrics file and TensorBoard's writer."""

    def __init__(self, path: Path, config: RlConfig | WarmStartConfig, *, resume: bool) -> None:
        self.path = path
        self.config = config
        self.state = load_state(path)
        refuse(path, config, self.step or None, resume=resume)
        path.mkdir(parents=True, exist_ok=True)
        write_text(path / "config.json", config.model_dump_json(indent=2) + "\n")
        self._keep_metrics_up_to(self.step)

    def __enter__(self) -> "Folder":
        self._metrics = (self.path / "metrics.jsonl").open("a")
        self._board = _board(self.path, self.step)
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


def refuse(path: Path, config: Settings, done: int | None, *, resume: bool) -> None:
    """Raise ConfigError where a run under these settings may not start or go on in the folder; `done` is the last saved
    step of what is there, None where there is nothing."""
    if done is None:
        return
    if not resume:
        raise ConfigError(f"{path} holds a run at step {done}: give --resume, or another --out")
    stored = path / "config.json"
    if stored.is_file() and (changed := differing(json.loads(stored.read_text()), config)):
        raise ConfigError(
            f"{path} was started under other settings ({', '.join(changed)}): give its own config, or another --out"
        )
    if done > config.steps:
        raise ConfigError(f"{path} is at step {done}, beyond steps={config.steps}: give more steps, or another --out")


def differing(stored: Mapping[str, Any], config: Settings) -> list[str]:
    """The names of the settings in which a run differs from the one that is stored; what an older version did not store
    has its default."""
    try:
        before = type(config).model_validate(dict(stored)).model_dump(mode="json")
    except ValidationError:
        return ["kind or fields of another version"]
    free = {"threads", *(() if config.kind == "warm-start" else ("steps",))}  # its learning rate falls over the steps
    now = config.model_dump(mode="json")
    return [name for name in now if name not in free and now[name] != before[name]]


def enter(path: Path, config: Settings, card: Card) -> None:
    """Write what a run's folder says of itself from its first moment: its settings, and the card of its checkpoints."""
    path.mkdir(parents=True, exist_ok=True)
    write_text(path / "config.json", config.model_dump_json(indent=2) + "\n")
    write_text(path / CARD, card.to_yaml())


def parent_of(start: str) -> str:
    """The name of the policy in the folder `start`: a registry's, or that of the run which ended there."""
    folder = Path(start)
    return re.sub(r"-seed\d+$", "", (folder.parent if folder.name == "checkpoint" else folder).name)


def _board(path: Path, done: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    # What a resumed run does again is shown once.
    return SummaryWriter(str(path / "tensorboard"), purge_step=done + 1)
