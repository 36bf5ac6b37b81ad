#!/usr/bin/env bash
# Guess: mask_truncated_completions keeps every rollout out of the loss that did not fit into max_completion_length, and clipped_ratio
#   counts them.
# Version: trl 1.16.0, transformers 5.23.0, torch 2.13.0
# Behaviour: "truncated" means that the last token is no end token. Where a tool's result no longer fits, GRPOTrainer takes the result back
#   and leaves the rollout as it was: it ends in the model's own call, with the end token, so it counts as whole and is trained on
#   with the reward of a failure. So does one that ran out of max_tool_calling_iterations. Only one that is cut inside a reply is masked.
# Output: rollouts cut inside a reply: clipped_ratio 1.0, gradient zero; cut at a tool's result: clipped_ratio 0.0, gradient not zero; out of
#   tool calls: clipped_ratio 0.0, gradient not zero
# Why here: agents run out of their budget at observations, which are many times longer than replies. The setting (overlong filtering of
#   DAPO, compact filtering of DeepSWE) then filters next to nothing, and the metric that would show it reads 0. aem's engine for TRL
#   masks by how the rollout ended, whatever its last token is.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 trl==1.16.0
cd "$work"
"$work/venv/bin/python" - << 'EOF' 2> "$work/log" || { cat "$work/log"; exit 1; }
from pathlib import Path

import torch
import trl
from datasets import Dataset
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback
from trl import GRPOConfig, GRPOTrainer

CALL = '<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call>'
letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
plain = Tokenizer(models.BPE(vocab=letters, merges=[]))
plain.pre_tokenizer, plain.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
plain.add_tokens([AddedToken(CALL, normalized=False)])
tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<|im_end|>", pad_token="<|endoftext|>")
tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text()
call, end = tokenizer.convert_tokens_to_ids([CALL, "<|im_end|>"])

# A policy that always says the call and then the end token: what comes next depends on the last token alone.
sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}
ids = {"eos_token_id": end, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}


def policy():
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=False, **sizes, **ids))
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.zero_()[:, 0] = 1
        model.model.embed_tokens.weight[call] = torch.eye(8)[1]
        model.lm_head.weight.zero_()[call, 0] = 5.3
        model.lm_head.weight[end, 1] = 5.3
    return model


def look() -> str:
    """Looks around.

    Returns:
        What is there.
    """
    return "x" * 300


def trained(budget, **more):
    """What TRL logs of one step in which half of the rollouts get a reward."""
    settings = {"max_steps": 1, "per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": budget}
    quiet = {"logging_steps": 1, "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True, "bf16": False}
    trainer = GRPOTrainer(
        policy(),
        lambda completions, **_: [float(number % 2) for number in range(len(completions))],
        args=GRPOConfig(output_dir="out", mask_truncated_completions=True, **settings, **quiet, **more),
        train_dataset=Dataset.from_dict({"prompt": [[{"role": "user", "content": "Fix it."}]] * 8}),
        processing_class=tokenizer,
        tools=[look],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    log = trainer.state.log_history[0]
    return log["completions/clipped_ratio"], log["grad_norm"] > 0


seen = {
    "rollouts cut inside a reply": trained(1),
    "cut at a tool's result": trained(100),
    "out of tool calls": trained(1000, max_tool_calling_iterations=1),
}
print("; ".join(f"{what}: clipped_ratio {ratio}, gradient {'not ' * moved}zero" for what, (ratio, moved) in seen.items()))
assert list(seen.values()) == [(1.0, False), (0.0, True), (0.0, True)]
EOF
