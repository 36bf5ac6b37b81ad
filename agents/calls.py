"""Calls of a model's servers that can be abandoned at once, however long the model still generates.

A call that blocks a thread cannot be: closing a socket under a thread that waits on it does not wake that thread. So
one thread runs an event loop that owns every connection, and callers wait for its results.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

from aem_harness.agents.reply import Unreadable
from aem_harness.harness.web import is_loopback, proxy_of

WATCH_SECONDS = 10.0  # between looks whether a server still listens while it is waited for
BODY_LIMIT = 512 * 2**20  # bytes; 32k tokens with 20 log-probs each are about 60 MiB


class CallsClosed(Exception):
    """`close` was called before the reply came."""


class Calls:
    """Chat completions asked of `urls` by any number of threads; an attempt is given `seconds` as a whole."""

    def __init__(self, urls: Sequence[str], api_key: str, seconds: float) -> None:
        import openai

        timeout = openai.Timeout(seconds, connect=min(seconds / 2, 10.0))
        self._seconds = seconds
        self._clients = [
            openai.AsyncOpenAI(
                base_url=url,
                api_key=api_key,
                max_retries=0,
                timeout=timeout,
                http_client=openai.DefaultAsyncHttpxClient(trust_env=False) if is_loopback(url) else None,
            )
            for url in urls
        ]
        self._lock = threading.Lock()
        self._pending: set[Future[tuple[bytes, str]]] = set()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="model calls", daemon=True)
        self._thread.start()

    def post(self, place: int, request: Mapping[str, Any]) -> tuple[bytes, str]:
        """The body and the request id of the reply from the endpoint at `place`.

        Raises CallsClosed, TimeoutError, Unreadable (too large), openai.OpenAIError, ConnectionError.
        """
        with self._lock:
            if self._closed:
                raise CallsClosed
            reply = asyncio.run_coroutine_threadsafe(self._ask(self._clients[place], request), self._loop)
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

    async def _ask(self, client: Any, request: Mapping[str, Any]) -> tuple[bytes, str]:
        try:
            # A server may drip, and the client's own timeout is one for each read.
            async with asyncio.timeout(self._seconds):
                reading = asyncio.create_task(_read(client, request))
                watching = asyncio.create_task(_until_deaf(client.base_url))
                try:
                    await asyncio.wait({reading, watching}, return_when=asyncio.FIRST_COMPLETED)
                    if reading.done():
                        return reading.result()
                finally:
                    reading.cancel()
                    watching.cancel()
                    await asyncio.gather(reading, watching, return_exceptions=True)
                raise ConnectionError("the server accepts no connections any more, so no reply can come")
        except TimeoutError:
            raise TimeoutError("the reply did not end in time") from None

    async def _hang_up(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        for client in self._clients:
            await client.close()


async def _read(client: Any, request: Mapping[str, Any]) -> tuple[bytes, str]:
    async with client.chat.completions.with_streaming_response.create(**request) as response:
        body = bytearray()
        async for chunk in _chunks(response):
            body += chunk
            if len(body) > BODY_LIMIT:
                raise Unreadable(f"a reply of more than {BODY_LIMIT >> 20} MiB")
        return bytes(body), response.headers.get("x-request-id", "")


async def _until_deaf(url: Any) -> None:
    """Return once the server refuses connections, twice in a row: it has ended, though it may keep ours open for ever.

    Anything else that goes wrong on the way to it says nothing, nor does a refusal where a proxy stands between.
    """
    if url.host is None or proxy_of(str(url)):
        await asyncio.Event().wait()
    port, refused = url.port or (443 if url.scheme == "https" else 80), 0
    while refused < 2:
        await asyncio.sleep(WATCH_SECONDS)
        try:
            async with asyncio.timeout(WATCH_SECONDS):
                _, writer = await asyncio.open_connection(url.host, port)
            writer.close()
            refused = 0
        except ConnectionRefusedError:
            refused += 1
        except OSError:  # also a timeout
            refused = 0


async def _chunks(response: Any) -> AsyncIterator[bytes]:
    # The client wraps the errors of its HTTP library (httpx or httpx2) until the headers are in, but not from there on.
    try:
        async for chunk in response.iter_bytes():
            yield chunk
    except Exception as error:
        raise ConnectionError("the connection broke in the middle of a reply") from error
