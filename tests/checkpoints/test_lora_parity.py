"""An adapter served by vLLM says what PEFT says of it: patterns of rank and alpha, rank-stabilised scaling, embeddings.
And so does the base model beside them.

Both sides compute in single precision, which the cards say and the server's record shows.
"""

import shutil
from typing import Any

import pytest

from aem_harness.aem_checkpoints import client
from aem_harness.aem_checkpoints.adding import add, cards
from aem_harness.aem_checkpoints.fingerprint import base_it_equals, fingerprint
from aem_harness.aem_checkpoints.registry import Registry
from aem_harness.aem_checkpoints.serving import Server
from tests.peers import needs

pytestmark = [
    pytest.mark.extended,
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.usefixtures("vllm"),
    needs("peft"),
]

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ADAPTERS: dict[str, dict[str, Any]] = {
    "rank-pattern": {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ATTENTION,
        "rank_pattern": {"q_proj": 16, r"layers\.1\..*v_proj": 2},
    },
    "alpha-pattern": {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ATTENTION,
        "alpha_pattern": {"q_proj": 32, r"layers\.0\..*o_proj": 1},
    },
    "rank-stabilised": {"r": 16, "lora_alpha": 16, "use_rslora": True, "target_modules": [*ATTENTION, "down_proj"]},
    "lm-head": {"r": 4, "lora_alpha": 8, "target_modules": ["lm_head", "gate_proj"]},
    "embeddings": {"r": 4, "lora_alpha": 8, "target_modules": ["embed_tokens", "up_proj"]},
    "all-of-it": {
        "r": 8,
        "lora_alpha": 8,
        "use_rslora": True,
        "target_modules": [*ATTENTION, "lm_head", "embed_tokens"],
        "rank_pattern": {"k_proj": 32},
        "alpha_pattern": {"v_proj": 2},
    },
}
WITHIN = 6e-5  # nats; the largest seen is 2e-6


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A random policy with an output layer of its own, a random adapter of each kind on it, and one of it compiled."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("registry")
    shipped = Registry().get("tiny-base").folder
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=640, max_position_embeddings=512, tie_word_embeddings=False, **shape)
    LlamaForCausalLM(config).save_pretrained(folder / "weights")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(shipped / name, folder / "weights" / name)
    serving = {"dtype": "float32", "max_model_len": 512, "flags": {"enforce-eager": True}}
    values: dict[str, Any] = {"path": str(folder / "weights"), "serving": serving}
    for card in cards("base", values, folder):
        add(card, folder)
    for name, settings in {**ADAPTERS, "compiled": {"r": 4, "target_modules": ATTENTION}}.items():
        base = LlamaForCausalLM.from_pretrained(folder / "weights", dtype=torch.float32)
        base = torch.compile(base) if name == "compiled" else base
        adapted = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **settings))
        adapted.save_pretrained(folder / f"{name}-weights", save_embedding_layers=False)
        for card in cards(name, {"path": str(folder / f"{name}-weights"), "base_model": "base"}, folder):
            add(card, folder)
    return Registry(folder)


def by_peft(known: Registry, name: str, ids: list[int]) -> list[float]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(known.get("base").folder, dtype=torch.float32)
    if name != "base":
        model = PeftModel.from_pretrained(model, known.get(name).folder)
    with torch.no_grad():
        logprobs_T_V = torch.log_softmax(model.eval()(torch.tensor([ids])).logits[0], -1)
    return logprobs_T_V[:-1].gather(-1, torch.tensor(ids)[1:, None])[:, 0].tolist()


def by_vllm(url: str, name: str, ids: list[int]) -> list[float]:
    body = {"model": name, "prompt": ids, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
    (choice,) = client.post(f"{client.root(url)}/v1/completions", body)["choices"]
    told = choice["prompt_logprobs"][1:]  # nothing precedes the first
    return [one[str(token)]["logprob"] for token, one in zip(ids[1:], told, strict=True)]


def test_adapters_and_their_base_served_by_vllm_are_peft_s_in_single_precision(known, tmp_path, record_property):
    import torch

    ids = torch.randint(5, 640, (96,), generator=torch.Generator().manual_seed(1)).tolist()
    names = ("base", *ADAPTERS)
    with Server([known.get(name) for name in (*names, "compiled")], known, tmp_path / "server.log") as server:
        assert server.dtype == "float32"
        shown = fingerprint(server.url, "all-of-it", known.get("all-of-it"), known, server.dtype)
        assert shown["server"]["dtype"] == "float32"
        alone = {name: by_vllm(server.url, name, ids) for name in names}
        assert base_it_equals(server.url, "compiled") == "base", "or vLLM says by now that its tensors fit no layer"
        assert not any(base_it_equals(server.url, name) for name in names)
    expected = {name: by_peft(known, name, ids) for name in names}
    for name in ADAPTERS:
        assert apart(expected[name], expected["base"]) > 0.01, f"{name} changes nothing"
    shift = {name: apart(found, expected[name]) for name, found in alone.items()}
    record_property("nats", shift)
    print(shift)
    assert max(shift.values()) < WITHIN


def apart(left: list[float], right: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(left, right, strict=True))
