#!/usr/bin/env bash
# Guess: with a seed set for reproducibility, each epoch of a sample still gets a draw of its own, derived from the seed.
# Version: inspect-ai 0.3.285 (openai 3.54.0)
# Behaviour: every epoch of a sample sends the same request, seed included. A server that honours it, as vLLM does, gives the
#   same reply each time, so that 4 epochs are one epoch four times. The log says success and 4 epochs.
# Output: success, 4 epochs, temperature 1.0, seeds sent [7, 7, 7, 7], different requests: 1
# Why here: pass@4 then equals pass@1, the variance within tasks is 0, and a test that takes the epochs for rollouts counts each
#   task four times. aem gives each rollout, and each call in it, a seed of its own; `aem import` says of such a log that its
#   epochs are no independent rollouts.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet inspect-ai==0.3.285 openai==3.54.0
"$work/venv/bin/python" - "$work/logs" << 'EOF'
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import GenerateConfig, get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import generate

asked = []


class Server(BaseHTTPRequestHandler):
    def log_message(self, *_): ...

    def do_POST(self):
        asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        message = {"role": "assistant", "content": "yes"}
        reply = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
        reply |= {"choices": [{"index": 0, "finish_reason": "stop", "message": message}]}
        body = json.dumps(reply | {"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
model = get_model(
    "openai-api/local/m",
    base_url=f"http://127.0.0.1:{server.server_port}/v1",
    api_key="x",
    config=GenerateConfig(seed=7, temperature=1.0),
)
task = Task(dataset=[Sample(id="a", input="?", target="yes")], solver=generate(), scorer=includes(), epochs=4)
(log,) = eval(task, model=model, display="none", log_dir=sys.argv[1])
seeds, different = [one.get("seed") for one in asked], len({json.dumps(one, sort_keys=True) for one in asked})
print(
    f"{log.status}, {log.eval.config.epochs} epochs, temperature {asked[0].get('temperature')}, "
    f"seeds sent {seeds}, different requests: {different}"
)
assert log.status == "success" and seeds == [7, 7, 7, 7] and different == 1
EOF
