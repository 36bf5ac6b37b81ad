"""A policy behind an OpenAI-compatible endpoint (vLLM, or any other): messages in, one completion out.

Three kinds of trouble are kept apart. What the model says, however broken, is a `Completion`. A conversation that no
longer fits is `ContextOverflow`, an end of the rollout. Whatever else the server does wrong is retried, and raises
`PolicyFault` in the end: infrastructure, never the model's failure.
"""

import hashlib
import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pydantic import Field

from aem_harness.agents.accelerator import GpuClock
from aem_harness.agents.calls import Calls, CallsClosed
from aem_harness.agents.reply import Unreadable, read_reply
from aem_harness.harness.errors import ConfigError, PolicyFault
from aem_harness.harness.types import Completion, Record


class ContextOverflow(Exception):
    """The conversation no longer fits the model's context: an end of the rollout, the same in every arm, no fault."""


class Sampling(Record):
    """What is asked of the server with every call. None: not sent, so the server's default holds (vLLM: that of the
    model's generation_config.json, which may differ between checkpoints).

    `logprobs` asks for that many top log-probabilities per token (vLLM's maximum is 20 unless raised), from which
    entropies are estimated; `vocabulary` is the size V that bounds their tail, 0 for unknown. vLLM reports log-probs
    of the raw distribution, before temperature, unless started with --logprobs-mode processed_logprobs.
    """

    temperature: float | None = Field(1.0, ge=0)
    top_p: float | None = Field(1.0, gt=0, le=1)
    top_k: int | None = None
    min_p: float | None = None
    max_tokens: int | None = Field(None, gt=0)
    stop: tuple[str, ...] = ()
    logprobs: int = Field(0, ge=0)
    vocabulary: int = Field(0, ge=0)
    extra_body: Mapping[str, Any] = Field(default_factory=dict)

    def request(self) -> dict[str, Any]:
        """As keyword arguments of the chat completions call; what OpenAI does not know goes into `extra_body`."""
        extra = {"top_k": self.top_k, "min_p": self.min_p, **self.extra_body}
        values: dict[str, Any] = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "stop": list(self.stop) or None,
            "logprobs": True if self.logprobs else None,
            "top_logprobs": self.logprobs or None,
            "extra_body": {key: value for key, value in extra.items() if value is not None} or None,
        }
        return {key: value for key, value in values.items() if value is not None}


class Retry(Record):
    """How often and how patiently a call is repeated: after 429, 5xx, a broken connection or body, a timeout.

    Waits double from `first` to `cap` seconds, drawn from the upper half of that; a server's Retry-After is heeded up
    to `cap`. `seconds` bounds one attempt as a whole; of those that run into it only `timeouts` are made.
    """

    attempts: int = Field(8, ge=1)
    first: float = Field(0.5, ge=0)
    cap: float = Field(30.0, ge=0)
    timeouts: int = Field(2, ge=1)
    seconds: float = Field(1800.0, gt=0)

    def wait(self, failures: int, retry_after: float = 0.0) -> float:
        doubled = min(self.cap, self.first * 2.0 ** min(failures - 1, 30))
        return max(doubled * random.uniform(0.5, 1.0), min(retry_after, self.cap))


class EndpointPolicy:
    """One model on one or several endpoints. Safe to share between threads; close it, or use it in `with`.

    A rollout (its first two messages and its seed) always asks the same endpoint, so that prefix caching works; after
    a broken connection or a 5xx the next endpoint is tried. `seed` is the rollout's: each call derives its own from
    it, so that no two calls share a random stream, and the k-th rollout of an instance can be repeated. `await_server`,
    for a server that is restarted when it crashes, is called before every repetition: it returns once that is done,
    or raises PolicyFault. `gpus` is how many each endpoint works with, None where that is not known.
    """

    def __init__(
        self,
        model: str,
        endpoints: Sequence[str],
        sampling: Sampling | None = None,
        *,
        retry: Retry | None = None,
        api_key: str | None = None,
        await_server: Callable[[], None] | None = None,
        gpus: float | None = None,
    ) -> None:
        if not endpoints:
            raise ConfigError(f"no endpoint serves {model}: give at least one --endpoint URL")
        self.model = model
        self.sampling = sampling or Sampling()
        self._retry = retry or Retry()
        self._await_server = await_server
        self._closed = threading.Event()
        self._urls = [_base(url) for url in endpoints]
        self._key = api_key or os.environ.get("OPENAI_API_KEY") or "EMPTY"
        self._calls = Calls(self._urls, self._key, self._retry.seconds)
        self._clocks = [GpuClock(gpus) for _ in self._urls]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection and wake whoever waits for a reply or a retry: their calls raise PolicyFault."""
        self._closed.set()
        self._calls.close()

    def describe(self) -> Mapping[str, Any]:
        return {"kind": "endpoint", "model": self.model, "sampling": self.sampling.model_dump(mode="json")}

    def complete(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] = (), seed: int | None = None
    ) -> Completion:
        """One completion. Raises ContextOverflow, or PolicyFault (after all retries; names the remedy where known)."""
        rollout = _rollout(messages, seed)
        request = {"model": self.model, "messages": list(messages), **self.sampling.request()}
        if tools:
            request["tools"] = list(tools)
        if seed is not None:
            request["seed"] = _call_seed(rollout, len(messages))
        asked = time.monotonic()
        failures: list[_Failure] = []
        while True:
            place = self._endpoint(rollout, failures)
            url, began = self._urls[place], time.monotonic()
            try:
                with self._clocks[place].request() as charge:
                    body, request_id = self._calls.post(place, request)
                said = read_reply(body, top=self.sampling.logprobs, vocabulary=self.sampling.vocabulary)
            except CallsClosed:
                raise PolicyFault("the policy was closed during a call") from None
            except _transient() as error:
                failures.append(_classify(error, url, self._key, self.model))
                self._wait(failures, url)
                continue
            measured = {
                "seconds": time.monotonic() - began,
                "queue_seconds": began - asked,
                "gpu_seconds": charge.gpu_seconds,
                "retries": len(failures),
                "request_id": said.request_id or request_id,
                "model": said.model or self.model,
            }
            return said.model_copy(update=measured)

    def _endpoint(self, rollout: bytes, failures: Sequence["_Failure"]) -> int:
        home = int.from_bytes(rollout[:4], "big")
        return (home + sum(failure.move for failure in failures)) % len(self._urls)

    def _wait(self, failures: Sequence["_Failure"], url: str) -> None:
        """Sleep before the next attempt; PolicyFault if there is none."""
        last, retry = failures[-1], self._retry
        if len(failures) >= retry.attempts or sum(failure.timeout for failure in failures) >= retry.timeouts:
            times = "once" if len(failures) == 1 else f"{len(failures)} times"
            raise PolicyFault(f"{url} failed {times}, at last: {last.what}; look at the server's log") from last.error
        if self._closed.wait(retry.wait(len(failures), last.retry_after)):
            raise PolicyFault("the policy was closed while waiting for the server") from last.error
        if self._await_server:
            self._await_server()


def served_models(url: str, api_key: str | None = None, *, seconds: float = 10.0) -> list[str]:
    """The models that an endpoint serves. PolicyFault, with the remedy, when it does not answer."""
    import openai

    base, key = _base(url), api_key or os.environ.get("OPENAI_API_KEY") or "EMPTY"
    with openai.OpenAI(base_url=base, api_key=key, max_retries=0, timeout=seconds) as client:
        try:
            return [str(model.id) for model in client.models.list().data or []]
        except _transient() as error:
            raise PolicyFault(
                f"no OpenAI-compatible server answers at {base} ({_line(error)}): "
                "start one (aem serve NAME), or mend --endpoint"
            ) from error


def _base(url: str) -> str:
    base = url.rstrip("/") if "://" in url else f"http://{url.rstrip('/')}"
    return base if base.count("/") > 2 else f"{base}/v1"


def _rollout(messages: Sequence[Mapping[str, Any]], seed: int | None) -> bytes:
    """Names the rollout: a digest of its first two messages (they hold the instance) and its seed."""
    head = json.dumps([[dict(message) for message in messages[:2]], seed], sort_keys=True, default=str)
    return hashlib.blake2b(head.encode("utf-8", "replace"), digest_size=16).digest()


def _call_seed(rollout: bytes, step: int) -> int:
    digest = hashlib.blake2b(rollout + step.to_bytes(4, "big"), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


# --- what went wrong ------------------------------------------------------------------------------------------------

# How servers word it: vLLM (three generations), SGLang, llama.cpp, OpenAI.
_OVERFLOW = re.compile(
    r"maximum context length|context_length_exceeded|longer than the maximum model length|max_model_len"
    r"|(longer than|exceeds?) the model's (maximum )?context length|max_tokens must be at least 1, got -"
    r"|exceeds? the available context size|exceed_context_size",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Failure:
    """One attempt that failed but may be repeated; on the next endpoint where `move` says so."""

    what: str
    error: Exception
    move: bool = False
    timeout: bool = False
    retry_after: float = 0.0


def _transient() -> tuple[type[Exception], ...]:
    """What a call may raise without our doing. Bugs of our own are not among it: they must not pass for faults."""
    import openai

    return openai.OpenAIError, OSError, Unreadable


def _classify(error: Exception, url: str, key: str, model: str) -> _Failure:
    """What may be tried again; raises ContextOverflow or PolicyFault for what would fail again."""
    import openai

    what = _line(error)
    if isinstance(error, openai.APIStatusError):
        status = error.status_code
        if status not in (408, 425, 429) and status < 500:
            raise _refused(status, _message(error), url, key, model) from error
        return _Failure(f"HTTP {status}: {_message(error)}", error, status >= 500, retry_after=_retry_after(error))
    names = {type(error).__name__, type(error.__cause__).__name__}
    if isinstance(error, openai.APITimeoutError | TimeoutError) or "ReadTimeout" in names:
        # A server that cannot even be connected to may be starting: that is tried as often as anything.
        unreached = "ConnectTimeout" in names
        return _Failure(f"no answer in time ({what})", error, move=unreached, timeout=not unreached)
    return _Failure(what, error, move=not isinstance(error, Unreadable))


def _refused(status: int, message: str, url: str, key: str, model: str) -> Exception:
    if status in (400, 413, 422) and _OVERFLOW.search(message):
        return ContextOverflow(message)
    if status in (401, 403):
        return PolicyFault(f"{url} refused the key (HTTP {status}): set OPENAI_API_KEY")
    if status == 404:
        try:
            served = ", ".join(served_models(url, key)) or "none"
        except PolicyFault:
            served = "unknown"
        return PolicyFault(f"{url} does not serve {model!r} (it serves: {served}): name one of these, or mend the URL")
    return PolicyFault(f"{url} refused the request (HTTP {status}): {message}")


def _message(error: Any) -> str:
    """The server's own words, on one line."""
    body = error.body if isinstance(error.body, dict) else {}
    return " ".join(str(body.get("message") or error).split())[:500]


def _line(error: BaseException) -> str:
    cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
    return " ".join(f"{type(error).__name__}: {error}{cause}".split())[:300]


def _retry_after(error: Any) -> float:
    try:
        return max(0.0, float(error.response.headers.get("retry-after", 0)))
    except (TypeError, ValueError):
        return 0.0
