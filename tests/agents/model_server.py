"""A real HTTP server that speaks the OpenAI protocol as well, or as badly, as a test asks it to."""

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Request = dict[str, Any]
Answer = Callable[["Handler", Request], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "ModelServer"

    def do_GET(self) -> None:
        self.send_json({"object": "list", "data": [{"id": "tiny", "object": "model"}]})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.requests.append(request)
        self.server.answer(self, request)

    def send_json(self, value: Any, status: int = 200, **headers: str) -> None:
        self.send_bytes(json.dumps(value).encode(), status, **headers)

    def send_bytes(self, body: bytes, status: int = 200, *, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        if length is not None and length != len(body):
            self.close_connection = True

    def reset(self) -> None:
        """Break the connection with a TCP reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None: ...


class ModelServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    answer: Answer
    address = "127.0.0.1"

    def __init__(self) -> None:
        super().__init__((self.address, 0), Handler)
        self.requests: list[Request] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None: ...


@contextmanager
def model_server(answer: Answer, kind: type[ModelServer] = ModelServer) -> Iterator[ModelServer]:
    with kind() as server:
        server.answer = answer
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def chat(message: Any = None, *, finish_reason: Any = "stop", logprobs: Any = None, **more: Any) -> dict[str, Any]:
    """A well-formed chat completion around any message."""
    if isinstance(message, str):
        message = {"role": "assistant", "content": message}
    choice = {"index": 0, "finish_reason": finish_reason, "message": message, "logprobs": logprobs}
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    return {"id": "r-1", "object": "chat.completion", "model": "tiny", "choices": [choice], "usage": usage, **more}


def say(*replies: Any) -> Answer:
    """Answer with the given messages in turn, the last one for ever."""
    rest = list(replies)
    lock = threading.Lock()

    def answer(handler: Handler, request: Request) -> None:
        with lock:
            reply = rest.pop(0) if len(rest) > 1 else rest[0]
        handler.send_json(chat(reply))

    return answer
