"""Agents without a model: `gold`, `empty`, and `replay`, which plays recorded replies through the bash agent.

A replay is a file of data, `agents/replays/<name>.yaml` or any path:

    instances:
      owner__repo-1:              # steps for every seed
        - thought: The parser drops the last row.
          action: |
            sed -i 's/rows\\[:-1\\]/rows/' src/parser.py
        - reply: I think it is done.        # a reply word for word, here a malformed one
      owner__repo-2:
        seeds:                    # other seeds get `default`; without one they give up
          default:
            - {thought: Look first., action: ls}
          3: []

or JSON Lines, one script a line: {"instance_id": ..., "seed": 3 (absent: every seed), "steps": [{...}, ...]}.

Each step becomes one reply of a policy that the bash agent runs in the real container, so the trajectory is recorded
exactly as a model's would be. A script that ends without handing in hands in; an instance without a script gives up.
"""

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator

from aem_harness.agents.bash import SENTINEL, BashAgent, BashOptions
from aem_harness.agents.messages import ended, observed, plain
from aem_harness.agents.templates import Prompts
from aem_harness.harness.config import read_yaml
from aem_harness.harness.errors import ConfigError, DataError, validating
from aem_harness.harness.io import read_json_lines
from aem_harness.harness.types import (
    AgentExit,
    Completion,
    Environment,
    ExitStatus,
    Instance,
    Record,
    Recorder,
)

_GOLD_FILE = "/tmp/aem-gold.patch"


class GoldAgent:
    """Applies the gold patch to the work tree and hands in: what a flawless engineer would score."""

    name = "gold"

    def __init__(self, patches: Mapping[str, str]) -> None:
        self._patches = patches

    def describe(self) -> Mapping[str, Any]:
        return {"kind": self.name}

    def run(self, instance: Instance, environment: Environment, record: Recorder, *, seed: int) -> AgentExit:
        """Raises DataError when there is no gold patch for the instance, or it does not apply to its work tree."""
        if instance.instance_id not in self._patches:
            raise DataError(f"no gold patch for {instance.instance_id}: the agent was built for other instances")
        environment.write_file(_GOLD_FILE, self._patches[instance.instance_id].encode("utf-8", "surrogateescape"))
        # As the official grader applies a prediction: git first, then the more forgiving patch(1).
        command = (
            f"cd {shlex.quote(instance.workdir)} && {{ git apply --verbose {_GOLD_FILE} || "
            f"patch --batch --fuzz=5 -p1 -i {_GOLD_FILE}; }} && rm {_GOLD_FILE}"
        )
        record.message({**plain("assistant", "Applying the gold patch."), "extra": {"actions": [{"command": command}]}})
        seen = environment.execute(command)
        output = {"output": seen.output, "returncode": seen.returncode, "exception_info": ""}
        record.message(observed(seen.output, output, seconds=seen.seconds))
        if seen.returncode != 0:
            last = (seen.output.strip().splitlines() or ["no output"])[-1]
            raise DataError(f"the gold patch of {instance.instance_id} does not apply in {instance.image}: {last}")
        end = AgentExit(status=ExitStatus.SUBMITTED)
        record.message(ended(end))
        return end


class EmptyAgent:
    """Hands in nothing: what must never be resolved."""

    name = "empty"

    def describe(self) -> Mapping[str, Any]:
        return {"kind": self.name}

    def run(self, instance: Instance, environment: Environment, record: Recorder, *, seed: int) -> AgentExit:
        end = AgentExit(status=ExitStatus.SUBMITTED, patch="", reason="the empty agent hands in nothing")
        record.message(ended(end))
        return end


class ScriptedReply(Record):
    """One scripted reply: a thought and an action, or `reply`, word for word."""

    thought: str = ""
    action: str = ""
    reply: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.reply is None) == (not self.action):
            raise ValueError("needs either `action` or `reply`")
        return self

    def text(self, fence: str) -> str:
        return self.reply if self.reply is not None else f"{self.thought}\n\n```{fence}\n{self.action.rstrip()}\n```"


Scripts = Mapping[tuple[str, int | None], Sequence[ScriptedReply]]  # by instance and seed; None: every other seed


class ReplayAgent:
    """Plays the script of an instance and seed through the bash agent."""

    name = "replay"

    def __init__(self, scripts: Scripts, *, source: str = "", options: BashOptions | None = None) -> None:
        self._scripts = scripts
        self._source = source
        self._options = options or BashOptions(format_errors=0)
        self._prompts = Prompts.load(self._options.prompts)
        if self._prompts.action != "text":
            raise ConfigError(f"a replay writes fenced commands; prompts {self._options.prompts!r} want tool calls")

    def describe(self) -> Mapping[str, Any]:
        steps = sorted(((key[0], str(key[1])), [step.model_dump() for step in s]) for key, s in self._scripts.items())
        digest = hashlib.sha256(json.dumps(steps).encode()).hexdigest()[:12]
        return {
            "kind": self.name,
            "source": self._source,
            "digest": digest,
            "prompts": self._prompts.describe(),
            "budget": self._options.model_dump(mode="json", exclude={"prompts", "thoughts"}),  # a script has none
        }

    def run(self, instance: Instance, environment: Environment, record: Recorder, *, seed: int) -> AgentExit:
        script = self._scripts.get((instance.instance_id, seed), self._scripts.get((instance.instance_id, None)))
        policy = _Script(script, instance.instance_id, self._prompts.fence)
        end = BashAgent(policy, self._options, prompts=self._prompts).run(instance, environment, record, seed=seed)
        if script is None and end.status is ExitStatus.SUBMITTED:
            return end.model_copy(update={"reason": policy.gave_up})
        return end


class _Script:
    """A policy that says the lines of one script, then hands in. Lives for one rollout."""

    def __init__(self, steps: Sequence[ScriptedReply] | None, instance_id: str, fence: str) -> None:
        self.gave_up = f"no script for {instance_id}: giving up"
        farewell = ScriptedReply(thought="Done." if steps is not None else self.gave_up, action=f"echo {SENTINEL}")
        self._lines = iter([step.text(fence) for step in [*(steps or []), farewell]])

    def complete(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] = (), seed: int | None = None
    ) -> Completion:
        return Completion(content=next(self._lines), finish_reason="stop", model="replay")

    def describe(self) -> Mapping[str, Any]:
        return {"kind": "script"}


def shipped_replays() -> list[str]:
    """The replays that come with the package, by name."""
    folder = resources.files("aem_harness.agents") / "replays"
    if not folder.is_dir():
        return []
    return sorted(
        entry.name.rsplit(".", 1)[0] for entry in folder.iterdir() if entry.name.endswith((".yaml", ".jsonl"))
    )


def load_replay(name: str) -> Scripts:
    """Read a replay by shipped name or path. ConfigError for an unknown one, DataError for a broken file."""
    folder = resources.files("aem_harness.agents") / "replays"
    candidates = [Path(str(folder / f"{name}{suffix}")) for suffix in (".yaml", ".jsonl")] + [Path(name)]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        choices = ", ".join(shipped_replays()) or "none is shipped"
        raise ConfigError(
            f"unknown replay {name!r}: choose one of {choices}, or give the path of a .yaml or .jsonl file"
        )
    return dict(_read_jsonl(path) if path.suffix == ".jsonl" else _read_yaml(path))


def _read_yaml(path: Path) -> list[tuple[tuple[str, int | None], list[ScriptedReply]]]:
    instances = read_yaml(path).get("instances")
    if not isinstance(instances, dict):
        raise DataError(f"{path}: needs a mapping `instances` from instance id to steps")
    scripts: list[tuple[tuple[str, int | None], list[ScriptedReply]]] = []
    for instance_id, entry in instances.items():
        if not isinstance(entry, dict):
            scripts.append(((instance_id, None), _steps(entry, f"{path}: {instance_id}")))
            continue
        if set(entry) != {"seeds"} or not isinstance(entry["seeds"], dict):
            raise DataError(f"{path}: {instance_id}: needs a list of steps, or a mapping `seeds`")
        for seed, steps in entry["seeds"].items():
            if seed != "default" and not isinstance(seed, int):
                raise DataError(f"{path}: {instance_id}: seed {seed!r} is neither a number nor `default`")
            key = None if seed == "default" else seed
            scripts.append(((instance_id, key), _steps(steps, f"{path}: {instance_id}, seed {seed}")))
    return scripts


def _read_jsonl(path: Path) -> list[tuple[tuple[str, int | None], list[ScriptedReply]]]:
    scripts = []
    for number, row in read_json_lines(path):
        if "instance_id" not in row or "steps" not in row:
            raise DataError(f"{path}, line {number}: needs instance_id and steps")
        key, steps = (str(row["instance_id"]), row.get("seed")), row["steps"]
        scripts.append((key, _steps(steps, f"{path}, line {number}")))
    return scripts


def _steps(entries: Any, where: str) -> list[ScriptedReply]:
    if not isinstance(entries, list):
        raise DataError(f"{where}: needs a list of steps, not {type(entries).__name__}")
    steps = []
    for number, entry in enumerate(entries, start=1):
        with validating(DataError, f"{where}, step {number}"):
            steps.append(ScriptedReply.model_validate(entry))
    return steps
