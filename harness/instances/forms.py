"""Rows of other published sets -> the columns of swebench 5, or one line that says why that cannot be.

A form is known by its columns. What swebench needs is taken from the columns that say it, and the source of each is
named. Two kinds are refused: sets whose results are read by a program of their own that no log parser of swebench
stands for (a verdict from here would carry their name and not be theirs), and rows without a published image. The forms
of training sets are in `training_sets/`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from aem_harness.harness.errors import DataError
from aem_harness.harness.instances.legacy import HEREDOC, default_image, eval_script, existing_files
from aem_harness.harness.instances.training_sets import nemo_gym, r2e_gym, swe_gym, swe_smith

Row = Mapping[str, Any]
Adapted = tuple[dict[str, Any], dict[str, str]]  # the columns that replace those of a row, and their sources

_OWN_GRADER = "grade there, and give aem compare a CSV of the outcomes (docs/howto/own-format.md)"
_OWN_COLUMNS = "give the row image or dockerfile, eval_script and log_parser: docs/howto/own-dataset.md"
# SWE-rebench's fork of swebench puts this before the commands of a row.
_UTF8 = "LANG=C.UTF-8 LC_ALL=C.UTF-8 "


def adapted(row: Row) -> tuple[Row, dict[str, str]]:
    """The row in the columns of swebench 5, and the source of each column that another form says in its own words.

    A row with an eval_script, or of no form known here, comes back as it is; an `image` of the row's own is kept.
    Raises DataError, with the remedy, for a form that cannot be graded here.
    """
    row = nemo_gym.unwrapped(row)
    if row.get("eval_script"):
        return row, {}
    for is_of_form, columns_of in FORMS:
        if is_of_form(row):
            columns, sources = columns_of(row)
            return {**row, **columns}, sources
    return row, {}


# --- SWE-rebench ----------------------------------------------------------------------------------------------------


def _is_rebench(row: Row) -> bool:
    return isinstance(row.get("install_config"), Mapping)


def _rebench(row: Row) -> Adapted:
    """nebius/SWE-rebench and its leaderboard sets: swebench 4's script; what varies is in `install_config`.

    Source: SWE-rebench/SWE-bench-fork, swebench/harness/utils.py and test_spec/python.py.
    """
    config: Row = row["install_config"]
    if "base_image_name" in config:
        raise DataError(f"SWE-rebench V2 has log parsers and an eval.py of its own: {_OWN_GRADER}")
    if not (_image(row) or row.get("dockerfile")):
        raise DataError(
            "docker_image is empty: SWE-rebench publishes images for its split `filtered` and its leaderboard sets "
            "alone; take one of those, or give the row image or dockerfile: docs/howto/own-dataset.md"
        )
    specification = {"before": _texts(config, "eval_commands"), "test": _UTF8 + _text(config, "test_cmd")}
    if config.get("install"):
        specification["install"] = _UTF8 + _text(config, "install")
    for name in ("repo", "base_commit", "test_patch"):
        _text(row, name)
    columns = {
        "eval_script": eval_script(dict(row), specification),
        "log_parser": _text(config, "log_parser"),
        "eval_type": "pass_and_fail",
    }
    sources = dict.fromkeys(columns, "SWE-rebench install_config")
    return (
        (columns | {"image": _image(row)}, sources | {"image": "docker_image"}) if _image(row) else (columns, sources)
    )


# --- SWE-bench-Live -------------------------------------------------------------------------------------------------


def _is_live(row: Row) -> bool:
    return "test_cmds" in row


def _live(row: Row) -> Adapted:
    """SWE-bench-Live/SWE-bench-Live: the script of its fork of swebench, which knows no conda.

    Source: microsoft/SWE-bench-Live, swebench/harness/test_spec/utils.py until December 2025. Its later evaluation.py
    lets a PASS_TO_PASS test go missing; the verdict here is swebench's, for which a missing test has failed.
    """
    if row.get("log_parser") != "pytest":
        raise DataError(
            "log_parser is a program (SWE-bench-Live MultiLang or Windows), which its own evaluation.py runs: "
            f"{_OWN_GRADER}"
        )
    named = _image(row)
    columns = {
        "image": named or default_image(_text(row, "instance_id"), owner="starryzhang"),
        "eval_script": _live_script(row),
        "log_parser": "parse_log_pytest",
        "eval_type": "pass_and_fail",
        "difficulty": None,  # numbers of files, hunks and lines, where swebench has a word
    }
    sources = dict.fromkeys(("eval_script", "log_parser", "eval_type"), "SWE-bench-Live test_cmds")
    return columns, sources | {"image": "docker_image" if named else "SWE-bench-Live image naming"}


def _live_script(row: Row) -> str:
    base, patch = _text(row, "base_commit"), _text(row, "test_patch")
    tests = _texts(row, "test_cmds")
    if not tests:
        raise DataError(f"test_cmds is empty: {_OWN_COLUMNS}")
    files = existing_files(patch)
    reset = f"git checkout {base} {' '.join(files)}" if files else 'echo "No test files to reset"'
    lines = [
        "#!/bin/bash",
        "set -uxo pipefail",
        "cd /testbed",
        "git config --global --add safe.directory /testbed",
        reset,
        f"git apply --verbose --reject - <<'{HEREDOC}'\n{patch}\n{HEREDOC}",
        *_texts(row, "rebuild_cmds"),
        ": '>>>>> Start Test Output'",
        *tests,
        *_texts(row, "print_cmds"),
        ": '>>>>> End Test Output'",
        reset,
    ]
    return "\n".join(lines) + "\n"


# --- sets with a grader of their own --------------------------------------------------------------------------------


def _is_pro(row: Row) -> bool:
    return "dockerhub_tag" in row or "selected_test_files_to_run" in row


def _pro(row: Row) -> Adapted:
    raise DataError(
        "SWE-bench Pro runs and reads the tests of each row with scripts of scaleapi/SWE-bench_Pro-os, which are not "
        f"in the row: {_OWN_GRADER}"
    )


def _is_multi(row: Row) -> bool:
    return "fix_patch" in row


def _multi(row: Row) -> Adapted:
    raise DataError(
        "Multi-SWE-bench runs and reads the tests of each repository with code of its package multi_swe_bench, which "
        f"is not in the row: {_OWN_GRADER}"
    )


FORMS: tuple[tuple[Callable[[Row], bool], Callable[[Row], Adapted]], ...] = (
    (_is_rebench, _rebench),
    (_is_live, _live),
    (_is_pro, _pro),
    (_is_multi, _multi),
    (r2e_gym.fits, r2e_gym.columns),
    (swe_smith.fits, swe_smith.columns),
    (swe_gym.fits, swe_gym.columns),
    (nemo_gym.has_no_tests, nemo_gym.refuse),
)


# --- columns --------------------------------------------------------------------------------------------------------


def _image(row: Row) -> str:
    """The image that a row names, in the words of these sets; empty where it names none."""
    return next((row[name] for name in ("image", "docker_image", "image_name") if row.get(name)), "")


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise DataError(f"{name} is {'missing' if value is None else 'no text'}")
    return value


def _texts(row: Row, name: str) -> list[str]:
    """A list of commands; null and empty ones are none."""
    value = row.get(name) or []
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        raise DataError(f"{name} must be a list of commands")
    return [text for text in value if text.strip()]
