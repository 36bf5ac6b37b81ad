"""The server as a program: the arguments of `vllm serve`, HTTP on threads, decoding in the main one.

python -m aem_harness.aem_checkpoints.fallback serve FOLDER --served-model-name NAME --port 8000
"""

import argparse
import json
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aem_harness.aem_checkpoints.fallback.api import (
    chat_body,
    error_body,
    models_body,
    read_query,
    text_body,
    to_ask,
    tokens_body,
)
from aem_harness.aem_checkpoints.fallback.models import BadRequest, ServedModel, load
from aem_harness.aem_checkpoints.fallback.rounds import Rounds
from aem_harness.harness.errors import ConfigError

SHARED_PARAMETERS = 50_000_000  # from here on more than one thread is of use
BODIES = {"/v1/chat/completions": chat_body, "/v1/completions": text_body}


class FallbackServer(ThreadingHTTPServer):
    """Answers while `rounds.run` decodes in another thread."""

    daemon_threads = True
    request_queue_size = 512  # a run opens as many connections at once as it has workers

    def __init__(self, address: tuple[str, int], models: Sequence[ServedModel], rounds: Rounds, version: str) -> None:
        self.models = {served.name: served for served in models}
        self.rounds = rounds
        self.version = version
        super().__init__(address, Handler)

    def handle_error(self, *_: object) -> None:
        """A client that went away; nothing to say."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FallbackServer

    def do_GET(self) -> None:
        match self.path:
            case "/health":
                self._send(200, {})
            case "/version":
                self._send(200, {"version": self.server.version})
            case "/v1/models":
                self._send(200, models_body(list(self.server.models.values())))
            case _:
                self._send(404, error_body(404, f"no such page: {self.path}"))

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        try:
            if self.path not in (*BODIES, "/tokenize"):
                raise BadRequest(f"no such page: {self.path}", 404)
            query = read_query(raw)
            if (served := self.server.models.get(query.model)) is None:
                raise BadRequest(f"no model {query.model!r}; there are: {', '.join(self.server.models)}", 404)
            if self.path == "/tokenize":
                value = tokens_body(query, served)
            else:
                ask = to_ask(query, served)
                value = BODIES[self.path](served, ask, self.server.rounds.ask(served, ask))
        except BadRequest as error:
            self._send(error.status, error_body(error.status, str(error)))
        except Exception as error:
            traceback.print_exc()
            self._send(500, error_body(500, f"{type(error).__name__}: {error}"))
        else:
            self._send(200, value)

    def _send(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing for each request: the log is for what goes wrong."""


def parse(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The arguments of `vllm serve` that are heeded here, and the words that are not known."""
    parser = argparse.ArgumentParser("aem_harness.aem_checkpoints.fallback", allow_abbrev=False)
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model", help="folder or hub id")
    parser.add_argument("--served-model-name")
    parser.add_argument("--revision")
    parser.add_argument("--lora-modules", nargs="+", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--chat-template")
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    return parser.parse_known_args(words)


def main(words: Sequence[str]) -> None:
    """Load, answer, and decode until killed. ConfigError for what needs vLLM."""
    options, unknown = parse(words)
    if "--tool-call-parser" in unknown:
        raise ConfigError("serving.tool_call_parser needs vLLM: tool calls are not read here")
    if unknown:
        print(f"ignored, because only vLLM knows them: {' '.join(unknown)}", flush=True)
    import torch
    import transformers

    models, rounds = list(load(options)), Rounds()
    if "OMP_NUM_THREADS" not in os.environ:
        # A tiny model's sums are too small to share, and threads that wait for each other spin on a busy machine.
        large = max(served.model.num_parameters() for served in models) > SHARED_PARAMETERS
        torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2) if large else 1)
    place, precision = models[0].model.device.type, str(models[0].model.dtype).removeprefix("torch.")
    version = f"transformers {transformers.__version__}, torch {torch.__version__}, {precision} on {place}"
    with FallbackServer((options.host, options.port), models, rounds, version) as server:
        threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
        print(f"serving {', '.join(server.models)} with {version}", flush=True)
        rounds.run()


if __name__ == "__main__":
    main(sys.argv[1:])
