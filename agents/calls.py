"""Calls of a model's servers that can be abandoned at once, however long the model still generates.

A call that blocks a thread cannot be: closing a socket under a thread that waits on it does not wake that thread. So
one thread runs an event loop that owns every connection, and callers wait for its results.

The HTTP client is aiohttp: that of the `openai` package walks through every message of the conversation at each call
(0.4 to 0.7 ms a message), so that a step of a long conversation took more processor time than all the rest
(docs/benchmarks.md).
"""

import asyncio
import json
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aem_harness import __version__
from aem_harness.agents.reply import Unreadable
from aem_harness.harness.errors import ConfigError
from aem_harness.harness.web import proxy_of, trusted

if TYPE_CHECKING:
    import aiohttp

log = logging.getLogger(__name__)

WATCH_SECONDS = 10.0  # between looks whether a server still listens while it is waited for
BODY_LIMIT = 512 * 2**20  # bytes; 32k tokens with 20 log-probs each are about 60 MiB
# Below the 5 s after which uvicorn, and so vLLM, closes idle connections: a request on one that is just being closed
# is lost.
IDLE_SECONDS = 4.0
STALE, STALE_SECONDS = 3, 2.0  # connections in a row that were closed while idle; until a break is none of those
LONGEST_HEADER = 2**16  # bytes


class CallsClosed(Exception):
    """`close` was called before the reply came."""


class ConnectTimeout(TimeoutError):
    """The server could not be connected to in time."""


class StatusError(Exception):
    """The server answered with an HTTP status of 400 or more. `told` is the object in its body, {} where none is."""

    def __init__(self, status: int, body: bytes, retry_after: str = "") -> None:
        text = body.decode("utf-8", "replace").strip()
        super().__init__(text or f"Error code: {status}")
        self.status = status
        self.told: Mapping[str, Any] = {}
        self.retry_after = seconds_of(retry_after)
        try:
            told = json.loads(text)
        except (ValueError, RecursionError):
            return
        told = told.get("error", told) if isinstance(told, dict) else told
        if isinstance(told, dict):
            self.told = told


def seconds_of(retry_after: str) -> float:
    """A Retry-After header (RFC 9110, 10.2.3: seconds, or a date) in seconds from now; 0 where it is neither."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return max(0.0, seconds) if seconds < float("inf") else 0.0


class Calls:
    """Chat completions asked of `urls` by any number of threads; an attempt is given `seconds` as a whole."""

    def __init__(self, urls: Sequence[str], api_key: str, seconds: float) -> None:
        self._seconds = seconds
        self._urls = [f"{url.rstrip('/')}/chat/completions" for url in urls]
        self._proxies = [_proxy(url) for url in urls]
        self._lock = threading.Lock()
        self._pending: set[Future[tuple[bytes, str]]] = set()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_note)  # else to stderr: also that a policy is not closed
        self._thread = threading.Thread(target=self._loop.run_forever, name="model calls", daemon=True)
        self._thread.start()
        secure = any(one and one.lower().startswith("https:") for one in (*self._urls, *self._proxies))
        self._session = asyncio.run_coroutine_threadsafe(_session(api_key, seconds, secure), self._loop).result()

    def post(self, place: int, request: Mapping[str, Any]) -> tuple[bytes, str]:
        """The body and the request id of the reply from the endpoint at `place`.

        Raises CallsClosed, StatusError, TimeoutError, Unreadable (too large), ConnectionError.
        """
        # Here and not in the loop, whose thread all callers wait for. Odd types of an agent's own are taken as objects.
        body = json.dumps(request, separators=(",", ":"), default=dict).encode()
        with self._lock:
            if self._closed:
                raise CallsClosed
            reply = asyncio.run_coroutine_threadsafe(self._ask(place, body), self._loop)
            self._pending.add(reply)
        try:
            return reply.result()
        except CancelledError:
            raise CallsClosed from None
        finally:
            reply.cancel()  # when the caller itself was interrupted
            with self._lock:
                self._pending.discard(reply)

    def close(self) -> None:
        """Abandon what is under way and close every connection. Safe to call twice, and from another thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            pending = list(self._pending)
        for reply in pending:
            reply.cancel()
        asyncio.run_coroutine_threadsafe(self._hang_up(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # --- in the loop's thread ---------------------------------------------------------------------------------------

    async def _ask(self, place: int, body: bytes) -> tuple[bytes, str]:
        watch = _Watch(self._urls[place])
        try:
            # A server may drip, so the bound is on the whole.
            async with asyncio.timeout(self._seconds) as limit:
                if not self._proxies[place]:  # a proxy accepts connections whatever the server does
                    watch.begin(limit)
                return await self._read(place, body)
        except ConnectTimeout:
            raise
        except TimeoutError:
            if watch.deaf:
                raise ConnectionError("the server accepts no connections any more, so no reply can come") from None
            raise TimeoutError("the reply did not end in time") from None
        finally:
            watch.end()

    async def _read(self, place: int, body: bytes) -> tuple[bytes, str]:
        """The reply. A connection that the server closed while it was idle says nothing of the call: another is taken.

        No server has begun to answer then, and a completion that is asked for twice changes nothing at the server.
        """
        import aiohttp

        for stale in range(STALE + 1):
            began, connection = time.monotonic(), _Connection()
            try:
                return await self._attempt(place, body, connection)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
                if not connection.used or stale == STALE or time.monotonic() - began > STALE_SECONDS:
                    raise ConnectionError("the connection failed") from error
            except aiohttp.ServerTimeoutError as error:
                raise ConnectTimeout(str(error)) from None
            except aiohttp.ClientError as error:
                raise ConnectionError("the connection failed") from error
        raise AssertionError

    async def _attempt(self, place: int, body: bytes, connection: "_Connection") -> tuple[bytes, str]:
        import aiohttp

        asked = self._session.post(
            self._urls[place], data=body, proxy=self._proxies[place], trace_request_ctx=connection
        )
        async with asked as response:
            reply = bytearray()
            try:
                async for chunk in response.content.iter_any():
                    reply += chunk
                    if len(reply) > BODY_LIMIT:
                        raise Unreadable(f"a reply of more than {BODY_LIMIT >> 20} MiB")
            except (aiohttp.ClientError, OSError) as error:
                raise ConnectionError("the connection broke in the middle of a reply") from error
            if response.status >= 400:
                raise StatusError(response.status, bytes(reply), response.headers.get("retry-after", ""))
            return bytes(reply), response.headers.get("x-request-id", "")

    async def _hang_up(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        await self._session.close()


def _note(loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    log.info("%s", context.get("message"), exc_info=context.get("exception"))


def _proxy(url: str) -> str | None:
    proxy = proxy_of(url, secret=True)
    if proxy and "://" not in proxy:
        proxy = f"http://{proxy}"
    if proxy and not proxy.lower().startswith(("http://", "https://")):
        raise ConfigError(
            f"{url} is behind the proxy {proxy_of(url)}, which is no HTTP proxy: name one, or set no_proxy"
        )
    return proxy or None


@dataclass
class _Connection:
    """That of one attempt: was it used before?"""

    used: bool = False


async def _note_use(_: Any, context: Any, __: Any) -> None:
    context.trace_request_ctx.used = True


async def _session(api_key: str, seconds: float, secure: bool) -> "aiohttp.ClientSession":
    import aiohttp

    tracing = aiohttp.TraceConfig()
    tracing.on_connection_reuseconn.append(_note_use)
    own = {"openai-organization": "OPENAI_ORG_ID", "openai-project": "OPENAI_PROJECT_ID"}
    connect = min(seconds / 2, 10.0)
    return aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(),
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS, ssl=trusted() if secure else True),
        trace_configs=[tracing],
        timeout=aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=connect),
        headers={
            "authorization": f"Bearer {api_key}",
            "content-type": "application/json",
            "user-agent": f"aem-harness/{__version__}",
            **{header: os.environ[name] for header, name in own.items() if os.environ.get(name)},
        },
        max_line_size=LONGEST_HEADER,
        max_field_size=LONGEST_HEADER,
    )


class _Watch:
    """Ends a call once its server refuses connections, twice in a row: it has ended, though it may keep ours for ever.

    Anything else that goes wrong on the way to it says nothing.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None
        self.deaf = False

    def begin(self, limit: asyncio.Timeout) -> None:
        """Look every `WATCH_SECONDS` from now on; a server that is found deaf brings `limit` forward to now."""
        # A timer first: most replies come before it, and a task for each would cost a tenth of the call.
        self._timer = asyncio.get_running_loop().call_later(WATCH_SECONDS, self._start, limit)

    def end(self) -> None:
        if self._timer:
            self._timer.cancel()
        if self._looking:
            self._looking.cancel()

    def _start(self, limit: asyncio.Timeout) -> None:
        self._looking = asyncio.create_task(self._look(limit))

    async def _look(self, limit: asyncio.Timeout) -> None:
        parts = urlsplit(self._url)
        port, refused = parts.port or (443 if parts.scheme == "https" else 80), 0
        while True:
            try:
                async with asyncio.timeout(WATCH_SECONDS):
                    _, writer = await asyncio.open_connection(parts.hostname, port)
                writer.close()
                refused = 0
            except ConnectionRefusedError:
                refused += 1
            except OSError:  # also a timeout
                refused = 0
            if refused == 2:
                break
            await asyncio.sleep(WATCH_SECONDS)
        self.deaf = True
        limit.reschedule(0)
