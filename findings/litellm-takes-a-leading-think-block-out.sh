#!/usr/bin/env bash
# Guess: a client library hands on the text of a reply as the server sent it.
# Version: litellm 1.110.2
# Behaviour: where the text begins with <think>...</think>, that block is cut out of `content` and put into `reasoning_content`,
#   although the server did not do so. One character before the tag, a blank, and the text stays whole. A message that is sent
#   back in the next turn goes to the server in two fields, and a chat template that reads `content` no longer shows the thought.
# Output: content '\nls', reasoning_content 'look first'; with a blank before it ' <think>look first</think>\nls', None; sent back in the next turn: {'content': '\nls', 'reasoning_content': 'look first'}
# Why here: scaffolds on litellm record `content`. The same checkpoint then has another conversation under them than under a client
#   that leaves replies alone, and of two checkpoints only the one that begins its replies with the tag is touched. Command
#   parsing, lengths and training data made of such trajectories lack the thoughts. aem's client keeps the text as it was sent.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet litellm==1.110.2
LITELLM_LOCAL_MODEL_COST_MAP=True "$work/venv/bin/python" - << 'EOF'
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import litellm

text, asked = "", []


class Server(BaseHTTPRequestHandler):
    def log_message(self, *_): ...

    def do_POST(self):
        asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        message = {"role": "assistant", "content": text}
        reply = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
        reply |= {"choices": [{"index": 0, "finish_reason": "stop", "message": message}]}
        body = json.dumps(reply | {"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
user = {"role": "user", "content": "go"}


def ask(messages):
    base = f"http://127.0.0.1:{server.server_port}/v1"
    said = litellm.completion(model="hosted_vllm/m", api_base=base, api_key="x", messages=messages).choices[0].message
    return said, (said.content, getattr(said, "reasoning_content", None))


text = " <think>look first</think>\nls"
whole = ask([user])[1]
text = text.strip()
message, cut = ask([user])
ask([user, message.model_dump(), user])
back = {key: value for key, value in asked[-1]["messages"][1].items() if key in ("content", "reasoning_content")}
print(
    f"content {cut[0]!r}, reasoning_content {cut[1]!r}; with a blank before it {whole[0]!r}, {whole[1]}; "
    f"sent back in the next turn: {back}"
)
assert cut == ("\nls", "look first") and whole == (" <think>look first</think>\nls", None)
assert back["content"] == "\nls"
EOF
