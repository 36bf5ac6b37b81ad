"""Messages in mini-swe-agent 1.1 form: what the model gets to see, and under `extra` everything it does not.

The form and its keys are those of mini-swe-agent 2.4.6 (`mini-swe-agent-1.1`): `extra.actions`, `extra.response`,
`extra.cost`, `extra.timestamp` on what the model said; `extra.raw_output`, `extra.returncode`,
`extra.exception_info` on what came back; a last message of role `exit`. Beside them stand this project's facts,
flat: see `facts`.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from aem_harness.harness.types import AgentExit, Completion, ExitStatus

Message = dict[str, Any]
Thoughts = Literal["send", "drop"]  # what is done with thoughts that a server took out of a reply, in later requests


def plain(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def sent(message: Mapping[str, Any]) -> Message:
    """The part of a message that goes to the model: all but `extra`."""
    return {key: value for key, value in message.items() if key != "extra"}


def said(completion: Completion, actions: Sequence[Mapping[str, Any]], thoughts: Thoughts = "drop") -> Message:
    """What the model said, when an action could be read from it. An agent that sends thoughts says so (`described`)."""
    extra = {"actions": list(actions), **_heard(completion), **facts(completion)}
    return {**_reply(completion), **_thought(completion, thoughts), "extra": extra}


def called(
    text: str,
    completion: Completion,
    actions: Sequence[Mapping[str, Any]],
    thoughts: Thoughts = "drop",
    *,
    malformed: bool,
) -> Message:
    """What the model said, where the conversation keeps only `text` of it; the whole reply is under `response`."""
    extra = {"actions": list(actions), **_heard(completion), **facts(completion), "malformed": malformed}
    return {**plain("assistant", text), **_thought(completion, thoughts), "extra": extra}


def described(thoughts: Thoughts) -> dict[str, Any]:
    """What an agent says of it. Nothing where they are dropped: so did every run before thoughts were sent back."""
    return {"thoughts": thoughts} if thoughts == "send" else {}


def refused(text: str, completion: Completion, **why: Any) -> Message:
    """The answer to a reply without a valid action. As in mini-swe-agent, the reply itself leaves the conversation:
    the model sees only this message, the record keeps both."""
    extra = {
        "interrupt_type": "FormatError",
        "model_response": completion.content,
        **why,
        **_heard(completion),
        **facts(completion),
        "malformed": True,
    }
    return {**plain("user", text), "extra": extra}


def observed(
    text: str, output: Mapping[str, Any], *, tool_call_id: str | None = None, seconds: float = 0.0, dropped: int = 0
) -> Message:
    """What a command gave back: `output` has output, returncode and exception_info; `dropped` bytes were never kept."""
    role = {"role": "user"} if tool_call_id is None else {"role": "tool", "tool_call_id": tool_call_id}
    extra = {
        "raw_output": output["output"],
        "returncode": output["returncode"],
        "timestamp": time.time(),
        "exception_info": output["exception_info"],
        "tool_seconds": seconds,
        "dropped_bytes": dropped,
    }
    return {**role, "content": text, "extra": extra}


# How mini-swe-agent names the ends of a rollout; its own readers look for these in the `exit` message.
MINI_EXIT = {
    ExitStatus.SUBMITTED: "Submitted",
    ExitStatus.WALL_LIMIT: "TimeExceeded",
    ExitStatus.FORMAT_ERRORS: "RepeatedFormatError",
}


def ended(end: AgentExit) -> Message:
    """The last message: how the agent ended, and the patch if it named one itself."""
    submission = end.patch or ""
    named = MINI_EXIT.get(end.status, "LimitsExceeded")
    content = submission if end.status is ExitStatus.SUBMITTED else named
    extra = {"exit_status": named, "submission": submission, "reason": end.reason, "timestamp": time.time()}
    return {"role": "exit", "content": content, "extra": extra}


def facts(completion: Completion) -> dict[str, Any]:
    """What an evaluation of RL checkpoints wants to know of one response. Seconds and nats.

    `model_seconds` is the attempt that succeeded, as this side saw it; `queue_seconds` what passed before it began
    (failed attempts, waits between them). `server_queue_seconds` is the part of `model_seconds` that the request queued
    at the server, None where that does not say (vLLM does with --enable-per-request-metrics, which is set for those
    that `aem` starts and know it). `gpu_seconds` is the request's share of the server's GPUs, None where these are not
    known or there are none: see `aem_harness.agents.accelerator`.
    `surprisal` is -log pi(response | prefix), the sum over its tokens; `mean_entropy` the mean of the per-token
    estimates, by `entropy_method`; both None where the server returned no log-probabilities.
    """
    return {
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
        "finish_reason": completion.finish_reason,
        "malformed": False,
        "model_seconds": completion.seconds,
        "queue_seconds": completion.queue_seconds,
        "server_queue_seconds": completion.server_queue_seconds,
        "gpu_seconds": completion.gpu_seconds,
        "retries": completion.retries,
        "request_id": completion.request_id,
        "reasoning": completion.reasoning,
        "anomalies": list(completion.anomalies),
        "surprisal": -sum(completion.logprobs) if completion.logprobs else None,
        "mean_entropy": sum(completion.entropies) / len(completion.entropies) if completion.entropies else None,
        "entropy_method": completion.entropy_method,
        "tokens": list(completion.tokens),
        "logprobs": [round(value, 6) for value in completion.logprobs],
        "entropies": [round(value, 6) for value in completion.entropies],
    }


def _reply(completion: Completion) -> Message:
    if not completion.tool_calls:
        return plain("assistant", completion.content)
    calls = [dict(call) for call in completion.tool_calls]
    return {"role": "assistant", "content": completion.content or None, "tool_calls": calls}


def _thought(completion: Completion, thoughts: Thoughts) -> Message:
    """The reply's thoughts in the field in which the server named them, which is the one that it reads."""
    if thoughts == "drop" or not completion.reasoning_field:
        return {}
    return {completion.reasoning_field: completion.reasoning}


def _heard(completion: Completion) -> dict[str, Any]:
    """The keys of mini-swe-agent's `extra`: the response as the API words it; no money changes hands here."""
    response = {
        "id": completion.request_id,
        "model": completion.model,
        "object": "chat.completion",
        "choices": [{"index": 0, "finish_reason": completion.finish_reason, "message": _reply(completion)}],
        "usage": {
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.completion_tokens,
            "total_tokens": completion.prompt_tokens + completion.completion_tokens,
        },
    }
    return {"response": response, "cost": 0.0, "timestamp": time.time()}
