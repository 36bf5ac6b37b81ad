"""A source of instances -> tasks: a named dataset of the Hugging Face hub, a bundled set, or a local file.

One bad row does not spoil the other 499: `load` returns the good tasks together with one line for each bad row, naming
file, row number and field.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from aem_harness.harness.errors import DataError, counted
from aem_harness.harness.instances import hub
from aem_harness.harness.instances.rows import digest, parse_row
from aem_harness.harness.io import json_lines, read_bytes, read_json
from aem_harness.harness.types import Task

log = logging.getLogger(__name__)

HUB = {
    "verified": "SWE-bench/SWE-bench_Verified",
    "lite": "SWE-bench/SWE-bench_Lite",
    "full": "SWE-bench/SWE-bench",
    "multilingual": "SWE-bench/SWE-bench_Multilingual",
}
SUFFIXES = (".json", ".jsonl", ".parquet", ".arrow")
SOURCES = (
    f"{', '.join(HUB)}, sample, tiny, owner/name[:split] of the hub, "
    f"or a local {', '.join(SUFFIXES)} file (also with .gz)"
)


@dataclass(frozen=True)
class Loaded:
    """The good tasks in the order of the source, one line per bad row, and what to stamp into results."""

    tasks: list[Task]
    problems: list[str]
    digest: str  # sha256 over the good rows, independent of their order and of the file format
    name: str  # hub id, "sample", "tiny", or the file's name


@dataclass(frozen=True)
class _Raw:
    """One row as read: its number as a reader would count it (line of a .jsonl file, else from 1)."""

    number: int
    value: object = None
    problem: str = ""


def load(source: str | Path, *, split: str = "test", strict: bool = False) -> Loaded:
    """Every good row of `source` as a `Task`, and one line for every other row.

    `source`: `verified`, `lite`, `full`, `multilingual`, any `owner/name` or `owner/name:split` of the Hugging Face
    hub, the bundled `sample` or `tiny`, a local .json, .jsonl or .parquet file, optionally gzipped, or a folder with
    `<split>.parquet`. Raises `DataError` when the source cannot be read, when no row is good and, with `strict`, when
    any row is bad.
    """
    name, raw, folder = _open(source, split)
    tasks: list[Task] = []
    rows: list[Any] = []
    problems: list[str] = []
    first_seen: dict[str, int] = {}
    for entry in raw:
        try:
            if entry.problem:
                raise DataError(entry.problem)
            task = parse_row(entry.value, dataset=name, folder=folder)
            if (first := first_seen.setdefault(task.instance_id, entry.number)) != entry.number:
                raise DataError(f"instance_id is already that of row {first}")
        except DataError as error:
            problems.append(f"{name} row {entry.number}{_id_of(entry.value)}: {error}")
        else:
            tasks.append(task)
            rows.append(entry.value)
    if problems and (strict or not tasks):
        more = f" (and {counted(len(problems) - 1, 'more invalid row')})" if len(problems) > 1 else ""
        raise DataError(f"{problems[0]}{more}")
    if not tasks:
        raise DataError(f"{name} has no rows")
    return Loaded(tasks, problems, digest(rows), name)


def load_tasks(source: str | Path, *, split: str = "test") -> list[Task]:
    """The tasks of `source`, every row of which must be good; see `load`."""
    return load(source, split=split, strict=True).tasks


def _open(source: str | Path, split: str) -> tuple[str, Iterator[_Raw], Path | None]:
    """Name of the dataset, its rows, and the folder that paths in rows are relative to."""
    text = str(source)
    if text == "sample":
        from aem_harness.harness.instances import bundled

        return text, _numbered(bundled.rows()), bundled.ROOT
    if text == "tiny":
        from aem_harness.harness.instances import bundled

        return text, _file_rows(bundled.TINY / "rows.jsonl"), bundled.TINY
    path = Path(source)
    if (path / f"{split}.parquet").is_file():  # a folder as `swebench` publishes and reads it
        path /= f"{split}.parquet"
    if saved := _saved_files(path, split):
        rows = (row.value for file in saved for row in _arrow_rows(file))
        return path.name, _numbered(rows), path
    if _kind(path):
        if not path.is_file():
            raise DataError(f"no such file: {path}")
        return path.name, _file_rows(path), path.parent
    if text in HUB or (text.count("/") == 1 and not path.exists()):
        name = HUB.get(text, text)
        hub_id, _, named = name.partition(":")
        return name, _hub_rows(hub_id, named or split), None
    raise DataError(f"unknown source of instances {text!r}: give {SOURCES}")


def _kind(path: Path) -> str:
    """The file format by suffix (`.jsonl` for rows.jsonl and rows.jsonl.gz), empty where it is none of ours."""
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    return suffix if suffix in SUFFIXES else ""


def _file_rows(path: Path) -> Iterator[_Raw]:
    readers = {".json": _json_rows, ".jsonl": _jsonl_rows, ".parquet": _parquet_rows, ".arrow": _arrow_rows}
    return readers[_kind(path)](path)


def _json_rows(path: Path) -> Iterator[_Raw]:
    """A list of rows; or one row per line, as `Dataset.to_json` of `datasets` writes, whatever the suffix."""
    try:
        rows = read_json(path)
    except DataError:
        lines = list(_jsonl_rows(path))
        if not any(isinstance(line.value, dict) for line in lines):
            raise
        return iter(lines)
    if isinstance(rows, dict) and "instance_id" in rows:
        rows = [rows]
    if not isinstance(rows, list):
        raise DataError(f"{path} must hold a list of rows, or one row per line")
    return _numbered(rows)


def _jsonl_rows(path: Path) -> Iterator[_Raw]:
    return (_Raw(number, value, problem) for number, value, problem in json_lines(read_bytes(path)))


def _parquet_rows(path: Path) -> Iterator[_Raw]:
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.read_table(BytesIO(read_bytes(path))).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a parquet file: {error}") from None
    return _numbered(rows)


def _hub_rows(hub_id: str, split: str) -> Iterator[_Raw]:
    """From the hub; where that does not answer, from the copy that `datasets` keeps of an earlier download."""
    unreached = hub.unreached()
    try:
        rows = hub.rows(hub_id, split, offline=bool(unreached))
    except Exception as error:  # the library raises a dozen kinds, by what is down and by its version
        why = f"{unreached}, and there is no copy of an earlier download" if unreached else type(error).__name__
        raise DataError(
            f"cannot load {hub_id} (split {split}) from the Hugging Face hub ({why}): check the name and the network "
            f"(HF_ENDPOINT names a mirror), or pass a local {', '.join(SUFFIXES)} file with --set FILE"
        ) from error
    if unreached:
        log.warning("%s: taken from the copy of an earlier download (%s)", hub_id, unreached)
    return _numbered(rows)


def _arrow_rows(path: Path) -> Iterator[_Raw]:
    """A file of `Dataset.save_to_disk` of the library `datasets`: a stream of Arrow record batches."""
    import pyarrow

    try:
        rows = pyarrow.ipc.open_stream(BytesIO(read_bytes(path))).read_all().to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is not an Arrow file: {error}") from None
    return _numbered(rows)


def _saved_files(folder: Path, split: str) -> list[Path]:
    """The data files of a folder that `Dataset.save_to_disk` wrote, in order; of a `DatasetDict`, of the split."""
    place = folder / split if (folder / "dataset_dict.json").is_file() else folder
    state = place / "state.json"
    if not state.is_file():
        return []
    names = [entry.get("filename", "") for entry in read_json(state).get("_data_files", ())]
    return [place / name for name in names if name]


def _numbered(rows: Any) -> Iterator[_Raw]:
    return (_Raw(number, row) for number, row in enumerate(rows, start=1))


def _id_of(row: object) -> str:
    instance_id = row.get("instance_id") if isinstance(row, dict) else None
    return f" ({instance_id[:80]})" if isinstance(instance_id, str) and instance_id.isprintable() else ""
