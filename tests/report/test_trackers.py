"""A comparison in experiment trackers: what their own readers find there is what the comparison says."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from aem_harness.harness.compare.compare import compare
from aem_harness.harness.compare.outcomes import load
from aem_harness.harness.compare.records import Comparison
from aem_harness.harness.errors import ConfigError
from aem_harness.harness.report.tracked import log, points, steps
from aem_harness.harness.trackers import finite, tracker
from benchmarks.synthetic_runs import make_run
from tests.peers import peer


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("tracked")
    runs = [make_run(folder / f"r{step}", f"aem@{step}", tasks=8, seeds=2, turns=4) for step in (50, 100)]
    return compare(load([str(run) for run in runs]))


def inside(python: Path, program: str, folder: Path, numbers: Any = None, **env: str) -> Any:
    """What a program prints as JSON in a peer's environment, with our tracker module beside it."""
    words = [str(python), "-c", program, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src"), **env}
    done = subprocess.run(
        words, input=json.dumps(numbers), capture_output=True, text=True, env=environment, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().split("\n")[-1])


def test_checkpoints_are_steps_by_the_numbers_in_their_names_or_by_their_places():
    assert steps(["aem@50", "aem@100"]) == [50, 100]
    assert steps(["base", "aem@100"]) == [0, 1]
    assert steps(["a-1", "b-1"]) == [0, 1]


def test_rates_carry_both_intervals_and_losses_and_curves_go_by_turn(comparison):
    found = list(points(comparison))
    first = dict(zip([step for axis, step, _ in found if axis == "checkpoint"], [n for _, _, n in found], strict=False))
    arm = comparison.arms[0]
    assert first[50]["resolved"] == arm.resolved.value
    assert first[50]["resolved low"] == arm.resolved.these.low
    assert first[50]["resolved/lost"] == arm.missing
    assert "difference/to aem@50" in first[100]
    assert "cost/completion tokens" in first[50]
    turns = [step for axis, step, numbers in found if axis == "turn" and any("aem@50" in name for name in numbers)]
    assert turns == sorted(turns)
    assert len(turns) > 1


def test_tensorboard_reads_back_what_was_logged(comparison, tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", exc_type=ImportError)
    written = log(comparison, "tensorboard", tmp_path)
    (run,) = tmp_path.iterdir()
    events = reader.EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    rates = events.Scalars("resolved")
    assert [event.step for event in rates] == [50, 100]
    assert [event.value for event in rates] == pytest.approx([arm.resolved.value for arm in comparison.arms])
    assert sum(len(events.Scalars(tag)) for tag in events.Tags()["scalars"]) == written


WRITE = """
import json, sys
from pathlib import Path
from aem_harness.harness.trackers import tracker
with tracker({kind!r}, Path(sys.argv[1]), "mine", {{"level": 0.95}}) as opened:
    for axis, step, numbers in json.load(sys.stdin):
        opened.log(numbers, step, axis)
    opened.table("samples", ["task", "text"], [["one", "ls | wc\\n<done>"]], 50)
{read}
"""
NUMBERS = [("checkpoint", 50, {"resolved": 0.25}), ("checkpoint", 100, {"resolved": 0.5, "a/b (%)": 1.0})]


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.extended
def test_wandb_keeps_an_offline_run_with_the_numbers_in_it(tmp_path):
    """Its own reader of offline runs is compiled and only uploads; the records in the file are protocol buffers."""
    read = """
import re, wandb
wandb.teardown()  # as at the end of the process: its service then has written all
(file,) = Path(sys.argv[1]).rglob("*.wandb")
data = file.read_bytes()
wanted = [("resolved", "0.25"), ("resolved", "0.5"), ("a/b (%)", "1"), ("checkpoint", "50"), ("checkpoint", "100")]
wanted += [("samples", "table-file")]
near = [re.escape(k.encode()) + b".{1,60}" + re.escape(v.encode()) for k, v in wanted]
print(json.dumps([bool(re.search(pattern, data, re.S)) for pattern in near]))
"""
    python = peer("wandb==0.31.0")
    program = WRITE.format(kind="wandb", read=read)
    assert all(inside(python, program, tmp_path, NUMBERS, WANDB_MODE="offline", WANDB_SILENT="true"))


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.extended
def test_mlflow_gives_the_history_back_through_its_client(tmp_path):
    read = """
import mlflow
client = mlflow.tracking.MlflowClient()
(experiment,) = client.search_experiments(filter_string="name = 'aem'")
(run,) = client.search_runs([experiment.experiment_id])
history = client.get_metric_history(run.info.run_id, "resolved")
text = mlflow.artifacts.load_text(run.info.artifact_uri + "/samples/step-50.md")
print(json.dumps([run.info.run_name, [[m.step, m.value] for m in history], run.data.metrics["a/b ___"], text]))
"""
    python = peer("mlflow-skinny==3.17.2", "sqlalchemy", "alembic")
    seen = inside(python, WRITE.format(kind="mlflow", read=read), tmp_path, NUMBERS)
    assert seen[:3] == ["mine", [[50, 0.25], [100, 0.5]], 1.0]
    assert "| <pre>one</pre> | <pre>ls &#124; wc<br>&lt;done></pre> |" in seen[3]


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.extended
def test_mlflow_has_every_step_of_a_resumed_training_once(tmp_path):
    """Killed after step 3, of which step 2 was saved: step 3 is done again."""
    program = """
import json, sys
from pathlib import Path
from aem_harness.harness.trackers import tracker
for done, steps in ((0, (1, 2, 3)), (2, (3, 4))):
    with tracker("mlflow", Path(sys.argv[1]), "mine", {}, done=done) as opened:
        for step in steps:
            opened.log({"loss": 1 / step}, step)
import mlflow
client = mlflow.tracking.MlflowClient()
(experiment,) = client.search_experiments(filter_string="name = 'aem'")
(run,) = client.search_runs([experiment.experiment_id])
print(json.dumps([m.step for m in client.get_metric_history(run.info.run_id, "loss")]))
"""
    python = peer("mlflow-skinny==3.17.2", "sqlalchemy", "alembic")
    assert inside(python, program, tmp_path) == [1, 2, 3, 4]


def test_what_is_no_number_is_left_out_and_errors_name_the_remedy(tmp_path, monkeypatch):
    assert finite({"a": float("nan"), "b": 1, "c": float("inf")}) == {"b": 1.0}
    with pytest.raises(ConfigError, match="choose tensorboard, wandb, mlflow"):
        with tracker("excel", tmp_path, "x"):
            pass
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        with tracker("wandb", tmp_path, "x"):
            pass
