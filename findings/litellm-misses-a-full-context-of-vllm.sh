#!/usr/bin/env bash
# Guess: a full context behind vLLM reaches a litellm client as ContextWindowExceededError, whichever release of vLLM serves
# Version: litellm 1.106.2; wordings of vLLM 0.11.0 and 0.17.1 (renderers/params.py), both still served
# Behaviour: litellm knows the refusal by its words; vLLM 0.17 words it anew, and the same end is a BadRequestError
# Output: vLLM 0.11: ContextWindowExceededError; vLLM 0.17: BadRequestError
# Why here: scaffolds on litellm (mini-swe-agent) record the class name as the end of a rollout, so an arm on vLLM 0.17 seems to have
# wrong settings where an arm on 0.11 has full contexts; our importers read the exception's text as well, and count both alike
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install -q litellm==1.106.2
LITELLM_LOCAL_MODEL_COST_MAP=True "$folder/env/bin/python" - <<'PY'
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import litellm

WORDS = {
    "vLLM 0.11": "This model's maximum context length is 4096 tokens. However, your request has 5000 input tokens. "
    "Please reduce the length of the input messages.",
    "vLLM 0.17": "You passed 5000 input tokens and requested 400 output tokens. However, the model's context length is "
    "only 4096 tokens, resulting in a maximum input length of 3696 tokens. Please reduce the length of the input prompt.",
}
said = ""


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        body = json.dumps({"error": {"message": said, "type": "BadRequestError", "code": 400}}).encode()
        self.send_response(400)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words): ...


server = HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
litellm.suppress_debug_info = True
seen = {}
for release, said in WORDS.items():
    try:
        litellm.completion(
            model="hosted_vllm/m",
            api_base=f"http://127.0.0.1:{server.server_address[1]}/v1",
            api_key="x",
            messages=[{"role": "user", "content": "hello"}],
            num_retries=0,
        )
    except Exception as error:
        seen[release] = type(error).__name__
print("; ".join(f"{release}: {name}" for release, name in seen.items()))
assert seen == {"vLLM 0.11": "ContextWindowExceededError", "vLLM 0.17": "BadRequestError"}, seen
PY
