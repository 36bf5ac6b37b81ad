"""Rows of 2024: the fields that swebench 5 expects are derived exactly, and their origin is named."""

import csv
import gzip
import json
import subprocess
from pathlib import Path

import pytest

from aem_harness.harness.errors import DataError
from aem_harness.harness.instances.legacy import NAMING, SPECIFICATION, complete_row
from tests.peers import peer

# What swebench 4.1.0 itself generates; run by an interpreter that has that release.
GENERATE = """
import gzip, json, sys
from swebench.harness.constants import MAP_REPO_VERSION_TO_SPECS
from swebench.harness.test_spec.create_scripts import make_eval_script_list
for line in gzip.open(sys.argv[1]):
    row = json.loads(line)
    specs = MAP_REPO_VERSION_TO_SPECS[row["repo"]][row["version"]]
    script = make_eval_script_list(row, specs, "testbed", "/testbed", row["base_commit"], row["test_patch"])
    text = "\\n".join(["#!/bin/bash", "set -uxo pipefail"] + script) + "\\n"
    print(json.dumps({row["instance_id"]: text}))
"""


@pytest.fixture(scope="module")
def rows(shared: Path) -> list[dict]:
    with gzip.open(shared / "data" / "swe-bench-verified.jsonl.gz") as file:
        return [json.loads(line) for line in file]


def test_log_parser_image_and_test_command_equal_those_of_the_dataset_of_2026(rows: list, shared: Path) -> None:
    with (shared / "data" / "verified-eval-facts.csv").open(newline="") as file:
        facts = {row["instance_id"]: row for row in csv.DictReader(file)}
    for row in rows:
        completed, _ = complete_row(row)
        expected = facts[row["instance_id"]]
        for column in ("log_parser", "image", "eval_type"):
            assert completed[column] == expected[column]
        lines = completed["eval_script"].splitlines()
        assert lines[lines.index(": '>>>>> Start Test Output'") + 1] == expected["test_command"]


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.extended
def test_every_eval_script_equals_that_of_swebench_4_1_0(rows: list, shared: Path) -> None:
    path = str(shared / "data" / "swe-bench-verified.jsonl.gz")
    run = subprocess.run(
        [str(peer("swebench==4.1.0")), "-c", GENERATE, path], check=True, capture_output=True, text=True
    )
    official: dict[str, str] = {}
    for line in run.stdout.splitlines():
        official |= json.loads(line)
    assert {row["instance_id"]: complete_row(row)[0]["eval_script"] for row in rows} == official
    assert len(official) == 500


def test_only_what_is_missing_is_derived_and_its_origin_named(rows: list) -> None:
    row = rows[0]
    completed, provenance = complete_row(row)
    assert provenance == {
        "image": NAMING,
        "eval_script": SPECIFICATION,
        "log_parser": SPECIFICATION,
        "eval_type": SPECIFICATION,
    }
    assert {name: completed[name] for name in row} == row
    own = row | {"image": "mine:1", "log_parser": "parse_log_pytest", "eval_script": None}
    completed, provenance = complete_row(own)
    assert completed["image"] == "mine:1"
    assert completed["log_parser"] == "parse_log_pytest"
    assert set(provenance) == {"eval_script", "eval_type"}


@pytest.mark.parametrize(
    "change", [{"repo": "redis/redis", "version": "7.2"}, {"version": "99.9"}, {"version": None}, {"repo": None}]
)
def test_what_cannot_be_derived_says_which_dataset_to_use(rows: list, change: dict) -> None:
    with pytest.raises(DataError, match=r"eval_script is missing and cannot be derived for .* use the dataset"):
        complete_row(rows[0] | change)


def test_a_test_patch_that_is_no_diff_is_named(rows: list) -> None:
    with pytest.raises(DataError, match="test_patch is not a unified diff"):
        complete_row(rows[0] | {"test_patch": "--- a/x\n+++ b/x\n@@ -1,3 +1,3 @@\nnonsense\n"})
