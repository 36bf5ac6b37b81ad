"""Messages with rewards, one JSON object a line: what supervised fine-tuning and preference data are made from.

`messages` are role and content (and tool calls where the policy made them, their arguments as objects), in the
conversational form that TRL reads. Thoughts that the server took out of a reply are its `reasoning_content`, as chat
templates read them, whether or not they were sent back: the reply was made with them. Rollouts with thoughts come
first: `datasets` takes the fields of a file from its first 10 MB, and fails where a later line has another.
`reward` is 1 for a resolved rollout and 0 for one that is not; lost rollouts have no reward and are left out. A reply
without an action is an assistant message, followed by the complaint it got.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aem_harness.harness.export import ExportedRollout, ExportedRun, Written, plain, said, text_of
from aem_harness.harness.run.thoughts import thought_in


def write(run: ExportedRun, out: Path) -> Written:
    known = list(run.rollouts())
    kept = [one for one in known if one.resolved is not None]
    with out.open("w", encoding="utf-8") as handle:
        for one in sorted(kept, key=lambda one: not one.has_thoughts):
            handle.write(json.dumps(row(run, one), ensure_ascii=False) + "\n")
    return Written(len(kept), len(known) - len(kept), "without a verdict")


def row(run: ExportedRun, one: ExportedRollout) -> dict[str, Any]:
    """One rollout as a line of the file."""
    return {
        "messages": list(messages(one)),
        "reward": None if one.resolved is None else float(one.resolved),
        "instance_id": one.instance_id,
        "seed": one.seed,
        "outcome": one.outcome.value if one.outcome else None,
        "exit_status": one.event["exit_status"],
        "arm": run.arm,
        "model": run.model,
        "patch": plain(one.patch()),
    }


def messages(one: ExportedRollout) -> Iterator[dict[str, Any]]:
    """The conversation as the policy saw it."""
    for message in one.trajectory()["messages"]:
        if message.get("role") == "exit":
            continue
        reply = said(message)
        if reply is not None and message["role"] != "assistant":
            yield {"role": "assistant", "content": reply, **_thought(message)}
        thought = _thought(message) if message["role"] == "assistant" else {}
        yield {"role": message["role"], "content": text_of(message), **thought, **_calls(message)}


def _thought(message: Mapping[str, Any]) -> dict[str, Any]:
    thought = plain(thought_in(message))
    return {"reasoning_content": thought} if thought else {}


def _calls(message: Mapping[str, Any]) -> dict[str, Any]:
    told = {key: plain(message[key]) for key in ("tool_calls", "tool_call_id") if message.get(key)}
    if "tool_calls" in told:
        told["tool_calls"] = [_with_object(call) for call in told["tool_calls"]]
    return told


def _with_object(call: Any) -> Any:
    """The call with its arguments as an object: of text, templates make text in quotes once more, and trainers do not
    read it as servers do (findings/trl-trains-on-tool-calls-in-quotes.sh). What is no object stays as it was said."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        return call
    return call | {"function": function | {"arguments": plain(arguments)}} if isinstance(arguments, dict) else call
