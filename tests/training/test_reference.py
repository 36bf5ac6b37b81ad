"""The reference trainer on the shipped warm start: what a step computes, and that a killed run loses nothing."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from aem_harness.aem_checkpoints.card import CARD, Card, Training, read_card
from aem_harness.aem_checkpoints.registry import Registry
from aem_harness.agents.templates import Prompts
from aem_harness.cli import app
from aem_harness.commands.train import _change as change_shown
from aem_harness.harness.errors import ConfigError
from aem_harness.harness.types import ExitStatus
from aem_harness.training import reference
from aem_harness.training.checkpoint import changed_share, load_policy, load_state
from aem_harness.training.config import RlConfig, WarmStartConfig, find_config, load_config
from aem_harness.training.environment import Skill, demonstration
from aem_harness.training.folder import read_metrics
from aem_harness.training.loss import logprobs_and_entropies
from aem_harness.training.rollouts import EpisodeLimits, demonstrated
from aem_harness.training.run import slow_here, train
from aem_harness.training.start import policy_folder
from aem_harness.training.tasks import tasks
from aem_harness.training.tokenizer import Chat

ROOT = Path(__file__).parents[2]
START = str(ROOT / "aem_checkpoints" / "tiny-base")
SMALL: dict = {
    "steps": 2,
    "prompts": 3,
    "group": 4,
    "tasks": 40,
    "max_steps": 4,
    "evaluate_tasks": 1,
    "checkpoint_every": 1,
    "threads": 1,
    "bfloat16": False,  # which many CPUs only emulate, at several times the cost
}


def config(**changes) -> RlConfig:
    values = {"kind": "rl", "name": "t", "start": START, "learning_rate": 1e-3, **SMALL, **changes}
    return RlConfig.model_validate(values)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state = load_state(folder)
    assert state is not None
    return state["model"]


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


STEADY = ("reward", "loss", "gradient_norm", "token_entropy", "alpha_max", "gated_share", "tokens")


def steady(folder: Path) -> list[dict]:
    """The metrics without those that measure time."""
    return [{key: line[key] for key in STEADY} for line in read_metrics(folder / "metrics.jsonl")]


@pytest.fixture(scope="module")
def base_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    train(config(), folder)
    return folder


def test_modulation_of_strength_zero_trains_exactly_the_base(base_run, tmp_path):
    train(config(aem={"lam": 0.0}), tmp_path)
    assert same(weights(base_run), weights(tmp_path))


def test_modulation_changes_the_update_and_not_the_rollouts_before_it(base_run, tmp_path):
    train(config(aem={}), tmp_path)
    assert not same(weights(base_run), weights(tmp_path))
    assert steady(base_run)[0]["reward"] == steady(tmp_path)[0]["reward"]
    assert steady(tmp_path)[0]["gated_share"] < 1


def test_the_same_seed_gives_the_same_run_and_another_seed_another(base_run, tmp_path):
    train(config(), tmp_path / "same")
    train(config(seed=1), tmp_path / "other")
    assert steady(base_run) == steady(tmp_path / "same")
    assert steady(base_run) != steady(tmp_path / "other")


IN_ANOTHER_PROCESS = """
import sys, time
from pathlib import Path
from aem_harness.training.config import RlConfig
from aem_harness.training.folder import Folder
from aem_harness.training.run import train
log = Folder.log
def waiting(folder, values):
    log(folder, values)
    if values["step"] == 4:
        time.sleep(600)  # for the kill, which would be late on a busy machine
Folder.log = waiting
train(RlConfig.model_validate_json(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_run_killed_at_any_moment_resumes_to_the_same_weights_and_metrics(tmp_path):
    """kill -9 as soon as some steps are saved, resume, and compare with a run that nobody disturbed."""
    settings = config(steps=5)
    train(settings, tmp_path / "whole")
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, settings.model_dump_json(), str(tmp_path / "cut")]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT / "src")})
    metrics = tmp_path / "cut" / "metrics.jsonl"
    while len(read_metrics(metrics)) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < len(read_metrics(metrics)) < 5
    with metrics.open("a") as file:
        file.write('{"step": 5, "rew')  # what a kill in the middle of a line leaves
    train(settings, tmp_path / "cut", resume=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert steady(tmp_path / "whole") == steady(tmp_path / "cut")


def test_a_folder_is_continued_only_on_request_and_under_its_own_settings(base_run):
    with pytest.raises(ConfigError, match="holds a run at step 2: give --resume"):
        train(config(), base_run)
    with pytest.raises(ConfigError, match="other settings"):
        train(config(seed=5), base_run, resume=True)


def test_a_finished_run_is_extended_to_the_run_that_was_longer_from_the_start(base_run, tmp_path):
    shutil.copytree(base_run, tmp_path / "short")
    train(config(steps=3), tmp_path / "short", resume=True)
    train(config(steps=3), tmp_path / "long")
    assert same(weights(tmp_path / "short"), weights(tmp_path / "long"))
    assert steady(tmp_path / "short") == steady(tmp_path / "long")
    assert read_card(tmp_path / "short" / "checkpoint" / CARD).training.step == 3
    with pytest.raises(ConfigError, match="beyond steps=2"):
        train(config(steps=2), tmp_path / "short", resume=True)


def test_settings_that_an_older_version_did_not_store_have_their_defaults(base_run, tmp_path):
    shutil.copytree(base_run, tmp_path / "old")
    stored = json.loads((tmp_path / "old" / "config.json").read_text())
    del stored["diagnose_every"]
    (tmp_path / "old" / "config.json").write_text(json.dumps(stored))
    train(config(), tmp_path / "old", resume=True)
    with pytest.raises(ConfigError, match=r"other settings \(diagnose_every\)"):
        train(config(diagnose_every=3), tmp_path / "old", resume=True)


def test_the_card_of_a_run_is_there_and_says_what_it_was_trained_on(base_run):
    for place in (base_run, base_run / "checkpoint"):
        certificate = read_card(place / CARD).training.certificate
        assert certificate["rows"] == SMALL["tasks"]
        assert certificate["rows_digest"].startswith("sha256:")


def test_every_base_trains_with_modulation(tmp_path):
    for base in ("dapo", "gspo", "grpo++", "grpo_entropy_bonus"):
        train(config(base=base, aem={}, steps=1, minibatches=2), tmp_path / base)
        (line,) = read_metrics(tmp_path / base / "metrics.jsonl")
        assert line["gradient_norm"] > 0, base


def played(policy, settings, step=1):
    model, tokenizer = policy
    pool = list(tasks("train", seed=0, count=settings.tasks))
    limits = EpisodeLimits(settings.max_steps, settings.max_reply, 512)
    return reference.sample(model, Chat(tokenizer), Prompts.load("tiny-1"), pool, limits, settings, step)


@pytest.fixture(scope="module")
def policy():
    return load_policy(Path(START))


def test_relatives_of_the_method_train_in_its_place(tmp_path):
    for name in ("empg", "repo_r"):
        train(config(baseline=name, steps=1), tmp_path / name)
        (line,) = read_metrics(tmp_path / name / "metrics.jsonl")
        assert line["gradient_norm"] > 0
    with pytest.raises(ValueError, match="takes the place of aem"):
        config(baseline="empg", aem={})


def test_dynamic_sampling_keeps_only_groups_with_different_rewards(policy):
    rollouts, groups, drawn = played(policy, config(base="dapo", prompts=4))
    assert drawn >= len(set(groups))
    for group in set(groups):
        assert {r.episode.reward for r, g in zip(rollouts, groups, strict=True) if g == group} == {0.0, 1.0}


def test_compact_filtering_leaves_rollouts_at_a_limit_out_of_the_loss(policy):
    settings = config(base="grpo++", max_steps=3)
    rollouts, groups, _ = played(policy, settings)
    batch = reference.make_batch(rollouts, groups, Chat(policy[1]).pad, settings)
    limited = [rollout.episode.status is ExitStatus.STEP_LIMIT for rollout in rollouts]
    assert any(limited)
    assert batch.kept_B.tolist() == [not cut for cut in limited]
    assert all(reward == 0 for reward, cut in zip(batch.rewards_B.tolist(), limited, strict=True) if cut)


def test_the_overlong_penalty_of_a_rollout_does_not_depend_on_its_batch(policy):
    settings = config(base="dapo")
    rollouts, _, _ = played(policy, settings)
    lengths = [len(rollout.ids) for rollout in rollouts]
    longest = max(range(len(rollouts)), key=lengths.__getitem__)
    context = lengths[longest]

    def rewards(chosen, context):
        batch = reference.make_batch(chosen, [0] * len(chosen), Chat(policy[1]).pad, settings, context)
        return [float(r) - one.episode.reward for r, one in zip(batch.rewards_B, chosen, strict=True)]

    assert rewards(rollouts, context)[longest] == rewards([rollouts[longest]], context)[0] == -1.0
    assert set(rewards(rollouts, context + 64)) == {0.0}


def test_a_kl_term_holds_the_policy_near_its_start(tmp_path):
    """Strong enough, it undoes what the reward would do; the divergence is logged."""
    divergence = {}
    for kl in (0.0, 30.0):
        changes = {"steps": 8, "max_steps": 3, "checkpoint_every": 8, "diagnose_every": 1}
        train(config(**changes, loss={"kl": kl}), tmp_path / str(kl))
        lines = read_metrics(tmp_path / str(kl) / "metrics.jsonl")
        divergence[kl] = [line["kl_to_start"] for line in lines]
    assert divergence[0.0][0] == pytest.approx(0.0, abs=1e-5)
    assert 0 < sum(divergence[30.0][4:]) < 0.5 * sum(divergence[0.0][4:])
    assert "kl" in lines[-1]


def test_gspo_is_refused_where_its_ratio_cannot_differ_from_one():
    with pytest.raises(ValueError, match="set minibatches or epochs"):
        config(base="gspo")
    assert config(base="gspo", epochs=2).resolved_base.loss.ratio == "sequence"


def test_gspo_and_grpo_train_different_weights(tmp_path):
    for base in ("grpo", "gspo"):
        train(config(base=base, minibatches=2, steps=1), tmp_path / base)
    assert not same(weights(tmp_path / "grpo"), weights(tmp_path / "gspo"))


def test_a_step_of_every_base_is_about_as_long_at_the_same_learning_rate(policy):
    size = {"prompts": 6, "group": 6, "max_steps": 8}
    rollouts, groups, _ = played(policy, config(**size))
    lengths = {}
    for base in ("grpo", "grpo++", "dapo"):
        model, tokenizer = load_policy(Path(START))
        chosen = config(**size, base=base, bfloat16=False)
        batch = reference.make_batch(rollouts, groups, Chat(tokenizer).pad, chosen)
        optimizer = torch.optim.SGD(model.parameters(), 0.0)
        lengths[base] = reference.update(model, optimizer, batch, chosen, step=1)["gradient_norm"]
    assert all(0.5 < length / lengths["grpo"] < 2 for length in lengths.values()), lengths


def test_the_step_matched_control_follows_the_base_at_the_length_of_the_modulated_gradient(policy):
    settings = config(prompts=4, group=6)
    rollouts, groups, _ = played(policy, settings)
    updated, gradients = {}, {}
    for name, changes in (
        ("base", {}),
        ("aem", {"aem": {}, "diagnose_every": 1}),
        ("control", {"aem": {}, "control": "step_matched"}),
    ):
        model, tokenizer = load_policy(Path(START))
        chosen = config(prompts=4, group=6, bfloat16=False, max_gradient_norm=1e9, **changes)
        batch = reference.make_batch(rollouts, groups, Chat(tokenizer).pad, chosen)
        updated[name] = reference.update(model, torch.optim.SGD(model.parameters(), 0.0), batch, chosen, step=1)
        gradients[name] = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    ratio = float(gradients["aem"].norm() / gradients["base"].norm())
    cosine = float(gradients["aem"] @ gradients["base"] / gradients["aem"].norm() / gradients["base"].norm())
    torch.testing.assert_close(gradients["control"], gradients["base"] * ratio, rtol=1e-4, atol=1e-8)
    for name in ("aem", "control"):
        assert updated[name]["gradient_norm_ratio"] == pytest.approx(ratio, rel=1e-3)
        assert updated[name]["gradient_cosine"] == pytest.approx(cosine, rel=1e-3)
    assert "gradient_cosine" not in updated["base"]


def test_a_control_needs_a_method_to_take_its_length_from():
    with pytest.raises(ValueError, match="needs aem"):
        config(control="step_matched")


def test_played_and_rescored_log_probabilities_agree(policy):
    """The greedy reply must be the argmax of the training forward pass too: cache and full pass see the same thing."""
    model, tokenizer = policy
    chat = Chat(tokenizer)
    pool = list(tasks("test", seed=3, count=6))
    rollouts = reference.play(model, chat, pool, Prompts.load("tiny-1"), limits=EpisodeLimits(), temperature=0.0)
    inputs, targets, mask = reference.tensors(rollouts, chat.pad)
    with torch.no_grad():
        logits = model(inputs)
    best = logits.max(-1).values
    chosen = logits.gather(-1, targets[..., None]).squeeze(-1)
    assert float((best - chosen)[mask == 1].max()) < 1e-3


def test_scoring_a_few_rows_at_a_time_is_scoring_the_whole_batch(policy):
    """Also with the mixed precision of training: what sampling used and what the loss sees stay close."""
    model, tokenizer = policy
    chat = Chat(tokenizer)
    chosen = [task for task in tasks("train", seed=3, count=5) for _ in range(4)]  # more rows than go at once
    generator = torch.Generator().manual_seed(0)
    rollouts = reference.play(
        model, chat, chosen, Prompts.load("tiny-1"), limits=EpisodeLimits(), temperature=1.0, generator=generator
    )
    inputs, targets, mask = reference.tensors(rollouts, chat.pad)
    with torch.no_grad():
        whole = logprobs_and_entropies(model(inputs), targets)
        exact = reference.score(model, inputs, targets, mask, temperature=1.0, bfloat16=False)
        mixed = reference.score(model, inputs, targets, mask, temperature=1.0, bfloat16=True)
    for ours, theirs, rough in zip(exact, whole, mixed, strict=True):
        torch.testing.assert_close(ours[mask == 1], theirs[mask == 1], rtol=1e-4, atol=1e-4)
        assert float((ours - rough)[mask == 1].abs().mean()) < 0.02


def test_one_pass_serves_old_policy_and_loss_when_there_is_one_update(policy, monkeypatch):
    """As a second pass would, the ratio is 1: nothing is clipped, and the loss is minus the mean advantage."""
    settings = config(bfloat16=False)
    rollouts, groups, _ = played(policy, settings)
    batch = reference.make_batch(rollouts, groups, Chat(policy[1]).pad, settings)
    passes = []
    score = reference.score
    monkeypatch.setattr(reference, "score", lambda *args, **kwargs: passes.append(1) or score(*args, **kwargs))
    updated = {}
    for name, changes in (("once", {}), ("twice", {"minibatches": 2})):
        model, _ = load_policy(Path(START))
        optimizer = torch.optim.SGD(model.parameters(), 0.0)
        updated[name] = reference.update(model, optimizer, batch, config(bfloat16=False, **changes), step=1)
    assert len(passes) == 1 + 3
    assert updated["once"]["clip_fraction"] == updated["twice"]["clip_fraction"] == 0
    assert updated["once"]["loss"] == pytest.approx(updated["twice"]["loss"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("modulation", [None, {}])
def test_reinforcement_learning_solves_the_few_tasks_that_it_is_given_again_and_again(tmp_path, modulation):
    """The trainer as a whole: whatever breaks advantages, masks, ratios or the update keeps success where it was."""
    train(config(aem=modulation, steps=5, prompts=4, group=8, tasks=4, learning_rate=2e-3), tmp_path)
    first, *later = [line["reward"] for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert sum(later) / len(later) > first + 0.2


def test_warm_start_learns_the_demonstrations(tmp_path):
    settings = WarmStartConfig.model_validate(
        {
            "kind": "warm-start",
            "name": "w",
            "steps": 40,
            "learning_rate": 5e-3,
            "demonstrations": 100,
            "batch": 8,
            "evaluate_tasks": 4,
            "threads": 1,
            "warmup": 5,
            "model": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1},
        }
    )
    checkpoint = train(settings, tmp_path)
    losses = [line["loss"] for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert losses[-1] < 0.6 * losses[0]
    assert load_policy(checkpoint)[0].config.num_hidden_layers == 1
    further = settings.model_copy(update={"start": str(checkpoint), "steps": 2, "seed": 1})
    again = train(further, tmp_path / "further")
    continued = [line["loss"] for line in read_metrics(tmp_path / "further" / "metrics.jsonl")]
    assert continued[0] < 0.7 * losses[0]  # it went on from there, under the same tokenizer
    assert (again / "tokenizer.json").read_bytes() == (checkpoint / "tokenizer.json").read_bytes()


# --- the command ------------------------------------------------------------------------------------------------------


def test_aem_train_runs_a_configuration_and_ships_a_card(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(config(aem={}).model_dump_json())  # JSON is YAML
    arguments = [
        "train",
        "--config",
        str(file),
        "-c",
        "steps=1",
        "-c",
        "aem.lam=0.5",
        "--out",
        str(tmp_path / "o"),
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "checkpoint:" in result.output
    card = read_card(tmp_path / "o" / "checkpoint" / CARD)
    assert (card.method.kind, card.method.base, card.method.parameters["lam"]) == ("aem", "grpo", 0.5)
    assert (card.training.step, card.training.seeds, card.parent) == (1, (0,), "tiny-base")
    assert card.digests["model.safetensors"].startswith("sha256:")
    assert json.loads((tmp_path / "o" / "config.json").read_text())["steps"] == 1
    assert 0.5 < card.training.changed <= 1
    assert f"weights: {card.training.changed:.1%} differ from the start's" in result.output


def test_a_training_whose_updates_are_rounded_away_says_that_nothing_has_changed(tmp_path):
    file = tmp_path / "c.yaml"
    # A step of 1e-9 is far below the distance between bfloat16 numbers.
    file.write_text(config(learning_rate=1e-9, max_gradient_norm=1e-6).model_dump_json())
    result = CliRunner().invoke(app, ["train", "--config", str(file), "-c", "steps=1", "--out", str(tmp_path / "o")])
    assert result.exit_code == 0, result.output
    assert read_card(tmp_path / "o" / "checkpoint" / CARD).training.changed == 0
    assert "warning: no weight differs from the start's" in result.output


@pytest.mark.parametrize("lost", ["gone", "damaged"])
def test_a_start_that_is_lost_meanwhile_costs_the_note_on_changed_weights_and_not_the_training(tmp_path, lost):
    start = shutil.copytree(START, tmp_path / "start")

    def lose(_):
        if lost == "gone":
            shutil.rmtree(start, ignore_errors=True)
        else:
            (start / "model.safetensors").write_bytes(b"not weights")

    checkpoint = train(config(start=str(start), steps=1), tmp_path / "o", report=lose)
    card = read_card(checkpoint / CARD)
    assert (card.training.step, card.training.changed) == (1, None)


def test_of_several_processes_one_alone_writes_the_card(tmp_path, monkeypatch):
    for rank, noted in (("1", False), ("0", True)):
        monkeypatch.setenv("RANK", rank)
        checkpoint = train(config(steps=1), tmp_path / rank)
        assert (read_card(checkpoint / CARD).training.changed is not None) == noted


def test_few_changed_weights_are_not_shown_as_none(tmp_path):
    for changed, shown in ((0.0004, "weights: less than 0.1% differ"), (0.123, "weights: 12.3% differ")):
        card = Card(name="t", path=".", training=Training(changed=changed))
        (tmp_path / CARD).write_text(card.to_yaml())
        assert change_shown(tmp_path).startswith(shown)


def test_only_values_count_as_changed_weights_and_an_adapter_is_not_compared_with_its_base(tmp_path):
    def saved(name, **tensors):
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "model.safetensors")
        return tmp_path / name

    start = saved("start", a=torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.bfloat16), b=torch.zeros(4))
    same = saved("same", a=torch.tensor([1.0, 2.0, 3.0, 4.0]), b=torch.zeros(4))
    moved = saved("moved", a=torch.tensor([1.0, 2.0, 3.0, 4.5]), b=torch.tensor([0.0, 0.0, 0.0, 1e-9]))
    assert changed_share(same, start) == 0
    assert changed_share(moved, start) == 2 / 8
    assert changed_share(saved("adapter", lora=torch.ones(2)), start) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: rl\nname: x\nsteps: 0", "steps"),
        ("kind: rl\nname: x\nsteps: 1\nlearning_rate: 1\nstart: x\nbase: ppo", "unknown base 'ppo'"),
        ("kind: rl\nname: x\nsteps: 1\nlearning_rate: 1\nstart: x\naem: {lamda: 1}", "aem.lamda"),
        ("kind: rl\nname: x\nsteps: 1\nlearning_rate: 1\nstart: x\nloss: {ratio: word}", "ratio"),
        ("name: x", "kind"),
    ],
)
def test_settings_that_make_no_sense_are_named(tmp_path, text, message):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(file)


def test_a_start_without_a_checkpoint_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no checkpoint at"):
        train(config(start=str(tmp_path)), tmp_path / "o")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "no checkpoint at nowhere: start is a folder .* or a registered checkpoint .*tiny-base"),
        ([], "it has no config.json"),
        (["config.json"], "it has no .safetensors file"),
        (["model.gguf", "config.json"], "holds a GGUF file only: aem checkpoints add NAME --gguf FILE"),
    ],
)
@pytest.mark.parametrize("kind", ["tiny-aem", "tiny-trl", "tiny-base"])
def test_a_dry_run_refuses_the_start_that_the_run_would_refuse(tmp_path, monkeypatch, files, message, kind):
    monkeypatch.chdir(tmp_path)
    start = "nowhere" if files is None else "folder"
    if files is not None:
        (tmp_path / "folder").mkdir()
        for name in files:
            (tmp_path / "folder" / name).write_text("{}")
    for dry in (["--dry-run"], []):
        words = ["train", "--config", kind, "--set", f"start={start}", *dry]
        if not dry:
            words += [
                w for setting in ("evaluate_tasks=1", "tasks=5") if kind == "tiny-aem" for w in ("--set", setting)
            ]
            if kind != "tiny-aem":
                continue  # the same function; loading an engine for it takes seconds
        result = CliRunner().invoke(app, words)
        assert isinstance(result.exception, ConfigError), result.output
        assert re.search(message, str(result.exception))


def test_shipped_configurations_start_from_a_registered_policy_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["train", "--config", "tiny-aem", "--dry-run"]).exit_code == 0
    assert policy_folder("tiny-base") == Path(START)


def test_a_trained_policy_is_registered_on_request(base_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(base_run, tmp_path / "run")
    file = tmp_path / "c.yaml"
    file.write_text(config().model_dump_json())
    words = ["train", "--config", str(file), "--out", "run", "--resume", "--register", "mine"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    entry = Registry().get("mine")
    assert entry.problems() == []
    assert (entry.card.parent, entry.card.scaffold.options["prompts"]) == ("tiny-base", "tiny-1")


def test_shipped_configurations_are_valid():
    for path in (ROOT / "training" / "configs").glob("*.yaml"):
        assert load_config(find_config(path.stem)).name
    with pytest.raises(ConfigError, match="tiny-aem"):
        find_config("nothing")


def test_a_demonstration_scores_like_a_rollout(policy):
    """The shipped policy finds the teacher's replies likely: tokenizer, template and weights belong together."""
    model, tokenizer = policy
    chat = Chat(tokenizer)
    random = Random(0)
    prompts = Prompts.load("tiny-1")
    shown = [
        demonstrated(demonstration(task, Skill(0.6), random, prompts), chat) for task in tasks("test", seed=3, count=20)
    ]
    inputs, targets, mask = reference.tensors(shown, chat.pad)
    with torch.no_grad():
        logprobs = torch.log_softmax(model(inputs), -1).gather(-1, targets[..., None]).squeeze(-1)
    assert float((logprobs * mask).sum() / mask.sum()) > -0.5


@pytest.mark.parametrize("able", [True, False])
def test_a_cpu_that_only_emulates_bfloat16_is_named_before_hours_are_spent_on_it(monkeypatch, able):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", "avx512_bf16": able})
    assert ("-c bfloat16=false" in slow_here(config(bfloat16=True))) is not able
    assert slow_here(config(bfloat16=False)) == ""
