#!/usr/bin/env bash
# Guess: GRPOTrainer(AutoModelForCausalLM.from_pretrained(name)) trains what GRPOTrainer(name) trains.
# Version: trl 1.16.0, transformers 5.23.0, torch 2.13.0
# Behaviour: a name is loaded in float32. A model that was loaded first has the dtype of its checkpoint, bfloat16 for most of them, and the
#   optimizer updates those numbers themselves: there is no float32 copy. At the trainer's own learning rate an update is less than
#   half the distance between two bfloat16 numbers, and nearly all of them are rounded away, at every step. Loss, gradient norm
#   and rewards are logged as ever, and nothing warns.
# Output: 20 steps at learning rate 1e-06: by name 99.8 % of the weights have changed, as a model 1.9 %; first gradient norms 1.86 and 1.87
# Why here: such a checkpoint is nearly its own baseline, and an evaluation finds no difference between methods, whatever they are. aem train
#   loads every policy in float32 for TRL, and at its end says which share of the stored weights differs from the start's.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 trl==1.16.0
cd "$work"
"$work/venv/bin/python" - << 'EOF' 2> "$work/log" || { cat "$work/log"; exit 1; }
import torch
from datasets import Dataset
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback
from trl import GRPOConfig, GRPOTrainer

words = ["<pad>", "<eos>", *"abcdefghijklmnopqrstuvwxyz"]
plain = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="a"))
plain.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", eos_token="<eos>")
tokenizer.save_pretrained("policy")
sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4}
torch.manual_seed(0)
policy = LlamaForCausalLM(LlamaConfig(vocab_size=len(words), pad_token_id=0, eos_token_id=1, **sizes))
policy.to(torch.bfloat16).save_pretrained("policy")
start = load_file("policy/model.safetensors")


def trained(model):
    """Share of the weights that 20 steps change, in per cent, and the norm of the first gradient."""
    settings = {"max_steps": 20, "per_device_train_batch_size": 8, "num_generations": 8, "max_completion_length": 8}
    quiet = {"logging_steps": 1, "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True}
    trainer = GRPOTrainer(
        model,
        lambda completions, **_: [float(text.count("e")) for text in completions],
        args=GRPOConfig(output_dir="out", seed=1, **settings, **quiet),
        train_dataset=Dataset.from_dict({"prompt": ["a b c d"] * 64}),
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    now = trainer.model.state_dict()
    changed = sum(int((now[name].float() != old.float()).sum()) for name, old in start.items())
    return 100 * changed / sum(old.numel() for old in start.values()), trainer.state.log_history[0]["grad_norm"], trainer.args


by_name, norm, arguments = trained("policy")
as_model, model_norm, _ = trained(AutoModelForCausalLM.from_pretrained("policy"))
print(
    f"20 steps at learning rate {arguments.learning_rate}: by name {by_name:.1f} % of the weights have changed, "
    f"as a model {as_model:.1f} %; first gradient norms {norm:.2f} and {model_norm:.2f}"
)
assert by_name > 95 and as_model < 10 and abs(norm - model_norm) < 0.1
EOF
