"""Our runs in the files of other people's viewers, leaderboards and trainers: one small module for each format.

Each module has `write(run, out)`, which returns how many rollouts it wrote. All read an `ExportedRun`. What
a format cannot hold is left out and said, never replaced by something that looks like data: a rollout that was lost to
infrastructure has no verdict, a log-probability of minus infinity is no number in JSON.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from aem_harness.harness.errors import ConfigError, DataError
from aem_harness.harness.run.folder import require_run, run_json
from aem_harness.harness.run.listing import newest
from aem_harness.harness.run.store import read_journal, read_patch
from aem_harness.harness.run.thoughts import thought_in
from aem_harness.harness.run.trajectory import read_document
from aem_harness.harness.types import Outcome

# What each writes, for `aem export --help` and the documentation.
FORMATS: dict[str, tuple[str, str]] = {
    "inspect": ("inspect_log", "an Inspect log (.eval) that `inspect view` opens; needs inspect_ai"),
    "atif": ("atif", "a folder of Harbor's ATIF trajectories, one JSON file for each rollout"),
    "swebench-experiments": ("experiments", "a submission folder of the SWE-bench experiments repository (one seed)"),
    "mini": ("mini", "mini-swe-agent's output folder: preds.json and trajectories"),
    "hf-dataset": ("hf_dataset", "a folder for the Hugging Face hub: Parquet and a dataset card"),
    "sft": ("sft", "messages with rewards as JSON Lines, for training"),
    "csv": ("table", "the outcomes table as CSV, which `aem compare` reads"),
    "parquet": ("table", "the outcomes table as Parquet"),
}


@dataclass(frozen=True)
class ExportedRollout:
    """One rollout of a run: its newest attempt, with the files it left."""

    folder: Path
    event: Mapping[str, Any]
    grade: Mapping[str, Any] | None

    @property
    def instance_id(self) -> str:
        return str(self.event["instance_id"])

    @property
    def seed(self) -> int:
        return int(self.event["seed"])

    @property
    def outcome(self) -> Outcome | None:
        """The verdict; ERROR where it was lost to infrastructure, None where it is not graded."""
        if self.event["fault"] is not None:
            return Outcome.ERROR
        return Outcome(self.grade["outcome"]) if self.grade else None

    @property
    def resolved(self) -> bool | None:
        """None without a verdict."""
        if self.outcome in (None, Outcome.ERROR):
            return None
        return self.outcome is Outcome.RESOLVED

    @property
    def why(self) -> str:
        """The cause of a loss, or what the grader said."""
        if self.event["fault"] is not None:
            return f"{self.event['fault']['boundary']}: {self.event['fault']['message']}"
        return str(self.grade.get("cause") or "") if self.grade else "not graded"

    def trajectory(self) -> dict[str, Any]:
        """The mini-swe-agent 1.1 document; one without messages where the rollout left none (graded predictions)."""
        path = self.folder / f"{self.instance_id}.traj.json"
        if not path.is_file():
            return {"info": {}, "messages": [], "instance_id": self.instance_id}
        return read_document(path)

    @property
    def has_thoughts(self) -> bool:
        """Did a server take thoughts out of one of its replies? Earlier releases did not count them."""
        counted = self.event.get("thoughts")
        return any(map(thought_in, self.trajectory()["messages"])) if counted is None else bool(counted)

    def patch(self) -> str:
        path = self.folder / "patch.diff"
        return read_patch(path) if path.is_file() else ""


@dataclass(frozen=True)
class ExportedRun:
    """A run folder to be written in another format; `seed` chooses one rollout of every task."""

    folder: Path
    facts: Mapping[str, Any]
    seed: int | None = None

    def rollouts(self) -> Iterator[ExportedRollout]:
        """In the order of the plan, seed by seed."""
        progress = newest(read_journal(self.folder))
        order = {name: place for place, name in enumerate(self.facts["plan"]["instances"])}
        for name, seed in sorted(progress, key=lambda key: (order.get(key[0], len(order)), key)):
            if self.seed in (None, seed):
                one = progress[name, seed]
                yield ExportedRollout(self.folder / "rollouts" / name / str(seed), one.rollout, one.grade)

    @property
    def arm(self) -> str:
        return str(self.facts["arm"])

    @property
    def model(self) -> str:
        """The model as the server named it, else the checkpoint, else the arm."""
        served = (self.facts.get("fingerprint") or {}).get("model")
        return str(served or self.facts["config"].get("checkpoint") or self.arm)


@dataclass(frozen=True)
class Written:
    """How many rollouts a file or folder holds, and how many it leaves out because it has no place for them."""

    rollouts: int
    left_out: int = 0
    why: str = ""


def export(folder: Path, to: str, out: Path, seed: int | None = None) -> Written:
    """Write a run in the format `to`. Raises ConfigError for an unknown format, a seed the run lacks, or an `out` that
    exists, and DataError where the folder is no run."""
    if to not in FORMATS:
        raise ConfigError(f"unknown format {to!r}; known: {', '.join(FORMATS)}")
    require_run(folder)
    if out.exists():
        raise ConfigError(f"{out} exists already; choose another --out")
    run = ExportedRun(folder, run_json(folder), seed)
    if next(run.rollouts(), None) is None:
        of = "" if seed is None else f" with seed {seed}"
        raise DataError(f"{folder} has no finished rollout{of}")
    out.parent.mkdir(parents=True, exist_ok=True)
    module = import_module(f"aem_harness.harness.export.{FORMATS[to][0]}")
    written: Written = module.write(run, out)
    return written


def plain(value: Any) -> Any:
    """`value` as any strict JSON reader takes it: no lone surrogates, no infinities (they become None)."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a message, whose content may be missing or a list of parts."""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) if isinstance(part, Mapping) else str(part) for part in content)
    return str(plain(content or ""))


def said(message: Mapping[str, Any]) -> str | None:
    """What the model said in this message: also a reply that held no action, which is kept in the answer to it."""
    if message.get("role") == "assistant":
        return text_of(message)
    extra = message.get("extra") or {}
    return str(plain(extra["model_response"])) if "model_response" in extra else None


def tool_call(call: Mapping[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Id, name and arguments of a call in OpenAI's form; arguments that are no JSON object are kept as `unparsed`."""
    function = call.get("function") or {}
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except ValueError:
        arguments = function["arguments"]
    if not isinstance(arguments, dict):
        arguments = {"unparsed": arguments}
    return str(call.get("id", "")), str(function.get("name", "")), plain(arguments)


def numbered(run: ExportedRun) -> Iterator[tuple[str, ExportedRollout]]:
    """Every rollout with a file name: the instance, and the seed where there are several."""
    rollouts = list(run.rollouts())
    several = len({one.seed for one in rollouts}) > 1
    for one in rollouts:
        yield (f"{one.instance_id}.seed{one.seed}" if several else one.instance_id), one
