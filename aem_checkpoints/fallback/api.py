"""The bodies of requests and answers, in the words of OpenAI and vLLM."""

import time
import uuid
from typing import Any, Literal

from pydantic import Field

from aem_harness.aem_checkpoints.fallback.decoding import Ask, Decoded
from aem_harness.aem_checkpoints.fallback.models import BadRequest, ServedModel
from aem_harness.harness.errors import validating
from aem_harness.harness.types import Record


class Query(Record):
    """The fields that are known, of chat and of plain completions; any other is refused by its name."""

    model: str
    messages: tuple[dict[str, Any], ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    add_generation_prompt: Literal[True] | None = None
    prompt: str | tuple[int, ...] = ""
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=-1)
    min_p: float = Field(0.0, ge=0, le=1)
    seed: int | None = None
    stop: str | tuple[str, ...] | None = None
    logprobs: bool | int | None = None
    top_logprobs: int | None = Field(None, ge=0)
    n: Literal[1] | None = None
    stream: Literal[False] | None = None
    user: str | None = None

    @property
    def listed(self) -> int | None:
        """How many top log-probabilities a token: chat says true and `top_logprobs`, plain completions a number."""
        if self.logprobs is None or self.logprobs is False:
            return None
        return (self.top_logprobs or 0) if self.logprobs is True else self.logprobs


def read_query(body: bytes) -> Query:
    """BadRequest names the field that is wrong, or not known here."""
    with validating(BadRequest, "request", hint=" (this server knows less than vLLM)"):
        return Query.model_validate_json(body)


def to_ask(query: Query, served: ServedModel) -> Ask:
    """The request in ids. As with vLLM, `max_tokens` is cut to the room that the context leaves; BadRequest if none."""
    if query.tools:
        raise BadRequest("tools: not known here, tool calls are not read (this server knows less than vLLM)")
    ids = to_ids(query, served)
    asked = query.max_completion_tokens or query.max_tokens
    room = served.context - len(ids)
    if asked and asked > served.context:
        raise BadRequest(
            f"max_tokens={asked} cannot be greater than max_model_len={served.context}. Ask for fewer tokens."
        )
    if room < 1:
        raise BadRequest(
            f"This model's maximum context length is {served.context} tokens. However, your prompt contains {len(ids)} "
            "input tokens."
        )
    return Ask(
        ids=ids,
        max_tokens=min(room, asked or room),
        temperature=query.temperature,
        top_p=query.top_p,
        top_k=max(0, query.top_k),
        min_p=query.min_p,
        seed=query.seed,
        stop=(query.stop,) if isinstance(query.stop, str) else query.stop or (),
        listed=query.listed,
    )


def to_ids(query: Query, served: ServedModel) -> tuple[int, ...]:
    """The prompt in ids; BadRequest when there is none."""
    if query.messages:
        ids = served.chat(query.messages, query.tools)
    else:
        ids = served.encode(query.prompt) if isinstance(query.prompt, str) else query.prompt
    if not ids:
        raise BadRequest("messages: nothing is asked")
    return ids


def tokens_body(query: Query, served: ServedModel) -> dict[str, Any]:
    """The answer of `/tokenize`, as vLLM gives it."""
    ids = to_ids(query, served)
    return {"count": len(ids), "max_model_len": served.context, "tokens": list(ids)}


def chat_body(served: ServedModel, ask: Ask, reply: Decoded) -> dict[str, Any]:
    content = [
        {**_token(served, number, logprob), "top_logprobs": [_token(served, *other) for other in top]}
        for number, logprob, top in zip(reply.ids, reply.logprobs, reply.top, strict=ask.listed is not None)
    ]
    choice = {
        "message": {"role": "assistant", "content": reply.text},
        "logprobs": None if ask.listed is None else {"content": content},
    }
    return _body("chat.completion", served, ask, reply, choice)


def text_body(served: ServedModel, ask: Ask, reply: Decoded) -> dict[str, Any]:
    logprobs = {
        "tokens": [served.text(number) for number in reply.ids],
        "token_logprobs": reply.logprobs,
        "top_logprobs": [{served.text(number): logprob for number, logprob in top} for top in reply.top],
    }
    choice = {"text": reply.text, "logprobs": None if ask.listed is None else logprobs}
    return _body("text_completion", served, ask, reply, choice)


def models_body(models: "list[ServedModel]") -> dict[str, Any]:
    return {
        "object": "list",
        "data": [
            {
                "id": served.name,
                "object": "model",
                "created": 0,
                "owned_by": "aem-harness",
                "root": served.root,
                "parent": served.parent,
                "max_model_len": served.context,
            }
            for served in models
        ],
    }


def error_body(status: int, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "BadRequestError", "code": status}}


def _token(served: ServedModel, number: int, logprob: float) -> dict[str, Any]:
    text = served.text(number)
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


def _body(kind: str, served: ServedModel, ask: Ask, reply: Decoded, choice: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": uuid.uuid4().hex,
        "object": kind,
        "created": int(time.time()),
        "model": served.name,
        "choices": [
            {"index": 0, **choice, "finish_reason": reply.finish_reason, "stop_reason": reply.stop_reason},
        ],
        "usage": {
            "prompt_tokens": len(ask.ids),
            "completion_tokens": len(reply.ids),
            "total_tokens": len(ask.ids) + len(reply.ids),
        },
        "metrics": {"queue_time_ms": 1000 * reply.queue_seconds},
    }
