"""The official files of a run, read by the official tools themselves."""

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aem_harness.harness.grading import official
from aem_harness.harness.io import read_json, write_json
from aem_harness.harness.run.reports import write_reports
from aem_harness.harness.run.store import Progress, write_patch
from aem_harness.harness.types import Outcome, Task
from tests.grading.conftest import prediction, stored_log

ARM = "maker/model-1"
UNMENTIONED = "django__django-11066"  # chosen, but without a prediction


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, logs: Path, index: list, verified: dict[str, Task]) -> Path:
    """A run folder as grading leaves it, made of the real logs of 2025-26 and what was known of those without a log."""
    folder = tmp_path_factory.mktemp("results") / "the-run"
    progress: dict[tuple[str, int], Progress] = {}
    for row in index:
        key = row["instance_id"], 0
        if key in progress or row["log_format"].startswith("2024"):
            continue
        rollout = folder / "rollouts" / key[0] / "0"
        rollout.mkdir(parents=True)
        outcome = Outcome.NOT_APPLIED if row["kind"] == "patch_apply_failed" else Outcome.ERROR
        patch = "diff"
        if log := stored_log(logs / key[0] / row["submission"]):
            (rollout / "test_output.txt").write_text(log)
            grade = official.grade_log(verified[key[0]], prediction(key[0]), log)
            outcome = grade.outcome
            if outcome in (Outcome.RESOLVED, Outcome.UNRESOLVED):
                (rollout / "report.json").write_text(json.dumps(dict(grade.report), indent=4))
        elif outcome is Outcome.NOT_APPLIED:
            (rollout / "run_instance.log").write_text(">>>>> Patch Apply Failed:\n")
        else:
            outcome, patch = Outcome.EMPTY_PATCH, ""
        write_patch(rollout / "patch.diff", patch)
        progress[key] = Progress(rollout={"fault": None}, grade={"outcome": outcome.value})
    assert {found.grade["outcome"] for found in progress.values() if found.grade} == set(Outcome)
    for name, patch in (("django__django-11099", ""), ("django__django-11119", "diff")):  # not graded yet
        (folder / "rollouts" / name / "0").mkdir(parents=True)
        write_patch(folder / "rollouts" / name / "0" / "patch.diff", patch)
        progress[name, 0] = Progress(rollout={"fault": None})
    progress["pallets__flask-5014", 1] = Progress(rollout={"fault": None}, grade={"outcome": "unresolved"})
    second = folder / "rollouts" / "pallets__flask-5014" / "1"
    second.mkdir()
    write_patch(second / "patch.diff", "other diff")
    write_json(folder / "run.json", {"run_id": "the-run", "arm": ARM})
    chosen = [verified[name] for name in sorted({name for name, _ in progress})] + [verified[UNMENTIONED]]
    write_reports(folder, chosen, progress)
    return folder


def call(folder: Path, *command: str) -> str:
    """What it printed. Run again while it trips over a container or an image of another test that just vanished."""
    for _ in range(20):
        done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True)
        if "No such container" not in done.stderr and "No such image" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    return done.stdout


MAKE_RUN_REPORT = """
import json
from swebench.harness.reporting import make_run_report
from swebench.harness.run_evaluation import read_run_metadata
from swebench.harness.utils import get_predictions_from_file, load_swebench_dataset
rows = load_swebench_dataset(read_run_metadata("the-run")["dataset"])
predictions = {row["instance_id"]: row for row in get_predictions_from_file("predictions.jsonl", "", "")}
make_run_report(predictions, rows, "the-run")
"""


def test_the_run_report_is_what_swebench_makes_of_the_same_files(run: Path) -> None:
    call(run, "-c", MAKE_RUN_REPORT)
    theirs = json.loads((run / "maker__model-1.the-run.json").read_text())
    ours = json.loads((run / "report.json").read_text())
    assert list(ours) == list(theirs)
    assert ours == theirs
    assert ours["total_instances"] == ours["submitted_instances"] + 1
    assert ours["incomplete_ids"] == [UNMENTIONED]
    assert ours["resolved_instances"] == 22
    assert ours["empty_patch_ids"]
    assert ours["error_ids"]


def test_swebenchs_own_report_command_grades_the_run_again_to_the_same_verdicts(run: Path) -> None:
    before = {path: path.read_bytes() for path in run.glob("rollouts/*/0/report.json")}
    output = call(run, "-c", "from swebench.cli.cli import main; main()", "report", "the-run")
    assert "Report written to gold.the-run.json" in output
    theirs = read_json(run / "gold.the-run.json")
    ours = read_json(run / "report.json")
    assert theirs["resolved_ids"] == ours["resolved_ids"]
    assert set(ours["unresolved_ids"]) <= set(theirs["unresolved_ids"])  # it reads logs of lost runs as unresolved too
    assert {path: path.read_bytes() for path in before} == before


def test_predictions_are_one_file_a_seed(run: Path) -> None:
    first = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    assert [row["instance_id"] for row in first] == sorted(row["instance_id"] for row in first)
    assert all(list(row) == ["instance_id", "model_name_or_path", "model_patch"] for row in first)
    assert {row["model_name_or_path"] for row in first} == {ARM}
    second = [json.loads(line) for line in (run / "predictions.seed1.jsonl").read_text().splitlines()]
    assert [(row["instance_id"], row["model_patch"]) for row in second] == [("pallets__flask-5014", "other diff")]
    assert read_json(run / "report.seed1.json")["unresolved_ids"] == ["pallets__flask-5014"]


def test_rollouts_lost_to_a_fault_have_no_prediction(run: Path, tmp_path: Path, verified: dict[str, Task]) -> None:
    write_json(tmp_path / "run.json", {"run_id": "r", "arm": "m"})
    lost = {("pallets__flask-5014", 0): Progress(rollout={"fault": {"boundary": "policy", "message": "down"}})}
    write_reports(tmp_path, [verified["pallets__flask-5014"]], lost)
    assert (tmp_path / "predictions.jsonl").read_text() == ""
    assert read_json(tmp_path / "report.json")["incomplete_ids"] == ["pallets__flask-5014"]


def test_writing_again_changes_nothing(tmp_path: Path, verified: dict[str, Task]) -> None:
    rollout = tmp_path / "rollouts" / "pallets__flask-5014" / "0"
    rollout.mkdir(parents=True)
    write_patch(rollout / "patch.diff", "caf\udce9")  # a byte that is not UTF-8 survives
    write_json(tmp_path / "run.json", {"run_id": "r", "arm": "gold"})
    progress = {("pallets__flask-5014", 0): Progress(rollout={"fault": None}, grade={"outcome": "not_applied"})}
    tasks = [verified["pallets__flask-5014"]]
    write_reports(tmp_path, tasks, progress)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    write_reports(tmp_path, tasks, progress)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files
    assert (tmp_path / "logs/run_evaluation/r/gold/pallets__flask-5014").resolve() == rollout.resolve()


@pytest.mark.parametrize("why", ["a copy that followed links", "a file system without links"])
def test_a_run_is_continued_where_its_links_cannot_be(tmp_path, verified, monkeypatch, why) -> None:
    """It ended with `File exists`, or `Operation not permitted`, after all had been graded."""
    rollout = tmp_path / "a" / "rollouts" / "pallets__flask-5014" / "0"
    rollout.mkdir(parents=True)
    write_patch(rollout / "patch.diff", "x")
    write_json(tmp_path / "a" / "run.json", {"run_id": "r", "arm": "arm"})
    progress = {("pallets__flask-5014", 0): Progress(rollout={"fault": None}, grade={"outcome": "not_applied"})}
    tasks = [verified["pallets__flask-5014"]]
    if why.startswith("a copy"):
        write_reports(tmp_path / "a", tasks, progress)
        shutil.copytree(tmp_path / "a", tmp_path / "b")
    else:
        (tmp_path / "a").rename(tmp_path / "b")

        def refused(*_: object) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(Path, "symlink_to", refused)
    write_reports(tmp_path / "b", tasks, progress)
    assert read_json(tmp_path / "b" / "report.json")["submitted_ids"] == ["pallets__flask-5014"]
