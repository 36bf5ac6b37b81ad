"""Predictions files: anyone's patches in the official formats, read with one line for whatever is wrong.

A .json file holds a list of predictions or an object `{instance_id: prediction}` (SWE-agent, mini-SWE-agent), a .jsonl
file one prediction a line; either may be gzipped. A prediction has `instance_id`, `model_name_or_path`, `model_patch`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aem_harness.harness.errors import DataError
from aem_harness.harness.io import json_lines, read_bytes, read_json, write_json_lines
from aem_harness.harness.types import Prediction

FIELDS = ("instance_id", "model_name_or_path", "model_patch")


@dataclass(frozen=True)
class Predictions:
    """The good predictions in the order of the file, each instance once, and one line per problem."""

    predictions: list[Prediction]
    problems: list[str]


def read_predictions(path: Path) -> Predictions:
    """Every good prediction of a file; a bad one is a line in `problems` that names file, place and field.

    Of several predictions for one instance the last counts, as in swebench 5.0.2; that is a problem too. A null patch
    is an empty one. Raises DataError when the file cannot be read or holds no good prediction.
    """
    by_task: dict[str, tuple[str, Prediction]] = {}
    problems: list[str] = []
    for place, value in _entries(path):
        try:
            prediction = _prediction(value)
        except DataError as error:
            problems.append(f"{path.name}, {place}: {error}")
            continue
        if earlier := by_task.pop(prediction.instance_id, None):
            problems.append(
                f"{path.name}, {place}: {prediction.instance_id} again (also {earlier[0]}); the last counts"
            )
        by_task[prediction.instance_id] = place, prediction
    if not by_task:
        raise DataError(problems[0] if problems else f"{path.name} holds no predictions")
    return Predictions([prediction for _, prediction in by_task.values()], problems)


def write_predictions(path: Path, predictions: list[Prediction]) -> None:
    """The official .jsonl form, one prediction a line."""
    write_json_lines(path, (prediction.model_dump() for prediction in predictions))


def _entries(path: Path) -> Iterator[tuple[str, object]]:
    """Each entry of a file with its place in words; a line that is no JSON comes as the DataError that says so."""
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    kind = suffixes[-1] if suffixes else ""
    if kind not in (".json", ".jsonl"):
        raise DataError(f"predictions must be a .json or .jsonl file (or either with .gz), is {path.name}")
    if not path.is_file():
        raise DataError(f"no such file: {path}")
    return _lines(path) if kind == ".jsonl" else _whole(path)


def _lines(path: Path) -> Iterator[tuple[str, object]]:
    for number, value, problem in json_lines(read_bytes(path)):
        yield f"line {number}", DataError(problem) if problem else value


def _whole(path: Path) -> Iterator[tuple[str, object]]:
    for key, place, entry in entries_of(path):
        own = {} if key is None else {"instance_id": key}
        yield place, own | entry if isinstance(entry, dict) else entry


def entries_of(path: Path) -> Iterator[tuple[str | None, str, object]]:
    """Key, place in words and value of each entry of a .json file; the key is None in a list.

    Raises DataError where the file holds neither a list nor an object.
    """
    value = read_json(path)
    if isinstance(value, list):
        yield from ((None, f"entry {number}", entry) for number, entry in enumerate(value, start=1))
    elif isinstance(value, dict):
        yield from ((key, f"key {key!r}", entry) for key, entry in value.items())
    else:
        raise DataError(f"{path} must hold a list of predictions or an object of them by instance id")


def _prediction(value: object) -> Prediction:
    if isinstance(value, DataError):
        raise value
    if not isinstance(value, dict):
        raise DataError(f"must be an object with the fields {', '.join(FIELDS)}, is {type(value).__name__}")
    for field in FIELDS:
        if field not in value:
            raise DataError(f"{field} is missing")
        if not isinstance(value[field], str) and not (field == "model_patch" and value[field] is None):
            raise DataError(f"{field} must be text, is {type(value[field]).__name__}")
        if field != "model_patch" and not value[field]:
            raise DataError(f"{field} is empty")
    prediction = Prediction(**{field: value[field] or "" for field in FIELDS})
    try:
        prediction.model_patch.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise DataError(f"model_patch is not text: {error.reason}") from None
    return prediction
