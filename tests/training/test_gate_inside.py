"""A gate inside training: at which steps, what it is given, what it stops, and that a killed run asks no step twice."""

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from aem_harness.aem_checkpoints.registry import Registry
from aem_harness.api.training import lost_whole
from aem_harness.cli import app
from aem_harness.harness.errors import ConfigError, DataError
from aem_harness.training.checkpoint import load_policy, load_state
from aem_harness.training.config import RlConfig, TrlConfig
from aem_harness.training.folder import Folder, read_metrics
from aem_harness.training.run import train
from aem_harness.training.watch import VERDICTS, GateRecord, GateSettings, Regressed, due, held, verdicts
from benchmarks.synthetic_runs import make_run

ROOT = Path(__file__).parents[2]
PASSED = SimpleNamespace(verdict="PASS", difference=0.0, rollouts=9, reason="r")
START = str(ROOT / "aem_checkpoints" / "tiny-base")
SMALL = {
    "prompts": 2,
    "group": 2,
    "tasks": 40,
    "evaluate_tasks": 2,
    "threads": 1,
    "max_steps": 2,
    "samples": 1,
    "bfloat16": False,  # which many CPUs only emulate, at several times the cost
}


def config(**changes) -> RlConfig:
    values = {"kind": "rl", "name": "t", "start": START, "learning_rate": 1e-3, "steps": 4, "checkpoint_every": 10}
    return RlConfig.model_validate({**values, **SMALL, "gate": {"every": 2, "set": "tiny"}, **changes})


def write(out: Path, step: int, verdict: str) -> None:
    line = GateRecord(
        step=step, checkpoint=f"t-seed0@{step}", verdict=verdict, difference=-0.2, rollouts=9, reason="r", at=""
    )  # type: ignore[arg-type]
    with (out / VERDICTS).open("a") as file:
        file.write(line.model_dump_json() + "\n")


def test_the_steps_are_multiples_and_the_last_one():
    assert GateSettings(every=2, set="tiny").steps(5) == [2, 4, 5]
    assert GateSettings(every=9, set="tiny").steps(5) == [5]


def test_a_verdict_that_was_torn_by_a_kill_is_none_and_its_step_is_due_again(tmp_path):
    write(tmp_path, 2, "PASS")
    with (tmp_path / VERDICTS).open("a") as file:
        file.write('{"step": 4, "ver')
    assert [one.step for one in verdicts(tmp_path)] == [2]
    assert (
        due(GateSettings(every=2, set="t"), 2, 4, tmp_path),
        due(GateSettings(every=2, set="t"), 4, 4, tmp_path),
    ) == (False, True)


def test_the_reference_trainer_hands_over_loadable_checkpoints_and_can_go_on_from_each(tmp_path):
    """Killed while the second gate runs: the same command gates that step, trains no step again, and ends."""
    seen: list[int] = []

    def watcher(step: int, folder: Path) -> None:
        load_policy(folder)
        assert load_state(tmp_path)["step"] == step, "saved before it is gated, whatever checkpoint_every says"
        if step == 4 and 4 not in seen:
            seen.append(step)
            raise KeyboardInterrupt
        seen.append(step)
        write(tmp_path, step, "PASS")

    with pytest.raises(KeyboardInterrupt):
        train(config(), tmp_path, watcher=watcher)
    before = (tmp_path / "metrics.jsonl").read_text()
    assert train(config(), tmp_path, resume=True, watcher=watcher) == tmp_path / "checkpoint"
    assert seen == [2, 4, 4]
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_a_regression_stops_the_run_and_says_how_to_go_on(tmp_path):
    def watcher(step: int, folder: Path) -> None:
        write(tmp_path, step, "BLOCK")
        raise Regressed("worse")

    with pytest.raises(Regressed) as error:
        train(config(), tmp_path, watcher=watcher)
    assert error.value.exit_code == 1
    assert not (tmp_path / "checkpoint").exists()
    with pytest.raises(Regressed, match=r"step 2 is worse than the start by 20\.0 points.*on_regression=mark --resume"):
        train(config(), tmp_path, resume=True, watcher=watcher)
    marked = config(gate={"every": 2, "set": "tiny", "on_regression": "mark"})
    assert train(marked, tmp_path, resume=True, watcher=lambda step, folder: write(tmp_path, step, "BLOCK")).is_dir()
    assert [one.verdict for one in verdicts(tmp_path)] == ["BLOCK", "BLOCK"]


def test_trl_saves_at_the_steps_that_are_gated_and_hands_over_what_is_served(tmp_path):
    pytest.importorskip("trl")
    seen: list[int] = []

    def watcher(step: int, folder: Path) -> None:
        seen.append(step)
        assert folder == tmp_path / "checkpoints" / f"step-{step}"
        assert {"config.json", "model.safetensors", "tokenizer_config.json"} <= {path.name for path in folder.iterdir()}
        assert not any(folder.glob("optimizer*"))
        write(tmp_path, step, "PASS")

    values = {"kind": "trl", "name": "t", "start": START, "learning_rate": 1e-4, "steps": 2, "checkpoint_every": 50}
    small = {"prompts": 1, "group": 2, "tasks": 4, "max_steps": 1, "threads": 1, "report_to": []}
    trl = TrlConfig.model_validate({**values, **small, "gate": {"every": 1, "set": "tiny"}})
    train(trl, tmp_path, watcher=watcher)
    assert seen == [1, 2]


def test_a_copy_that_was_interrupted_is_made_again(tmp_path):
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "model.safetensors").write_text("weights")
    (tmp_path / "checkpoints" / "step-1.new").mkdir(parents=True)
    assert [path.name for path in held(saved, tmp_path, 1).iterdir()] == ["model.safetensors"]


def test_what_the_policy_wrote_is_kept_and_goes_to_the_trackers(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", exc_type=ImportError)
    train(config(gate=None, steps=2, diagnose_every=1), tmp_path)
    samples = read_metrics(tmp_path / "samples.jsonl")
    assert [sample["step"] for sample in samples] == [1, 2]
    assert {"role", "content"} == set(samples[0]["messages"][0])
    events = reader.EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    (first, _) = events.Tensors("samples")
    assert samples[0]["task"] in first.tensor_proto.string_val[0].decode()
    for name in ("kl_to_start", "gradient_norm", "reward"):
        assert [event.step for event in events.Scalars(name)] == [1, 2]


def test_a_tracker_that_is_not_installed_is_refused_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        train(config(gate=None, report_to=["wandb"]), tmp_path)


def test_a_tracker_that_fails_ends_no_training(tmp_path, monkeypatch, caplog):
    """A server that goes away in the night: the numbers are in the folder, and it is warned of once."""

    class Failing:
        def log(self, values, step, axis="step"):
            raise ConnectionError("the server is away")

    @contextmanager
    def tracker(*args, **settings):
        yield Failing()
        raise ConnectionError("it still is")

    monkeypatch.setattr("aem_harness.training.folder.tracker", tracker)
    with Folder(tmp_path, config(gate=None, report_to=["mlflow"]), resume=False) as folder:
        for step in (1, 2):
            folder.log({"step": step, "loss": 0.5})
            folder.show(step, [{"task": "t", "reward": 0.0, "end": "", "messages": []}])
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2]
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "a tracker failed and gets nothing more (ConnectionError: the server is away)",
        "mlflow could not be closed (ConnectionError: it still is)",
    ]


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ({"set": "nowhere.jsonl"}, "no such file"),
        ({"set": "tiny", "baseline": "nowhere"}, "has no run.json"),
        ({"set": "tiny", "budget": "lots"}, "invalid budget"),
    ],
)
def test_a_gate_that_could_not_be_made_is_refused_before_the_first_step(tmp_path, gate, said):
    from aem_harness.api.training import train as gated

    with pytest.raises((ConfigError, DataError), match=said):
        gated(config(gate={"every": 2, **gate}), tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_gate_whose_rollouts_were_all_lost_is_run_afresh_at_the_next_resume(tmp_path):
    """Kept, its losses would be final, and every --resume would end as the first time did."""
    run = make_run(tmp_path / "step-2", "t-seed0@2", tasks=3, seeds=1, turns=2)
    kept = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    lost = {"boundary": "policy", "message": "the server is away"}
    faults = [{**event, "fault": lost} for event in kept if event["event"] == "rollout"]
    found = {}
    for name, events in {"as it ended": kept, "all lost": faults, "one is not graded": [*faults[:2], kept[-2]]}.items():
        (run / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
        found[name] = lost_whole(run)
    assert found == {"as it ended": False, "all lost": True, "one is not graded": False}
    assert not lost_whole(tmp_path / "not begun")


def test_a_stored_baseline_on_other_instances_than_the_gates_is_refused(tmp_path):
    """The gate runs what the baseline ran: these could be the rows that are trained on."""
    from aem_harness.api.training import train as gated

    run = make_run(tmp_path / "base", "base", tasks=3, seeds=1, turns=2)
    with pytest.raises(ConfigError, match="is not of the instances of tiny: "):
        gated(config(gate={"every": 2, "set": "tiny", "baseline": str(run)}), tmp_path / "out")


def test_a_gate_that_nobody_holds_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="section gate has nobody to ask"):
        train(config(), tmp_path)


def test_what_gates_share_stays_what_it_was_when_a_run_goes_on(tmp_path, monkeypatch):
    """More steps are further gates, another alpha is refused before a step, and the start's outcomes change no more."""
    from aem_harness.api import running
    from aem_harness.api.training import Gatekeeper
    from aem_harness.api.training import train as gated
    from aem_harness.harness.gate.sequence import GateSequence

    asked = []
    monkeypatch.setattr(running, "run", lambda **settings: asked.append(settings) or SimpleNamespace(folder=tmp_path))
    monkeypatch.setattr("aem_harness.api.gating.decide", lambda *given: asked.append(given) or PASSED)
    train(config(steps=1, gate=None), tmp_path)
    longer = config(steps=8, gate={"every": 1, "set": "tiny"})

    def gate():
        Gatekeeper(longer, longer.gate, tmp_path, running.quiet())(1, tmp_path / "checkpoint")
        started, (*_, options, _) = asked[-2:]
        return started["retry_infrastructure"], options.window

    assert gate() == (True, 8)
    begun = GateSequence(baseline_digest="b", alpha=0.05, window=4)
    (tmp_path / "gates").mkdir(exist_ok=True)
    (tmp_path / "gates" / "sequence.json").write_text(begun.model_dump_json())
    assert gate() == (False, 4)
    other = config(steps=8, gate={"every": 1, "set": "tiny", "alpha": 0.1})
    with pytest.raises(ConfigError, match=r"so far had alpha 0\.05.*not 0\.1"):
        gated(other, tmp_path, resume=True)


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.extended
def test_a_policy_that_training_ruins_is_blocked_in_containers_and_the_training_ends_with_1(tmp_path, engine):
    """A learning rate that destroys the weights: by the run's own gate, registered, written down, against its start."""
    out = tmp_path / "run"
    words = ["train", "--config", "tiny-grpo", "--out", str(out)]
    changes = {
        **{name: value for name, value in SMALL.items() if name != "max_steps"},
        "steps": 2,
        "learning_rate": 1.0,
        "name": "ruined",
        "gate.every": 1,
        "gate.set": "tiny",
        "gate.slice": "0:30",
        "gate.seeds": 1,
        "gate.margin": 0.1,
        "gate.alpha": 0.2,
    }
    for name, value in changes.items():
        words += ["-c", f"{name}={value}"]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, Regressed), result.output
    (verdict,) = verdicts(out)
    assert (verdict.step, verdict.verdict, verdict.checkpoint) == (1, "BLOCK", "ruined-seed0@1")
    assert verdict.rollouts <= 30
    names = {entry.card.name for entry in Registry(out / "registry").entries() if "ruined" in entry.card.name}
    assert names == {"ruined-seed0@0", "ruined-seed0@1"}
    (line,) = map(json.loads, (out / "gates" / "ledger.jsonl").open())
    assert line["verdict"] == "BLOCK"
