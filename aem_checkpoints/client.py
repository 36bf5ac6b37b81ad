"""The few questions that are asked of a server beside completions for a run: plain HTTP, no state."""

import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from enum import Enum
from typing import Any

from aem_harness.harness.errors import PolicyFault
from aem_harness.harness.web import open_url, through

HEALTH_SECONDS = 5.0  # until a server that gives no answer to /health counts as silent


class Refused(PolicyFault):
    """The server works, and declines this request."""


class Health(Enum):
    """READY answers; DEAD says itself that it will answer no more; SILENT is starting or busy.

    REFUSED: nobody listens there, which is ordinary before a server's start and means its end afterwards.
    """

    READY = "ready"
    DEAD = "dead"
    REFUSED = "refused"
    SILENT = "silent"


def root(url: str) -> str:
    """The server's own address, of a base URL that may end in /v1."""
    base = url if "://" in url else f"http://{url}"
    return base.rstrip("/").removesuffix("/v1")


def health(url: str) -> Health:
    try:
        with open_url(f"{root(url)}/health", timeout=HEALTH_SECONDS) as answer:
            return Health.READY if answer.status == 200 else Health.SILENT
    except urllib.error.HTTPError as error:
        return Health.DEAD if error.code >= 500 else Health.SILENT
    except (OSError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", error)
        return Health.REFUSED if isinstance(cause, ConnectionRefusedError) else Health.SILENT


def ask(url: str) -> Any:
    """The JSON answer of a GET; None when there is none."""
    try:
        with open_url(urllib.request.Request(url, headers=_headers()), timeout=10) as answer:
            return json.load(answer)
    except (OSError, http.client.HTTPException, ValueError):
        return None


def post(url: str, body: Mapping[str, Any], *, timeout: float = 300) -> Any:
    """The JSON answer of a POST; Refused with the server's words when it declines, PolicyFault when it fails."""
    request = urllib.request.Request(url, json.dumps(body).encode(), _headers())
    try:
        with open_url(request, timeout=timeout) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise PolicyFault(f"{url} failed: HTTP {error.code}; look at the server's log") from None
        words = " ".join(error.read(2000).decode("utf-8", "replace").split())
        raise Refused(f"{url} refused the request (HTTP {error.code}): {words[:300]}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise PolicyFault(f"{url} gave no answer{through(url)}: {error}") from None


def _headers() -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        "Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY') or 'EMPTY'}",
    }
