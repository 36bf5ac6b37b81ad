"""Predictions files as people make them, good and bad."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.errors import DataError
from aem_harness.harness.grading.predictions import read_predictions, write_predictions
from aem_harness.harness.types import Prediction

# Any text but half surrogate pairs, which stand for nothing; U+DC80..DCFF stand for bytes that are not UTF-8.
text = st.text(st.characters(exclude_categories=["Cs"]) | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF))
predictions = st.lists(
    st.builds(Prediction, instance_id=st.text(min_size=1), model_name_or_path=st.text(min_size=1), model_patch=text),
    min_size=1,
    unique_by=lambda prediction: prediction.instance_id,
)


@given(predictions)
def test_what_is_written_is_read_back_in_every_form(tmp_path_factory: pytest.TempPathFactory, written: list) -> None:
    folder = tmp_path_factory.mktemp("predictions")
    rows = [prediction.model_dump() for prediction in written]
    write_predictions(folder / "a.jsonl", written)
    (folder / "b.json").write_text(json.dumps(rows))
    (folder / "c.json.gz").write_bytes(gzip.compress(json.dumps({row["instance_id"]: row for row in rows}).encode()))
    for name in ("a.jsonl", "b.json", "c.json.gz"):
        read = read_predictions(folder / name)
        assert read.predictions == written
        assert read.problems == []


junk = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["instance_id", "model_patch", "x"]), inner),
    max_leaves=5,
)


@given(st.lists(junk))
def test_nothing_that_json_can_hold_is_a_traceback(tmp_path_factory: pytest.TempPathFactory, entries: list) -> None:
    good = {"instance_id": "a__b-1", "model_name_or_path": "m", "model_patch": None}
    path = tmp_path_factory.mktemp("junk") / "p.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in [*entries, good]))
    read = read_predictions(path)
    assert [prediction.model_patch for prediction in read.predictions] == [""]
    assert len(read.problems) == len(entries)  # junk lacks model_name_or_path, so each entry is one problem
    assert all(problem.startswith("p.jsonl, line ") for problem in read.problems)


@given(st.binary())
def test_no_bytes_are_a_traceback(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    for name in ("a.json", "a.jsonl", "a.json.gz"):
        (folder / name).write_bytes(data)
        with pytest.raises(DataError):
            read_predictions(folder / name)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "p.jsonl, line 2: is not JSON: "),
        ("[]", "p.jsonl, line 2: must be an object with the fields instance_id, model_name_or_path, model_patch"),
        ('{"model_name_or_path": "m", "model_patch": ""}', "p.jsonl, line 2: instance_id is missing"),
        ('{"instance_id": "b", "model_name_or_path": "m"}', "p.jsonl, line 2: model_patch is missing"),
        ('{"instance_id": "b", "model_name_or_path": "m", "model_patch": 1}', "model_patch must be text, is int"),
        ('{"instance_id": "", "model_name_or_path": "m", "model_patch": ""}', "instance_id is empty"),
        ('{"instance_id": "b", "model_name_or_path": null, "model_patch": ""}', "model_name_or_path must be text"),
        ('{"instance_id": "b", "model_name_or_path": "m", "model_patch": "\\ud800"}', "model_patch is not text"),
    ],
)
def test_a_bad_line_is_named_and_spoils_no_other(tmp_path: Path, line: str, problem: str) -> None:
    good = '{"instance_id": "a", "model_name_or_path": "m", "model_patch": "x"}'
    path = tmp_path / "p.jsonl"
    path.write_text(f"{good}\n{line}\n\n")
    read = read_predictions(path)
    assert [prediction.instance_id for prediction in read.predictions] == ["a"]
    assert problem in read.problems[0]


def test_of_two_predictions_for_an_instance_the_last_counts_as_in_swebench(tmp_path: Path) -> None:
    from swebench.harness.utils import get_predictions_from_file

    path = tmp_path / "p.jsonl"
    rows = [{"instance_id": "a", "model_name_or_path": "m", "model_patch": patch} for patch in ("first", "second")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    official = {row["instance_id"]: row for row in get_predictions_from_file(str(path), "unused", "test")}
    read = read_predictions(path)
    assert [prediction.model_dump() for prediction in read.predictions] == list(official.values())
    assert read.problems == ["p.jsonl, line 2: a again (also line 1); the last counts"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv", "a,b", "predictions must be a .json or .jsonl file"),
        ("p.json", '"text"', "must hold a list of predictions or an object"),
        ("p.json", "[]", "holds no predictions"),
        ("p.json", "[{}]", "p.json, entry 1: instance_id is missing"),
        ("p.json.gz", "not gzip", "cannot read"),
    ],
)
def test_a_file_without_predictions_is_refused_in_one_line(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_predictions(tmp_path / name)
    with pytest.raises(DataError, match="no such file"):
        read_predictions(tmp_path / "missing.json")


def test_a_full_submission_loads_without_trouble(shared: Path) -> None:
    path = shared / "data" / "predictions" / "gemini-3-pro-mini-1.15.0.preds.json.gz"
    read = read_predictions(path)
    assert len(read.predictions) == 500
    assert read.problems == []
    assert [each.instance_id for each in read.predictions if not each.model_patch] == ["pylint-dev__pylint-7080"]


def test_a_dry_run_reads_everything_and_starts_nothing(shared: Path) -> None:
    data = shared / "data"
    preds, rows = data / "predictions" / "gemini-3-pro-mini-1.15.0.preds.json.gz", data / "swe-bench-verified.jsonl.gz"
    lost = CliRunner().invoke(app, ["grade", str(preds.with_name("lost.json")), "--set", str(preds.with_name("rows"))])
    assert "no such file" in str(lost.exception)
    assert "lost.json" in str(lost.exception), "the predictions are looked for before the dataset"
    command = ["grade", str(preds), "--set", str(rows), "--dry-run"]
    result = CliRunner().invoke(app, command)
    assert result.output == "500 predictions for 500 instances, 1 of them empty\n"
    result = CliRunner().invoke(app, [*command, "-i", "sympy__*"])
    assert "75 predictions for 75 instances" in result.output
    assert "and 422 more" in result.output


def test_predictions_for_other_instances_alone_are_refused(shared: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    write_predictions(path, [Prediction(instance_id="x", model_name_or_path="m", model_patch="")])
    result = CliRunner().invoke(
        app, ["grade", str(path), "--set", str(shared / "data" / "swe-bench-verified.jsonl.gz")]
    )
    assert isinstance(result.exception, DataError)
    assert "not among the chosen instances: x; nothing to grade" in str(result.exception)


def test_many_bad_entries_are_one_warning(tmp_path: Path) -> None:
    good = {"instance_id": "aem-sample__calx-9", "model_name_or_path": "m", "model_patch": ""}
    path = tmp_path / "preds.jsonl"
    path.write_text(json.dumps(good) + "\n" + '{"instance_id": "x"}\n' * 400)
    shown = CliRunner().invoke(app, ["grade", str(path), "--set", "sample", "--dry-run"])
    assert shown.exit_code == 0, shown.output
    assert shown.output.count("warning") == 1
    assert "400 entries have a problem" in shown.output
    assert len(shown.output.splitlines()) == 2
