"""What is served: a model under its name, and a copy of it for each adapter with that merged in."""

import argparse
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aem_harness.harness.errors import ConfigError

MOST_PARAMETERS = 1_000_000_000


class BadRequest(Exception):
    """What the client gets to read, and with which status."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, eq=False)
class ServedModel:
    """One model under one name. `ends` are the ids that end a reply; `context` counts prompt and reply."""

    name: str
    root: str
    parent: str | None
    model: Any
    tokenizer: Any
    template: str | None
    context: int
    ends: frozenset[int]
    _tokenizing: threading.Lock = field(default_factory=threading.Lock)  # fast tokenizers are not to be shared
    _texts: dict[int, str] = field(default_factory=dict)

    def chat(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> tuple[int, ...]:
        """The ids of a conversation through the chat template; BadRequest with the template's own words."""
        flat = [{**message, "content": _text(message.get("content"))} for message in messages]
        try:
            with self._tokenizing:
                return tuple(
                    self.tokenizer.apply_chat_template(
                        flat,
                        tools=list(tools) or None,
                        chat_template=self.template,
                        add_generation_prompt=True,
                        return_dict=False,
                    )
                )
        except Exception as error:  # templates raise what they like
            raise BadRequest(f"the conversation does not fit the chat template: {error}") from None

    def encode(self, prompt: str) -> tuple[int, ...]:
        with self._tokenizing:
            return tuple(self.tokenizer.encode(prompt))

    def text(self, number: int) -> str:
        """One id as text, special tokens by name."""
        if number not in self._texts:
            with self._tokenizing:
                self._texts[number] = str(self.tokenizer.decode([number]))
        return self._texts[number]


def load(options: argparse.Namespace) -> Iterator[ServedModel]:
    """The model that `options` name (see `__main__.parse`) and its adapters. ConfigError when it is too large."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    at = {"revision": options.revision}
    config = AutoConfig.from_pretrained(options.model, **at)
    with torch.device("meta"):
        size = AutoModelForCausalLM.from_config(config).num_parameters()
    if size > MOST_PARAMETERS:
        raise ConfigError(
            f"{options.model} has {size / 1e9:.1f} billion parameters, and without vLLM at most "
            f"{MOST_PARAMETERS / 1e9:.0f} billion are served: install it (pip install 'aem-harness[vllm]' on a GPU "
            "machine, else make vllm)"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = "float32" if options.dtype == "auto" and device == "cpu" else options.dtype
    tokenizer = AutoTokenizer.from_pretrained(options.model, **at)
    template = Path(options.chat_template).read_text() if options.chat_template else None
    base = options.served_model_name or options.model
    for name, adapter in {base: "", **dict(words.split("=", 1) for words in options.lora_modules)}.items():
        model: Any = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype, **at)
        ends = model.generation_config.eos_token_id
        if adapter:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
        yield ServedModel(
            name=name,
            root=adapter or options.model,
            parent=base if adapter else None,
            model=model.to(device).eval(),
            tokenizer=tokenizer,
            template=template,
            context=options.max_model_len or getattr(config, "max_position_embeddings", None) or 2048,
            ends=frozenset({tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}),
        )


def _text(content: Any) -> Any:
    """A list of text parts as one text, null (a turn of tool calls alone) as none; anything else as it is."""
    if content is None:
        return ""
    if not isinstance(content, list):
        return content
    return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
