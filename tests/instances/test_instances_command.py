"""`aem instances` on the bundled set and on files with bad rows."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.errors import DataError
from aem_harness.harness.instances.load import load, load_tasks


def run(*arguments: str):
    return CliRunner().invoke(app, ["instances", *arguments])


def test_list_as_ids_can_be_read_back_as_a_selection(tmp_path):
    listed = run("list", "--difficulty", "1-4 hours", "--ids").output
    (tmp_path / "ids").write_text(listed)
    assert run("list", "--instance", f"@{tmp_path / 'ids'}", "--ids").output == listed
    assert len(listed.split()) == 5


def test_list_says_how_many_of_how_many_and_of_which_content():
    output = run("list", "--repo", "*/calx").output
    assert "aem-sample__calx-30" in output
    assert f"3 of 19 instances of sample, {load('sample').digest[:12]}" in output


def test_show_tells_the_issue_but_not_the_solution_unless_asked():
    shown = run("show", "aem-sample__calx-9").output
    assert "Too many arguments crash" in shown
    assert "network off" in shown
    assert "diff --git" not in shown
    assert "diff --git a/src/calx/functions.py" in run("show", "aem-sample__calx-9", "--solution").output


def test_exported_rows_load_to_the_same_content(tmp_path):
    file = tmp_path / "rows.jsonl"
    assert "19 instances written" in run("export", str(file)).output
    assert load(file).digest == load("sample").digest
    assert load_tasks(file)[0].eval_script == load_tasks("sample")[0].eval_script


def test_exported_rows_say_how_their_image_is_built_so_that_they_run_from_the_file(tmp_path):
    file = tmp_path / "elsewhere" / "rows.jsonl"
    file.parent.mkdir()
    run("export", str(file), "-i", "aem-sample__calx-9")
    (row,) = map(json.loads, file.read_text().splitlines())
    assert row["network"] is False
    (here,), (there,) = load_tasks(file), [t for t in load_tasks("sample") if t.instance_id == "aem-sample__calx-9"]
    assert Path(here.dockerfile).resolve() == Path(there.dockerfile).resolve()
    assert (here.build_args, here.network) == (there.build_args, False)


def test_bad_rows_are_warnings_or_with_strict_an_error(tmp_path):
    file = tmp_path / "rows.jsonl"
    run("export", str(file))
    with file.open("a") as rows:
        rows.write(json.dumps({"instance_id": "x__y-1"}) + "\n")
    lenient = run("list", "--set", str(file), "--ids")
    assert lenient.exit_code == 0
    assert "rows.jsonl row 20 (x__y-1): repo is missing; the row is left out" in lenient.stderr
    with pytest.raises(DataError, match=r"1 invalid row in rows\.jsonl; the first: rows\.jsonl row 20"):
        raise run("list", "--set", str(file), "--strict").exception
