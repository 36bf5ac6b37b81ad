"""Rows of other published sets: which are brought to the columns of swebench, and what is said of the others.

The rows have the columns of their published form; what is in them is made up.
"""

import json

import pytest

from aem_harness.harness.errors import DataError
from aem_harness.harness.grading.official import grade, require_parser
from aem_harness.harness.instances.load import load, load_tasks
from aem_harness.harness.instances.rows import digest, parse_row, to_row
from aem_harness.harness.sandbox.container import Sandbox
from aem_harness.harness.sandbox.images import ensure_image
from aem_harness.harness.types import Outcome
from tests.grading import tiny
from tests.grading.conftest import prediction
from tests.instances.test_load import write

COMMON = {
    "instance_id": "owner__repo-7",
    "repo": "owner/repo",
    "base_commit": "0123456789abcdef0123456789abcdef01234567",
    "problem_statement": "It breaks.",
    "hints_text": None,
    "created_at": "2025-05-01 10:00:00",
    "patch": tiny.GOLD,
    "test_patch": tiny.TEST_PATCH,
    "FAIL_TO_PASS": ["test_double.py::test_three"],
    "PASS_TO_PASS": ["test_double.py::test_two"],
}
REBENCH = COMMON | {
    "version": "0.3",
    "environment_setup_commit": None,
    "docker_image": "swerebench/sweb.eval.x86_64.owner_1776_repo-7",
    "meta": {
        "commit_name": "head_commit",
        "has_test_patch": True,
        "is_lite": True,
        "llm_score": {"difficulty_score": 1},
    },
    "install_config": {
        "python": "3.9",
        "install": "pip install -e .[dev]",
        "packages": "requirements.txt",
        "pip_packages": ["pytest"],
        "pre_install": None,
        "reqs_path": ["requirements.txt"],
        "env_yml_path": None,
        "env_vars": None,
        "no_use_env": None,
        "test_cmd": "pytest --no-header -rA --tb=line -p no:cacheprovider",
        "log_parser": "parse_log_pytest",
    },
}
LIVE = COMMON | {
    "pull_number": "7",
    "issue_numbers": ["6"],
    "all_hints_text": "",
    "commit_urls": [],
    "test_cmds": ["pytest -rA"],
    "log_parser": "pytest",
    "difficulty": {"files": 1, "hunks": 2, "lines": 3},
}
PRO = {
    "repo": "owner/repo",
    "instance_id": "instance_owner__repo-0123456789abcdef-v1",
    "base_commit": COMMON["base_commit"],
    "patch": "p",
    "test_patch": "t",
    "problem_statement": "It breaks.",
    "requirements": "",
    "interface": "",
    "repo_language": "js",
    "fail_to_pass": "['test | one']",
    "pass_to_pass": "[]",
    "issue_specificity": "[]",
    "issue_categories": "[]",
    "before_repo_set_cmd": "git checkout x -- test/a.js",
    "selected_test_files_to_run": "['test/a.js']",
    "dockerhub_tag": "owner.repo-owner__repo-0123456789abcdef-v1",
}
MULTI = {
    "org": "owner",
    "repo": "repo",
    "number": 7,
    "state": "closed",
    "title": "t",
    "body": "b",
    "base": {"label": "owner:main", "ref": "main", "sha": COMMON["base_commit"]},
    "resolved_issues": [{"number": 6, "title": "t", "body": "b"}],
    "fix_patch": "p",
    "test_patch": "t",
    "fixed_tests": {"a": {"run": "NONE", "test": "FAIL", "fix": "PASS"}},
    "run_result": {"passed_count": 1},
}


def install_config(**change: object) -> dict:
    return REBENCH | {"install_config": REBENCH["install_config"] | change}


def test_swe_rebench_brings_image_test_command_and_parser():
    task = parse_row(REBENCH)
    assert task.instance.image == REBENCH["docker_image"]
    assert task.log_parser == "parse_log_pytest"
    lines = task.eval_script.splitlines()
    utf8 = "LANG=C.UTF-8 LC_ALL=C.UTF-8"
    assert f"{utf8} pip install -e .[dev]" in lines
    at = lines.index(": '>>>>> Start Test Output'")
    assert lines[at + 1] == f"{utf8} {REBENCH['install_config']['test_cmd']} test_double.py"
    assert task.provenance == {
        "image": "docker_image",
        "eval_script": "SWE-rebench install_config",
        "log_parser": "SWE-rebench install_config",
        "eval_type": "SWE-rebench install_config",
    }


def test_swe_rebench_commands_before_the_tests_are_kept():
    task = parse_row(install_config(eval_commands=["export A=1"], install=None))
    lines = task.eval_script.splitlines()
    assert lines.index("export A=1") < lines.index(": '>>>>> Start Test Output'")
    assert "pip install" not in task.eval_script


def test_swe_rebench_without_a_published_image_names_the_split_that_has_them():
    row = REBENCH | {"docker_image": None}
    with pytest.raises(DataError, match=r"docker_image is empty: .* split `filtered`"):
        parse_row(row)
    assert parse_row(row | {"image": "mine:1"}).instance.image == "mine:1"


def test_swe_bench_live_brings_test_commands_and_its_image_by_name():
    task = parse_row(LIVE)
    assert task.instance.image == "starryzhang/sweb.eval.x86_64.owner_1776_repo-7:latest"
    assert (task.log_parser, task.instance.difficulty) == ("parse_log_pytest", "")
    lines = task.eval_script.splitlines()
    assert lines[lines.index(": '>>>>> Start Test Output'") :][1:3] == ["pytest -rA", ": '>>>>> End Test Output'"]
    assert "conda" not in task.eval_script
    assert task.provenance["image"] == "SWE-bench-Live image naming"
    named = parse_row(LIVE | {"docker_image": "o/i", "rebuild_cmds": ["make"], "print_cmds": ["cat log"]})
    assert named.instance.image == "o/i"
    assert "\nmake\n: '>>>>> Start Test Output'\npytest -rA\ncat log\n" in named.eval_script


REFUSED = {
    "SWE-rebench V2": (install_config(base_image_name="c:latest"), "SWE-rebench V2 has log parsers"),
    "SWE-rebench, command": (install_config(test_cmd=None), "test_cmd is missing"),
    "SWE-rebench, commands": (install_config(eval_commands=[1]), "eval_commands must be a list of commands"),
    "SWE-rebench, parser": (install_config(log_parser=3), "log_parser is no text"),
    "SWE-rebench, commit": (REBENCH | {"base_commit": None}, "base_commit is missing"),
    "Live, a program": (LIVE | {"log_parser": "def parse(log):\n    return {}"}, "log_parser is a program"),
    "Live, commands": (LIVE | {"test_cmds": []}, "test_cmds is empty: give the row image or dockerfile, eval_script"),
    "Pro": (PRO, "scripts of scaleapi/SWE-bench_Pro-os, which are not in the row: grade there, and give"),
    "Multi-SWE-bench": (MULTI, "code of its package multi_swe_bench, which is not in the row: grade there"),
}


@pytest.mark.parametrize(("row", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_graded_here_is_said_in_one_line_with_the_remedy(row, message):
    with pytest.raises(DataError, match=message) as caught:
        parse_row(row)
    assert "\n" not in str(caught.value)


def test_a_row_with_a_script_of_its_own_is_taken_as_it_is():
    own = {"image": "mine:1", "eval_script": "e", "log_parser": "parse_log_pytest", "eval_type": "fail_only"}
    task = parse_row(REBENCH | own)
    assert (task.eval_script, task.eval_type, task.provenance) == ("e", "fail_only", {})


def test_an_adapted_row_exports_to_the_format_of_swebench_and_back():
    for row in (REBENCH, LIVE):
        task = parse_row(row)
        again = parse_row(to_row(task))
        assert again.model_copy(update={"provenance": task.provenance}) == task


def test_the_digest_of_a_set_covers_how_its_rows_are_graded():
    assert digest([REBENCH]) != digest([install_config(test_cmd="pytest -x")])
    assert digest([LIVE]) == digest([LIVE | {"all_hints_text": "not seen by anyone"}])


def test_a_file_of_such_rows_loads_and_a_whole_set_that_cannot_is_one_line(tmp_path):
    write(tmp_path / "rows.parquet", [REBENCH])
    assert [task.log_parser for task in load_tasks(tmp_path / "rows.parquet")] == ["parse_log_pytest"]
    write(tmp_path / "pro.jsonl", [PRO, PRO | {"instance_id": "instance_b"}])
    with pytest.raises(
        DataError, match=r"pro.jsonl row 1 \(instance_owner.*\): SWE-bench Pro .* \(and 1 more invalid row\)"
    ):
        load(tmp_path / "pro.jsonl")


def test_a_parser_that_swebench_lacks_is_said_before_anything_runs():
    with pytest.raises(DataError, match=r"owner__repo-7: log_parser 'parse_log_r' is unknown to swebench 5"):
        require_parser(parse_row(install_config(log_parser="parse_log_r")))


@pytest.mark.docker
@pytest.mark.network
@pytest.mark.parametrize("form", ["rebench", "live"])
def test_gold_resolves_and_a_wrong_patch_does_not(engine, tmp_path, form):
    image = tiny.task(tmp_path)
    ensure_image(image)
    with Sandbox(image.instance.image, scrub_git=False) as box:
        base = box.execute("git rev-parse HEAD").output.strip()
    python = "/opt/miniconda3/envs/testbed/bin/python"
    row = {
        "rebench": install_config(install=None, test_cmd="python -m pytest -rA -p no:cacheprovider"),
        "live": LIVE | {"test_cmds": [f"{python} -m pytest -rA"]},
    }[form] | {"base_commit": base, "docker_image": image.instance.image}
    (tmp_path / f"{form}.jsonl").write_text(json.dumps(row))
    (task,) = load_tasks(tmp_path / f"{form}.jsonl")
    graded = grade(task, prediction(task.instance_id, task.patch), folder=tmp_path / "gold", timeout=60)
    assert graded.outcome is Outcome.RESOLVED, graded.cause
    wrong = prediction(task.instance_id, tiny.creating("notes.txt", "nothing"))
    assert grade(task, wrong, folder=tmp_path / "wrong", timeout=60).outcome is Outcome.UNRESOLVED
