"""Weights and training state on disk: Hugging Face folders for serving, one state file for going on after a kill."""

import hashlib
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from aem_harness.aem_checkpoints.card import CARD, Card
from aem_harness.harness.errors import ConfigError, DataError
from aem_harness.harness.io import read_json, replacing, temporary_folder, write_json, write_text
from aem_harness.training.model import Model, ModelConfig

STATE = "state.pt"


def save_policy(folder: Path, model: Model, tokenizer: Any, card: Card) -> None:
    """Write (replacing it whole) what `transformers` and vLLM load: bfloat16 weights, configuration, tokenizer, and
    `card.yaml`, the checkpoint's provenance with the weights' digest filled in."""
    from safetensors.torch import save_file

    folder.parent.mkdir(parents=True, exist_ok=True)
    new = temporary_folder(folder.parent, folder.name)
    weights = {name: value.detach().to(torch.bfloat16).contiguous() for name, value in model.named_parameters()}
    save_file(weights, new / "model.safetensors", metadata={"format": "pt"})
    tokenizer.model_max_length = model.config.max_position_embeddings
    tokenizer.save_pretrained(new)
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    write_json(new / "config.json", {**hf_config(model.config), "eos_token_id": end, "pad_token_id": pad})
    write_json(new / "generation_config.json", {"eos_token_id": end, "pad_token_id": pad})
    digests = {path.name: digest(path) for path in sorted(new.iterdir())}
    write_text(new / CARD, card.model_copy(update={"digests": digests}).to_yaml())
    for path in (new, *new.iterdir()):  # some writers give files to their owner alone
        path.chmod(0o755 if path.is_dir() else 0o644)
    if folder.exists():
        shutil.rmtree(folder)
    new.rename(folder)


def load_policy(folder: Path) -> tuple[Model, Any]:
    """The policy in a folder that `save_policy` wrote, in single precision, and its tokenizer."""
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    if not (folder / "config.json").is_file():
        raise ConfigError(f"no checkpoint at {folder}: it has no config.json")
    values = read_json(folder / "config.json")
    config = ModelConfig(**{name: values[name] for name in ModelConfig.model_fields if name in values})
    model = Model(config)
    weights = {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise DataError(f"{folder}: weights and config.json disagree: {str(error).splitlines()[-1].strip()}") from None
    return model, AutoTokenizer.from_pretrained(folder)


def hf_config(config: ModelConfig) -> dict[str, Any]:
    """The configuration of the same architecture in `transformers`."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **config.model_dump(),
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
        "bos_token_id": None,
    }


def changed_share(folder: Path, start: Path) -> float | None:
    """Share of the weights of one checkpoint, in [0, 1], that differ from those of another.

    Values are compared, so one that was only stored in another precision is equal. None where no tensor of `folder`
    is in `start`: an adapter is not its base.
    """
    from safetensors import safe_open

    changed = total = 0
    with ExitStack() as opened:
        before: dict[str, Any] = {}
        for file in start.glob("*.safetensors"):
            weights = opened.enter_context(safe_open(file, "pt"))
            before |= dict.fromkeys(weights.keys(), weights)
        for file in folder.glob("*.safetensors"):
            weights = opened.enter_context(safe_open(file, "pt"))
            for name in before.keys() & set(weights.keys()):
                now, old = weights.get_tensor(name), before[name].get_tensor(name)
                total += now.numel()
                changed += int((now.float() != old.float()).sum()) if now.shape == old.shape else now.numel()
    return changed / total if total else None


def save_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Replace the training state atomically: after a kill at any moment the old or the new one is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / STATE) as file:
        torch.save(dict(state), file)


def load_state(folder: Path) -> dict[str, Any] | None:
    """The training state, None where there is none yet."""
    if not (folder / STATE).is_file():
        return None
    return dict(torch.load(folder / STATE, weights_only=True))


def digest(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
