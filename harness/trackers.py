"""Experiment trackers: numbers by step into TensorBoard, Weights & Biases or MLflow, written by their own libraries.

Where they write is their own business: WANDB_MODE=offline and MLFLOW_TRACKING_URI are read by those libraries. Without
the latter, MLflow writes below the folder given here. Light: nothing is imported before a tracker is opened.
"""

import math
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from aem_harness.harness.errors import ConfigError

Kind = Literal["tensorboard", "wandb", "mlflow"]
KINDS: tuple[str, ...] = get_args(Kind)


class Tracker(Protocol):
    """Takes numbers by name; `axis` names what `step` counts (checkpoints, turns), so that axes do not mix."""

    def log(self, values: Mapping[str, float], step: int, axis: str = "step") -> None: ...


@contextmanager
def tracker(kind: str, folder: Path, name: str, settings: Mapping[str, Any] | None = None) -> Iterator[Tracker]:
    """Open a tracker for one run called `name`; closed, and so written, at the end of the block.

    Raises ConfigError for an unknown kind, and with the package to install where the library is missing.
    """
    if kind not in KINDS:
        raise ConfigError(f"unknown tracker {kind!r}: choose {', '.join(KINDS)}")
    folder.mkdir(parents=True, exist_ok=True)
    opened: _TensorBoard | _Wandb | _MLflow
    match kind:
        case "tensorboard":
            opened = _TensorBoard(folder, name)
        case "wandb":
            opened = _Wandb(folder, name, settings or {})
        case _:
            opened = _MLflow(folder, name, settings or {})
    try:
        yield opened
    finally:
        opened.close()


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """The values that are numbers; no tracker draws the others, and some refuse them."""
    return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}


def _library(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise ConfigError(f"logging to {package} needs its library: pip install {package}") from None


class _TensorBoard:
    def __init__(self, folder: Path, name: str) -> None:
        writer = _library("tensorboard.summary.writer.event_file_writer", "tensorboard")
        self._summary = import_module("tensorboard.compat.proto.summary_pb2").Summary
        self._event = import_module("tensorboard.compat.proto.event_pb2").Event
        self._writer = writer.EventFileWriter(str(folder / name))

    def log(self, values: Mapping[str, float], step: int, axis: str = "step") -> None:
        numbers = [self._summary.Value(tag=tag, simple_value=value) for tag, value in finite(values).items()]
        self._writer.add_event(self._event(step=step, wall_time=time.time(), summary=self._summary(value=numbers)))

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        wandb = _library("wandb", "wandb")
        self._run = wandb.init(project="aem", name=name, dir=str(folder), config=dict(settings))
        self._axes: set[str] = set()

    def log(self, values: Mapping[str, float], step: int, axis: str = "step") -> None:
        for group in {tag.split("/")[0] for tag in values} - self._axes:
            self._run.define_metric(f"{group}/*", step_metric=axis)
            self._axes.add(group)
        self._run.log({**finite(values), axis: step})

    def close(self) -> None:
        self._run.finish()


class _MLflow:
    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        import os

        self._mlflow = _library("mlflow", "mlflow")
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            self._mlflow.set_tracking_uri(f"sqlite:///{folder.resolve() / 'mlflow.db'}")
        self._mlflow.set_experiment("aem")
        self._mlflow.start_run(run_name=name)
        self._mlflow.log_params({key: str(value)[:500] for key, value in settings.items()})

    def log(self, values: Mapping[str, float], step: int, axis: str = "step") -> None:
        # It takes letters, digits and _-. :/ in names.
        named = {re.sub(r"[^\w\-. :/]", "_", tag): value for tag, value in finite(values).items()}
        self._mlflow.log_metrics(named, step=step)

    def close(self) -> None:
        self._mlflow.end_run()
