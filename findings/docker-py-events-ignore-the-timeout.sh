#!/usr/bin/env bash
# Guess: DockerClient(timeout=1) bounds every wait for the engine, the stream of events included.
# Version: docker 7.1.0
# Behaviour: an ordinary call gives up after a second of silence; events() is sent without any timeout, so its reader waits for
#   ever on an engine that fell silent without closing the connection, as a host does that is switched off.
# Output: ping gave up after the timeout: True; events() still waits after 6 s: True
# Why here: a harness that watches engines by their events never learns that one is gone, and its rollouts hang until somebody
#   looks. aem asks for the stream with a limit of its own, opens it again every few seconds, and has the engine answer in between.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet docker==7.1.0
"$work/venv/bin/python" - << 'EOF'
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import docker
import requests


class Silent(BaseHTTPRequestHandler):
    """An engine that falls silent: a ping is answered too late, the stream of events begins and brings nothing."""

    def log_message(self, *_): ...

    def do_GET(self):
        if self.path.endswith("/_ping"):
            time.sleep(4)
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        time.sleep(60)


server = ThreadingHTTPServer(("127.0.0.1", 0), Silent)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
client = docker.DockerClient(base_url=f"tcp://127.0.0.1:{server.server_port}", version="1.41", timeout=1)
began = time.monotonic()
try:
    client.ping()
    gave_up = False
except requests.exceptions.ReadTimeout:
    gave_up = time.monotonic() - began < 3
reader = threading.Thread(target=lambda: next(iter(client.events())), daemon=True)
reader.start()
reader.join(6)
print(f"ping gave up after the timeout: {gave_up}; events() still waits after 6 s: {reader.is_alive()}")
assert gave_up and reader.is_alive()
EOF
