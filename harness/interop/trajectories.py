"""Trajectories of three kinds as one: mini-swe-agent 1 and 1.1 (and so our own), and SWE-agent `.traj`.

mini-swe-agent 1.x writes `info` and `messages`; 2.x adds `extra.actions` to what the model said and keeps replies that
it could not read as user messages with `extra.interrupt_type`. SWE-agent writes `trajectory`, a list of steps with
`response`, `action` and `observation`. What a format does not record is None, never zero.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aem_harness.harness.errors import DataError

_BLOCK = re.compile(r"```(?:bash|sh|mswea_bash_command)\s*\n(.*?)\n```", re.DOTALL)


@dataclass(frozen=True)
class Turn:
    """One response of the model: the text, the commands in it, and what the server said about it (nats, tokens)."""

    text: str
    commands: tuple[str, ...]
    malformed: bool = False
    entropy: float | None = None
    surprisal: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True)
class Trajectory:
    """The turns of one rollout, how it ended and what it handed in (None: not told). `cost` in US dollars."""

    instance_id: str
    turns: tuple[Turn, ...]
    exit_status: str
    submission: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cost: float | None
    info: Mapping[str, Any]
    scaffold: str


def read_trajectory(path: Path) -> Trajectory:
    """Read one trajectory file. Raises DataError naming the file and what is missing."""
    try:
        raw = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{path} is not a trajectory: {error}") from None
    if not isinstance(raw, dict) or not isinstance(raw.get("info"), dict):
        raise DataError(f"{path} is not a trajectory: it has no `info`")
    info = raw["info"]
    if isinstance(raw.get("messages"), list):
        turns = tuple(_mini_turns(raw["messages"]))
        scaffold = f"mini-swe-agent {info.get('mini_version', '')}".strip()
    elif isinstance(raw.get("trajectory"), list):
        turns = tuple(_swe_agent_turns(raw["trajectory"]))
        scaffold = f"SWE-agent {info.get('swe_agent_version', '')}".strip()
    else:
        raise DataError(f"{path} is not a trajectory: it has neither `messages` nor `trajectory`")
    stats = info.get("model_stats") or {}
    return Trajectory(
        instance_id=raw.get("instance_id") or path.name.removesuffix(".json").removesuffix(".traj"),
        turns=turns,
        exit_status=info.get("exit_status") or "",
        submission=info.get("submission"),
        prompt_tokens=_sum([turn.prompt_tokens for turn in turns], stats.get("tokens_sent")),
        completion_tokens=_sum([turn.completion_tokens for turn in turns], stats.get("tokens_received")),
        cost=stats.get("instance_cost"),
        info=info,
        scaffold=scaffold,
    )


def _mini_turns(messages: list[Mapping[str, Any]]) -> Iterator[Turn]:
    for message in messages:
        extra = message.get("extra") or {}
        if "model_response" in extra:  # a reply that held no valid action; the message is the scaffold's complaint
            yield _mini_turn(str(extra["model_response"]), (), extra, malformed=True)
        elif message.get("role") == "assistant":
            text = message.get("content") or ""
            if isinstance(text, list):
                text = "".join(part.get("text", "") for part in text)
            yield _mini_turn(text, _commands(text, message, extra), extra, malformed=bool(extra.get("malformed")))


def _mini_turn(text: str, commands: tuple[str, ...], extra: Mapping[str, Any], *, malformed: bool) -> Turn:
    usage = (extra.get("response") or {}).get("usage") or {}
    return Turn(
        text=text,
        commands=commands,
        malformed=malformed,
        entropy=extra.get("mean_entropy"),
        surprisal=extra.get("surprisal"),
        prompt_tokens=extra.get("prompt_tokens", usage.get("prompt_tokens")),
        completion_tokens=extra.get("completion_tokens", usage.get("completion_tokens")),
    )


def _commands(text: str, message: Mapping[str, Any], extra: Mapping[str, Any]) -> tuple[str, ...]:
    if "actions" in extra:
        return tuple(str(action.get("command", "")) for action in extra["actions"])
    if calls := message.get("tool_calls"):
        return tuple(_argument(call) for call in calls)
    return tuple(block.strip() for block in _BLOCK.findall(text))


def _argument(call: Mapping[str, Any]) -> str:
    arguments = (call.get("function") or {}).get("arguments", "")
    try:
        return str(json.loads(arguments)["command"])
    except (ValueError, KeyError, TypeError):
        return str(arguments)


def _swe_agent_turns(steps: list[Mapping[str, Any]]) -> Iterator[Turn]:
    for step in steps:
        action = str(step.get("action") or "").strip()
        yield Turn(text=str(step.get("response") or ""), commands=(action,) if action else (), malformed=not action)


def _sum(counts: list[int | None], stated: int | None) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else stated
