#!/usr/bin/env bash
# Guess: OpenAI(timeout=1) ends a request after one second.
# Version: openai 3.54.0
# Behaviour: the number bounds each wait for the next bytes, not the request. A server, or a proxy that keeps the connection alive
#   with blanks, may take any time; here a reply takes four seconds under a limit of one, and no error is raised.
# Output: answered "hi", limit 1 s exceeded: True
# Why here: a rollout's wall time is then unbounded although a limit was set, one hanging server keeps workers busy for hours, and
#   rollouts lost to it are not repeated. aem bounds the whole request ("did not end in time") and repeats it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet openai==3.54.0
"$work/venv/bin/python" - << 'EOF'
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from openai import OpenAI

MESSAGE = {"role": "assistant", "content": "hi"}
REPLY = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
BODY = json.dumps(REPLY | {"choices": [{"index": 0, "finish_reason": "stop", "message": MESSAGE}]}).encode()


class Slow(BaseHTTPRequestHandler):
    def log_message(self, *_): ...

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(BODY) + 8))
        self.end_headers()
        self.wfile.write(BODY)
        for _ in range(8):  # blanks may follow JSON
            time.sleep(0.5)
            self.wfile.write(b" ")
            self.wfile.flush()


server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = OpenAI(api_key="none", base_url=f"http://127.0.0.1:{server.server_port}", timeout=1, max_retries=0)
began = time.monotonic()
said = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "u"}]).choices[0].message.content
seconds = time.monotonic() - began
print(f'answered "{said}", limit 1 s exceeded: {seconds > 3}')
assert said == "hi" and seconds > 3
EOF
