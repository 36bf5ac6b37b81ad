"""One dataset row as published -> one `Task`, or one clear line saying which field is wrong.

Two generations of the format are in the wild. Rows of 2024-25 (swebench 4 and before) lack `image`, `eval_script`,
`log_parser` and `eval_type`; rows of swebench 5 carry them. What a row lacks is derived (`legacy.py`), rows of other
sets are brought to these columns first (`forms.py`); `Task.provenance` names what was derived. Test lists come as JSON
text or as lists. Beyond the published columns a local row may say how its image is built and graded: `dockerfile` (a
folder, relative to the file), `build_args`, `network`.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from aem_harness.harness.errors import DataError
from aem_harness.harness.instances.forms import adapted
from aem_harness.harness.instances.legacy import complete_row, default_image
from aem_harness.harness.types import Instance, Task

Row = Mapping[str, Any]

MOST = 200  # characters of an instance id: file systems take 255 for a name, and names are made longer
REQUIRED = ("instance_id", "repo", "base_commit", "problem_statement")  # text, not empty
TEXT = ("patch", "test_patch")  # text, may be empty
OPTIONAL = ("version", "hints_text", "created_at", "difficulty")  # text or null; empty where absent
# findings/pandas-makes-version-1.10-of-a-row-1.1.sh
NUMBERED = ": 1.10 and 1.1 are then one; read with dtype=False, pandas.read_json keeps the text"
MOMENT = "created_at"  # text as published, a timestamp (parquet), or milliseconds since 1970 (pandas, datasets)
TEST_LISTS = ("FAIL_TO_PASS", "PASS_TO_PASS")
GRADING = ("image", "eval_script", "log_parser", "eval_type")  # absent from rows older than swebench 5
UNITS = (
    (1e17, 1e9),
    (1e14, 1e6),
    (1e11, 1e3),
)  # a count since 1970 at least so large is in nano-, micro-, milliseconds
EVAL_TYPES = ("pass_and_fail", "fail_only")

# Ids become folder and container names, commits become words of shell commands: both are held to safe characters.
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_COMMIT = re.compile(r"[0-9a-fA-F]{7,64}")


def parse_row(row: object, *, dataset: str = "", folder: Path | None = None) -> Task:
    """One published row as a `Task`.

    `folder` is where a relative `dockerfile` is looked up (the dataset file's own folder). Raises `DataError` whose
    text names the field, what it must be and what it is; the caller adds file and row number.
    """
    if not isinstance(row, Mapping):
        raise DataError(f"must be an object with named fields, is {_kind(row)}")
    row, sources = adapted(row)
    required = {name: _text(row, name, empty=False) for name in REQUIRED}
    if not _ID.fullmatch(required["instance_id"]):
        raise DataError(f"instance_id must be letters, digits, '.', '_' or '-', is {_short(required['instance_id'])}")
    if (size := len(required["instance_id"])) > MOST:
        raise DataError(f"instance_id has {size} characters: at most {MOST} can name files")
    if not _COMMIT.fullmatch(required["base_commit"]):
        raise DataError(f"base_commit must be a hexadecimal commit id, is {_short(required['base_commit'])}")
    text = {name: _text(row, name, empty=True) for name in TEXT}
    optional = {name: _optional_text(row, name) for name in OPTIONAL}
    tests = {name: read_tests(row, name) for name in TEST_LISTS}
    if not tests["FAIL_TO_PASS"]:
        raise DataError("FAIL_TO_PASS is empty, so a fix cannot be told from an empty patch")
    grading, provenance = _grading_fields(row)
    if grading["eval_type"] not in EVAL_TYPES:
        raise DataError(f"eval_type must be one of {', '.join(EVAL_TYPES)}, is {_short(grading['eval_type'])}")
    return Task(
        instance=Instance(**required, **optional, image=grading["image"]),
        patch=text["patch"],
        test_patch=text["test_patch"],
        fail_to_pass=tests["FAIL_TO_PASS"],
        pass_to_pass=tests["PASS_TO_PASS"],
        eval_script=grading["eval_script"],
        log_parser=grading["log_parser"],
        eval_type=grading["eval_type"],
        dockerfile=_dockerfile(row, folder),
        build_args=_build_args(row),
        network=_network(row),
        dataset=dataset,
        provenance=provenance | sources,
    )


def to_row(task: Task) -> dict[str, Any]:
    """The task as a row in the published format of swebench 5 (test lists as JSON text), which `swebench` reads."""
    instance = task.instance
    return {
        "instance_id": instance.instance_id,
        "repo": instance.repo,
        "base_commit": instance.base_commit,
        "version": instance.version,
        "problem_statement": instance.problem_statement,
        "hints_text": instance.hints_text,
        "created_at": instance.created_at,
        "difficulty": instance.difficulty,
        "patch": task.patch,
        "test_patch": task.test_patch,
        "FAIL_TO_PASS": json.dumps(task.fail_to_pass),
        "PASS_TO_PASS": json.dumps(task.pass_to_pass),
        "image": instance.image,
        "eval_script": task.eval_script,
        "log_parser": task.log_parser,
        "eval_type": task.eval_type,
    }


def local_columns(task: Task, file: Path) -> dict[str, Any]:
    """What a local row says beyond the published columns, where the task has it; `dockerfile` relative to `file`."""
    columns: dict[str, Any] = {}
    if task.dockerfile:
        columns["dockerfile"] = os.path.relpath(Path(task.dockerfile).resolve(), file.resolve().parent)
    if task.build_args:
        columns["build_args"] = dict(task.build_args)
    if not task.network:
        columns["network"] = False
    return columns


def digest(rows: Iterable[Row]) -> str:
    """sha256 (hex) over rows, whatever their order, file format or way of writing test lists and empty fields."""
    lines = sorted(json.dumps(_canonical(row), sort_keys=True, ensure_ascii=False) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_tests(row: Row, name: str) -> tuple[str, ...]:
    """A list of test ids, published either as a list or as JSON text of one."""
    value = _present(row, name)
    shape = "must be a list of test ids, or JSON text of one"
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise DataError(f"{name} {shape}: {error}") from None
    if not isinstance(value, list | tuple):
        raise DataError(f"{name} {shape}, is {_kind(value)}")
    for position, test in enumerate(value):
        if not isinstance(test, str):
            raise DataError(f"{name} {shape}: entry {position} is {_kind(test)}")
    return tuple(value)


def _canonical(row: Row) -> dict[str, Any]:
    """What of a row bears on rollout and verdict, in one spelling."""
    row, _ = adapted(row)
    fields: dict[str, Any] = {name: _optional_text(row, name) for name in (*REQUIRED, *TEXT, *OPTIONAL, *GRADING)}
    fields |= {name: list(read_tests(row, name)) for name in TEST_LISTS}
    return {name: value for name, value in fields.items() if value}


def _grading_fields(row: Row) -> tuple[dict[str, str], dict[str, str]]:
    """What the grader needs, and for each field that the row lacks where its value came from."""
    given = {name: text for name in GRADING if (text := _optional_text(row, name))}
    derived = {"image": default_image(row["instance_id"])}
    provenance = {"image": "swebench image naming"}
    if set(GRADING) - given.keys() - {"image"}:
        completed, sources = complete_row(dict(row))
        derived |= {name: completed[name] for name in GRADING if name in completed}
        provenance |= dict(sources)
    fields = derived | given
    if missing := [name for name in GRADING if name not in fields]:
        raise DataError(f"{missing[0]} is missing and cannot be derived for {row['repo']} {row.get('version') or ''}")
    return fields, {name: source for name, source in provenance.items() if name not in given}


def _dockerfile(row: Row, folder: Path | None) -> str | None:
    name = _optional_text(row, "dockerfile")
    if not name:
        return None
    path = (folder or Path()) / name
    if not (path / "Dockerfile").is_file():
        raise DataError(f"dockerfile must name a folder with a Dockerfile, found none in {path}")
    return str(path)


def _build_args(row: Row) -> dict[str, str]:
    value = row.get("build_args")
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(text, str) for pair in value.items() for text in pair):
        raise DataError("build_args must map names to text")
    return {name: text for name, text in value.items() if text is not None}


def _network(row: Row) -> bool:
    value = row.get("network")
    if value is not None and not isinstance(value, bool):
        raise DataError(f"network must be true or false, is {_kind(value)}")
    return True if value is None else value


def _present(row: Row, name: str) -> Any:
    if row.get(name) is None:
        raise DataError(f"{name} is missing" if name not in row else f"{name} is null")
    return row[name]


def _text(row: Row, name: str, *, empty: bool) -> str:
    value = _present(row, name)
    if not isinstance(value, str):
        why = NUMBERED if name == "version" and _kind(value) == "a number" else ""
        raise DataError(f"{name} must be text, is {_kind(value)}{why}")
    if not empty and not value.strip():
        raise DataError(f"{name} is empty")
    return value


def _optional_text(row: Row, name: str) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if name == MOMENT and not isinstance(value, str):
        return _moment(value)
    return _text(row, name, empty=True)


def _moment(value: object) -> str:
    """A moment in the published spelling, `2022-03-03T15:14:54Z`, so that every form gives one digest."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            if math.isnan(value):
                return ""
            unit = next((unit for least, unit in UNITS if abs(value) >= least), 1)
            value = datetime.fromtimestamp(value / unit, UTC)
        elif isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
    except (OverflowError, OSError, ValueError) as error:
        raise DataError(f"{MOMENT} is no moment in time: {error}") from None
    if not isinstance(value, datetime):
        raise DataError(f"{MOMENT} must be text or a time, is {_kind(value)}")
    if value.tzinfo is not None:
        value = value.astimezone(UTC)
    return value.strftime("%Y-%m-%dT%H:%M:%SZ")


def _kind(value: object) -> str:
    names = {
        type(None): "null",
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)


def _short(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")
