"""A checkpoint of a few hundred thousand random weights, and a LoRA adapter on it, in the formats that vLLM loads.

python -m tests.checkpoints.tiny FOLDER        then: aem run --registry FOLDER --checkpoint tiny ...
"""

import json
import sys
from pathlib import Path

RANK = 8


def tiny_checkpoint(registry: Path, name: str = "tiny", *, seed: int = 0) -> Path:
    """Write a random Llama-type policy with tokenizer, chat template and card into `registry`; returns its folder."""
    import torch

    from aem_harness.aem_checkpoints.card import Card, Method, Scaffold, Serving
    from aem_harness.training.checkpoint import save_policy
    from aem_harness.training.model import Model, ModelConfig
    from aem_harness.training.tokenizer import train_tokenizer

    torch.manual_seed(seed)
    tokenizer = train_tokenizer(["def f(x): return x + 1\n" * 10], vocabulary=512)
    config = ModelConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=8192,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    card = Card(
        name=name,
        path=".",
        licence="MIT",
        method=Method(kind="baseline"),
        serving=Serving(max_model_len=8192, flags={"enforce-eager": True}),
        scaffold=Scaffold(agent="bash", options={"steps": 4}),
        sampling={"temperature": 1.0, "max_tokens": 32, "logprobs": 20},
    )
    save_policy(registry / name, Model(config), tokenizer, card)
    return registry / name


def tiny_adapter(registry: Path, name: str = "tiny-lora", base: str = "tiny", *, seed: int = 1) -> Path:
    """Write a random LoRA adapter (PEFT's format) on the checkpoint `base` of this registry, with its card."""
    import torch
    from safetensors.torch import save_file

    from aem_harness.aem_checkpoints.adding import add, cards

    folder = registry / f"{name}-weights"
    folder.mkdir()
    shape = json.loads((registry / base / "config.json").read_text())
    generator = torch.Generator().manual_seed(seed)
    width = shape["hidden_size"]
    weights = {}
    for layer in range(shape["num_hidden_layers"]):
        for target in ("q_proj", "v_proj"):
            at = f"base_model.model.model.layers.{layer}.self_attn.{target}"
            weights[f"{at}.lora_A.weight"] = torch.randn(RANK, width, generator=generator)
            weights[f"{at}.lora_B.weight"] = torch.randn(width, RANK, generator=generator)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": ["q_proj", "v_proj"],
        "base_model_name_or_path": base,
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    values = {"path": str(folder), "method": {"kind": "aem"}, "sampling": {"temperature": 1.0, "max_tokens": 32}}
    for card in cards(name, values, registry):
        add(card, registry)
    return folder


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    print(tiny_checkpoint(place))
    print(tiny_adapter(place))
