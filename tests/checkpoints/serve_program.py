"""A program with the outside of `vllm serve`: health, models, a worker process of its own; it breaks when told to.

For what the real one cannot be made to do at will: crash twice, run out of memory, live on with a dead engine.
First argument `serve`, second a folder; `<folder>/breaks` holds what it prints, line by line, before it exits at start.
"""

import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

folder = Path(sys.argv[2])
port = int(sys.argv[sys.argv.index("--port") + 1])
if (folder / "breaks").exists():
    sys.exit((folder / "breaks").read_text())
worker = subprocess.Popen(["sleep", "600"])
health = 200


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer(health, {})
        elif self.path == "/v1/models":
            self.answer(200, {"data": [{"id": "tiny", "max_model_len": 64}]})
        else:
            self.answer(404, {})

    def do_POST(self) -> None:
        global health
        if self.path == "/die":
            os._exit(1)
        if self.path == "/engine-dies":
            print("RuntimeError: the engine's own words", flush=True)
            health = 503
        self.answer(200, {})
        if self.path == "/stop-listening":
            server.server_close()  # the process lives on, and so do its connections

    def answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
server.block_on_close = False
threading.Thread(target=server.serve_forever, daemon=True).start()
while True:
    time.sleep(600)
