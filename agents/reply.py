"""From the bytes of a chat completion to a `Completion`, whatever a model or a server put in them.

The server's part must be sound (JSON with a choice in it), else `Unreadable` is raised and the call is repeated. The
model's part need not be: content of any type or none, tool calls of any shape, text that is no Unicode. It is turned
into the nearest honest `Completion`, and what had to be corrected is listed in its `anomalies`.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from aem_harness.agents.entropy import method, token_entropy
from aem_harness.harness.run.thoughts import ALL_REASONING, field_in
from aem_harness.harness.types import Completion

_FLOOR = -9999.0  # vLLM's stand-in for minus infinity
# SGLang takes calls that it cannot read, or that name no tool of the request, out of a reply
# (findings/sglang-takes-out-a-call-that-vllm-returns.sh); special tokens are not returned as text either.
NOTHING_LEFT = "nothing is left of its tokens: the server dropped a tool call, or special tokens"
_FEW = 4  # tokens of a reply that may be empty: an end, and white space before it


class Unreadable(Exception):
    """The server's answer is no chat completion. `words` is what it says instead, where it says anything."""

    def __init__(self, what: str, words: str = "") -> None:
        super().__init__(what)
        self.words = words


def read_reply(body: bytes, *, top: int = 0, vocabulary: int = 0) -> Completion:
    """Read one response body; `top` and `vocabulary` say how entropies are estimated. Raises Unreadable."""
    try:
        reply = _parsed(body)
        if words := _error(reply):
            raise Unreadable(f"the server answered 200 with an error: {words}", words)
        choice = reply["choices"][0]
        message = choice["message"]
        if not isinstance(message, dict):
            raise TypeError(f"message is {type(message).__name__}")
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise Unreadable(f"the body is no chat completion ({type(error).__name__}: {error})") from None
    finish_reason = str(choice.get("finish_reason") or "")
    if finish_reason in ("abort", "error"):
        raise Unreadable(f"the server broke off the generation (finish_reason {finish_reason!r})")
    odd: list[str] = []
    if message.get("role", "assistant") != "assistant":
        odd.append(f"role is {str(message['role'])[:40]!r}")
    usage = reply.get("usage") if isinstance(reply.get("usage"), dict) else {}
    if not usage:
        odd.append("no usage")
    field = field_in(message)
    content = _text(message.get("content"), odd)
    reasoning = _text(message[field], odd) if field else ""
    calls = _tool_calls(message.get("tool_calls"), odd)
    if reasoning.strip() and finish_reason == "stop" and not (content.strip() or calls):
        odd.append(ALL_REASONING)
    tokens, logprobs, entropies = _logprobs(choice.get("logprobs"), vocabulary, odd)
    count = _count(usage.get("completion_tokens")) or len(logprobs)
    if count > _FEW and not (content.strip() or calls or field):
        odd.append(NOTHING_LEFT)
    return Completion(
        content=content,
        reasoning=reasoning,
        reasoning_field=field if field and isinstance(message[field], str) else "",
        tool_calls=calls,
        finish_reason=_unicode(finish_reason, odd),
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=count,
        tokens=tokens,
        logprobs=logprobs,
        entropies=entropies,
        entropy_method=method(top, vocabulary) if entropies else "",
        server_queue_seconds=_queued(reply.get("metrics")),
        request_id=_unicode(str(reply.get("id") or ""), odd),
        model=_unicode(str(reply.get("model") or ""), odd),
        anomalies=tuple(dict.fromkeys(odd)),
    )


def _parsed(body: bytes) -> Any:
    try:
        return from_json(body)  # in half the time of json, which log-probabilities make long
    except ValueError:
        return json.loads(body)  # takes more: half surrogate pairs, UTF-16


def _error(reply: Any) -> str:
    """The words of an error in a body that should be a completion, on one line; empty where there is none."""
    found = reply.get("error") if isinstance(reply, dict) and not reply.get("choices") else None
    if isinstance(reply, dict) and reply.get("object") == "error":
        found = found or reply.get("message")
    if isinstance(found, dict):
        found = found.get("message") or found
    return " ".join(str(found).split())[:500] if found else ""


def _text(content: Any, odd: list[str]) -> str:
    """Text as text; nothing as the empty string; a list of parts as its texts joined; anything else as its JSON."""
    if content is None:
        return ""
    if isinstance(content, list):
        parts = [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
        if parts and len(parts) == len(content):
            return _unicode("".join(parts), odd)
    if not isinstance(content, str):
        odd.append(f"content is {type(content).__name__}")
        content = _dump(content)
    return _unicode(content, odd)


def _unicode(text: str, odd: list[str]) -> str:
    """JSON can spell lone surrogates, which no file and no request can carry."""
    corrected = text.encode("utf-8", "replace").decode()
    if corrected != text:
        odd.append("text is not Unicode")
    return corrected


def _tool_calls(calls: Any, odd: list[str]) -> tuple[Mapping[str, Any], ...]:
    if not calls:
        return ()
    if not isinstance(calls, list):
        odd.append(f"tool_calls is {type(calls).__name__}")
        return ()
    corrected = []
    for number, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            odd.append("a tool call without a function")
            function = {}
        name, arguments = function.get("name"), function.get("arguments")
        if not isinstance(name, str):
            odd.append("a tool call without a name")
        if not isinstance(arguments, str):
            odd.append(f"tool call arguments are {type(arguments).__name__}")
        identity = call.get("id") if isinstance(call, dict) else None
        corrected.append(
            {
                "id": _unicode(identity, odd) if isinstance(identity, str) and identity else f"call_{number}",
                "type": "function",
                "function": {
                    "name": _unicode(name, odd) if isinstance(name, str) else "",
                    "arguments": _unicode(arguments if isinstance(arguments, str) else _dump(arguments), odd),
                },
            }
        )
    return tuple(corrected)


def _logprobs(
    reported: Any, vocabulary: int, odd: list[str]
) -> tuple[tuple[str, ...], tuple[float, ...], tuple[float, ...]]:
    """Tokens, their log-probabilities and entropy estimates (nats), in order; all empty where the server gave none."""
    entries = reported.get("content") if isinstance(reported, dict) else None
    if not entries:
        return (), (), ()
    try:
        tokens = tuple(_unicode(str(entry["token"]), odd) for entry in entries)
        sampled = tuple(_floored([entry["logprob"] for entry in entries]))
        tops = [_floored([other["logprob"] for other in entry.get("top_logprobs") or ()]) for entry in entries]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        odd.append(f"log-probabilities are unreadable ({type(error).__name__})")
        return (), (), ()
    if not all(tops):
        return tokens, sampled, ()
    entropies = tuple(token_entropy(own, top, vocabulary=vocabulary) for own, top in zip(sampled, tops, strict=True))
    return tokens, sampled, entropies


def _floored(values: list[Any]) -> list[float]:
    if set(map(type, values)) == {float} and min(values) > _FLOOR and max(values) < 0 and not math.isnan(sum(values)):
        return values  # the rule, with thousands of values a reply
    return [_logprob(value) for value in values]


def _logprob(value: Any) -> float:
    number = float(value)
    return min(0.0, number) if math.isfinite(number) and number > _FLOOR else _FLOOR


def _count(value: Any) -> int:
    """A token count as servers may spell it; anything that is none counts nothing."""
    return int(value) if isinstance(value, int | float) and 0 < value < 2**53 else 0


def _queued(metrics: Any) -> float | None:
    """Seconds that the request queued at the server: vLLM 0.32 says so with --enable-per-request-metrics."""
    value = metrics.get("queue_time_ms") if isinstance(metrics, dict) else None
    return value / 1000 if isinstance(value, int | float) and 0 <= value < math.inf else None


def _dump(value: Any) -> str:
    try:
        return json.dumps(value)
    except (ValueError, RecursionError):
        return ""
