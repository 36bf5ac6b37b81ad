"""A trajectory on disk: appended message by message while it grows, one mini-swe-agent 1.1 document when it ends."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aem_harness.harness.errors import DataError
from aem_harness.harness.io import append_line, read_json, read_json_lines, write_json
from aem_harness.harness.run.thoughts import ALL_REASONING, Reply, Thoughts, thought_in
from aem_harness.harness.types import ExitStatus

FORMAT = "mini-swe-agent-1.1"
_line = json.JSONEncoder(default=str).encode


class TrajectoryWriter:
    """The `Recorder` of one rollout. Appending costs O(1) a message; the document is written once, by `finish`."""

    def __init__(self, folder: Path, instance_id: str) -> None:
        self._folder = folder
        self._instance_id = instance_id
        self._lines = (folder / "trajectory.jsonl").open("a")
        self._info: dict[str, Any] = {}
        self._exit = ""
        self.summary = Summary()

    def message(self, message: Mapping[str, Any]) -> None:
        stamped = {**message, "extra": {"timestamp": time.time(), **message.get("extra", {})}}
        append_line(self._lines, _line(stamped))
        self.summary.add(stamped)
        if stamped["role"] == "exit":
            self._exit = stamped["extra"].get("exit_status", "")

    def info(self, **facts: Any) -> None:
        self._info.update(facts)

    def finish(self, status: ExitStatus, submission: str) -> None:
        """Close the growing file and turn it into `<instance>.traj.json`."""
        self._lines.close()
        growing = self._folder / "trajectory.jsonl"
        messages = [message for _, message in read_json_lines(growing)]
        document = {
            "info": {
                "model_stats": {"instance_cost": 0.0, "api_calls": self.summary.steps},
                "config": {},
                **self._info,
                "exit_status": self._exit or status.value,  # in mini-swe-agent's words, if the agent used them
                "ended": status.value,
                "submission": submission,
            },
            "messages": messages,
            "trajectory_format": FORMAT,
            "instance_id": self._instance_id,
        }
        write_json(self._folder / f"{self._instance_id}.traj.json", document)
        growing.unlink()


def read_document(path: Path) -> dict[str, Any]:
    """The document of one of our own rollouts, as `finish` wrote it. Raises DataError if it has no messages.

    `harness.interop.trajectories` reads those of any tool.
    """
    document = read_json(path)
    if not isinstance(document, dict) or not isinstance(document.get("messages"), list):
        raise DataError(f"{path} is not a trajectory: it has no messages")
    return document


class Summary:
    """Sums over the model responses of a trajectory, from what the agents record under `extra`.

    `mean_entropy` is the mean over responses of each response's mean token entropy, in nats; None if no server returned
    log-probabilities. `gpu_seconds` is the sum over responses of their share of the server's GPUs (see
    `aem_harness.agents.accelerator`); None if no response has one: the server has no GPU, or their number is unknown.
    `thoughts` counts responses whose thoughts the server took out of the text, `thoughts_lost` those of them whose
    thoughts are missing in a later prompt: at least so many, as long observations hide it. `thoughts_alone` counts
    responses that were taken out as a whole.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.commands = 0
        self.malformed = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.model_seconds = 0.0
        self.tool_seconds = 0.0
        self.gpu_seconds: float | None = None
        self.alone = 0
        self._thoughts = Thoughts()
        self._entropies: list[float] = []

    def add(self, message: Mapping[str, Any]) -> None:
        extra = message["extra"]
        self.tool_seconds += extra.get("tool_seconds", 0.0)
        self.commands += "tool_seconds" in extra
        if message["role"] != "assistant" and "response" not in extra:
            return  # not the model's: as in mini-swe-agent, a malformed reply is kept in the answer to it
        self.steps += 1
        self.malformed += bool(extra.get("malformed", False))
        self.prompt_tokens += extra.get("prompt_tokens", 0)
        self.completion_tokens += extra.get("completion_tokens", 0)
        self.model_seconds += extra.get("model_seconds", 0.0)
        if extra.get("gpu_seconds") is not None:
            self.gpu_seconds = (self.gpu_seconds or 0.0) + extra["gpu_seconds"]
        if extra.get("mean_entropy") is not None:
            self._entropies.append(extra["mean_entropy"])
        self.alone += ALL_REASONING in (extra.get("anomalies") or ())
        self._thoughts.add(_sizes(message))

    def facts(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "commands": self.commands,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "model_seconds": round(self.model_seconds, 3),
            "tool_seconds": round(self.tool_seconds, 3),
            "gpu_seconds": None if self.gpu_seconds is None else round(self.gpu_seconds, 3),
            "mean_entropy": sum(self._entropies) / len(self._entropies) if self._entropies else None,
            "malformed": self.malformed,
            "thoughts": self._thoughts.replies,
            "thoughts_lost": self._thoughts.lost,
            "thoughts_alone": self.alone,
        }


def _sizes(message: Mapping[str, Any]) -> Reply:
    """Of the reply in a message of ours; `response` holds the whole text where the conversation keeps a part of it."""
    extra, kept = message["extra"], _size(message)
    try:
        whole = _size(extra["response"]["choices"][0]["message"])
    except (KeyError, IndexError, TypeError, AttributeError):  # an agent of the user's own
        whole = kept
    return Reply(
        thought=len(thought_in(message)),
        text=max(kept, whole),
        kept=kept,
        prompt=extra.get("prompt_tokens", 0),
        completion=extra.get("completion_tokens", 0),
        valid=message["role"] == "assistant",
    )


def _size(message: Mapping[str, Any]) -> int:
    """Characters of what a message says, calls of tools included."""
    return len(str(message.get("content") or "")) + len(str(message.get("tool_calls") or ""))
