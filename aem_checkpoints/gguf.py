"""A GGUF file as a checkpoint that everything here can serve and train: dequantised once, into a Hugging Face folder.

What transformers loads from a GGUF file is in single precision, but keeps the marks of a quantised model: it refuses
to be saved, trained by its Trainer, or cast. So the weights go into a fresh model of the same configuration, and are
stored as bfloat16.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aem_harness.harness.errors import ConfigError


def convert(file: Path, folder: Path) -> None:
    """Write the file's weights, configuration and tokenizer into `folder`.

    Raises ConfigError when the file is none, a package is missing, or transformers cannot read its architecture.
    """
    if not file.is_file():
        raise ConfigError(f"no file at {file}")
    if folder.exists():
        raise ConfigError(f"{folder} exists: choose another name, or remove it")
    try:
        import gguf  # noqa: F401
        import torch
        import transformers
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed: pip install 'aem-harness[train]'") from None
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    at: dict[str, Any] = {"gguf_file": file.name}
    try:
        loaded = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **at)
        config = AutoConfig.from_pretrained(file.parent, **at)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **at)
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise ConfigError(f"{file}: transformers cannot read it: {' '.join(str(error).split())[:300]}") from None
    if not tokenizer.chat_template:
        raise ConfigError(
            f"{file} holds no chat template, which agents need: use the original weights of the checkpoint"
        )
    fresh = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    fresh.load_state_dict(loaded.state_dict())
    fresh.generation_config.eos_token_id = tokenizer.eos_token_id
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=".gguf-") as place:  # a killed conversion leaves no half folder
        new = Path(place) / "weights"
        fresh.to(torch.bfloat16).save_pretrained(new)
        tokenizer.save_pretrained(new)
        for path in new.iterdir():  # safetensors gives its files to their owner alone
            path.chmod(0o644)
        new.rename(folder)
