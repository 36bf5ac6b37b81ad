"""Trajectories of three kinds as one: mini-swe-agent 1 and 1.1 (and so our own), and SWE-agent `.traj`.

mini-swe-agent 1.x writes `info` and `messages`; 2.x adds `extra.actions` to what the model said and keeps replies that
it could not read as user messages with `extra.interrupt_type`. SWE-agent writes `trajectory`, a list of steps with
`response`, `action` and `observation`. What a format does not record is None, never zero.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aem_harness.harness.errors import DataError
from aem_harness.harness.interop.files import table
from aem_harness.harness.io import read_json
from aem_harness.harness.run.thoughts import thought_in

_BLOCK = re.compile(r"```(?:bash|sh|mswea_bash_command)\s*\n(.*?)\n```", re.DOTALL)


@dataclass(frozen=True)
class Turn:
    """One response of the model: the text, the commands in it, and what the server said about it (nats, tokens).

    `thought` is the length of thoughts that the server took out of the text, in characters.
    """

    text: str
    commands: tuple[str, ...]
    malformed: bool = False
    entropy: float | None = None
    surprisal: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    thought: int = 0


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


def read_raw(path: Path) -> dict[str, Any]:
    """The document of one trajectory file as its tool wrote it. Raises DataError where it has no `info`."""
    return _checked(path, read_json(path))


def _checked(path: Path, raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict) or not isinstance(raw.get("info"), dict):
        raise DataError(f"{path} is not a trajectory: it has no `info`")
    return raw


def read_trajectory(path: Path) -> Trajectory:
    """Read one trajectory file. Raises DataError naming the file and what is missing."""
    return parse_trajectory(path, read_raw(path))


def parse_trajectory(path: Path, document: Any) -> Trajectory:
    """The trajectory in a document that was read from `path`. Raises DataError naming the file and what is missing."""
    raw = _checked(path, document)
    info = raw["info"]
    if isinstance(messages := raw.get("messages"), list):
        turns = tuple(_mini_turns(messages))
        info = table(table(messages[-1] if messages else None).get("extra")) | info  # what ended it, where that is said
        scaffold = f"mini-swe-agent {info.get('mini_version', '')}".strip()
    elif isinstance(raw.get("trajectory"), list):
        turns = tuple(_swe_agent_turns(raw["trajectory"]))
        scaffold = f"SWE-agent {info.get('swe_agent_version', '')}".strip()
    else:
        raise DataError(f"{path} is not a trajectory: it has neither `messages` nor `trajectory`")
    stats = table(info.get("model_stats"))
    return Trajectory(
        instance_id=raw.get("instance_id") or path.name.removesuffix(".json").removesuffix(".traj"),
        turns=turns,
        exit_status=str(info.get("exit_status") or ""),
        submission=submission if isinstance(submission := info.get("submission"), str) else None,
        prompt_tokens=_sum([turn.prompt_tokens for turn in turns], _count(stats.get("tokens_sent"))),
        completion_tokens=_sum([turn.completion_tokens for turn in turns], _count(stats.get("tokens_received"))),
        cost=stats.get("instance_cost"),
        info=info,
        scaffold=scaffold,
    )


def _mini_turns(messages: list[Any]) -> Iterator[Turn]:
    for message in messages:
        if not isinstance(message, dict):
            continue
        extra = table(message.get("extra"))
        if "model_response" in extra:  # a reply that held no valid action; the message is the scaffold's complaint
            yield _mini_turn(_text(extra["model_response"]), (), extra, {}, malformed=True)
        elif message.get("role") == "assistant":
            text = _text(message.get("content"))
            commands = _commands(text, message, extra)
            turn = _mini_turn(text, commands, extra, {}, malformed=bool(extra.get("malformed")))
            yield replace(turn, thought=len(thought_in(message)))
        elif message.get("object") == "response":  # the Responses API: one message holds a list of output items
            items = [table(item) for item in output] if isinstance(output := message.get("output"), list) else []
            text = "".join(_text(item.get("content")) for item in items if item.get("type") == "message")
            calls = [{"function": item} for item in items if item.get("type") == "function_call"]
            commands = _commands(text, {"tool_calls": calls}, extra)
            usage = table(message.get("usage"))
            yield _mini_turn(text, commands, extra, usage, malformed=bool(extra.get("malformed")))


def _text(content: Any) -> str:
    """The text of a message: a string, null, or a list of parts, which are objects with `text` or bare strings."""
    if isinstance(content, list):
        return "".join(_text(part.get("text")) if isinstance(part, dict) else _text(part) for part in content)
    return "" if content is None else str(content)


def _mini_turn(
    text: str, commands: tuple[str, ...], extra: Mapping[str, Any], usage: Mapping[str, Any], *, malformed: bool
) -> Turn:
    usage = usage or table(table(extra.get("response")).get("usage"))
    prompt, completion = (
        _count(extra.get(name, usage.get(name, usage.get(other))))
        for name, other in (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))
    )
    return Turn(
        text=text,
        commands=commands,
        malformed=malformed,
        entropy=_number(extra.get("mean_entropy")),
        surprisal=_number(extra.get("surprisal")),
        prompt_tokens=prompt,
        completion_tokens=completion,
    )


def _count(value: Any) -> int | None:
    """`value` where it is a number of tokens."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53 else None


def _number(value: Any) -> float | None:
    """`value` where it is a finite number."""
    sound = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**1000
    return float(value) if sound else None


def _commands(text: str, message: Mapping[str, Any], extra: Mapping[str, Any]) -> tuple[str, ...]:
    if isinstance(actions := extra.get("actions"), list):
        return tuple(str(action.get("command", "")) for action in actions if isinstance(action, dict))
    if isinstance(calls := message.get("tool_calls"), list) and calls:
        return tuple(_argument(table(call)) for call in calls)
    return tuple(block.strip() for block in _BLOCK.findall(text))


def _argument(call: Mapping[str, Any]) -> str:
    arguments = table(call.get("function")).get("arguments", "")
    try:
        said = arguments if isinstance(arguments, dict) else json.loads(arguments)
        return str(said["command"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return str(arguments)


def _swe_agent_turns(steps: list[Any]) -> Iterator[Turn]:
    for step in map(table, steps):
        action = str(step.get("action") or "").strip()
        yield Turn(text=str(step.get("response") or ""), commands=(action,) if action else (), malformed=not action)


def _sum(counts: list[int | None], stated: int | None) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else stated
