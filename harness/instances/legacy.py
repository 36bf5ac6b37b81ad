"""Rows published before swebench 5: derive what the grader needs, and say where each derived field came from.

The datasets of 2023-26 lack `image`, `eval_script`, `log_parser` and `eval_type`; swebench generated the script from
constants that release 5 dropped. `legacy.yaml` keeps those constants for the Python datasets (full, Lite, Verified);
the script written here equals that of swebench 4.1.0 character by character.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

from aem_harness.harness.errors import DataError

SPECIFICATION = "swebench 4.1.0 specification"
NAMING = "swebench image naming"

HEREDOC = "EOF_114329324912"  # the delimiter that 4.1.0 uses
_ACTIVATE = ["source /opt/miniconda3/bin/activate", "conda activate testbed"]
# Files of a test patch that are data of tests, not tests (4.1.0: NON_TEST_EXTS).
_DATA_SUFFIXES = (".json", ".png", "csv", ".txt", ".md", ".jpg", ".jpeg", ".pkl", ".yml", ".yaml", ".toml")


def complete_row(row: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The row with the fields it lacks, and for each of these the name of its source.

    Fields that the row has are left alone. Raises DataError for a repository or version that swebench 4.1.0 could not
    evaluate, or whose script it made from more than the row (the multilingual and multimodal sets).
    """
    specification = _specification(row)
    derived = {
        "image": (lambda: default_image(row["instance_id"]), NAMING),
        "eval_script": (lambda: eval_script(row, specification), SPECIFICATION),
        "log_parser": (lambda: specification["log_parser"], SPECIFICATION),
        "eval_type": (lambda: "pass_and_fail", SPECIFICATION),
    }
    missing = {name: found for name, found in derived.items() if not row.get(name)}
    return (
        row | {name: value() for name, (value, _) in missing.items()},
        {name: source for name, (_, source) in missing.items()},
    )


def default_image(instance_id: str, *, owner: str = "swebench") -> str:
    """The name under which the official image of an instance is published (swebench 4.1.0 and 5.0.2)."""
    return f"{owner}/sweb.eval.x86_64.{instance_id.replace('__', '_1776_')}:latest".lower()


def _specification(row: dict[str, Any]) -> dict[str, Any]:
    repo, version = row.get("repo"), row.get("version")
    facts = _facts().get(str(repo))
    remedy = (
        "use the dataset as published for swebench 5, whose rows carry image, eval_script and log_parser, or give the "
        "row these columns: docs/howto/own-dataset.md"
    )
    if facts is None:
        raise DataError(f"eval_script is missing and cannot be derived for repo {repo!r}: {remedy}")
    for specification in facts["specifications"]:
        if version in specification["versions"]:
            return {**specification, "log_parser": facts["log_parser"]}
    raise DataError(f"eval_script is missing and cannot be derived for {repo} version {version!r}: {remedy}")


@cache
def _facts() -> dict[str, Any]:
    import yaml

    facts: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("legacy.yaml").read_text())
    return facts


def eval_script(row: dict[str, Any], specification: dict[str, Any], arguments: list[str] | None = None) -> str:
    """As `make_eval_script_list_py` and `TestSpec.eval_script` of swebench 4.1.0 write it.

    `arguments` are what the test command is given; None: the files of the test patch.
    """
    base, test_patch = row["base_commit"], row["test_patch"]
    reset = f"git checkout {base} {' '.join(existing_files(test_patch))}"
    commands = [
        "#!/bin/bash",
        "set -uxo pipefail",
        *_ACTIVATE,
        "cd /testbed",
        *specification.get("before", []),
        "git config --global --add safe.directory /testbed",
        "cd /testbed",
        "git status",
        "git show",
        f"git -c core.fileMode=false diff {base}",
        *_ACTIVATE,
        *([specification["install"]] if "install" in specification else []),
        reset,
        f"git apply -v - <<'{HEREDOC}'\n{test_patch}\n{HEREDOC}",
        ": '>>>>> Start Test Output'",
        " ".join([specification["test"], *(arguments or _test_arguments(row["repo"], test_patch))]),
        ": '>>>>> End Test Output'",
        reset,
    ]
    return "\n".join(commands) + "\n"


def existing_files(patch: str) -> list[str]:
    """The files that a patch changes, without those it creates."""
    from unidiff.errors import UnidiffParseError
    from unidiff.patch import PatchSet

    try:
        sources = [file.source_file for file in PatchSet(patch)]
    except UnidiffParseError as error:
        raise DataError(f"test_patch is not a unified diff: {error}") from None
    return [source[2:] for source in sources if source.startswith("a/")]


def _test_arguments(repo: str, test_patch: str) -> list[str]:
    """What the test command is given: the files of the test patch, as modules for Django's runner."""
    files = [file for file in re.findall(r"diff --git a/.* b/(.*)", test_patch) if not file.endswith(_DATA_SUFFIXES)]
    if repo != "django/django":
        return files
    return [file.removesuffix(".py").removeprefix("tests/").replace("/", ".") for file in files]
