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
from tests.peers import needs
from tests.training.one_batch import ALPHAS, alphas_of, shared_batch

START = str(Path(__file__).parents[2] / "aem_checkpoints" / "tiny-base")
pytestmark = [pytest.mark.extended, pytest.mark.slow, needs("trl")]


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


# --- how turns are sampled --------------------------------------------------------------------------------------------


def likeliest(monkeypatch):
    """Makes every `generate` take the likeliest token, so that two ways of sampling can be held together."""
    from transformers import LlamaForCausalLM

    plain = LlamaForCausalLM.generate
    greedy = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
    monkeypatch.setattr(LlamaForCausalLM, "generate", lambda self, *a, **k: plain(self, *a, **{**k, **greedy}))


def test_turns_that_are_read_from_the_cache_are_those_of_a_conversation_read_anew(tmp_path, monkeypatch):
    """In single precision, rows of different lengths and ends, over all turns."""
    from aem_harness.training.engines.trl import AemGRPOTrainer

    likeliest(monkeypatch)
    trainer = make_trainer(AemGRPOTrainer, tmp_path, settings(max_steps=6))
    player, end = trainer.rollout_func, trainer.processing_class.eos_token_id
    batch = player([str(number) for number in range(8)], trainer)
    turns = []
    for prompt, ids, sampled in zip(batch["prompt_ids"], batch["completion_ids"], batch["env_mask"], strict=True):
        starts = [t for t, own in enumerate(sampled) if own and (t == 0 or not sampled[t - 1] or ids[t - 1] == end)]
        turns.append(len(starts))
        for start in starts:
            stop = next(
                (t for t in range(start, len(ids)) if not sampled[t] or (ids[t - 1] == end and t > start)), len(ids)
            )
            read = torch.tensor([prompt + ids[:start]])
            said = trainer.model.generate(
                read, max_new_tokens=40, eos_token_id=end, pad_token_id=trainer.processing_class.pad_token_id
            )
            assert said[0, read.shape[1] :].tolist() == ids[start:stop]
    assert len(set(turns)) > 1
    assert max(turns) >= 4
    assert batch["logprobs"] is None


def test_rollouts_that_a_limit_ended_stay_out_of_the_loss_where_truncated_ones_shall(tmp_path):
    """TRL itself takes for truncated what a reply's end token does not end (findings/trl-counts-*.sh)."""
    from aem_harness.training.engines.trl import AemGRPOTrainer

    def learned(steps, **arguments):
        trainer = make_trainer(AemGRPOTrainer, tmp_path, settings(max_steps=steps, arguments=arguments))
        batch = trainer.rollout_func([str(number) for number in range(8)], trainer)
        return [any(mask) for mask in batch["env_mask"]]

    assert learned(1) == [True] * 8
    assert learned(1, mask_truncated_completions=True) == [False] * 8
    assert any(learned(8, mask_truncated_completions=True))


class OwnWeights:
    """In the place of TRL's vLLM: what its `generate` returns, by the trained model."""

    def __init__(self, trainer):
        self.trainer = trainer

    def generate(self, prompts, images, num_generations, profiler=None):
        assert images is None
        assert num_generations == 1
        replies, logprobs = [], []
        for ids in prompts:
            out = self.trainer.model.generate(torch.tensor([ids]), max_new_tokens=40)[0, len(ids) :].tolist()
            with torch.no_grad():
                logits = self.trainer.model(torch.tensor([ids + out])).logits[0, len(ids) - 1 : -1]
            replies.append(out)
            logprobs.append([[float(x)] for x in torch.log_softmax(logits, -1).gather(-1, torch.tensor(out)[:, None])])
        return prompts, replies, logprobs, None

    def sync_weights(self): ...


def test_turns_sampled_by_vllm_are_the_same_and_bring_their_log_probabilities(tmp_path, monkeypatch):
    """TRL corrects for vLLM's other numbers token by token, so the environment's words must have a place as well."""
    from aem_harness.training.engines.trl import AemGRPOTrainer

    likeliest(monkeypatch)
    trainer = make_trainer(AemGRPOTrainer, tmp_path, settings(max_steps=6), aem=AemConfig(min_range=0.0))
    prompts = [str(number) for number in range(8)]
    own = trainer.rollout_func(prompts, trainer)
    trainer.use_vllm, trainer.vllm_generation, trainer._last_loaded_step = True, OwnWeights(trainer), 0
    batch = trainer.rollout_func(prompts, trainer)
    for name in ("completion_ids", "env_mask", "reward"):
        assert batch[name] == own[name]
    for ids, sampled, logprobs in zip(batch["completion_ids"], batch["env_mask"], batch["logprobs"], strict=True):
        assert len(ids) == len(sampled) == len(logprobs)
        assert all(logprob == 0 for logprob, mine in zip(logprobs, sampled, strict=True) if not mine)
        assert any(logprob < 0 for logprob in logprobs)
    trainer.model.train()
    scored = trainer._generate_and_score_completions([{"prompt": prompt} for prompt in prompts])
    ratios = scored["importance_sampling_ratio"]
    torch.testing.assert_close(ratios, torch.ones_like(ratios), atol=1e-3, rtol=0)
    assert scored["advantages"].dim() == 2  # modulated, by the entropies of TRL's own pass


def test_vllm_that_several_processes_share_is_refused(tmp_path, monkeypatch):
    """Its calls are collective, and episodes differ in turns: the first to finish would leave the others waiting."""
    from aem_harness.training.engines import trl_run

    monkeypatch.setenv("WORLD_SIZE", "2")
    for more in ({"vllm_tensor_parallel_size": 2}, {"vllm_mode": "server"}):
        with pytest.raises(ConfigError, match="vllm_mode: colocate"):
            trl_run.arguments(settings(arguments={"use_vllm": True, **more}), tmp_path)
    monkeypatch.delenv("WORLD_SIZE")
    made = trl_run.arguments(settings(arguments={"use_vllm": True}, context=500, max_reply=30), tmp_path)
    assert (made.vllm_mode, made.vllm_max_model_length, made.generation_kwargs) == ("colocate", 530, {"max_tokens": 30})


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


def test_demonstrations_come_first_and_teach_a_model_what_it_did_not_know(tmp_path):
    """A model of random weights, by its adapter alone: it then says the teacher's first command."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM

    from aem_harness.training.config import WarmStart
    from aem_harness.training.engines import trl_run

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(START)
    model = get_peft_model(
        LlamaForCausalLM(AutoConfig.from_pretrained(START, dtype="float32")),
        LoraConfig(
            task_type="CAUSAL_LM", r=64, lora_alpha=128, target_modules=["all-linear", "lm_head", "embed_tokens"]
        ),
    )
    frozen = {name: value.clone() for name, value in model.named_parameters() if not value.requires_grad}
    player = trl_run.Player(settings())
    told = []
    losses = trl_run.warm_start(
        model, tokenizer, player, WarmStart(steps=25, batch=8, learning_rate=5e-3), seed=0, report=told.append
    )
    assert losses[-1] < 0.6 * losses[0]
    assert [line["loss"] for line in told] == losses
    assert all(torch.equal(value, frozen[name]) for name, value in model.named_parameters() if name in frozen)


def test_settings_that_want_vllm_say_so_where_it_is_missing(tmp_path):
    from importlib.util import find_spec

    from aem_harness.training.engines import trl_run

    if find_spec("vllm"):
        pytest.skip("vLLM is installed beside TRL")
    with pytest.raises(ConfigError, match=r"-c arguments.use_vllm=false"):
        trl_run.check(settings(arguments={"use_vllm": True}), tmp_path / "run", resume=False)
