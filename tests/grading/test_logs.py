"""Real logs graded again: the verdicts of the official grader, and one row for whatever is wrong."""

import csv
import gzip
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.errors import DataError
from aem_harness.harness.grading.logs import COLUMNS, Regraded, regrade
from aem_harness.harness.types import Outcome, Task
from tests.grading.conftest import stored_report


@pytest.fixture(scope="module")
def regraded(logs: Path, verified: dict[str, Task]) -> dict[tuple[str, str], Regraded]:
    return {(each.grade.instance_id, each.submission): each for each in regrade(logs, verified)}


@pytest.fixture(scope="module")
def with_markers(logs: Path, verified: dict[str, Task]) -> dict[tuple[str, str], Regraded]:
    return {(each.grade.instance_id, each.submission): each for each in regrade(logs, verified, add_markers=True)}


def lists(regraded: Regraded) -> dict | None:
    return regraded.grade.report.get(regraded.grade.instance_id, {}).get("tests_status")


def test_every_verdict_is_that_of_the_official_release(regraded: dict, index: list) -> None:
    assert len(regraded) == len(index) == 74
    ours = {key: int(each.grade.resolved) for key, each in regraded.items()}
    theirs = {(row["instance_id"], row["submission"]): int(row["resolved_by_5.0.2"] or 0) for row in index}
    assert ours == theirs
    assert sum(ours.values()) == 25


def test_test_lists_equal_the_stored_report_exactly_where_the_release_gives_equal_lists(
    regraded: dict, index: list, logs: Path
) -> None:
    for row in index:
        if row["lists_equal_5.0.2"] == "":
            continue
        key = row["instance_id"], row["submission"]
        stored = stored_report(logs / key[0] / key[1])
        equal = stored.get("tests_status") == lists(regraded[key])
        assert equal == (row["lists_equal_5.0.2"] == "1"), key
        assert (regraded[key].differs == "") == equal, f"{key}: {regraded[key].differs}"


def test_outcomes_say_what_kind_of_failure_the_official_run_had(regraded: dict, index: list) -> None:
    expected = {
        "resolved": Outcome.RESOLVED,
        "f2p_fail": Outcome.UNRESOLVED,
        "p2p_fail": Outcome.UNRESOLVED,
        "f2p_and_p2p_fail": Outcome.UNRESOLVED,
        "patch_apply_failed": Outcome.NOT_APPLIED,
        "timeout": Outcome.TEST_TIMEOUT,
        "harness_error": Outcome.ERROR,
    }
    for row in index:
        outcome = regraded[row["instance_id"], row["submission"]].grade.outcome
        if row["log_format"].startswith("2024"):
            assert outcome is Outcome.ERROR  # no markers: the release reads no results, which is no fault of a patch
        else:
            assert outcome is expected[row["kind"]], row


def test_every_grade_names_the_release_and_every_failure_its_cause(regraded: dict) -> None:
    for each in regraded.values():
        assert each.grade.versions["grader"] == "swebench 5.0.2"
        assert bool(each.grade.cause) != each.grade.resolved
        assert "\n" not in each.grade.cause


def test_logs_of_2024_are_read_once_markers_are_put_around_them(with_markers: dict, index: list) -> None:
    for row in index:
        if row["log_format"].startswith("2024"):
            each = with_markers[row["instance_id"], row["submission"]]
            assert each.grade.outcome is Outcome.UNRESOLVED
            assert int(each.grade.resolved) == int(row["resolved_by_4_1_0_with_markers_added"])


def test_what_differs_from_a_stored_report_is_explained(regraded: dict, with_markers: dict) -> None:
    """Every difference among the 74 logs, by reason."""
    assert "no test result" in regraded["sphinx-doc__sphinx-9711", "vexp_1774184993333"].differs
    assert "no test result" in regraded["astropy__astropy-14182", "atomic_ab-atomic-smoke"].differs
    claude = "20240620_sweagent_claude3.5sonnet"
    assert "no start marker" in regraded["astropy__astropy-13579", claude].differs
    assert with_markers["astropy__astropy-13579", claude].differs == ""
    assert with_markers["pylint-dev__pylint-7080", claude].differs == "1 not in the test lists of this dataset"
    assert with_markers["django__django-16877", claude].differs == "had no lists, now has"


def test_the_command_writes_one_csv_row_a_log(logs: Path, shared: Path, index: list, tmp_path: Path) -> None:
    out = tmp_path / "new" / "verdicts.csv"
    rows_file = shared / "data" / "swe-bench-verified.jsonl.gz"
    result = CliRunner().invoke(app, ["grade", "--logs", str(logs), "--out", str(out), "--dataset", str(rows_file)])
    assert result.exit_code == 0, result.output
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 74
    assert tuple(rows[0]) == COLUMNS
    for row, official in zip(rows, sorted(index, key=lambda r: (r["instance_id"], r["submission"])), strict=True):
        assert (row["instance_id"], row["submission"]) == (official["instance_id"], official["submission"])
        if official["lists_equal_5.0.2"] == "1" and row["f2p_pass"]:
            for column in ("f2p_pass", "f2p_fail", "p2p_pass", "p2p_fail"):
                assert row[column] == official[column]
                assert len(json.loads(row[f"{column}_tests"])) == int(row[column])


@pytest.fixture
def odd(logs: Path, tmp_path: Path) -> Path:
    """A folder of logs in which all but one is odd in its own way."""
    good = logs / "pallets__flask-5014" / "tdad_eval_20260311_034331"
    for name in ("good", "no-patch", "empty-log", "bad-gzip", "empty-folder", "bad-report", "empty-patch", "latin"):
        shutil.copytree(good, tmp_path / "pallets__flask-5014" / name)
    root = tmp_path / "pallets__flask-5014"
    (root / "no-patch" / "patch.diff").unlink()
    (root / "empty-log" / "test_output.txt.gz").write_bytes(gzip.compress(b""))
    (root / "bad-gzip" / "test_output.txt.gz").write_bytes(b"\x1f\x8b not gzip at all")
    for file in (root / "empty-folder").iterdir():
        file.unlink()
    (root / "bad-report" / "report.json").write_text('{"something": "else"}')
    (root / "empty-patch" / "test_output.txt.gz").unlink()
    (root / "empty-patch" / "patch.diff").write_text("")
    log = gzip.decompress((root / "latin" / "test_output.txt.gz").read_bytes())
    (root / "latin" / "test_output.txt.gz").unlink()
    (root / "latin" / "test_output.txt").write_bytes(b"caf\xe9\n" + log)
    shutil.copytree(good, tmp_path / "nobody__nothing-1" / "unknown")
    (tmp_path / "index.csv").write_text("a file beside the folders\n")
    return tmp_path


def test_whatever_is_odd_about_one_log_is_its_own_row_and_spoils_no_other(odd: Path, verified: dict[str, Task]) -> None:
    seen = {each.submission: each for each in regrade(odd, verified)}
    outcomes = {name: each.grade.outcome for name, each in seen.items()}
    assert outcomes == {
        "good": Outcome.RESOLVED,
        "no-patch": Outcome.RESOLVED,
        "latin": Outcome.RESOLVED,
        "bad-report": Outcome.RESOLVED,
        "empty-patch": Outcome.EMPTY_PATCH,
        "empty-log": Outcome.ERROR,
        "bad-gzip": Outcome.ERROR,
        "empty-folder": Outcome.ERROR,
        "unknown": Outcome.ERROR,
    }
    causes = {name: each.grade.cause for name, each in seen.items()}
    assert "empty" in causes["empty-log"]
    assert "bad-gzip/test_output.txt.gz" in causes["bad-gzip"]
    assert "no test output" in causes["empty-folder"]
    assert "not in the dataset" in causes["unknown"]
    assert "patch.diff is missing" in causes["no-patch"]
    assert "not an official report" in seen["bad-report"].differs
    assert all(each.row()["resolved"] == int(each.grade.resolved) for each in seen.values())


def test_exit_code_is_zero_unless_nothing_could_be_graded(odd: Path, shared: Path, tmp_path: Path) -> None:
    command = ["grade", "--dataset", str(shared / "data" / "swe-bench-verified.jsonl.gz"), "--out", str(tmp_path / "v")]
    assert CliRunner().invoke(app, [*command, "--logs", str(odd)]).exit_code == 0
    hopeless = tmp_path / "hopeless"
    shutil.copytree(odd / "nobody__nothing-1", hopeless / "nobody__nothing-1")
    assert CliRunner().invoke(app, [*command, "--logs", str(hopeless)]).exit_code == 3


def test_a_folder_without_logs_is_refused_in_one_line(tmp_path: Path, verified: dict[str, Task]) -> None:
    with pytest.raises(DataError, match="holds no logs: neither <instance>/<submission>/"):
        list(regrade(tmp_path, verified))
    with pytest.raises(DataError, match="is not a folder"):
        list(regrade(tmp_path / "missing", verified))


@pytest.mark.parametrize("start", ["logs", "logs/run_evaluation", "logs/run_evaluation/r1", "logs/run_evaluation/r1/m"])
def test_the_layout_of_the_official_harness_is_read_from_any_of_its_levels(
    tmp_path: Path, logs: Path, verified: dict[str, Task], start: str
) -> None:
    source = logs / "pallets__flask-5014"
    target = tmp_path / "logs/run_evaluation/r1/m/pallets__flask-5014"
    shutil.copytree(next(folder for folder in sorted(source.iterdir()) if folder.is_dir()), target)
    (tmp_path / "logs/run_evaluation/r1/m/psf__requests-1142").mkdir()  # its container was lost
    found = {each.grade.instance_id: each for each in regrade(tmp_path / start, verified)}
    assert sorted(found) == ["pallets__flask-5014", "psf__requests-1142"]
    assert found["pallets__flask-5014"].grade.outcome is not Outcome.ERROR
    assert found["psf__requests-1142"].grade.outcome is Outcome.ERROR
    assert found["pallets__flask-5014"].submission.endswith("m")
