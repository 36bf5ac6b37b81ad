"""Rows of training sets, in their published forms, become tasks; what cannot be run is refused in one line."""

import gzip
import json
import random
import subprocess
from base64 import b64decode
from pathlib import Path

import pytest

from aem_harness.harness.errors import DataError
from aem_harness.harness.grading.official import log_statuses
from aem_harness.harness.instances.forms import adapted
from aem_harness.harness.instances.load import load
from aem_harness.harness.instances.training_sets.patches import reversed_patch
from tests.instances.published import CASCADE, MYPY, SWE_GYM, SWE_SMITH, nemo_gym, r2e_gym


def tasks_of(tmp_path: Path, *rows: dict):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load(file)


def task_of(tmp_path: Path, row: dict):
    (task,) = tasks_of(tmp_path, row).tasks
    return task


def test_swe_gym_is_run_as_its_own_fork_of_swebench_runs_it(tmp_path):
    task = task_of(tmp_path, SWE_GYM)
    assert task.instance.image == "xingyaoww/sweb.eval.x86_64.getmoto_s_moto-1:latest"
    assert "\nmake init\n" in task.eval_script
    assert "\npytest -n0 -rA tests/test_s3.py\n" in task.eval_script
    assert task.provenance["eval_script"] == "SWE-Gym specification"
    assert '\npytest -rA -k "testOne or testTwo"\n' in task_of(tmp_path, MYPY).eval_script


def test_a_version_that_swe_gym_never_tested_is_refused_and_the_other_rows_stay(tmp_path):
    loaded = tasks_of(tmp_path, SWE_GYM, {**SWE_GYM, "instance_id": "getmoto__moto-2", "version": "99"})
    assert [task.instance_id for task in loaded.tasks] == ["getmoto__moto-1"]
    assert loaded.problems == [
        "rows.jsonl row 2 (getmoto__moto-2): version 99 of getmoto/moto is none that SWE-Gym tested, "
        "so its tests cannot be run"
    ]


def test_swe_smiths_patch_is_the_bug_and_its_reverse_the_gold_patch(tmp_path):
    task = task_of(tmp_path, SWE_SMITH)
    assert "-    return a - b\n+    return a + b\n" in task.patch
    assert gzip.decompress(b64decode(task.build_args["BUG"])).decode() == SWE_SMITH["patch"]
    assert task.build_args["IMAGE"] == "jyangballin/swesmith.x86_64.someone_1776_calx.0123abcd:latest"
    assert task.instance.base_commit == "0123abcd"
    assert task.pass_to_pass == ("tests/test_a.py::test_zero",), "a test of a file that is not run says nothing"
    assert (Path(task.dockerfile) / "Dockerfile").is_file()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"FAIL_TO_PASS": ["testOne"]}, "no test of pytest"),
        ({"repo": "someone/calx"}, "repo must end in the commit of its mirror"),
        ({"problem_statement": ""}, "problem_statement is empty"),
        ({"patch": "no diff"}, "patch is not a unified diff"),
    ],
)
def test_what_cannot_be_run_of_swe_smith_is_refused(tmp_path, changes, said):
    with pytest.raises(DataError, match=said):
        tasks_of(tmp_path, {**SWE_SMITH, **changes})


def test_r2e_gyms_tests_come_from_the_row_and_are_those_that_pass_with_the_fix(tmp_path):
    task = task_of(tmp_path, r2e_gym())
    assert task.instance_id == "calx-" + "cd" * 20
    assert task.instance.problem_statement == "Sums are wrong.\n"
    assert (task.fail_to_pass, task.pass_to_pass) == (("test_add",), ("test_zero",))
    assert task.patch.count("diff --git") == 1, "the tests of the commit are no part of the gold patch"
    assert "-    return a - b\n+    return a + b\n" in task.patch
    assert "cat > r2e_tests/test_1.py <<" in task.eval_script
    assert "assert add(1, 2) == 3" in task.eval_script


def test_r2e_gyms_names_of_tests_are_what_the_grader_reads(tmp_path):
    """The eval script's sed makes of pytest's summary the names that the row knows; run for real on a log."""
    task = task_of(tmp_path, r2e_gym())
    command = next(line for line in task.eval_script.splitlines() if "run_tests.sh" in line)
    log = "PASSED r2e_tests/test_1.py::test_zero\nFAILED r2e_tests/test_1.py::Known::test_bug - AssertionError: a - b\n"
    log += "PASSED r2e_tests/test_1.py::test_it[a b]\n1 + 1 :: 2\n"
    seen = subprocess.run(command.partition("|")[2], shell=True, input=log, capture_output=True, text=True, check=True)
    marked = f"+ : '>>>>> Start Test Output'\n{seen.stdout}+ : '>>>>> End Test Output'\n"
    assert log_statuses(task, marked) == {"test_zero": "PASSED", "Known.test_bug": "FAILED", "test_it[a b]": "PASSED"}


def test_an_r2e_gym_row_that_does_not_show_a_failing_test_is_refused(tmp_path):
    execution = json.loads(r2e_gym()["execution_result_content"]) | {"old_commit_res_stdout": "killed"}
    with pytest.raises(DataError, match="no test is known to fail"):
        tasks_of(tmp_path, r2e_gym(execution_result_content=json.dumps(execution)))


@pytest.mark.parametrize("row", [SWE_GYM, SWE_SMITH, r2e_gym()], ids=["SWE-Gym", "SWE-smith", "R2E-Gym"])
def test_a_request_of_nemo_gym_is_the_row_inside_it(tmp_path, row):
    assert task_of(tmp_path, nemo_gym(row)) == task_of(tmp_path, row)


def test_rows_that_are_graded_without_being_run_are_refused_with_the_remedy(tmp_path):
    with pytest.raises(DataError, match=r"no tests.*column `source`"):
        tasks_of(tmp_path, CASCADE)
    with pytest.raises(DataError, match="instance_dict must hold a row"):
        tasks_of(tmp_path, {"responses_create_params": {"input": []}})


def test_a_row_of_swebench_is_left_alone():
    swebench = {**SWE_GYM, "repo": "django/django", "version": "3.0"}
    assert adapted(swebench) == (swebench, {})
    complete = {**SWE_GYM, "image": "i", "eval_script": "e", "log_parser": "parse_log_pytest"}
    assert adapted(complete) == (complete, {})


def test_a_reversed_patch_brings_back_the_tree_before(tmp_path):
    """Twenty random changes of several files: edits, new, deleted and renamed ones, modes, missing final newlines."""
    random.seed(3)

    def git(*words: str, **more: str) -> str:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", *words]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True, **more).stdout

    def some_text() -> str:
        lines = (random.choice("abcdefg-+@ ") * 3 for _ in range(random.randint(1, 30)))
        return "\n".join(lines) + random.choice(["", "\n"])

    git("init", "-q")
    for number in range(21):
        for name in "uvwxyz":
            path = tmp_path / f"{name} {number % 3}.txt" if random.random() < 0.2 else tmp_path / f"{name}.txt"
            if path.exists() and random.random() < 0.2:
                path.unlink()
            elif random.random() < 0.7:
                path.write_text(some_text())
                path.chmod(random.choice([0o644, 0o755]))
        if number % 5 == 4 and (tmp_path / "u.txt").exists():
            (tmp_path / "u.txt").rename(tmp_path / "moved.txt")
        git("add", "-A")
        git("commit", "-q", "--allow-empty", "-m", "x")
        if number and (forth := git("diff", "-M", "HEAD~1", "HEAD")):
            git("apply", "--index", input=reversed_patch(forth))
            assert git("write-tree") == git("rev-parse", "HEAD~1^{tree}")
            git("reset", "-q", "--hard")
