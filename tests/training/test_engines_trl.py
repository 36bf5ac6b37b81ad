"""TRL with modulation: real training steps of the shipped tiny policy in the bug-fix world, multi-turn, on a CPU."""

import json
import os
from pathlib import Path

import pytest
import torch

from aem_harness.aem_checkpoints.registry import Registry
from aem_harness.harness.errors import ConfigError
from aem_harness.training.aem import AemConfig, modulate
from aem_harness.training.config import TrlConfig
from tests.training.one_batch import ALPHAS, alphas_of, shared_batch

pytest.importorskip("trl")
START = str(Path(__file__).parents[2] / "aem_checkpoints" / "tiny-base")
pytestmark = [pytest.mark.extended, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def eager():
    """Nothing to gain by compiling two steps of a tiny model."""
    os.environ["TORCHDYNAMO_DISABLE"] = "1"


def settings(**changes):
    values = {"kind": "trl", "name": "tiny", "start": START, "steps": 2, "prompts": 2, "group": 4, "tasks": 50}
    return TrlConfig.model_validate(
        {**values, "learning_rate": 1e-3, "threads": 1, "checkpoint_every": 1, "max_steps": 4, **changes}
    )


def make_trainer(cls, folder, config, **options):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from aem_harness.training.engines import trl_run

    torch.manual_seed(0)
    return cls(
        AutoModelForCausalLM.from_pretrained(START, dtype=torch.float32),
        reward_funcs=[trl_run.episode_reward],
        args=trl_run.arguments(config, folder),
        train_dataset=trl_run.dataset(config),
        processing_class=AutoTokenizer.from_pretrained(START),
        rollout_func=trl_run.Player(config),
        **options,
    )


def trained(cls, folder, config, **options):
    """(weights, loss of every step) after training."""
    trainer = make_trainer(cls, folder, config, **options)
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}, losses


# --- the shared batch -------------------------------------------------------------------------------------------------


def by_reference(batch, tmp_path):
    return modulate(batch.advantages_B, batch.entropies_B_T, batch.mask_B_T, list(batch.groups)).advantages_B_T


def by_trl(batch, tmp_path):
    from aem_harness.training.engines.trl import AemGRPOTrainer

    config = settings(group=2)
    trainer = make_trainer(AemGRPOTrainer, tmp_path, config, aem=AemConfig())
    trainer._scored.append((batch.logprobs_B_T, batch.entropies_B_T))  # as TRL's pass for its ratio leaves them
    inside = torch.tensor([[int(t < length) for t in range(batch.mask_B_T.shape[1])] for length in batch.lengths])
    nothing = torch.zeros_like(inside)
    return trainer._modulated(
        {
            "prompt_ids": nothing,
            "prompt_mask": nothing,
            "completion_ids": nothing,
            "completion_mask": inside,
            "tool_mask": torch.where(inside.bool(), batch.mask_B_T.long(), 1),  # TRL pads this mask with ones
            "advantages": batch.advantages_B,
            "old_per_token_logps": batch.logprobs_B_T,
        }
    )


@pytest.mark.parametrize("engine", [by_reference, by_trl])
def test_the_shared_batch_gives_the_worked_alphas(engine, tmp_path):
    batch = shared_batch()
    advantages_B_T = engine(batch, tmp_path)
    assert alphas_of(advantages_B_T, batch) == pytest.approx(ALPHAS, abs=5e-5)
    assert (advantages_B_T[batch.mask_B_T == 0] == 0).all()


# --- real steps -------------------------------------------------------------------------------------------------------


def test_without_modulation_training_is_trl_s_own_to_the_last_bit(tmp_path):
    from trl import GRPOTrainer

    from aem_harness.training.engines.trl import AemGRPOTrainer

    theirs, their_losses = trained(GRPOTrainer, tmp_path / "theirs", settings())
    ours, our_losses = trained(AemGRPOTrainer, tmp_path / "ours", settings(), aem=None)
    changed, _ = trained(AemGRPOTrainer, tmp_path / "aem", settings(), aem=AemConfig(min_range=0.0))
    assert our_losses == their_losses
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    assert any(not torch.equal(theirs[name], changed[name]) for name in theirs)


def test_strength_zero_trains_what_the_base_trains(tmp_path):
    """Advantages then go to TRL's loss one a token instead of one a rollout, and must mean the same there."""
    from aem_harness.training.engines.trl import AemGRPOTrainer

    base, _ = trained(AemGRPOTrainer, tmp_path / "base", settings(steps=1), aem=None)
    zero, _ = trained(AemGRPOTrainer, tmp_path / "zero", settings(steps=1), aem=AemConfig(lam=0.0, min_range=0.0))
    for name in base:
        torch.testing.assert_close(zero[name], base[name], atol=1e-5, rtol=1e-4)


def test_a_run_that_was_killed_goes_on_with_the_same_numbers_and_ends_in_a_checkpoint_with_its_card(tmp_path):
    from aem_harness.training.run import train

    config = settings(steps=3, aem={"lam": 1.0, "min_range": 0.05})
    through = train(config, tmp_path / "through")

    class Killed(BaseException):
        pass

    def die_at_two(metrics):
        if metrics["step"] == 2:
            raise Killed

    with pytest.raises(Killed):
        train(config, tmp_path / "killed", report=die_at_two)
    with pytest.raises(ConfigError, match="--resume"):
        train(config, tmp_path / "killed")
    with pytest.raises(ConfigError, match="other settings"):
        train(settings(steps=3, aem={"lam": 0.5}), tmp_path / "killed", resume=True)
    resumed = train(config, tmp_path / "killed", resume=True)

    def numbers(folder):
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [(line["step"], line["loss"], line["reward"], line["alpha_max"]) for line in lines]

    assert [line[0] for line in numbers(tmp_path / "through")] == [1, 2, 3]
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "through")
    assert (resumed / "model.safetensors").read_bytes() == (through / "model.safetensors").read_bytes()

    (entry,) = [entry for entry in Registry(tmp_path / "through").entries() if entry.file.is_relative_to(tmp_path)]
    assert entry.problems() == []
    assert entry.card.method.kind == "aem"
    assert entry.card.method.parameters["min_range"] == 0.05
    assert entry.card.parent == "tiny-base"
    assert entry.card.training.seeds == (0,)


def test_another_trl_is_refused_by_what_it_lacks():
    from trl import GRPOTrainer

    from aem_harness.training.engines.trl import missing_hooks

    class Renamed(GRPOTrainer):
        _generate_and_score_completions = None

    class Narrower(GRPOTrainer):
        def _get_per_token_logps_and_entropies(self, model, input_ids): ...

    assert missing_hooks() == []
    assert missing_hooks(Renamed) == ["GRPOTrainer._generate_and_score_completions"]
    assert "parameter compute_entropy of GRPOTrainer._get_per_token_logps_and_entropies" in missing_hooks(Narrower)


def test_an_adapter_is_trained_and_registered_as_one_on_its_start(tmp_path, monkeypatch):
    """And of two processes of one run, only the first writes."""
    from aem_harness.aem_checkpoints import adding
    from aem_harness.training.engines import trl_run

    monkeypatch.chdir(tmp_path)
    config = settings(start="tiny-base", steps=1, aem={}, lora={"r": 4, "target_modules": ["q_proj", "v_proj"]})
    folder = trl_run.train(config, tmp_path / "run")
    assert (folder / "adapter_model.safetensors").is_file()
    assert not (folder / "model.safetensors").exists()
    (card,) = adding.cards("mine", {"path": str(folder)}, tmp_path / "r")
    assert (card.weights, card.base_model, card.parent, card.method.kind) == ("lora", "tiny-base", "tiny-base", "aem")
    adding.add(card, tmp_path / "r")
    registry = Registry(tmp_path / "r")
    assert registry.base(registry.get("mine")).card.name == "tiny-base"
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1]
    monkeypatch.setenv("RANK", "1")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()}
    trl_run._callback(tmp_path / "run" / "metrics.jsonl", lambda _: None, None)
    assert {path: path.stat().st_mtime_ns for path in before} == before
