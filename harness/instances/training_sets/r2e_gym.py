"""R2E-Gym (github.com/R2E-Gym/R2E-Gym, huggingface.co/datasets/R2E-Gym/R2E-Gym-Subset, -Lite, -V1).

A row describes a commit: `parsed_commit_content` holds the diff, `execution_result_content` the tests and their output
before and after, `expected_output_json` the status of each test afterwards. The project's reward asks for exactly these
statuses, also for tests that fail with the gold patch; here the tests decide that pass with it (FAIL_TO_PASS,
PASS_TO_PASS), so a policy is not punished for repairing one more. Its images hold the tests where an agent can read
them; a layer made here removes them, and the eval script writes them from the row.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aem_harness.harness.errors import DataError
from aem_harness.harness.instances.training_sets import Adapted, Row
from aem_harness.harness.instances.training_sets.columns import fields, local_image, text

OF_THE_FIX = "the commit of the fix; the image holds its parent"
LAYER = Path(__file__).parent / "r2e"
SUMMARY = "short test summary info"
_STATUS = re.compile(r"(PASSED|FAILED|ERROR) (.*)")
_PREFIX = {"context": " ", "added": "+", "deleted": "-", "note": "\\ "}
# The summary's lines as the project names tests: without the file, the rest joined by dots, without the message.
_AS_NAMED = r"/^(PASSED|FAILED|ERROR) /{s/^([A-Z]+) [^ :]*::/\1 /;s/::/./g;s/ - .*$//}"


def fits(row: Row) -> bool:
    needed = ("repo_name", "docker_image", "commit_hash", "parsed_commit_content", "expected_output_json")
    return all(row.get(name) is not None for name in needed)


def columns(row: Row) -> Adapted:
    commit, project = text(row, "commit_hash"), text(row, "repo_name")
    instance_id = str(row.get("instance_id") or f"{project}-{commit}")
    expected = _named(fields(row, "expected_output_json"))
    execution = fields(row, "execution_result_content")
    before = _summary(str(execution.get("old_commit_res_stdout") or ""))
    if not before:
        raise DataError("old_commit_res_stdout has no summary of tests, so no test is known to fail")
    passing = [name for name, status in expected.items() if status == "PASSED" and name]
    derived = {
        "instance_id": instance_id,
        "repo": str(row.get("repo") or project),
        "base_commit": commit,
        "problem_statement": _issue(text(row, "problem_statement")),
        "patch": gold(fields(row, "parsed_commit_content")),
        "test_patch": "",
        "FAIL_TO_PASS": [name for name in passing if before.get(name) != "PASSED"],
        "PASS_TO_PASS": [name for name in passing if before.get(name) == "PASSED"],
        "image": local_image("r2e", instance_id),
        "eval_script": _script(execution),
        "log_parser": "parse_log_pytest_v2",
        "eval_type": "pass_and_fail",
        "dockerfile": str(LAYER),
        "build_args": {"IMAGE": text(row, "docker_image")},
    }
    sources = dict.fromkeys(("FAIL_TO_PASS", "PASS_TO_PASS"), "R2E-Gym expected_output_json, execution_result_content")
    sources |= dict.fromkeys(("eval_script", "log_parser", "eval_type"), "R2E-Gym execution_result_content")
    sources |= {"image": "R2E-Gym docker_image", "patch": "R2E-Gym parsed_commit_content"}
    return derived, sources | {"base_commit": OF_THE_FIX}


def gold(commit: Mapping[str, Any]) -> str:
    """The commit's diff without its tests, as the project's `ParsedCommit.get_patch` puts it together."""
    diffs = commit.get("file_diffs")
    if not isinstance(diffs, list):
        raise DataError("parsed_commit_content has no file_diffs")
    try:
        return "".join(
            "".join(_file(diff)) for diff in diffs if not is_test(diff["header"]["file"]["path"]) and diff.get("hunks")
        )
    except (KeyError, TypeError) as error:
        raise DataError(f"parsed_commit_content has a file diff without {error}") from None


def is_test(path: str) -> bool:
    """Whether the project counts a file as a test."""
    *folders, name = path.split("/")
    named = name.endswith("_test.py") or name.startswith("test_")
    return named or not {"tests", "Tests", "test", "Test"}.isdisjoint(folders)


def _file(diff: Mapping[str, Any]) -> Iterator[str]:
    header, path = diff["header"], diff["header"]["file"]["path"]
    yield f"diff --git a/{path} b/{path}\n"
    if header.get("misc_line"):
        yield header["misc_line"] + "\n"
    if index := diff.get("index_line"):
        yield f"index {index['old_commit_hash']}..{index['new_commit_hash']} {index.get('mode') or ''}".rstrip() + "\n"
    yield f"--- {diff['minus_file']['path']}\n+++ {diff['plus_file']['path']}\n"
    for hunk in diff["hunks"]:
        at = hunk["descriptor"]
        section = f" {at['section']}" if at.get("section") else ""
        yield f"@@ -{_range(at['old_range'])} +{_range(at['new_range'])} @@{section}\n"
        for line in hunk["line_group"]["all_lines"]:
            yield f"{_PREFIX[line['type']]}{line['content']}\n"


def _range(value: Mapping[str, Any]) -> str:
    return f"{value['start']}" if value.get("length") is None else f"{value['start']},{value['length']}"


def _issue(statement: str) -> str:
    """The text between the marks that the project puts around an issue."""
    found = re.search(r"\[ISSUE\](.*)\[/ISSUE\]", statement, re.DOTALL)
    return (found[1] if found else statement).strip() + "\n"


def _named(statuses: Mapping[str, Any]) -> dict[str, str]:
    """Test names as the log's reader will give them: without colours, without messages, one space between words."""
    plain = {re.sub(r"\x1b\[\d+m", "", name): str(status) for name, status in statuses.items()}
    return {" ".join(name.split(" - ")[0].split()): status for name, status in plain.items()}


def _summary(log: str) -> dict[str, str]:
    """The status of each test in pytest's summary, under the project's names."""
    _, found, summary = re.sub(r"\x1b\[[0-9;]*m|\r", "", log).partition(SUMMARY)
    lines = (_STATUS.match(line.strip()) for line in summary.splitlines())
    return _named({".".join(line[2].split("::")[1:]): line[1] for line in lines if line}) if found else {}


def _script(execution: Mapping[str, Any]) -> str:
    names, codes = execution.get("test_file_names"), execution.get("test_file_codes")
    if not isinstance(names, list) or not isinstance(codes, list) or len(names) != len(codes) or not names:
        raise DataError("execution_result_content must name as many test_file_names as test_file_codes, at least one")
    lines = [
        "#!/bin/bash",
        "set -uxo pipefail",
        "cd /testbed",
        "export PATH=/testbed/.venv/bin:$PATH",
        "rm -rf r2e_tests && mkdir r2e_tests && touch r2e_tests/__init__.py",
    ]
    for name, code in zip(names, codes, strict=True):
        if not re.fullmatch(r"[\w.-]+", str(name)):
            raise DataError(f"test_file_names has {name!r}, which is no file name")
        end = _end_of(str(code))
        lines += [f"cat > r2e_tests/{name} <<'{end}'", str(code).rstrip("\n"), end]
    return "\n".join(
        [
            *lines,
            "[ ! -f Tests/helper.py ] || cp Tests/helper.py r2e_tests/",  # as the project did: Pillow's tests import it
            ": '>>>>> Start Test Output'",
            f"bash /root/run_tests.sh 2>&1 | sed -E '{_AS_NAMED}'",
            ": '>>>>> End Test Output'",
            "rm -rf r2e_tests",
            "",
        ]
    )


def _end_of(code: str) -> str:
    """A word that ends a text in a script: no line of it, and the same on every machine."""
    return "EOF_" + hashlib.sha256(code.encode("utf-8", "surrogateescape")).hexdigest()[:16]
