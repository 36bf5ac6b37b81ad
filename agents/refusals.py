"""What a failed call of a model's server means: try again, the end of a rollout, a wrong setting, infrastructure."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from aem_harness.agents.calls import ConnectTimeout, StatusError
from aem_harness.agents.reply import Unreadable
from aem_harness.harness.errors import ConfigError, PolicyFault
from aem_harness.harness.overflow import CODES, names_max_tokens, names_overflow, stated_size
from aem_harness.harness.run.thoughts import FIELDS
from aem_harness.harness.web import is_loopback, open_url, through

GATEWAYS = (502, 503, 504)  # what a proxy says of a server that it cannot reach


class ContextOverflow(Exception):
    """The conversation no longer fits the model's context: an end of the rollout, the same in every arm, no fault."""


@dataclass(frozen=True)
class FailedCall:
    """One attempt that failed but may be repeated; on the next endpoint where `move` says so.

    `away`: nobody answered, or a gateway found nobody behind it.
    """

    what: str
    error: Exception
    move: bool = False
    timeout: bool = False
    retry_after: float = 0.0
    away: bool = False


@dataclass(frozen=True)
class Asked:
    """The call that failed: to which server, for what. `first` is the first call of its rollout."""

    url: str
    key: str
    model: str
    first: bool
    max_tokens: int | None
    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()


# What a call may raise without our doing. Bugs of our own are not among it: they must not pass for faults.
TRANSIENT = (StatusError, OSError, Unreadable)


def classify(error: Exception, asked: Asked) -> FailedCall:
    """What may be tried again. Raises ContextOverflow, ConfigError or PolicyFault for what would fail again."""
    what = line(error)
    if isinstance(error, Unreadable) and names_overflow(error.words):
        raise _full(error.words, asked) from error
    if isinstance(error, StatusError):
        status, message = error.status, _message(error)
        if status not in (401, 403, 404, 408, 425, 429) and _says_full(error, message):
            raise _full(message, asked) from error
        if status not in (408, 425, 429) and status < 500:
            raise _refused(status, message, asked) from error
        what = f"HTTP {status}: {message}{through(asked.url)}"
        return FailedCall(what, error, status >= 500, retry_after=error.retry_after, away=status in GATEWAYS)
    if isinstance(error, TimeoutError):
        # A server that cannot even be connected to may be starting: that is tried as often as anything.
        unreached = isinstance(error, ConnectTimeout)
        return FailedCall(f"no answer in time ({what})", error, move=unreached, timeout=not unreached, away=unreached)
    if not isinstance(error, Unreadable):
        what += through(asked.url)
    broken = not isinstance(error, Unreadable)
    return FailedCall(what, error, move=broken, away=broken)


def _says_full(error: StatusError, message: str) -> bool:
    codes = {str(error.told.get(name) or "").lower() for name in ("code", "type")}
    return bool(codes & CODES) or names_overflow(message) or names_max_tokens(message)


def _full(message: str, asked: Asked) -> Exception:
    """A full context is an end of the rollout, unless no request can fit: then a setting is wrong."""
    size = stated_size(message) or context_size(asked.url, asked.key, asked.model)
    limit = f"context of {size} tokens" if size else "context"
    if names_max_tokens(message) or (asked.max_tokens and size and asked.max_tokens >= size):
        return ConfigError(
            f"{asked.url}: max_tokens {asked.max_tokens or ''} does not fit the server's {limit}: lower it "
            f"(-c sampling.max_tokens=N), or serve with a longer context; it said: {message}"
        )
    if asked.first:
        reserved = f" and max_tokens {asked.max_tokens}" if asked.max_tokens else ""
        return ConfigError(
            f"{asked.url}: the first prompt of a rollout{reserved} does not fit the server's {limit}: serve with a "
            f"longer context, or lower sampling.max_tokens; it said: {message}"
        )
    return ContextOverflow(message)


def _refused(status: int, message: str, asked: Asked) -> Exception:
    if status in (401, 403):
        return PolicyFault(f"{asked.url} refused the key (HTTP {status}){through(asked.url)}: set OPENAI_API_KEY")
    if status == 404:
        try:
            served = ", ".join(served_models(asked.url, asked.key)) or "none"
        except PolicyFault:
            served = "unknown"
        return PolicyFault(
            f"{asked.url} does not serve {asked.model!r} (it serves: {served}): name one of these, or correct the URL"
        )
    if status in (400, 413, 422) and (size := context_size(asked.url, asked.key, asked.model)):
        count = token_count(asked.url, asked.key, asked.model, asked.messages, asked.tools)
        if count and count + (asked.max_tokens or 1) > size:
            return _full(f"{message} ({count} tokens of prompt, a context of {size})", asked)
    hint = BROKEN_CALL if any(map(_has_broken_call, asked.messages)) else ""
    if status in (400, 422) and any(message.get(name) for message in asked.messages for name in FIELDS):
        hint += SENT_THOUGHTS
    return PolicyFault(f"{asked.url} refused the request (HTTP {status}){through(asked.url)}: {message}{hint}")


SENT_THOUGHTS = (
    "; thoughts of earlier replies were sent back to it: if it does not take them, begin a run with "
    "-c agent_options.thoughts=drop"
)
# findings/vllm-empties-a-malformed-call-that-sglang-refuses.sh
BROKEN_CALL = (
    "; the conversation holds a tool call whose arguments are no JSON object, which SGLang refuses and vLLM replaces "
    "by an empty one: the agent should leave such a reply out, and answer it in role user"
)


def _has_broken_call(message: Any) -> bool:
    """Whether servers cannot make an object of some call's arguments, as they do before they render a template."""
    calls = message.get("tool_calls") if isinstance(message, Mapping) else None
    for call in calls if isinstance(calls, list | tuple) else ():
        try:
            arguments = call["function"]["arguments"]
            if not isinstance(json.loads(arguments) if isinstance(arguments, str) else arguments, dict):
                return True
        except (ValueError, RecursionError):
            return True
        except (KeyError, TypeError):
            continue  # no call of a function, or one without arguments: none of theirs to read
    return False


# --- what else is asked of a server ---------------------------------------------------------------------------------


def base_url(url: str) -> str:
    """The address below which a server's calls are. ConfigError for one that is no address, or has a password in it."""
    base = url.strip().rstrip("/") if "://" in url else f"http://{url.strip().rstrip('/')}"
    try:
        parts = urlsplit(base)
        sound = parts.scheme.lower() in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        sound = False
    if not sound:
        raise ConfigError(f"{url!r} is no address of a model server: write http://HOST:PORT/v1")
    if "@" in parts.netloc:
        shown = base.replace(parts.netloc, parts.netloc.rpartition("@")[2])
        raise ConfigError(
            f"the endpoint {shown} is given with a user name or password, which would end up in logs: leave them out, "
            "and put the server's key into OPENAI_API_KEY"
        )
    return base if base.count("/") > 2 else f"{base}/v1"


def key_or_default(api_key: str | None) -> str:
    """The key for a server. ConfigError for one that no header can carry."""
    key = (api_key or os.environ.get("OPENAI_API_KEY") or "").strip() or "EMPTY"
    if not (key.isascii() and key.isprintable()):
        raise ConfigError("OPENAI_API_KEY has characters that no key has (a line break, say): set it again")
    return key


def served_models(url: str, api_key: str | None = None, *, seconds: float = 10.0) -> list[str]:
    """The models that an endpoint serves. PolicyFault, with the remedy, when it does not answer."""
    return list(_listed(url, api_key, seconds))


def _listed(url: str, api_key: str | None, seconds: float = 10.0) -> dict[str, Mapping[str, Any]]:
    import openai

    base = base_url(url)
    options: dict[str, Any] = {"http_client": openai.DefaultHttpxClient(trust_env=False)} if is_loopback(base) else {}
    with openai.OpenAI(
        base_url=base, api_key=key_or_default(api_key), max_retries=0, timeout=seconds, **options
    ) as client:
        try:
            return {str(model.id): model.model_extra or {} for model in client.models.list().data or []}
        except (openai.OpenAIError, OSError) as error:
            raise PolicyFault(
                f"no OpenAI-compatible server answers at {base}{through(base)} ({line(error)}): "
                "start one (aem serve NAME), wait until it has loaded, or correct --endpoint"
            ) from error


def context_size(url: str, api_key: str | None, model: str) -> int | None:
    """The model's context in tokens, by the server's list of models; None where it does not say."""
    try:
        models = _listed(url, api_key)
    except PolicyFault:
        return None
    about = models.get(model) or {}
    parent = models.get(str(about.get("parent")), {})
    sizes = [
        about.get("max_model_len"),
        parent.get("max_model_len"),
        about.get("context_length"),
        about.get("max_context"),
    ]
    meta = about.get("meta")
    sizes.append(meta.get("n_ctx") if isinstance(meta, dict) else None)
    return next((size for size in sizes if isinstance(size, int) and size > 0), None)


def token_count(
    url: str,
    api_key: str | None,
    model: str,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] = (),
) -> int | None:
    """How many tokens the server's chat template makes of `messages` and `tools` (`/tokenize`); None where unknown."""
    import urllib.request

    body: dict[str, Any] = {"model": model, "messages": list(messages)}
    if tools:
        body["tools"] = list(tools)
    headers = {"content-type": "application/json", "authorization": f"Bearer {key_or_default(api_key)}"}
    address = f"{base_url(url).removesuffix('/v1')}/tokenize"
    try:
        request = urllib.request.Request(address, json.dumps(body, default=str).encode(), headers)
        with open_url(request, timeout=30) as reply:
            count = json.load(reply).get("count")
    except (OSError, ValueError, AttributeError):
        return None
    return count if isinstance(count, int) and count > 0 else None


def check_context(url: str, api_key: str | None, model: str, max_tokens: int | None) -> int | None:
    """The model's context, where the server tells. ConfigError when a reply of `max_tokens` does not fit it."""
    size = context_size(url, api_key, model)
    if size and max_tokens and max_tokens > size:
        raise ConfigError(
            f"{url}: max_tokens {max_tokens} does not fit the server's context of {size} tokens, so that every request "
            "would be refused: lower it (-c sampling.max_tokens=N), or serve with a longer context"
        )
    return size


def heeds_tools(url: str, api_key: str | None, model: str, tools: Sequence[Mapping[str, Any]]) -> bool | None:
    """Does the model's chat template show `tools` to the model? None where the server cannot count tokens."""
    prompt = [{"role": "user", "content": "Which tools do you have?"}]
    without = token_count(url, api_key, model, prompt)
    shown = token_count(url, api_key, model, prompt, tools)
    return None if without is None or shown is None else shown > without


def shows_thoughts(
    url: str, api_key: str | None, model: str, observed: Mapping[str, Any], tools: Sequence[Mapping[str, Any]] = ()
) -> bool | None:
    """Does the model's chat template show the thoughts of a reply once it was answered by the message `observed`?

    None where the server cannot count tokens, or its template takes no such message.
    """
    reply: dict[str, Any] = {"role": "assistant", "content": "I look."}
    if tools:
        function = {"name": tools[0]["function"]["name"], "arguments": '{"command": "ls"}'}
        reply["tool_calls"] = [{"id": "call_0", "type": "function", "function": function}]
    asked = {"role": "user", "content": "Fix it."}
    thought = dict.fromkeys(FIELDS, "First I look which files there are.")
    counts = [token_count(url, api_key, model, [asked, one, observed], tools) for one in (reply, reply | thought)]
    return None if counts[0] is None or counts[1] is None else counts[1] > counts[0]


def unanswered(urls: Sequence[str], api_key: str | None = None, *, seconds: float = 10.0) -> str:
    """Why none of these servers answers; empty when one does, whatever it says of itself."""
    import urllib.error
    import urllib.request

    why = ""
    for url in urls:
        address = f"{base_url(url)}/models"
        request = urllib.request.Request(address, headers={"authorization": f"Bearer {key_or_default(api_key)}"})
        try:
            with open_url(request, timeout=seconds):
                return ""
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in GATEWAYS:
                return ""
            why = f"{url}: HTTP {error.code}"
        except (OSError, ValueError) as error:
            why = f"{url}: {getattr(error, 'reason', error)}"
    return why


# --- words ----------------------------------------------------------------------------------------------------------


def _message(error: StatusError) -> str:
    """The server's own words, on one line."""
    text = error.told.get("message") or error.told.get("detail") or error.told.get("error") or error
    return re.sub(r"\s+", " ", str(text)).strip()[:500]


def line(error: BaseException) -> str:
    cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
    return " ".join(f"{type(error).__name__}: {error}{cause}".split())[:300]
