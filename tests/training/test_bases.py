"""Advantages and losses of every named base against plain loops, and against TRL's and verl's own functions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aem_harness.harness.errors import ConfigError
from aem_harness.training.advantages import group_normalised, informative, leave_one_out, overlong_penalty
from aem_harness.training.bases import BASES, base_advantages, base_named
from aem_harness.training.loss import LossConfig, logprobs_and_entropies, policy_loss

ROWS, WIDTH = 6, 9
BASE_NAMES = list(BASES)


def made_batch(seed=0, spread=0.3):
    """Log-probabilities a few updates apart, advantages that differ by token, a mask with holes."""
    random = torch.Generator().manual_seed(seed)
    old = -3 * torch.rand(ROWS, WIDTH, generator=random, dtype=torch.float64)
    new = (old + spread * torch.randn(ROWS, WIDTH, generator=random, dtype=torch.float64)).requires_grad_()
    advantages = torch.randn(ROWS, WIDTH, generator=random, dtype=torch.float64)
    mask = (torch.rand(ROWS, WIDTH, generator=random) < 0.7).double()
    mask[:, 0] = 1
    entropies = torch.rand(ROWS, WIDTH, generator=random, dtype=torch.float64).requires_grad_()
    return new, old, advantages, mask, entropies


def loss_by_loops(config, new, old, advantages, mask, entropies):
    """The definitions, one token at a time (arXiv 2402.03300, 2503.14476, 2507.18071; DeepSWE)."""
    per_rollout, count, bonus = [], 0, 0.0
    for i in range(ROWS):
        tokens = [t for t in range(WIDTH) if mask[i][t]]
        sequence = math.exp(sum(new[i][t] - old[i][t] for t in tokens) / len(tokens))
        terms = []
        for t in tokens:
            rho = sequence if config.ratio == "sequence" else math.exp(new[i][t] - old[i][t])
            clipped = min(max(rho, 1 - config.clip_low), 1 + config.clip_high)
            terms.append(min(rho * advantages[i][t], clipped * advantages[i][t]))
            bonus += entropies[i][t]
        count += len(tokens)
        per_rollout.append(terms)
    if config.mean == "rollout":
        objective = sum(sum(terms) / len(terms) for terms in per_rollout) / ROWS
    elif config.mean == "token":
        objective = sum(map(sum, per_rollout)) / count
    else:
        objective = sum(sum(terms) / config.length_norm for terms in per_rollout) / ROWS
    return -objective - config.entropy * bonus / count


@pytest.mark.parametrize("name", BASE_NAMES)
def test_loss_of_every_base_equals_a_loop_over_its_definition(name):
    new, old, advantages, mask, entropies = made_batch()
    config = BASES[name].loss
    loss = policy_loss(new, old, advantages, mask, config, entropies_B_T=entropies).value
    expected = loss_by_loops(config, *(x.tolist() for x in (new.detach(), old, advantages, mask, entropies.detach())))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", BASE_NAMES)
def test_on_policy_gradient_is_the_plain_policy_gradient_of_each_token(name):
    """At ratio 1 nothing is clipped: d loss / d log pi_t = -A_t times the token's weight in the mean."""
    new, _, advantages, mask, entropies = made_batch(spread=0.0)
    config = BASES[name].loss
    policy_loss(new, new.detach(), advantages, mask, config, entropies_B_T=entropies).value.backward()
    weight = {
        "rollout": 1 / (ROWS * mask.sum(1, keepdim=True)),
        "token": torch.full((ROWS, 1), 1 / float(mask.sum()), dtype=torch.float64),
        "constant": torch.full((ROWS, 1), 1 / (ROWS * (config.length_norm or 1)), dtype=torch.float64),
    }[config.mean]
    torch.testing.assert_close(new.grad, -advantages * mask * weight)


def test_clipping_stops_the_gradient_only_on_the_side_that_went_too_far():
    old = torch.zeros(1, 4, dtype=torch.float64)
    new = torch.tensor([[0.5, 0.5, -0.5, -0.5]], dtype=torch.float64, requires_grad=True)
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0]], dtype=torch.float64)
    result = policy_loss(new, old, advantages, torch.ones(1, 4), LossConfig())
    result.value.backward()
    assert (new.grad != 0).tolist() == [[False, True, True, False]]
    assert float(result.stats["clip_fraction"]) == 0.5


def test_clip_higher_lets_rare_tokens_grow_further():
    old, advantages = torch.zeros(1, 1), torch.ones(1, 1)
    gradients = {}
    for name in ("grpo", "dapo"):
        new = torch.tensor([[math.log(1.25)]], requires_grad=True)
        policy_loss(new, old, advantages, torch.ones(1, 1), BASES[name].loss).value.backward()
        gradients[name] = float(new.grad)
    assert gradients["grpo"] == 0.0
    assert gradients["dapo"] < 0.0


def test_sequence_ratio_keeps_token_wise_advantages_apart():
    new, old, advantages, mask, _ = made_batch(spread=1e-5)
    policy_loss(new, old, advantages, mask, BASES["gspo"].loss).value.backward()
    on_mask = mask.bool()
    assert (torch.sign(new.grad)[on_mask] == -torch.sign(advantages)[on_mask]).all()


def test_k3_term_is_zero_at_the_reference_and_positive_elsewhere():
    new, old, advantages, mask, _ = made_batch()
    config = LossConfig(kl=0.1)
    at = policy_loss(new, old, advantages, mask, config, reference_logprobs_B_T=new.detach())
    away = policy_loss(new, old, advantages, mask, config, reference_logprobs_B_T=old)
    assert float(at.stats["kl"]) == pytest.approx(0.0)
    assert float(away.stats["kl"]) > 0
    assert float((away.value - at.value).detach()) == pytest.approx(0.1 * float(away.stats["kl"]))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LossConfig(kl=0.1), "reference"),
        (LossConfig(entropy=0.1), "entropies"),
        (LossConfig(mean="constant"), "length_norm"),
    ],
)
def test_a_term_without_its_input_is_named(config, message):
    new, old, advantages, mask, _ = made_batch()
    with pytest.raises(ConfigError, match=message):
        policy_loss(new, old, advantages, mask, config)


def test_an_unknown_base_lists_the_known_ones():
    with pytest.raises(ConfigError, match="grpo, grpo_entropy_bonus, dapo"):
        base_named("ppo")


# --- advantages -------------------------------------------------------------------------------------------------------

rewards_in_groups = st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=24)


@given(rewards_in_groups)
def test_advantages_equal_loops_over_their_definitions(pairs):
    groups, rewards = zip(*pairs, strict=True)
    normalised, loo = [], []
    for i, (group, reward) in enumerate(pairs):
        members = [r for g, r in pairs if g == group]
        others = [r for j, (g, r) in enumerate(pairs) if g == group and j != i]
        std = np.std(members, ddof=1) if others else 1.0
        normalised.append((reward - np.mean(members)) / (std + 1e-6))
        loo.append(reward - np.mean(others) if others else 0.0)
    arguments = torch.tensor(rewards, dtype=torch.float64), torch.tensor(groups)
    np.testing.assert_allclose(group_normalised(*arguments), normalised, atol=1e-9)
    np.testing.assert_allclose(leave_one_out(*arguments), loo, atol=1e-9)
    assert informative(*arguments).tolist() == [len({r for g, r in pairs if g == group}) > 1 for group in groups]


@pytest.mark.parametrize("advantage", [group_normalised, leave_one_out])
@pytest.mark.parametrize("kind", [torch.int64, torch.int32, torch.bool, torch.float16])
def test_whole_rewards_give_the_advantages_of_the_same_floats(advantage, kind):
    groups = torch.tensor([0, 0, 0, 0, 1, 1])
    rewards = torch.tensor([1.0, 0, 0, 1, 1, 0])
    torch.testing.assert_close(advantage(rewards.to(kind), groups), advantage(rewards, groups))


@given(st.integers(2, 17), st.floats(-3, 3, width=32))
def test_equal_rewards_give_exactly_zero_whatever_their_value(size, reward):
    """Also where the mean of equal numbers is rounded: a deviation of rounding errors divided by itself is not zero."""
    for rewards in (torch.full((size,), reward), torch.full((size,), reward, dtype=torch.float64)):
        groups = torch.zeros(size, dtype=torch.long)
        assert not informative(rewards, groups).any()
        assert not group_normalised(rewards, groups).any()
        assert not leave_one_out(rewards, groups).any()


def test_equal_rewards_that_were_added_up_in_another_order_are_equal():
    rewards = torch.tensor([0.1 + 0.2, 0.3, 0.3, 0.1 + 0.2], dtype=torch.float64)
    assert not group_normalised(rewards, torch.zeros(4, dtype=torch.long)).any()


def test_a_ruled_out_token_adds_nothing_to_the_entropy_nor_to_its_gradient():
    logits = torch.tensor([[[0.3, -torch.inf, 1.0], [0.0, 0.0, -torch.inf]]], requires_grad=True)
    logprobs, entropies = logprobs_and_entropies(logits, torch.tensor([[0, 1]]))
    without = torch.log_softmax(torch.tensor([0.3, 1.0]), 0)
    torch.testing.assert_close(entropies[0], torch.stack([-(without.exp() * without).sum(), torch.tensor(2.0).log()]))
    (entropies.sum() + logprobs.sum()).backward()
    assert torch.isfinite(logits.grad).all()


def test_a_group_of_one_gives_zero():
    for name in BASE_NAMES:
        assert base_advantages(BASES[name], torch.tensor([1.0]), torch.tensor([5])).tolist() == [0.0]


def test_overlong_penalty_grows_linearly_in_the_cache_zone():
    lengths = torch.tensor([10, 80, 90, 100, 120])
    assert overlong_penalty(lengths, max_length=100, cache=20).tolist() == [0.0, 0.0, -0.5, -1.0, -1.0]


# --- TRL as second computation ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trl_trainer(tmp_path_factory):
    """TRL's own GRPOTrainer around a two-layer random model; its `_compute_loss` is what TRL trains with."""
    pytest.importorskip("trl")
    import os

    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=20,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
        )
    )
    words = {f"w{k}": k for k in range(20)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0")), pad_token="w1", eos_token="w2"
    )

    def make(**options):
        folder = tmp_path_factory.mktemp("trl")
        arguments = GRPOConfig(
            output_dir=str(folder),
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=7,
            report_to=[],
            use_cpu=True,
            bf16=False,
            **options,
        )
        trainer = GRPOTrainer(
            model=model,
            args=arguments,
            processing_class=tokenizer,
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            train_dataset=Dataset.from_dict({"prompt": ["w3 w4"] * 4}),
        )
        trainer.current_gradient_accumulation_steps = 1
        return trainer

    return make


TRL_OPTIONS = {
    "grpo": {"loss_type": "grpo", "epsilon": 0.2},
    "grpo_entropy_bonus": {"loss_type": "grpo", "epsilon": 0.2, "entropy_coef": 0.01},
    "dapo": {"loss_type": "dapo", "epsilon": 0.2, "epsilon_high": 0.28},
    "gspo": {
        "loss_type": "grpo",
        "epsilon": 3e-4,
        "epsilon_high": 4e-4,
        "importance_sampling_level": "sequence",
    },
    "grpo++": {"loss_type": "dr_grpo", "epsilon": 0.2, "epsilon_high": 0.28},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BASE_NAMES)
def test_loss_of_every_base_equals_trl(trl_trainer, name):
    trainer = trl_trainer(beta=0.0, **TRL_OPTIONS[name])
    model = trainer.model.eval()
    random = torch.Generator().manual_seed(3)
    prompt, completion = torch.randint(3, 20, (4, 2), generator=random), torch.randint(3, 20, (4, 7), generator=random)
    tool_mask = (torch.rand(4, 7, generator=random) < 0.7).int()
    tool_mask[:, 0] = 1
    ids = torch.cat([prompt, completion], 1)
    with torch.no_grad():
        logits = model(ids).logits[:, 1:-1]
        logprobs, entropies = logprobs_and_entropies(logits, completion)
    old = logprobs + 0.2 * torch.randn(4, 7, generator=random)
    advantages = torch.randn(4, 7, generator=random)
    theirs = trainer._compute_loss(
        model,
        {
            "prompt_ids": prompt,
            "prompt_mask": torch.ones_like(prompt),
            "completion_ids": completion,
            "completion_mask": torch.ones_like(completion),
            "tool_mask": tool_mask,
            "advantages": advantages,
            "old_per_token_logps": old,
            "num_items_in_batch": tool_mask.sum(),
        },
    )
    config = BASES[name].loss
    if config.mean == "constant":
        config = config.model_copy(update={"length_norm": 7})
    ours = policy_loss(logprobs, old, advantages, tool_mask, config, entropies_B_T=entropies)
    assert float(ours.value) == pytest.approx(float(theirs.detach()), rel=1e-5)


def test_overlong_penalty_equals_trl():
    rewards = pytest.importorskip("trl.rewards")
    lengths = [3, 8, 9, 10, 11, 12, 15, 16, 17, 30]
    theirs = rewards.get_soft_overlong_punishment(16, 8)([[0] * length for length in lengths])
    assert overlong_penalty(torch.tensor(lengths), max_length=16, cache=8).tolist() == theirs


# --- verl as second computation ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def verl_core():
    return pytest.importorskip("verl.trainer.ppo.core_algos", exc_type=ImportError)


@pytest.mark.slow
def test_advantages_equal_verl(verl_core):
    rewards = torch.tensor([1.0, 0, 0, 1, 1, 1, 0, 0.5])
    groups = np.array([0, 0, 1, 1, 0, 2, 2, 1])
    mask = torch.ones(8, 3)
    token_rewards = torch.zeros(8, 3)
    token_rewards[:, -1] = rewards
    grpo, _ = verl_core.compute_grpo_outcome_advantage(token_rewards, mask, groups)
    rloo, _ = verl_core.compute_rloo_outcome_advantage(token_rewards, mask, groups)
    torch.testing.assert_close(group_normalised(rewards, torch.tensor(groups)), grpo[:, 0])
    torch.testing.assert_close(leave_one_out(rewards, torch.tensor(groups)), rloo[:, 0])


VERL_AGGREGATION = {"rollout": "seq-mean-token-mean", "token": "token-mean", "constant": "seq-mean-token-sum-norm"}


@pytest.mark.slow
@pytest.mark.parametrize("name", BASE_NAMES)
def test_loss_and_gradient_of_every_base_equal_verl(verl_core, name):
    from verl.workers.config import ActorConfig

    base = BASES[name].loss
    config = ActorConfig(
        strategy="fsdp",
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=1,
        clip_ratio=base.clip_low,
        clip_ratio_low=base.clip_low,
        clip_ratio_high=base.clip_high,
        clip_ratio_c=1e6,  # dual clip is verl's own addition
    )
    if base.mean == "constant":
        config.global_batch_info["loss_scale_factor"] = base.length_norm
    verl_loss = verl_core.get_policy_loss_fn("gspo" if base.ratio == "sequence" else "vanilla")
    new, old, advantages, mask, entropies = made_batch()
    theirs, _ = verl_loss(old, new, advantages, mask, VERL_AGGREGATION[base.mean], config)
    if base.entropy:
        theirs = theirs - base.entropy * verl_core.agg_loss(entropies, mask, "token-mean")
    ours = policy_loss(new, old, advantages, mask, base, entropies_B_T=entropies).value
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-6)
    gradients = [torch.autograd.grad(loss, new, retain_graph=True)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9)
