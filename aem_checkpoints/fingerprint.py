"""What is really being served: recorded with every run, so that two arms are known to differ in the weights alone.

Most results that cannot be reproduced differ in the server, not the model: another version, a shorter context, another
chat template. The canaries are the log-probabilities that the server gives to its own greedy answers to fixed prompts;
they identify the weights behind an endpoint of which nothing else is known.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aem_harness.aem_checkpoints import client
from aem_harness.aem_checkpoints.command import chat_template, options
from aem_harness.aem_checkpoints.registry import Entry, Registry
from aem_harness.aem_checkpoints.weights import content_digest, setting

CANARIES = ("def add(a, b):\n    return", "The capital of France is", "git diff --stat HEAD~1 && echo")
CANARY_TOKENS = 8
TRIES = 3
HEAT = 2.0  # a confident policy no longer is one at this temperature, the highest that vLLM takes


def fingerprint(
    url: str, model: str, entry: Entry | None = None, registry: Registry | None = None, dtype: str = ""
) -> dict[str, Any]:
    """Ask a server (base URL ending in /v1) what it serves; `entry` adds what its card and files say.

    `dtype` is what the server computes in, where that is known. Keys: model; server (version, context length, dtype,
    options of the card); template and tokenizer (digests, "" where the
    files are not on this machine); weights (digests, or hub and revision); canary (log-probabilities in nats, rounded
    to 2 decimals: kernels and batch sizes move the third); logprobs (before or after temperature).
    """
    at = client.root(url)
    served: Sequence[Mapping[str, Any]] = (client.ask(f"{at}/v1/models") or {}).get("data") or ()
    own = next((one for one in served if one.get("id") == model), {})
    parent = next((one for one in served if one.get("id") == own.get("parent")), {})
    known: dict[str, Any] = {"template": "", "tokenizer": "", "weights": {}}
    chosen: dict[str, Any] = {}
    if entry and registry:
        chosen = dict(options(entry, registry))
        known = {
            "template": _template(entry, registry),
            "tokenizer": _digest((registry.base(entry) or entry).folder, "tokenizer.json"),
            "weights": dict(entry.card.digests) or {"hub": entry.card.hub, "revision": entry.card.revision},
        }
    return {
        "model": model,
        "server": {
            "version": (client.ask(f"{at}/version") or {}).get("version", "unknown"),
            "context": own.get("max_model_len") or parent.get("max_model_len"),
            "dtype": dtype,
            "options": chosen,
        },
        **known,
        "logprobs": logprobs_are(url, model),
        "canary": {prompt: canary(url, model, prompt) for prompt in CANARIES},
    }


def stored_dtype(entry: Entry, registry: Registry) -> str:
    """The type that the weights are stored in, by their config.json; empty where it does not say."""
    folder = (registry.base(entry) or entry).folder
    found = setting(folder, "config.json", "dtype") or setting(folder, "config.json", "torch_dtype")
    return str(found or "").removeprefix("torch.")


def canary(url: str, model: str, prompt: str) -> list[float]:
    """Log-probabilities of the greedy continuation of a prompt; empty where the server returns none."""
    return [round(value, 2) for value in _greedy(url, model, prompt)]


def logprobs_are(url: str, model: str) -> str:
    """Whether a server's log-probabilities are those before or after temperature; empty where it gives none.

    vLLM's are before, SGLang's after (findings/vllm-gives-logprobs-before-temperature-sglang-after.sh), so that one
    policy has two entropies at any temperature but 1. Heat takes probability off the likeliest token, if it is counted.
    """
    plain, heated = (_likeliest(url, model, temperature) for temperature in (0.0, HEAT))
    if math.isnan(plain) or math.isnan(heated):
        return ""
    return "after temperature" if heated < plain - 0.05 else "before temperature"


def _likeliest(url: str, model: str, temperature: float) -> float:
    """The log-probability of the likeliest token after the first canary prompt; NaN where the server tells none."""
    body = {"model": model, "prompt": CANARIES[0], "max_tokens": 1, "temperature": temperature, "logprobs": 1}
    try:
        answer = client.post(f"{client.root(url)}/v1/completions", body)
        return max(map(float, answer["choices"][0]["logprobs"]["top_logprobs"][0].values()))
    except (client.Refused, KeyError, IndexError, TypeError, ValueError, AttributeError):
        return math.nan


def base_it_equals(url: str, model: str) -> str:
    """The base model of an adapter that answers just as that does; empty where they differ, or cannot be asked.

    vLLM applies what it finds of an adapter, layer by layer, and says nothing when that is nothing
    (findings/vllm-serves-the-base-under-an-adapters-name.sh). Adapters differ from their base in digits that
    `canary` rounds away, so these are not rounded; but a loaded server may answer one request twice in other last
    digits, so each prompt is asked up to `TRIES` times.
    """
    served: Sequence[Mapping[str, Any]] = (client.ask(f"{client.root(url)}/v1/models") or {}).get("data") or ()
    parent = next((str(one.get("parent") or "") for one in served if one.get("id") == model), "")
    if not parent or all(one.get("id") != parent for one in served):
        return ""

    def alike(prompt: str) -> bool:
        ours = _greedy(url, model, prompt)
        return bool(ours) and ours == _greedy(url, parent, prompt)

    return parent if all(any(alike(prompt) for _ in range(TRIES)) for prompt in CANARIES) else ""


def _greedy(url: str, model: str, prompt: str) -> list[float]:
    body = {"model": model, "prompt": prompt, "max_tokens": CANARY_TOKENS, "temperature": 0, "logprobs": 1}
    try:
        answer = client.post(f"{client.root(url)}/v1/completions", body)
        return [float(value) for value in answer["choices"][0]["logprobs"]["token_logprobs"]]
    except (client.Refused, KeyError, IndexError, TypeError, ValueError):
        return []  # a server without plain completions, or without log-probabilities


def _template(entry: Entry, registry: Registry) -> str:
    """Digest of the chat template in force: a card's own file, else that of the tokenizer that is loaded."""
    if own := chat_template(entry, registry):
        return content_digest(own)
    folder = (registry.base(entry) or entry).folder
    if folder and (folder / "chat_template.jinja").is_file():
        return content_digest(folder / "chat_template.jinja")
    template = setting(folder, "tokenizer_config.json", "chat_template")
    return f"sha256:{hashlib.sha256(str(template).encode()).hexdigest()}" if template else ""


def _digest(folder: Path | None, name: str) -> str:
    return content_digest(folder / name) if folder and (folder / name).is_file() else ""
