"""The outcomes table: what is read, what is refused, and that no rollout disappears."""

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.compare.outcomes import combine, load, read_csv, write_csv
from aem_harness.harness.errors import DataError
from aem_harness.harness.schema import COLUMNS, normalise, repo_of

CSV = "arm,instance_id,seed,resolved,steps\nbase,astropy__astropy-1,0,1,12\nbase,astropy__astropy-2,0,,\n"


def test_a_plain_csv_becomes_the_typed_table(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.csv"
    path.write_text(CSV)
    table = read_csv(path)
    assert list(table.columns) == list(COLUMNS)
    assert table["resolved"].tolist() == [True, pd.NA]
    assert table["outcome"].tolist()[0] == "resolved"
    assert table["repo"].tolist() == ["astropy/astropy"] * 2
    assert table["steps"].dtype == "Int64"


def test_writing_and_reading_a_table_gives_the_same_table(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.csv"
    path.write_text(CSV)
    table = read_csv(path)
    write_csv(table, tmp_path / "again.csv")
    pd.testing.assert_frame_equal(read_csv(tmp_path / "again.csv"), table)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("arm,instance_id,seed\na,x__y-1,0\n", "lacks the column resolved"),
        ("arm,instance_id,seed,resolved\na,x__y-1,0,maybe\n", "row 2: resolved is 'maybe'"),
        ("arm,instance_id,seed,resolved\na,x__y-1,0,1\na,x__y-1,one,1\n", "row 3: seed is 'one'"),
        ("arm,instance_id,seed,resolved\na,x__y-1,0,1\na,x__y-1,0,0\n", "row 3 .*occurred before"),
        ("arm,instance_id,seed,resolved,outcome\na,x__y-1,0,1,unresolved\n", "row 2 .*contradicts outcome"),
        ("arm,instance_id,seed,resolved,outcome\na,x__y-1,0,,exploded\n", "row 2 .*outcome is none of"),
        ("arm,instance_id,seed,resolved\n", "has no rows"),
    ],
)
def test_a_bad_file_is_refused_in_one_line_that_names_the_row(tmp_path: Path, rows: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(rows)
    with pytest.raises(DataError, match=message) as caught:
        read_csv(path)
    assert "bad.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_error_outcomes_have_no_verdict() -> None:
    raw = pd.DataFrame(
        {"arm": "a", "instance_id": ["x__y-1", "x__y-2"], "seed": 0, "outcome": ["error", "empty_patch"]}
    )
    assert normalise(raw, "here")["resolved"].tolist() == [pd.NA, False]


def test_repositories_come_from_instance_ids() -> None:
    assert repo_of("scikit-learn__scikit-learn-10297") == "scikit-learn/scikit-learn"
    assert repo_of("odd") == "odd"


def run_folder(folder: Path, arm: str, events: list[dict], *, seeds: int = 2, **facts: object) -> Path:
    """A run folder as the runner leaves it."""
    folder.mkdir(parents=True)
    plan = {"instances": ["x__y-1", "x__y-2"], "seeds": seeds}
    (folder / "run.json").write_text(
        json.dumps({"run_id": folder.name, "arm": arm, "plan": plan, "config": {}, **facts})
    )
    (folder / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


def rollout(instance_id: str, seed: int, attempt: int = 0, fault: dict | None = None) -> dict:
    fields = {"exit_status": "submitted", "reason": "", "steps": 5, "seconds": 1.5, "patch_bytes": 10}
    key = {"instance_id": instance_id, "seed": seed, "attempt": attempt}
    return {"event": "rollout", **key, **fields, "fault": fault, "image_digest": "sha256:1", "at": ""}


def grade(instance_id: str, seed: int, outcome: str, attempt: int = 0) -> dict:
    key = {"instance_id": instance_id, "seed": seed, "attempt": attempt}
    return {"event": "grade", **key, "outcome": outcome, "cause": "", "seconds": 1.0, "versions": {}, "at": ""}


def test_the_last_attempt_of_a_rollout_counts_and_lost_ones_keep_their_row(tmp_path: Path) -> None:
    fault = {"boundary": "environment", "message": "engine gone"}
    events = [
        rollout("x__y-1", 0, fault=fault),
        rollout("x__y-1", 0, attempt=1),
        grade("x__y-1", 0, "resolved", attempt=1),
        rollout("x__y-1", 1),
        grade("x__y-1", 1, "error"),
        rollout("x__y-2", 0),
    ]
    table = load([run_folder(tmp_path / "r", "base", events)]).table.set_index(["instance_id", "seed"])
    assert table.loc[("x__y-1", 0), ["resolved", "attempt"]].tolist() == [True, 1]
    assert table.loc[("x__y-1", 1), "outcome"] == "error"
    assert table["resolved"].isna().sum() == 3
    assert table.loc[("x__y-2", 0), "cause"] == "not graded"
    assert table.loc[("x__y-2", 1), "cause"] == "not run"


def test_half_a_surrogate_pair_in_a_journal_can_be_written_wherever_it_is_shown(tmp_path: Path) -> None:
    folders = []
    for arm in ("base", "new"):
        odd = "x__y-\udcff"  # an instance whose name is no UTF-8
        lost = rollout(odd, 0, fault={"boundary": "policy", "message": "gone \ud800"})
        solved = [one for task in ("x__y-1", "x__y-2") for one in (rollout(task, 0), grade(task, 0, "resolved"))]
        facts = {"created_at": "2026-01-01T00:00:00+00:00", "dataset": {"name": "d"}, "config_digest": "c"}
        folders.append(str(run_folder(tmp_path / arm, arm, [lost, *solved], **facts)))
    assert load(folders).table["cause"].str.endswith("gone ?").sum() == 2
    for words in (
        ["compare", *folders, "--json"],
        ["table", *folders, "--out", str(tmp_path / "t.md")],
        ["report", *folders, "--out", str(tmp_path / "r.html")],
        ["import", folders[0], "--out", str(tmp_path / "o.csv")],
        ["failures", folders[0]],
    ):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, (words, result.output, result.exception)
    assert "gone \ufffd" in result.output or "gone ?" in result.output


@pytest.mark.parametrize("steps", [2**63, -1, 0.5, "many", [3], float("inf")])
def test_a_count_that_is_none_is_named_with_its_row(tmp_path: Path, steps: object) -> None:
    events = [rollout("x__y-1", 0), {**rollout("x__y-1", 1), "steps": steps}]
    with pytest.raises(DataError, match=r"row 3: steps is .*whole number"):
        load([run_folder(tmp_path / "r", "base", events)])


def test_only_what_was_planned_is_missing_when_seeds_differ_by_task(tmp_path: Path) -> None:
    events = [
        rollout("x__y-1", 0),
        grade("x__y-1", 0, "resolved"),
        rollout("x__y-2", 0),
        grade("x__y-2", 0, "resolved"),
    ]
    folder = run_folder(tmp_path / "r", "base", events, seeds=3)
    run = json.loads((folder / "run.json").read_text())
    run["plan"]["allocation"] = {"x__y-1": 1}
    (folder / "run.json").write_text(json.dumps(run))
    missing = load([folder]).table.set_index(["instance_id", "seed"])["resolved"].isna()
    assert missing.index[missing].tolist() == [("x__y-2", 1), ("x__y-2", 2)]


def test_arms_can_be_picked_and_renamed(tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    path.write_text("arm,instance_id,seed,resolved\na,x__y-1,0,1\nb,x__y-1,0,0\n")
    outcomes = load([f"before={path}:a", f"{path}:b"])
    assert outcomes.arms == ["before", "b"]
    with pytest.raises(DataError, match="has no arm 'c'"):
        load([f"{path}:c"])
    with pytest.raises(DataError, match="pick one"):
        load([f"before={path}"])


def test_the_same_rollout_from_two_sources_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_text(CSV)
    with pytest.raises(DataError, match="two rollouts of astropy__astropy-1 seed 0"):
        combine([load([path]), load([path])])


def test_the_leaderboard_matrix_is_read_whole(shared: Path) -> None:
    outcomes = load([shared / "data/verified-leaderboard.csv.gz"])
    assert len(outcomes.arms) == 174
    assert len(outcomes.table) == 174 * 500
    gemini = outcomes.table[outcomes.table["arm"] == "20251118_mini-v1.15.0_gemini-3-pro-preview-20251118"]
    assert gemini["resolved"].sum() == 371
