#!/usr/bin/env bash
# Guess: what litellm sends to a server of one's own (openai/NAME with api_base) does not depend on what the model is called there.
# Version: litellm 1.110.2
# Behaviour: a name that contains gpt-5 anywhere is taken for OpenAI's model, which takes no temperature. With drop_params, which
#   mini-swe-agent's SWE-bench configurations set, temperature, top_p, stop and logprobs are left out without a word; without it the call is
#   refused. The provider hosted_vllm and other names send all of them.
# Output: settings left out: openai/qwen-distilled-from-gpt-5 temperature, top_p, stop, logprobs; openai/qwen-distilled none;
#   hosted_vllm/qwen-distilled-from-gpt-5 none
# Why here: the teacher is often part of a student's name. Such a checkpoint is sampled as the server likes best, its trajectories still
#   name the temperature that was asked for, and the difference to a baseline of another name is one of sampling. aem sends what is
#   asked, whatever the name. Of imported runs it knows only what they say was asked.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet litellm==1.110.2
LITELLM_LOCAL_MODEL_COST_MAP=True "$work/venv/bin/python" - << 'EOF' 2> "$work/log" || { cat "$work/log"; exit 1; }
import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import litellm

litellm.suppress_debug_info = True
asked = {}


class Server(BaseHTTPRequestHandler):
    """Keeps what it was asked and answers x."""

    def do_POST(self):
        asked.clear()
        asked.update(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
        body = {"id": "1", "object": "chat.completion", "created": 1, "model": asked["model"], "choices": [choice]}
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Server)
Thread(target=server.serve_forever, daemon=True).start()
settings = {"temperature": 0.7, "top_p": 0.9, "stop": ["\nOBSERVATION"], "logprobs": True}


def left_out(model, **more):
    place = {"api_base": f"http://127.0.0.1:{server.server_port}/v1", "api_key": "none"}
    litellm.completion(model, [{"role": "user", "content": "hello"}], **settings, **place, **more)
    return [name for name in settings if name not in asked]


models = "openai/qwen-distilled-from-gpt-5", "openai/qwen-distilled", "hosted_vllm/qwen-distilled-from-gpt-5"
missing = {model: left_out(model, drop_params=True) for model in models}
print("settings left out:", "; ".join(f"{model} {', '.join(names) or 'none'}" for model, names in missing.items()))
assert list(missing.values()) == [list(settings), [], []]
try:
    left_out(models[0])
    raise AssertionError("sent without drop_params")
except litellm.UnsupportedParamsError:
    pass
EOF
