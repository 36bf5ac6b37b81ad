"""One training run on disk: `config.json`, `card.yaml`, `metrics.jsonl`, `samples.jsonl`, `state.pt`, `checkpoint/`.

A run is continued only under the settings it was started with; `threads` may change, and where the learning rate does
not depend on them also `steps`, which extends a finished run. After a kill, metrics later than the last saved state are
dropped: the steps that wrote them are done again and give the same numbers.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from aem_harness.aem_checkpoints.card import CARD, Card
from aem_harness.harness.errors import ConfigError, in_one_line
from aem_harness.harness.io import append_line, write_json_lines, write_text
from aem_harness.harness.trackers import Tracker, tracker
from aem_harness.training.checkpoint import load_state, save_state
from aem_harness.training.config import RlConfig, Settings, WarmStartConfig

logger = logging.getLogger(__name__)

METRICS, SAMPLES = "metrics.jsonl", "samples.jsonl"
COLUMNS = ("task", "reward", "end")  # of a sample, beside its messages


class Folder:
    """The folder of one run. Use as a context manager: it owns the open files and trackers."""

    def __init__(self, path: Path, config: RlConfig | WarmStartConfig, *, resume: bool) -> None:
        self.path = path
        self.config = config
        self.state = load_state(path)
        refuse(path, config, self.step or None, resume=resume)
        path.mkdir(parents=True, exist_ok=True)
        write_text(path / "config.json", config.model_dump_json(indent=2) + "\n")
        self._keep_up_to(self.step)

    def __enter__(self) -> "Folder":
        with ExitStack() as opened:
            self._metrics = opened.enter_context((self.path / METRICS).open("a"))
            self._samples = opened.enter_context((self.path / SAMPLES).open("a"))
            boards = [
                opened.enter_context(_board(kind, self.path, self.config, self.step)) for kind in self.config.report_to
            ]
            self._boards = [board for board in boards if board is not None]
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

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
        numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float) and name != "step"}
        self._tell(lambda board: board.log(numbers, metrics["step"]))

    def show(self, step: int, samples: Sequence[Mapping[str, Any]]) -> None:
        """Write down what the policy wrote in some rollouts: lines of `samples.jsonl`, and a table of each tracker."""
        for sample in samples:
            append_line(self._samples, json.dumps({"step": step, **sample}))
        rows = [[*(sample[name] for name in COLUMNS), spoken(sample["messages"])] for sample in samples]
        if rows:
            self._tell(lambda board: board.table("samples", (*COLUMNS, "conversation"), rows, step))

    def _tell(self, tell: Callable[[Tracker], None]) -> None:
        """Give every tracker something. One that fails is given no more, and the training goes on: all of it
        is in the folder."""
        for board in tuple(self._boards):
            try:
                tell(board)
            except Exception as error:
                logger.warning("%s: a tracker failed and gets nothing more (%s)", self.path, in_one_line(error))
                self._boards.remove(board)

    def _keep_up_to(self, step: int) -> None:
        for name in (METRICS, SAMPLES):
            kept = [line for line in read_metrics(self.path / name) if line["step"] <= step]
            write_json_lines(self.path / name, kept)


def spoken(messages: Sequence[Mapping[str, Any]]) -> str:
    """A conversation as text, without the instructions that all of them begin with."""
    return "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in messages[1:])


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
    free = {
        "threads",
        "gate",
        "report_to",
        *(() if config.kind == "warm-start" else ("steps",)),
    }  # its learning rate falls over the steps
    now = config.model_dump(mode="json")
    return [name for name in now if name not in free and now[name] != before[name]]


def enter(path: Path, config: Settings, card: Card) -> None:
    """Write what a run's folder says of itself from its first moment: its settings, and the card of its checkpoints."""
    path.mkdir(parents=True, exist_ok=True)
    write_text(path / "config.json", config.model_dump_json(indent=2) + "\n")
    write_text(path / CARD, card.to_yaml())


def is_main() -> bool:
    """Whether this process writes the run's files: the first of those that a launcher started."""
    return int(os.environ.get("RANK", "0")) == 0


def parent_of(start: str) -> str:
    """The name of the policy in the folder `start`: a registry's, or that of the run which ended there."""
    folder = Path(start)
    return re.sub(r"-seed\d+$", "", (folder.parent if folder.name == "checkpoint" else folder).name)


@contextmanager
def _board(kind: str, path: Path, config: RlConfig | WarmStartConfig, done: int) -> Iterator[Tracker | None]:
    """A tracker of the run; TensorBoard's, which is the default, only where it is installed."""
    if kind == "tensorboard" and find_spec("tensorboard") is None:
        yield None
        return
    name = "tensorboard" if kind == "tensorboard" else path.name
    with ExitStack() as opening:
        board = opening.enter_context(
            tracker(kind, path, name, config.model_dump(mode="json", exclude_defaults=True), done=done)
        )
        opened = opening.pop_all()
    try:
        yield board
    finally:
        try:
            opened.close()
        except Exception as error:
            logger.warning("%s: %s could not be closed (%s)", path, kind, in_one_line(error))
