"""`aem grade PREDICTIONS`: anyone's file becomes a run that is graded, continued and reported like any other."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from aem_harness.cli import app
from aem_harness.harness.config import RunConfig
from aem_harness.harness.errors import DataError
from aem_harness.harness.grading.predictions import write_predictions
from aem_harness.harness.io import read_json
from aem_harness.harness.run.store import RunStore, read_journal
from aem_harness.harness.run.submission import Submission, enter
from aem_harness.harness.types import Outcome, Prediction
from tests.grading import tiny

IDS = ("aem__tiny-1", "aem__tiny-2", "aem__tiny-3", "aem__tiny-4")


def predictions(**patches: str) -> list[Prediction]:
    return [
        Prediction(instance_id=f"aem__tiny-{name[1:]}", model_name_or_path="maker/model", model_patch=patch)
        for name, patch in patches.items()
    ]


def store(folder: Path) -> RunStore:
    facts = {
        "plan": {"instances": list(IDS), "seeds": 1},
        "agent": dict(Submission().describe()),
        "dataset": {"name": "tiny", "digest": "", "n": len(IDS)},
        "versions": {},
    }
    return RunStore(folder, RunConfig(arm="maker/model"), facts)


def test_patches_enter_a_run_once_and_only_changed_ones_again(tmp_path: Path) -> None:
    keys = [(name, 0) for name in IDS[:2]]
    with store(tmp_path / "run") as run:
        assert enter(run, predictions(n1="one", n2="caf\udce9")) == 2
        assert run.pending(keys).grades == keys
        assert run.pending(keys).rollouts == []
    with store(tmp_path / "run") as run:
        assert enter(run, predictions(n1="one", n2="caf\udce9")) == 0
        assert enter(run, predictions(n1="one", n2="two")) == 1
        assert [run.progress[key].rollout["attempt"] for key in keys] == [0, 1]
        assert (run.rollout_folder(*keys[1]) / "patch.diff").read_text() == "two"


def aem_grade(path: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["grade", str(path), *options])


@pytest.mark.docker
@pytest.mark.network
def test_a_predictions_file_is_graded_and_continued(engine: None, tmp_path: Path) -> None:
    rows = tiny.write_dataset(tmp_path, *IDS)
    preds, out = tmp_path / "preds.jsonl", tmp_path / "run"
    write_predictions(preds, predictions(n1=tiny.GOLD, n2="not a patch\n", n3="", n9="for another dataset"))
    options = ("--set", str(rows), "--out", str(out), "-w", "2", "--timeout", "60", "--memory", "1g")

    first = aem_grade(preds, *options)
    assert first.exit_code == 0, first.output
    assert "not among the chosen instances: aem__tiny-9" in first.output
    assert "1 of the 4 chosen instances have no prediction" in first.output
    graded = {event["instance_id"]: event for event in read_journal(out) if event["event"] == "grade"}
    assert {name[-1]: event["outcome"] for name, event in graded.items()} == {
        "1": Outcome.RESOLVED,
        "2": Outcome.NOT_APPLIED,
        "3": Outcome.EMPTY_PATCH,
    }
    assert graded["aem__tiny-1"]["versions"]["image_digest"].startswith("sha256:")
    report = read_json(out / "report.json")
    assert report["resolved_ids"] == ["aem__tiny-1"]
    assert report["error_ids"] == ["aem__tiny-2"]
    assert report["empty_patch_ids"] == ["aem__tiny-3"]
    assert report["incomplete_ids"] == ["aem__tiny-4"]

    journal = (out / "journal.jsonl").read_bytes()
    assert aem_grade(preds, *options).exit_code == 0
    assert (out / "journal.jsonl").read_bytes() == journal  # nothing was pending

    write_predictions(preds, predictions(n1=tiny.GOLD, n2=tiny.creating("notes.txt", "x"), n3=""))
    assert aem_grade(preds, *options).exit_code == 0
    added = (out / "journal.jsonl").read_bytes()[len(journal) :]
    assert [(event["event"], event["instance_id"]) for event in map(json.loads, added.splitlines())] == [
        ("rollout", "aem__tiny-2"),
        ("grade", "aem__tiny-2"),
    ]
    assert read_json(out / "report.json")["unresolved_ids"] == ["aem__tiny-2"]
    assert read_json(out / "audit.json") == []


@pytest.mark.docker
@pytest.mark.network
def test_what_was_lost_to_infrastructure_is_graded_again_on_request(engine: None, tmp_path: Path) -> None:
    rows = tiny.write_dataset(tmp_path, IDS[0])
    image = tmp_path / "image"
    preds, out = tmp_path / "preds.jsonl", tmp_path / "run"
    write_predictions(preds, predictions(n1=tiny.GOLD))
    dockerfile = (image / "Dockerfile").read_text()
    (image / "Dockerfile").write_text("FROM aem/base:bookworm\nRUN false\n")
    options = ("--set", str(rows), "--out", str(out), "--timeout", "60")
    lost = aem_grade(preds, *options)
    assert lost.exit_code == 3
    assert "lost to infrastructure" in lost.output
    assert read_json(out / "report.json")["error_ids"] == [IDS[0]]
    (image / "Dockerfile").write_text(dockerfile)
    assert aem_grade(preds, *options).exit_code == 3  # kept, until it is asked for again
    assert aem_grade(preds, *options, "--retry", "infra").exit_code == 0
    assert read_json(out / "report.json")["resolved_ids"] == [IDS[0]]


def test_a_file_of_several_models_is_refused(tmp_path: Path) -> None:
    rows = tiny.write_dataset(tmp_path, *IDS)
    preds = tmp_path / "preds.jsonl"
    mixed = predictions(n1="a", n2="b")
    write_predictions(preds, [mixed[0], mixed[1].model_copy(update={"model_name_or_path": "other"})])
    result = aem_grade(preds, "--set", str(rows))
    assert isinstance(result.exception, DataError)
    assert "one model at a time: the file holds predictions of maker/model, other" in str(result.exception)
