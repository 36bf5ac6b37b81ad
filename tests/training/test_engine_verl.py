"""The plug-in inside the real verl: its estimators, trainer, TransferQueue, configuration and agent loop, on a CPU.

verl stays out of the project's environment: the fixture makes one beside it that sees both (half a minute, no torch to
download), and the tests read what `inside_verl.py` answers there. What needs GPUs, a whole step of training, is not
run; everything of ours in it is.
"""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from aem_harness.harness.errors import ConfigError
from aem_harness.harness.instances.load import load_tasks
from aem_harness.training.config import find_config, load_config
from aem_harness.training.engines import verl_run
from tests.peers import install
from tests.training.one_batch import ALPHAS, SPANS

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
VERL = "0.9.1"
BUILD_SECONDS = 240
GAP = 2
GRPO = 0.5**0.5  # |advantage| of one success in two rollouts: 0.5 / std

pytestmark = [pytest.mark.extended, pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(1200)]

Ask = Callable[[str], Any]


@pytest.fixture(scope="module")
def verl_python() -> Path:
    """A Python that has verl and this project; made on first use, skips with the command where that fails."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    interpreter = f"{sys.version_info[0]}.{sys.version_info[1]}"
    wanted = hashlib.sha256((HERE / "verl.txt").read_bytes()).hexdigest()[:8]
    home = Path.home() / ".cache" / "aem-harness" / "verl" / f"{VERL}-{interpreter}-{wanted}"
    python = home / "bin" / "python"
    if not python.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(mkdtemp(dir=home.parent))
        wheels = ["--no-deps", "-r", str(HERE / "verl.txt")]
        try:
            install(draft, *wheels, check=True, timeout=BUILD_SECONDS)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            shutil.rmtree(draft)
            by_hand = f"python -m venv {home} && {home}/bin/pip install {shlex.join(wheels)}"
            pytest.skip(f"no environment with verl ({error}); by hand: {by_hand}")
        draft.rename(home)
    # Where this interpreter finds its packages may differ from run to run, so it is written each time.
    site = next(home.glob("lib/python*/site-packages"))
    (site / "project.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")) + "\n")
    return python


@pytest.fixture(scope="module")
def ask(verl_python: Path) -> Ask:
    """The answer of a function of `inside_verl.py`."""

    def ask(name: str) -> Any:
        done = inside(verl_python, [str(HERE / "inside_verl.py"), name])
        lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
        assert lines, done.stderr[-4000:]
        return json.loads(lines[-1].removeprefix("ANSWER "))

    return ask


@pytest.fixture(scope="module")
def numbers(ask: Ask) -> Mapping[str, Any]:
    return ask("numbers")


@pytest.fixture(scope="module")
def scaled(ask: Ask) -> Mapping[str, Any]:
    return ask("scale")


@pytest.fixture(scope="module")
def rollouts(engine: None, ask: Ask) -> Mapping[str, Any]:
    return ask("loop")


def inside(python: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [str(python), *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900
    )


def by_token(factors: tuple[float, ...], width: int, scale: float) -> list[list[float]]:
    """Advantages of the shared batch: the rollout's +-scale times each response's factor, 0 outside the responses."""
    rows, left = [], list(factors)
    for row, spans in enumerate(SPANS):
        tokens: list[float] = []
        for _, length in spans:
            tokens += [left.pop(0) * scale * (1 if row % 2 == 0 else -1)] * length + [0.0] * GAP
        rows.append((tokens + [0.0] * width)[:width])
    return rows


def close(found: list[list[float]], expected: list[list[float]]) -> bool:
    return len(found) == len(expected) and all(
        row == pytest.approx(want, abs=1e-4) for row, want in zip(found, expected, strict=True)
    )


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("base", "scale"), [("grpo", GRPO), ("rloo", 1.0)])
def test_the_shared_batch_gets_its_alphas_on_top_of_verls_own_estimators(numbers, base, scale):
    found = numbers["estimators"][base]
    assert found["alphas"] == pytest.approx(ALPHAS, abs=5e-5)
    assert close(found["plain"], by_token((1.0,) * len(ALPHAS), 9, scale))
    assert close(found["plug-in"], by_token(ALPHAS, 9, scale))
    assert found["estimator"] == found["plug-in"]


@pytest.mark.parametrize("base", ["grpo", "rloo"])
def test_modulation_off_is_verls_own_to_the_last_bit(numbers, base):
    found = numbers["estimators"][base]
    assert found["off"] == found["plain"]


def test_the_registered_trainer_modulates_what_verls_trainer_leaves_in_the_transfer_queue(ask):
    """The real queue and the real advantage step of both trainers; only their construction needs GPUs."""
    found = ask("trainer")
    assert close(found["sync"]["advantages"], by_token((1.0,) * len(ALPHAS), 7, GRPO))
    assert close(found["aem_sync"]["advantages"], by_token(ALPHAS, 7, GRPO))
    metrics = found["aem_sync"]["metrics"]
    assert metrics["aem/responses"] == len(ALPHAS)
    assert metrics["aem/gated_share"] == 0.5
    assert metrics["aem/alpha_max"] == pytest.approx(max(ALPHAS), abs=5e-5)


# --- the dry run ------------------------------------------------------------------------------------------------------


def test_the_dry_run_of_the_shipped_recipe_finds_every_hook(numbers):
    found = numbers["dry run"]
    assert found["whole"] == {}
    assert found["command"][1:3] == ["-m", "verl.trainer.main_ppo"]
    assert "trainer.v1.trainer_mode=aem_sync" in [word.replace("'", "") for word in found["command"]]


def test_what_only_this_machine_lacks_is_told_apart(numbers):
    assert "64 GPUs (8 nodes)" in numbers["dry run"]["here"]


def test_hooks_that_an_installed_verl_lost_are_named(numbers):
    robbed = numbers["dry run"]["robbed"]
    assert set(robbed) == {"transfer_queue.kv_batch_put", "fields of PPOTrainer._compute_old_log_prob"}
    assert "entropy" in robbed["fields of PPOTrainer._compute_old_log_prob"]
    assert numbers["dry run"]["unknown trainer"] == {"trainer aem_other": "not registered"}


def test_a_setting_that_verl_does_not_know_is_named(numbers):
    assert "clip_ratio_hihg" in numbers["dry run"]["misspelt"]


def test_verl_reads_the_recipe_of_deepswe_from_the_shipped_file(numbers):
    assert numbers["dry run"]["recipe"] == {
        "estimator": "rloo",
        "batch": [64, 8, 64],
        "steps": 250,
        "clip": [0.2, 0.28],
        "mean": "seq-mean-token-sum-norm",
        "norm": 32768,
        "entropy and KL": [0, False, False],
        "compact": True,
        "method": [1.0, 0.1],
    }


@pytest.mark.skipif(find_spec("verl") is not None, reason="verl is installed here")
def test_without_verl_one_line_says_what_to_install(tmp_path):
    config = load_config(find_config("deepswe-aem"))
    for attempt in (verl_run.check, verl_run.train):
        with pytest.raises(ConfigError, match=r"^verl is not installed: pip install [^\n]*$"):
            attempt(config, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_checkpoints_are_measured_on_is_never_trained_on(tmp_path):
    tasks = load_tasks("tiny")[:2]
    verl_run.write_rows(tasks, tmp_path / "rows.parquet")
    assert (tmp_path / "rows.parquet").is_file()
    certificate = verl_run.write_rows(tasks, tmp_path / "rows.parquet")
    assert (certificate["rows"], certificate["disjoint_from"]) == (2, ["SWE-bench Verified (500)"])
    with pytest.raises(ConfigError, match="SWE-bench_Verified is what checkpoints are measured on"):
        verl_run.write_rows(
            [tasks[0], tasks[1].model_copy(update={"dataset": "SWE-bench/SWE-bench_Verified"})],
            tmp_path / "more.parquet",
        )
    assert not (tmp_path / "more.parquet").exists()


def test_a_group_that_lost_a_rollout_to_a_fault_is_drawn_again_and_never_trained_on(ask):
    found = ask("partial_groups")
    assert found["ReplayBuffer"]["sampleable"] == ["partial", "whole"]  # verl's own, which is why ours is there
    assert found["WholeGroups"] == {"evicted": ["lost", "partial"], "sampleable": ["whole"]}


def test_the_dry_run_says_what_would_go_wrong_at_scale(scaled):
    """Each spoilt setting is found, and named with what to do; the shipped recipe only lacks an evaluation."""
    found = scaled
    assert found["as it is"] == ["advice: there is none: trainer.test_freq, or a section gate"]

    def first(name: str) -> str:
        (new, *_) = [line for line in found[name] if line not in found["as it is"]] or [""]
        return new

    assert first("context").startswith("stops: rollout.max_model_len is 1000: give it at least 36864")
    assert first("tokens a GPU").startswith("stops: actor.ppo_max_token_len_per_gpu times")
    assert first("whitened").startswith("advice: verl whitens them over the batch's tokens")
    assert first("never saved").startswith("stops: trainer.save_freq is not positive")
    assert first("all kept").startswith("advice: 25 checkpoints")
    assert first("evaluated on training rows").startswith("stops: it would run on the training rows")
    assert first("schedule").startswith("stops: the learning rate depends on the number of steps")
    assert first("few workers").startswith("advice: 4 of 8 nodes run no containers")
    assert first("uneven workers").startswith("advice: 4 nodes have one worker more")
    assert first("crowd").startswith("advice: set sandbox.containers")
    assert "has the same" in found["held out"][0], "rows of evaluation are no training rows"


def test_prompts_that_are_drawn_again_go_round_the_workers_and_a_silent_server_is_a_fault(scaled):
    found = scaled
    assert found["verl alone"] == [0, 0, 0, 0], "verl 0.9.1 hands every single prompt to its first worker"
    assert found["plug-in"] == [0, 1, 2, 0]
    assert found["silent server"].startswith("verl's rollout server gave no reply within 0.05 s")


def test_a_gated_run_is_told_its_steps_piece_by_piece(tmp_path):
    config = load_config(find_config("deepswe-aem"), ["gate.every=100", "gate.set=tiny"])
    assert config.gate.steps(config.steps) == [100, 200, 250]
    assert "trainer.total_training_steps=200" in verl_run.command(config, tmp_path, until=200)
    assert "trainer.total_training_steps=250" in verl_run.command(config, tmp_path)
    assert verl_run.reached(tmp_path) == 0
    (tmp_path / "verl").mkdir()
    (tmp_path / "verl" / "latest_checkpointed_iteration.txt").write_text("100")
    assert verl_run.reached(tmp_path) == 100


def test_gates_before_a_resumed_runs_checkpoint_are_not_asked_of_checkpoints_that_are_gone(tmp_path, monkeypatch):
    """A run at step 100 goes on with twice as many gates: those at 50 and before are past."""
    (tmp_path / "verl" / "global_step_100").mkdir(parents=True)
    (tmp_path / "verl" / "latest_checkpointed_iteration.txt").write_text("100")
    for name, nothing in {"require_verl": None, "check": [], "write_rows": {}, "card": None, "enter": None}.items():
        monkeypatch.setattr(verl_run, name, lambda *_, nothing=nothing, **__: nothing)
    monkeypatch.setattr(verl_run.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0))
    monkeypatch.setattr(verl_run, "finish", lambda out, step=None: out / str(step))
    gated = ["gate.every=50", "gate.set=tiny", "sandbox.instances=tiny", "sandbox.validation="]
    config, seen = load_config(find_config("deepswe-aem"), gated), []
    verl_run.train(config, tmp_path, resume=True, watcher=lambda step, folder: seen.append(step))
    assert seen == [100, 150, 200, 250]


def test_trackers_write_into_the_runs_folder_on_every_node(tmp_path):
    words = verl_run.command(load_config(find_config("deepswe-aem")), tmp_path)
    env = "+ray_kwargs.ray_init.runtime_env.env_vars"
    assert f"{env}.TENSORBOARD_DIR={tmp_path}/tensorboard" in words


def test_a_finished_run_ends_in_a_checkpoint_with_its_card(tmp_path):
    """As verl leaves it with hf_model among its saved contents; the last step counts."""
    from safetensors.torch import save_file
    from torch import zeros

    from aem_harness.aem_checkpoints.card import read_card
    from aem_harness.training.folder import enter

    config = load_config(find_config("deepswe-aem"))
    enter(tmp_path, config, verl_run.card(config, {"rows": 2}))
    for step in (10, 200):
        place = tmp_path / "verl" / f"global_step_{step}" / "actor" / "huggingface"
        place.mkdir(parents=True)
        (place / "config.json").write_text("{}")
        save_file({"w": zeros(2)}, place / "model.safetensors")
    card = read_card(verl_run.finish(tmp_path) / "card.yaml")
    assert (card.training.step, card.parent, card.method.kind) == (200, "Qwen3-32B", "aem")
    assert card.training.certificate == {"rows": 2}
    assert card.scaffold.agent == "deepswe"
    assert "model.safetensors" in card.digests


def test_shards_without_hugging_face_weights_are_merged_and_registered_with_their_card(ask):
    found = ask("merged")
    assert found["equal"]
    assert (found["step"], found["agent"], found["certificate"]) == (7, "deepswe", {"rows": 2})
    assert found["problems"] == []


# --- the agent loop ---------------------------------------------------------------------------------------------------


@pytest.mark.docker
def test_a_rollout_in_containers_is_rewarded_by_the_official_grader(rollouts):
    assert rollouts["mended"]["reward"] == 1.0
    assert rollouts["mended"]["reward by token"] == [1.0]
    assert rollouts["left as it was"]["reward"] == 0.0


@pytest.mark.docker
def test_the_mask_marks_exactly_what_the_policy_said_also_a_reply_that_was_refused(rollouts):
    found = rollouts["mended"]
    assert found["sampled"] == "".join(found["said"])
    assert found["spans"] == len(found["said"]) == 3
    assert len(set(found["lengths"])) == 1
    assert found["logprobs"] == [-0.5, 0.0]


@pytest.mark.docker
def test_every_request_reads_a_prefix_of_the_ids_that_are_trained_on(rollouts):
    assert all(all(found["read is a prefix"]) for found in rollouts.values())
    assert rollouts["mended"]["versions"] == [1, 3]


@pytest.mark.docker
def test_compact_filtering_keeps_a_rollout_that_ended_at_a_limit_out_of_the_loss(rollouts):
    found = rollouts["at its limit"]
    assert found["spans"] == 0
    assert found["reward"] == 0.0
    assert found["lengths"][0] > 0


# --- verl as second computation ---------------------------------------------------------------------------------------


def test_advantages_and_losses_of_every_base_equal_verls(verl_python):
    """`test_bases.py` skips these where verl is not installed; here it is."""
    only = ["-k", "equal_verl", "-n0", "-p", "no:cacheprovider", "-q"]
    done = inside(verl_python, ["-m", "pytest", str(HERE / "test_bases.py"), *only])
    assert done.returncode == 0, done.stdout[-3000:]
    assert "6 passed" in done.stdout
