"""Harbor's ATIF (Agent Trajectory Interchange Format), version 1.7: a JSON file for each rollout.

One step for each message. The environment's answer belongs to the step of the agent that asked for it, as an
`observation`; a reply without an action is a step of the agent too. ATIF has no field for entropies and surprisals:
they go into `metrics.extra`. Log-probabilities are written only where every one is finite. Tried with the models of
Harbor 0.26, read strictly from JSON.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aem_harness.harness.export import ExportedRollout, ExportedRun, Written, numbered, plain, said, text_of, tool_call
from aem_harness.harness.io import write_json
from aem_harness.harness.run.thoughts import thought_in

VERSION = "ATIF-v1.7"
SOURCES = {"system": "system", "user": "user", "assistant": "agent", "tool": "user"}


def write(run: ExportedRun, out: Path) -> Written:
    out.mkdir()
    count = empty = 0
    for name, one in numbered(run):
        document = trajectory(run, one)
        if document["steps"]:
            write_json(out / f"{name}.json", document)
            count += 1
        else:
            empty += 1
    return Written(count, empty, "without any message")


def trajectory(run: ExportedRun, one: ExportedRollout) -> dict[str, Any]:
    """The rollout as an ATIF document."""
    event = one.event
    agent: Mapping[str, Any] = run.facts["agent"]
    return {
        "schema_version": VERSION,
        "session_id": f"{run.facts['run_id']}/{one.instance_id}/{one.seed}",
        "trajectory_id": f"{one.instance_id}.seed{one.seed}",
        "agent": {
            "name": f"aem {agent.get('kind', 'agent')}",
            "version": str(run.facts["versions"].get("aem", "")),
            "model_name": run.model,
            "extra": plain({"agent": dict(agent)}),
        },
        "steps": list(_steps(one)),
        "final_metrics": {
            "total_prompt_tokens": event.get("prompt_tokens"),
            "total_completion_tokens": event.get("completion_tokens"),
            "extra": {"seconds": event.get("seconds"), "mean_entropy": plain(event.get("mean_entropy"))},
        },
        "extra": {
            "instance_id": one.instance_id,
            "seed": one.seed,
            "outcome": one.outcome.value if one.outcome else None,
            "reward": None if one.resolved is None else float(one.resolved),
            "cause": plain(one.why),
            "exit_status": event["exit_status"],
            "patch": plain(one.patch()),
        },
    }


def _steps(one: ExportedRollout) -> Iterator[dict[str, Any]]:
    pending: dict[str, Any] | None = None  # the agent's step, which waits for the environment's answer
    number = 0
    for message in one.trajectory()["messages"]:
        reply, extra = said(message), message.get("extra") or {}
        answers = reply is None and message.get("role") in ("user", "tool") and pending is not None
        if answers and pending is not None:
            pending.setdefault("observation", {"results": []})["results"].append(_result(message, pending))
            continue
        if message.get("role") not in SOURCES:
            continue
        if pending is not None:
            yield pending
            pending = None
        number += 1
        step = {"step_id": number, **_time(extra), "source": SOURCES[message["role"]], "message": text_of(message)}
        if reply is None:
            yield step
            continue
        step |= {"source": "agent", "message": reply, **_agent_fields(message, extra)}
        if message["role"] != "assistant":  # a reply without an action, kept in the complaint that it got
            step["observation"] = {"results": [{"content": text_of(message)}]}
        pending = step
    if pending is not None:
        yield pending


def _agent_fields(message: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    calls = [_call(call) for call in message.get("tool_calls") or ()]
    if not calls:
        actions = enumerate(extra.get("actions") or ())
        calls = [
            {
                "tool_call_id": f"action-{i}",
                "function_name": "bash",
                "arguments": plain({"command": a.get("command", "")}),
            }
            for i, a in actions
        ]
    fields: dict[str, Any] = {"metrics": _metrics(extra)}
    if calls:
        fields["tool_calls"] = calls
    if thought := thought_in(message):
        fields["reasoning_content"] = plain(thought)
    return fields


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    number, name, arguments = tool_call(call)
    return {"tool_call_id": number, "function_name": name, "arguments": arguments}


def _result(message: Mapping[str, Any], step: Mapping[str, Any]) -> dict[str, Any]:
    ids = {call["tool_call_id"] for call in step.get("tool_calls") or ()}
    result: dict[str, Any] = {"content": text_of(message)}
    if message.get("tool_call_id") in ids:
        result["source_call_id"] = message["tool_call_id"]
    elif len(ids) == 1:
        result["source_call_id"] = next(iter(ids))
    return result


def _metrics(extra: Mapping[str, Any]) -> dict[str, Any]:
    logprobs = plain(extra.get("logprobs") or [])
    metrics = {
        "prompt_tokens": extra.get("prompt_tokens"),
        "completion_tokens": extra.get("completion_tokens"),
        "logprobs": logprobs if logprobs and None not in logprobs else None,
        "extra": {key: plain(extra.get(key)) for key in ("mean_entropy", "surprisal", "model_seconds")},
    }
    return {key: value for key, value in metrics.items() if value is not None}


def _time(extra: Mapping[str, Any]) -> dict[str, str]:
    stamp = extra.get("timestamp")
    return {"timestamp": datetime.fromtimestamp(stamp, UTC).isoformat()} if isinstance(stamp, int | float) else {}
