"""Experiment trackers: numbers and tables by step into TensorBoard, Weights & Biases or MLflow, by their own libraries.

Where they write is their own business: WANDB_MODE=offline and MLFLOW_TRACKING_URI are read by those libraries. Without
the latter, MLflow writes below the folder given here. Light: nothing is imported before a tracker is opened.
"""

import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from aem_harness.harness.errors import ConfigError

Kind = Literal["tensorboard", "wandb", "mlflow"]
KINDS: tuple[str, ...] = get_args(Kind)
MODULES = {"tensorboard": "tensorboard.summary.writer.event_file_writer"}  # of a library, where its name is not enough


class Tracker(Protocol):
    """Takes numbers by name; `axis` names what `step` counts (checkpoints, turns), so that axes do not mix."""

    def log(self, values: Mapping[str, float], step: int, axis: str = "step") -> None: ...

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]], step: int) -> None: ...


def library(kind: str) -> Any:
    """A tracker's library. ConfigError for an unknown kind, and with the package to install where it is missing."""
    if kind not in KINDS:
        raise ConfigError(f"unknown tracker {kind!r}: choose {', '.join(KINDS)}")
    try:
        return import_module(MODULES.get(kind, kind))
    except ImportError:
        raise ConfigError(f"logging to {kind} needs its library: pip install {kind}") from None


@contextmanager
def tracker(
    kind: str, folder: Path, name: str, settings: Mapping[str, Any] | None = None, *, done: int | None = None
) -> Iterator[Tracker]:
    """Open a tracker for one run called `name`; closed, and so written, at the end of the block.

    `done` continues a run after that step: in TensorBoard what an interrupted run wrote of later steps is taken back,
    in the others the same run goes on; MLflow, which would keep both, gets none of the steps again that it has.

    Raises what `library` does.
    """
    library(kind)
    folder.mkdir(parents=True, exist_ok=True)
    opened: _TensorBoard | _Wandb | _MLflow
    match kind:
        case "tensorboard":
            opened = _TensorBoard(folder, name, done)
        case "wandb":
            opened = _Wandb(folder, name, settings or {}, done)
        case _:
            opened = _MLflow(folder, name, settings or {}, done)
    try:
        yield opened
    finally:
        opened.close()


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """The values that are numbers; no tracker draws the others, and some refuse them."""
    return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}


def markdown(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table of Markdown; what a cell holds is shown as it is, in code."""
    lines = [list(columns), ["---"] * len(columns)]
    lines += [[_cell(value) for value in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cell(value: object) -> str:
    if not isinstance(value, str):
        return str(value)
    escaped = value.replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;").replace("`", "&#96;")
    return f"<pre>{escaped}</pre>".replace("\n", "<br>")


class _TensorBoard:
    def __init__(self, folder: Path, name: str, done: int | None) -> None:
        writer = library("tensorboard")
        self._protos = import_module("tensorboard.compat.proto.summary_pb2")
        self._summary = self._protos.Summary
        events = import_module("tensorboard.compat.proto.event_pb2")
        self._event = events.Event
        self._writer = writer.EventFileWriter(str(folder / name))
        if done is not None:  # readers then drop what an earlier file has from this step on
            start = events.SessionLog(status=events.SessionLog.START)
            self._writer.add_event(self._event(step=done + 1, wall_time=time.time(), session_log=start))

    def log(self, values: Mapping[str, float], step: int, axis: str = "step") -> None:
        numbers = [self._summary.Value(tag=tag, simple_value=value) for tag, value in finite(values).items()]
        self._add(numbers, step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]], step: int) -> None:
        plugin = self._protos.SummaryMetadata.PluginData(plugin_name="text")
        shape = import_module("tensorboard.compat.proto.tensor_shape_pb2").TensorShapeProto
        text = import_module("tensorboard.compat.proto.tensor_pb2").TensorProto(
            dtype="DT_STRING",
            string_val=[markdown(columns, rows).encode()],
            tensor_shape=shape(dim=[shape.Dim(size=1)]),
        )
        metadata = self._protos.SummaryMetadata(plugin_data=plugin)
        self._add([self._summary.Value(tag=name, metadata=metadata, tensor=text)], step)

    def _add(self, values: Sequence[Any], step: int) -> None:
        self._writer.add_event(self._event(step=step, wall_time=time.time(), summary=self._summary(value=values)))

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any], done: int | None) -> None:
        self._wandb = library("wandb")
        note = folder / f"{name}.wandb-id"
        again = {"id": note.read_text().strip(), "resume": "allow"} if done and note.is_file() else {}
        self._run = self._wandb.init(project="aem", name=name, dir=str(folder), config=dict(settings), **again)
        if done is not None:
            note.write_text(self._run.id)
        self._axes: set[str] = set()

    def log(self, values: Mapping[str, float], step: int, axis: str = "step") -> None:
        for group in {tag.split("/")[0] for tag in values} - self._axes:
            self._run.define_metric(f"{group}/*", step_metric=axis)
            self._axes.add(group)
        self._run.log({**finite(values), axis: step})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]], step: int) -> None:
        self._run.log({name: self._wandb.Table(columns=list(columns), data=[list(row) for row in rows]), "step": step})

    def close(self) -> None:
        self._run.finish()


class _MLflow:
    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any], done: int | None) -> None:
        self._mlflow = library("mlflow")
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            self._mlflow.set_tracking_uri(f"sqlite:///{folder.resolve() / 'mlflow.db'}")
        self._mlflow.set_experiment("aem")
        note, self._logged = folder / f"{name}.mlflow-id", -1
        if done and note.is_file():
            run = self._mlflow.start_run(run_id=note.read_text().strip())
            client = self._mlflow.tracking.MlflowClient()
            histories = [client.get_metric_history(run.info.run_id, tag) for tag in run.data.metrics]
            self._logged = max((point.step for history in histories for point in history), default=-1)
        else:
            run = self._mlflow.start_run(run_name=name)
            self._mlflow.log_params({key: str(value)[:500] for key, value in settings.items()})
            if done is not None:
                note.write_text(run.info.run_id)

    def log(self, values: Mapping[str, float], step: int, axis: str = "step") -> None:
        if step <= self._logged:
            return
        # It takes letters, digits and _-. :/ in names.
        named = {re.sub(r"[^\w\-. :/]", "_", tag): value for tag, value in finite(values).items()}
        self._mlflow.log_metrics(named, step=step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]], step: int) -> None:
        self._mlflow.log_text(markdown(columns, rows), f"{name}/step-{step}.md")

    def close(self) -> None:
        self._mlflow.end_run()
