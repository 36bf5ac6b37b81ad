"""The world in which exploration matters, its training runs, and the answers that are drawn from them."""

import itertools
import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.errors import ConfigError
from aem_harness.training import certificate, ensemble
from aem_harness.training.bases import BASES
from aem_harness.training.ensemble import ARMS, EnsembleConfig, ensemble_config, run
from aem_harness.training.exploration import WorldConfig, Worlds

SMALL = EnsembleConfig(world=WorldConfig(tasks=2, doors=2, turns=4), seeds=3, steps=10)


def world(**changes):
    return Worlds(WorldConfig(**{"tasks": 2, "doors": 2, "turns": 3, **changes}), 2, seed=0)


def test_the_exact_chance_of_success_is_what_sampling_finds():
    one = world(group=4000)
    tables = one.start()
    played = one.play(tables, torch.Generator().manual_seed(0))
    sampled = played.rewards_B.view(2, -1).mean(1)
    torch.testing.assert_close(one.success(tables), sampled, atol=0.02, rtol=0)


def test_the_entropy_of_a_state_is_the_sum_over_all_its_responses():
    one = world()
    tables = one.start()
    log_plans = tables.plans_S_M.detach().log_softmax(-1)[0]
    log_words = tables.words_S_M_L_K.detach().log_softmax(-1)[0]
    total = 0.0
    for plan, length in enumerate(one.config.lengths):
        for words in itertools.product(range(one.config.words), repeat=length - 1):
            log_p = log_plans[plan] + sum(log_words[plan, place, word] for place, word in enumerate(words))
            total -= float(log_p.exp() * log_p)
    assert float(one.state_entropy(tables)[0]) == pytest.approx(total, rel=1e-5)


def test_mean_surprisal_of_the_responses_of_a_state_is_its_entropy():
    one = world(tasks=1, doors=1, turns=1, group=20000)
    tables = one.start()
    played = one.play(tables, torch.Generator().manual_seed(1))
    logprobs, _, mask = one.score(tables, played)
    surprisal = -(logprobs * mask).sum(1).view(2, -1).mean(1)
    torch.testing.assert_close(surprisal, one.state_entropy(tables), atol=0.02, rtol=0)


@pytest.mark.parametrize("base", list(BASES))
def test_every_world_is_a_training_run_of_its_own(base):
    """Its curve is the same whichever worlds are trained beside it."""
    both = Worlds(SMALL.world, 2, seed=0)
    settings = SMALL.model_copy(update={"base": base})
    tables = both.start()
    played = both.play(tables, torch.Generator().manual_seed(0))
    step = ensemble.prepare(both, tables, played, BASES[base], settings.method)
    logprobs, entropies, _ = both.score(tables, played)
    chosen = [logprobs, step.logprobs_B_T, step.modulation.advantages_B_T, step.trained_B_T, entropies]
    whole = ensemble.gradient(both, tables, BASES[base].loss, *chosen)
    rows = len(logprobs) // 2
    silenced = [*chosen[:2], torch.cat([chosen[2][:rows], torch.zeros_like(chosen[2][rows:])]), *chosen[3:]]
    alone = ensemble.gradient(both, tables, BASES[base].loss, *silenced)
    for left, right in zip(whole, alone, strict=True):
        torch.testing.assert_close(left[: len(left) // 2], right[: len(right) // 2])


def test_arms_differ_in_what_they_are_named_for():
    rate = ensemble.learning_rate(SMALL)
    found = {arm: run(arm, SMALL, rate=rate) for arm in ARMS}
    first = {arm: {name: values[0] for name, values in measures.items()} for arm, measures in found.items()}
    assert all(torch.equal(first[arm]["success"], first["base"]["success"]) for arm in ARMS)  # the same start
    assert torch.all(first["base"]["gradient_norm_ratio"] == 1)
    torch.testing.assert_close(first["step_matched"]["step_length"], first["aem"]["step_length"])
    torch.testing.assert_close(first["step_matched"]["gradient_cosine"], first["aem"]["gradient_cosine"])
    assert not torch.allclose(first["reversed"]["step_length"], first["aem"]["step_length"])
    torch.testing.assert_close(first["shuffled"]["alpha_spread"], first["aem"]["alpha_spread"])
    assert not torch.allclose(first["shuffled"]["gradient_cosine"], first["aem"]["gradient_cosine"])
    assert not torch.allclose(first["entropy_bonus"]["step_length"], first["base"]["step_length"])


def test_the_same_settings_give_the_same_curves():
    left, right = (run("aem", SMALL) for _ in range(2))
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("base", [name for name in BASES if name != "grpo"])
def test_the_first_step_of_every_base_is_as_long_as_that_of_grpo(base):
    lengths = {}
    for name in ("grpo", base):
        config = SMALL.model_copy(update={"base": name, "seeds": 8})
        lengths[name] = float(run("base", config)["step_length"][0].mean())
    assert lengths[base] == pytest.approx(lengths["grpo"], rel=0.35)  # another batch than the one it was set on


# --- answers ----------------------------------------------------------------------------------------------------------


def test_the_interval_covers_a_known_mean_as_often_as_it_says():
    random = np.random.default_rng(0)
    hits = sum(a.low <= 0.3 <= a.high for a in (certificate.answer(random.normal(0.3, 1, 12)) for _ in range(2000)))
    assert 0.935 < hits / 2000 < 0.965


def test_an_effect_of_the_detectable_size_is_found_four_times_in_five():
    random = np.random.default_rng(1)
    effect = certificate.POWER / 64**0.5
    found = sum(certificate.answer(random.normal(effect, 1, 64)).p < 0.05 for _ in range(2000))
    assert 0.76 < found / 2000 < 0.83


def test_no_difference_is_called_one_and_a_planted_one_is_found():
    random = np.random.default_rng(2)
    same = random.normal(0.5, 0.1, 64)
    arms = {arm: dict.fromkeys(certificate.OUTCOMES, same) for arm in ARMS}
    arms["aem"] = arms["aem"] | {"success_final": same + random.normal(0.1, 0.02, 64)}
    verdicts = [certificate.verdict(answer, p) for _, answer, p in certificate.answers(arms)]
    assert verdicts[:3] == ["no difference detected", "positive", "no difference detected"]


# --- the command ------------------------------------------------------------------------------------------------------


def test_aem_train_verifies_a_method_and_writes_the_certificate(tmp_path):
    words = [
        "train",
        "--verify-method",
        "-c",
        "method.lam=2",
        "--set",
        "base=dapo",
        "--out",
        str(tmp_path),
    ]  # --set: as it was called
    for setting in ("seeds=2", "steps=10", "world.tasks=2", "world.doors=2", "world.turns=3"):
        words += ["-c", setting]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "lambda 2" in result.output
    facts = json.loads((tmp_path / "certificate.json").read_text())
    assert facts["settings"]["base"] == "dapo"
    assert [one["question"] for one in facts["answers"]] == [question.text for question in certificate.HYPOTHESES]
    assert len((tmp_path / "outcomes.csv").read_text().splitlines()) == 1 + 2 * len(ARMS)
    assert (tmp_path / "certificate.svg").is_file()
    assert "step_matched" in (tmp_path / "certificate.md").read_text()


def test_a_configuration_gives_its_method_and_base():
    config = ensemble_config("tiny-aem-reversed")
    assert (config.base, config.method.direction) == ("grpo", "reversed")
    assert ensemble_config("tiny-gspo").updates > 1


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        (None, ["method.lamda=1"], "lamda"),
        (None, ["base=ppo"], "unknown base"),
        (None, ["method.scope=batch"], "would mix them"),
        ("tiny-trl", [], "no configuration of the reference trainer"),
    ],
)
def test_what_cannot_be_verified_is_named(name, overrides, message):
    with pytest.raises(ConfigError, match=message):
        ensemble_config(name, overrides)


def test_training_without_a_configuration_is_a_usage_error():
    result = CliRunner().invoke(app, ["train"])
    assert isinstance(result.exception, ConfigError)
    assert "--config" in str(result.exception)
