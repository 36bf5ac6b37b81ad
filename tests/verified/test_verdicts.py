"""Real SWE-bench Verified instances through our own grading, and the same verdicts from the stock command line."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from aem_harness.harness.grading.predictions import write_predictions
from aem_harness.harness.instances.rows import to_row
from aem_harness.harness.types import Grade, Outcome, Task
from tests.verified.patches import broken, gold, grade_all, no_op, prediction_of

pytestmark = [pytest.mark.extended, pytest.mark.docker, pytest.mark.slow, pytest.mark.network]


def outcomes(grades: Mapping[str, Grade]) -> dict[str, tuple[Outcome, str]]:
    """Outcome and cause by instance, so that a failing test says why."""
    return {instance_id: (grade.outcome, grade.cause) for instance_id, grade in grades.items()}


def test_every_gold_patch_resolves_its_instance(tasks: Mapping[str, Task], tmp_path: Path) -> None:
    grades = grade_all(tasks, gold, tmp_path)
    assert outcomes(grades) == dict.fromkeys(tasks, (Outcome.RESOLVED, ""))
    for instance_id, task in tasks.items():  # by the published lists, unaltered
        status = grades[instance_id].report[instance_id]["tests_status"]
        assert sorted(status["FAIL_TO_PASS"]["success"]) == sorted(task.fail_to_pass)
        assert sorted(status["PASS_TO_PASS"]["success"]) == sorted(task.pass_to_pass)


def test_a_patch_that_changes_nothing_resolves_no_instance(tasks: Mapping[str, Task], tmp_path: Path) -> None:
    grades = grade_all(tasks, no_op, tmp_path)
    assert {instance_id: grade.outcome for instance_id, grade in grades.items()} == dict.fromkeys(
        tasks, Outcome.UNRESOLVED
    ), outcomes(grades)
    for instance_id, grade in grades.items():  # and it breaks none of the tests that passed before
        assert not grade.report[instance_id]["tests_status"]["PASS_TO_PASS"]["failure"], instance_id


def test_a_patch_that_fits_no_file_is_reported_as_not_applied(tasks: Mapping[str, Task], tmp_path: Path) -> None:
    grades = grade_all(tasks, broken, tmp_path)
    assert {instance_id: grade.outcome for instance_id, grade in grades.items()} == dict.fromkeys(
        tasks, Outcome.NOT_APPLIED
    ), outcomes(grades)


# A kind of patch per instance, one instance of each log parser, so that one stock run covers all verdicts.
KINDS = {
    "django__django-15863": gold,
    "pydata__xarray-7233": no_op,
    "pylint-dev__pylint-4551": broken,
    "pytest-dev__pytest-7571": gold,
    "sphinx-doc__sphinx-9320": no_op,
    "sympy__sympy-21847": gold,
}


def mixed(task: Task) -> str:
    return KINDS[task.instance_id](task)


def test_the_stock_command_line_gives_the_same_verdicts_on_the_same_images(
    tasks: Mapping[str, Task], tmp_path: Path
) -> None:
    chosen = {instance_id: tasks[instance_id] for instance_id in KINDS}
    ours = grade_all(chosen, mixed, tmp_path / "ours")

    rows, predictions = tmp_path / "rows.jsonl", tmp_path / "predictions.jsonl"
    rows.write_text("".join(json.dumps(to_row(task)) + "\n" for task in chosen.values()))
    write_predictions(predictions, [prediction_of(task, mixed) for task in chosen.values()])
    options = {"dataset_name": rows, "predictions_path": predictions, "run_id": "stock", "max_workers": 4}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    stock = [sys.executable, "-m", "swebench.harness.run_evaluation", *words]
    # Its exit status says little: the closing summary fails when somebody else's container vanishes while it counts.
    said = subprocess.run(stock, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout

    logs = tmp_path / "logs" / "run_evaluation" / "stock" / "mixed"
    for instance_id, grade in ours.items():
        report = logs / instance_id / "report.json"
        if KINDS[instance_id] is broken:  # the stock runner leaves no report then, only its log
            assert grade.outcome is Outcome.NOT_APPLIED
            assert not report.exists()
            assert ">>>>> Patch Apply Failed" in (logs / instance_id / "run_instance.log").read_text()
        else:
            assert report.exists(), said
            assert json.loads(report.read_text()) == dict(grade.report), instance_id
