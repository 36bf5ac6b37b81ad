"""A policy behind an OpenAI-compatible endpoint (vLLM, or any other): messages in, one completion out.

Four kinds of trouble are kept apart. What the model says, however broken, is a `Completion`. A conversation that no
longer fits is `ContextOverflow`, an end of the rollout; one that never could is a wrong setting, `ConfigError`.
Whatever else the server does wrong is retried, and raises `PolicyFault` in the end: infrastructure, not the model.
"""

import hashlib
import json
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from pydantic import ConfigDict, Field

from aem_harness.agents.accelerator import GpuClock
from aem_harness.agents.calls import Calls, CallsClosed
from aem_harness.agents.refusals import (
    TRANSIENT,
    Asked,
    ContextOverflow,
    FailedCall,
    base_url,
    classify,
    heeds_tools,
    key_or_default,
    served_models,
)
from aem_harness.agents.reply import read_reply
from aem_harness.harness.errors import ConfigError, PolicyFault, ServerAway
from aem_harness.harness.types import Completion, Record

__all__ = ["ContextOverflow", "EndpointPolicy", "Retry", "Sampling", "served_models"]

log = logging.getLogger(__name__)


class Sampling(Record):
    """What is asked of the server with every call. None: not sent, so the server's default holds (vLLM: that of the
    model's generation_config.json, which may differ between checkpoints).

    `logprobs` asks for that many top log-probabilities per token (vLLM's maximum is 20 unless raised), from which
    entropies are estimated; `vocabulary` is the size V that bounds their tail, 0 for unknown. vLLM reports log-probs
    of the raw distribution, before temperature, unless started with --logprobs-mode processed_logprobs.
    """

    model_config = ConfigDict(allow_inf_nan=False)

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
        """The fields of a chat completions request; `extra_body` has those that OpenAI does not know."""
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
        self._urls = [base_url(url) for url in endpoints]
        self._key = key_or_default(api_key)
        self._calls = Calls(self._urls, self._key, self._retry.seconds)
        self._clocks = [GpuClock(gpus) for _ in self._urls]
        self._begun: set[bytes] = set()  # rollouts that had a reply
        self._others: set[str] = set()  # names of models that replies bore

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

    def heeds_tools(self, tools: Sequence[Mapping[str, Any]]) -> bool | None:
        """Does the model's chat template show `tools` to the model? None where the server cannot tell."""
        return heeds_tools(self._urls[0], self._key, self.model, tools)

    def complete(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] = (), seed: int | None = None
    ) -> Completion:
        """One completion. Raises ContextOverflow, ConfigError, or PolicyFault (after all retries), with the remedy."""
        rollout = _rollout(messages, seed)
        request = {"model": self.model, "messages": list(messages), **self.sampling.request()}
        if tools:
            request["tools"] = list(tools)
        if seed is not None:
            request["seed"] = _call_seed(rollout, len(messages))
        request |= request.pop("extra_body", {})
        asked = time.monotonic()
        failures: list[FailedCall] = []
        while True:
            place = self._endpoint(rollout, failures)
            url, began = self._urls[place], time.monotonic()
            try:
                with self._clocks[place].request() as charge:
                    body, request_id = self._calls.post(place, request)
                said = read_reply(body, top=self.sampling.logprobs, vocabulary=self.sampling.vocabulary)
            except CallsClosed:
                raise PolicyFault("the policy was closed during a call") from None
            except TRANSIENT as error:
                first = rollout not in self._begun and all(one.get("role") != "assistant" for one in messages)
                asked_for = self.sampling.max_tokens
                failures.append(classify(error, Asked(url, self._key, self.model, first, asked_for, messages, tools)))
                self._wait(failures, url)
                continue
            self._begun.add(rollout)
            measured = {
                "seconds": time.monotonic() - began,
                "queue_seconds": began - asked,
                "gpu_seconds": charge.gpu_seconds,
                "retries": len(failures),
                "request_id": said.request_id or request_id,
                "model": said.model or self.model,
                "anomalies": (*said.anomalies, *self._remark(said.model)),
            }
            return said.model_copy(update=measured)

    def _remark(self, named: str) -> list[str]:
        """What to say of a reply that names a model: nothing where it is the one asked for, or a dated form of it."""
        if not named or named == self.model or named.startswith(f"{self.model}-"):
            return []
        if named not in self._others:
            self._others.add(named)
            log.warning("%s was asked for the model %s and answers as %s", self._urls[0], self.model, named)
        return [f"the reply names the model {named[:100]}, not {self.model[:100]}"]

    def _endpoint(self, rollout: bytes, failures: Sequence[FailedCall]) -> int:
        home = int.from_bytes(rollout[:4], "big")
        return (home + sum(failure.move for failure in failures)) % len(self._urls)

    def _wait(self, failures: Sequence[FailedCall], url: str) -> None:
        """Sleep before the next attempt; PolicyFault if there is none."""
        last, retry = failures[-1], self._retry
        if len(failures) >= retry.attempts or sum(failure.timeout for failure in failures) >= retry.timeouts:
            times = "once" if len(failures) == 1 else f"{len(failures)} times"
            kind = ServerAway if last.away else PolicyFault
            raise kind(f"{url} failed {times}, most recently: {last.what}; look at the server's log") from last.error
        if self._closed.wait(retry.wait(len(failures), last.retry_after)):
            raise PolicyFault("the policy was closed while waiting for the server") from last.error
        if self._await_server:
            self._await_server()


def _rollout(messages: Sequence[Mapping[str, Any]], seed: int | None) -> bytes:
    """Names the rollout: a digest of its first two messages (they hold the instance) and its seed."""
    head = json.dumps([[dict(message) for message in messages[:2]], seed], sort_keys=True, default=str)
    return hashlib.blake2b(head.encode("utf-8", "replace"), digest_size=16).digest()


def _call_seed(rollout: bytes, step: int) -> int:
    digest = hashlib.blake2b(rollout + step.to_bytes(4, "big"), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1
