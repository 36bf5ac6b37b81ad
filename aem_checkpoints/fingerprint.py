"""What is really being served: recorded with every run, so that two arms are known to differ in the weights alone.

Most results that cannot be reproduced differ in the server, not the model: another version, a shorter context, another
chat template. The canaries are the log-probabilities that the server gives to its own greedy answers to fixed prompts;
they identify the weights behind an endpoint of which nothing else is known.
"""

import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aem_checkpoints.registry import Entry, content_digest
from aem_checkpoints.serving import ask
from harness.errors import PolicyFault

CANARIES = ("def add(a, b):\n    return", "The capital of France is", "git diff --stat HEAD~1 && echo")
CANARY_TOKENS = 8


def fingerprint(url: str, model: str, entry: Entry | None = None) -> dict[str, Any]:
    """Ask a server (base URL ending in /v1) what it serves; `entry` adds what its card and files say.

    Keys: model; server (version, context length, flags of the card); template and tokenizer (digests, "" where the
    files are not on this machine); weights (digests, or hub and revision); canary (log-probabilities in nats, rounded
    to 2 decimals: kernels and batch sizes move the third).
    """
    root = url.rstrip("/").removesuffix("/v1")
    served: Sequence[Mapping[str, Any]] = (ask(f"{url.rstrip('/')}/models") or {}).get("data") or ()
    own = next((one for one in served if one.get("id") == model), {})
    card = entry.card if entry else None
    folder = entry.folder if entry else None
    return {
        "model": model,
        "server": {
            "version": (ask(f"{root}/version") or {}).get("version", "unknown"),
            "context": own.get("max_model_len"),
            "flags": dict(card.serving.flags) if card else {},
            "tensor_parallel_size": card.serving.tensor_parallel_size if card else None,
            "dtype": card.serving.dtype if card else None,
            "tool_call_parser": card.serving.tool_call_parser if card else None,
        },
        "template": _template(entry) if entry and folder else "",
        "tokenizer": _digest_of(folder, "tokenizer.json"),
        "weights": dict(card.digests) or {"hub": card.hub, "revision": card.revision} if card else {},
        "canary": {prompt: canary(url, model, prompt) for prompt in CANARIES},
    }


def canary(url: str, model: str, prompt: str) -> list[float]:
    """Log-probabilities of the greedy continuation of a prompt; empty where the server returns none."""
    body = {"model": model, "prompt": prompt, "max_tokens": CANARY_TOKENS, "temperature": 0, "logprobs": 1}
    try:
        answer = _post(f"{url.rstrip('/')}/completions", body)
        values = answer["choices"][0]["logprobs"]["token_logprobs"]
        return [round(float(value), 2) for value in values]
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise PolicyFault(f"{url} failed on a canary prompt: HTTP {error.code}; look at the server's log") from None
        return []  # a server without plain completions
    except (KeyError, IndexError, TypeError, ValueError):
        return []
    except OSError as error:
        raise PolicyFault(f"{url} does not answer: {error}") from None


def _template(entry: Entry) -> str:
    """Digest of the chat template in force: the card's own file, else the tokenizer's."""
    folder = entry.folder
    if entry.card.serving.chat_template:
        return content_digest(entry.file.parent / entry.card.serving.chat_template)
    if folder and (folder / "chat_template.jinja").is_file():
        return content_digest(folder / "chat_template.jinja")
    try:
        template = json.loads((folder / "tokenizer_config.json").read_text())["chat_template"] if folder else ""
    except (OSError, ValueError, KeyError):
        return ""
    return f"sha256:{hashlib.sha256(str(template).encode()).hexdigest()}"


def _digest_of(folder: Path | None, name: str) -> str:
    return content_digest(folder / name) if folder and (folder / name).is_file() else ""


def _post(url: str, body: Mapping[str, Any]) -> Any:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json", "Authorization": "Bearer EMPTY"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)
