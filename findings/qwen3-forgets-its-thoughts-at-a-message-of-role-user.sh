#!/usr/bin/env bash
# Guess: a chat template that shows a model the thoughts of its earlier turns goes on doing so, whatever is said in between.
# Version: chat templates of Qwen3 and GLM-4.5 as trl 1.16.0 ships them (transformers 5.23.0)
# Behaviour: thoughts are shown after the last message of role user alone. With observations of role tool that is all of them; one
#   message of role user, and every thought before it is gone from the prompt, those of turns that were read a moment ago too. Where
#   observations are of role user, no earlier thought is ever shown. Qwen3's template for training, in the same package, shows all.
# Output: 3 turns with a thought each, thoughts in the next prompt (Qwen3, GLM-4.5, Qwen3 for training): observations of role tool 3, 3,
#   3; then a complaint of role user 0, 0, 3; observations of role user 0, 0, 3
# Why here: mini-swe-agent answers a reply without a valid call with a message of role user, so one malformed reply takes the reasoning of
#   the whole rollout away; scaffolds that put observations into role user (R2E-Gym's) never show any. The same weights are another
#   policy under each of them, a prefix cache is of no use from the first thought on, and training that keeps replies as they were sampled
#   teaches on conversations that serving never shows. aem sends what its scaffolds say, and leaves the template to the server.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet transformers==5.23.0 jinja2==3.1.6
"$work/venv/bin/pip" download --quiet --no-deps --dest "$work" trl==1.16.0
"$work/venv/bin/python" - "$work" << 'EOF' 2> "$work/log" || { cat "$work/log"; exit 1; }
import sys
from pathlib import Path
from zipfile import ZipFile

from transformers.utils.chat_template_utils import render_jinja_template

(wheel,) = Path(sys.argv[1]).glob("trl-*.whl")
templates = [ZipFile(wheel).read(f"trl/chat_templates/{name}.jinja").decode() for name in ("qwen3", "glm4moe", "qwen3_training")]
call = {"type": "function", "function": {"name": "bash", "arguments": {"command": "ls"}}}


def conversation(observer, *after):
    messages = [{"role": "system", "content": "You fix bugs."}, {"role": "user", "content": "Fix it."}]
    for turn in range(3):
        said = {"role": "assistant", "content": f"<think>\nthought {turn}\n</think>\n\nI look."}
        messages += [said | ({"tool_calls": [call]} if observer == "tool" else {}), {"role": observer, "content": f"file {turn}"}]
    return [*messages, *after]


def thoughts(messages):
    prompts = [render_jinja_template([messages], chat_template=one, add_generation_prompt=True)[0][0] for one in templates]
    return [sum(f"thought {turn}" in prompt for turn in range(3)) for prompt in prompts]


complaint = {"role": "user", "content": "No tool calls found in the response."}
seen = {
    "observations of role tool": thoughts(conversation("tool")),
    "then a complaint of role user": thoughts(conversation("tool", complaint)),
    "observations of role user": thoughts(conversation("user")),
}
print(
    "3 turns with a thought each, thoughts in the next prompt (Qwen3, GLM-4.5, Qwen3 for training): "
    + "; ".join(f"{what} {', '.join(map(str, counts))}" for what, counts in seen.items())
)
assert list(seen.values()) == [[3, 3, 3], [0, 0, 3], [0, 0, 3]]
EOF
