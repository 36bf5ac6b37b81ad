"""Small rows in the published forms of training sets, made up here: no text of any of these sets."""

import json

SWE_GYM = {
    "instance_id": "getmoto__moto-1",
    "repo": "getmoto/moto",
    "base_commit": "ab" * 20,
    "version": "4.1",
    "problem_statement": "Deleting twice raises.",
    "hints_text": "",
    "created_at": "2023-01-02 03:04:05",
    "patch": "diff --git a/moto/s3.py b/moto/s3.py\n--- a/moto/s3.py\n+++ b/moto/s3.py\n@@ -1 +1 @@\n-a\n+b\n",
    "test_patch": "diff --git a/tests/test_s3.py b/tests/test_s3.py\n--- a/tests/test_s3.py\n+++ b/tests/test_s3.py\n"
    "@@ -1 +1 @@\n-a\n+b\n",
    "FAIL_TO_PASS": ["tests/test_s3.py::test_twice"],
    "PASS_TO_PASS": ["tests/test_s3.py::test_once"],
}
MYPY = {
    **SWE_GYM,
    "instance_id": "python__mypy-1",
    "repo": "python/mypy",
    "version": "1.7",
    "test_patch": "diff --git a/test-data/unit/check.test b/test-data/unit/check.test\n"
    "--- a/test-data/unit/check.test\n+++ b/test-data/unit/check.test\n@@ -1,0 +1,2 @@\n"
    "+[case testOne]\n+[case testTwo]\n",
    "FAIL_TO_PASS": ["mypy/test/testcheck.py::TypeCheckSuite::check.test::testOne"],
}
SWE_SMITH = {
    "instance_id": "someone__calx.0123abcd.func_pm_op_swap__ab12cd34",
    "repo": "swesmith/someone__calx.0123abcd",
    "image_name": "swesmith.x86_64.someone__calx.0123abcd",
    "patch": "diff --git a/calx/a.py b/calx/a.py\nindex 1111111..2222222 100644\n--- a/calx/a.py\n+++ b/calx/a.py\n"
    "@@ -1,2 +1,2 @@ def add\n def add(a, b):\n-    return a + b\n+    return a - b\n",
    "problem_statement": "Sums are wrong.",
    "FAIL_TO_PASS": ["tests/test_a.py::test_add"],
    "PASS_TO_PASS": ["tests/test_a.py::test_zero", "tests/test_other.py::test_more"],
}


def r2e_gym(**changes: object) -> dict:
    """A row of R2E-Gym: a fix of one file with a new test, of which one more test fails before and after."""
    line = lambda kind, content: {"type": kind, "content": content}  # noqa: E731
    source = {
        "old_file_content": "def add(a, b):\n    return a - b\n",
        "new_file_content": "def add(a, b):\n    return a + b\n",
        "header": {"file": {"path": "calx/a.py"}, "misc_line": None},
        "index_line": {"old_commit_hash": "1111111", "new_commit_hash": "2222222", "mode": "100644"},
        "is_binary_file": False,
        "binary_line": None,
        "minus_file": {"path": "a/calx/a.py"},
        "plus_file": {"path": "b/calx/a.py"},
        "hunks": [
            {
                "descriptor": {
                    "old_range": {"start": 1, "length": 2},
                    "new_range": {"start": 1, "length": 2},
                    "section": "",
                },
                "line_group": {
                    "all_lines": [
                        line("context", "def add(a, b):"),
                        line("deleted", "    return a - b"),
                        line("added", "    return a + b"),
                    ]
                },
            }
        ],
    }
    test = {**source, "header": {"file": {"path": "tests/test_a.py"}, "misc_line": None}}
    summary = "=== short test summary info ===\nPASSED r2e_tests/test_1.py::test_zero\n{}\n{}\n==== 3 ran ====\n"
    broken = "FAILED r2e_tests/test_1.py::Known::test_bug - AssertionError: no"
    failed = "FAILED r2e_tests/test_1.py::test_add - assert -1 == 3"
    code = "from calx.a import add\n\n\ndef test_zero():\n    assert add(0, 0) == 0\n"
    code += "\n\ndef test_add():\n    assert add(1, 2) == 3\n"
    expected = {"test_zero": "PASSED", "\x1b[1mtest_add\x1b[0m": "PASSED", "Known.test_bug": "FAILED"}
    return {
        "repo_name": "calx",
        "docker_image": "namanjain12/calx_final:" + "cd" * 20,
        "commit_hash": "cd" * 20,
        "parsed_commit_content": json.dumps({"file_diffs": [source, test], "old_commit_hash": "cd" * 20 + "^"}),
        "execution_result_content": json.dumps(
            {
                "repo_name": "calx",
                "test_file_codes": [code],
                "test_file_names": ["test_1.py"],
                "old_commit_res_stdout": summary.format(failed, broken),
                "new_commit_res_stdout": summary.format("PASSED r2e_tests/test_1.py::test_add", broken),
            }
        ),
        "expected_output_json": json.dumps(expected),
        "problem_statement": "Fix this.\n[ISSUE]\nSums are wrong.\n[/ISSUE]\n",
        "modified_files": ["calx/a.py"],
        "prompt": "",
        **changes,
    }


def nemo_gym(row: dict, **metadata: object) -> dict:
    """A row of another form as a request of NeMo Gym's SWE agents."""
    beside = {name: row.get(name, "") for name in ("instance_id", "base_commit", "problem_statement")}
    inner = {
        **beside,
        "dataset_name": "SWE-Gym/SWE-Gym",
        "split": "train",
        "instance_dict": json.dumps(row),
        **metadata,
    }
    return {
        "responses_create_params": {"input": [], "metadata": inner},
        "agent_ref": {"type": "responses_api_agents", "name": "swe_agents_train"},
    }


CASCADE = {
    "instance_id": "getmoto__moto-1",
    "prompt": "...",
    "golden_patch": "diff",
    "relevant_file_contents": "{}",
    "source": "SWE-Gym",
}
