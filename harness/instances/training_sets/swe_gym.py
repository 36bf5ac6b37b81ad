"""SWE-Gym and SWE-Gym-Lite (github.com/SWE-Gym/SWE-Gym, huggingface.co/datasets/SWE-Gym/SWE-Gym; 11 repositories).

The rows have the columns of swebench 4, but repositories that swebench never knew: how these are tested stands in the
project's fork of swebench (`swe_gym.yaml`), and their images are published under the names given here.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

from aem_harness.harness.errors import DataError
from aem_harness.harness.instances.legacy import eval_script
from aem_harness.harness.instances.training_sets import Adapted, Row
from aem_harness.harness.instances.training_sets.columns import text

# Of these columns a row has no other: sets that know the same repositories say in columns of their own how to run them.
COLUMNS = frozenset(
    {"instance_id", "repo", "base_commit", "version", "problem_statement"}
    | {"patch", "test_patch", "FAIL_TO_PASS", "PASS_TO_PASS"}
)
BESIDE = frozenset({"hints_text", "created_at", "difficulty", "environment_setup_commit"})
SOURCE = "SWE-Gym specification"
_CASE = re.compile(r"\[case ([^\]]+)\]")  # how mypy's data files name their tests


def fits(row: Row) -> bool:
    held = {name for name, value in row.items() if value is not None}
    return COLUMNS <= held <= COLUMNS | BESIDE and str(row["repo"]).lower() in _facts()


def columns(row: Row) -> Adapted:
    repo, version = text(row, "repo"), text(row, "version")
    specification = next((one for one in _facts()[repo.lower()] if version in one["versions"]), None)
    if specification is None:
        raise DataError(f"version {version} of {repo} is none that SWE-Gym tested, so its tests cannot be run")
    derived = {
        "image": image_of(text(row, "instance_id")),
        "eval_script": eval_script(dict(row), specification, _cases(row) if repo.lower() == "python/mypy" else None),
        "log_parser": "parse_log_pytest",
        "eval_type": "pass_and_fail",
    }
    return derived, {**dict.fromkeys(derived, SOURCE), "image": "SWE-Gym image naming"}


def image_of(instance_id: str) -> str:
    """The name under which the project publishes an instance's image."""
    return f"xingyaoww/sweb.eval.x86_64.{instance_id.replace('__', '_s_')}:latest".lower()


def _cases(row: Row) -> list[str]:
    """mypy's runner is given test cases, as an expression of `pytest -k`."""
    cases = _CASE.findall(text(row, "test_patch"))
    if not cases:
        raise DataError("test_patch names no test case of mypy")
    return [f'"{" or ".join(cases)}"']


@cache
def _facts() -> dict[str, list[dict[str, Any]]]:
    import yaml

    facts = yaml.safe_load(Path(__file__).with_name("swe_gym.yaml").read_text())
    return {repo.lower(): specifications for repo, specifications in facts.items()}
