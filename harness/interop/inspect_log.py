"""Inspect logs: `.eval`, a zip of JSON (members stored, deflated or, since 2026, zstandard), and `.json`.

Read are the header (task, model, packages) and the samples' summaries: id, epoch, scores, error, usage, times. The
score is the first scorer's, or the one named `swe_bench*`: C or 1 is resolved, I or 0 is not. A sample that ended in an
error, or has no score, has no verdict. Tried with files of inspect_ai 0.3.285.
"""

import json
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aem_harness.harness.errors import DataError
from aem_harness.harness.interop import Row, Source
from aem_harness.harness.interop.files import holds, peek_json
from aem_harness.harness.io import read_json
from aem_harness.harness.types import Outcome

ZSTANDARD = 93  # the zip format's number of the method; Python reads it itself from 3.14 on
SCORES = {"C": True, "I": False, "P": False, "N": False, 1: True, 0: False}  # true and false equal 1 and 0


def matches(path: Path) -> bool:
    if path.suffix == ".eval":
        return zipfile.is_zipfile(path)
    return path.suffix == ".json" and holds(peek_json(path), "eval", "samples")


def read(source: Source) -> list[Row]:
    header, samples = _eval_file(source.path) if source.path.suffix == ".eval" else _json_file(source.path)
    described = header["eval"]
    arm = source.arm or described.get("model", "") or source.path.stem
    packages = described.get("packages") or {}
    constant = {
        "arm": arm,
        "model": described.get("model"),
        "scaffold": " ".join(["inspect_ai", packages.get("inspect_ai", ""), described.get("task", "")]).strip(),
        "dataset": str((described.get("dataset") or {}).get("name") or described.get("task", "")),
        "grader": " ".join(filter(None, ["inspect scorer", _scorer(samples)])),
    }
    return [{**constant, **_row(sample, source.path)} for sample in samples]


def _row(sample: Mapping[str, Any], path: Path) -> dict[str, Any]:
    if not holds(sample, "id", "epoch"):
        raise DataError(f"{path}: a sample has no id and epoch")
    usage = list((sample.get("model_usage") or {}).values())
    row: dict[str, Any] = {
        "instance_id": str(sample["id"]),
        "seed": int(sample["epoch"]) - 1,
        "resolved": None,
        "steps": sample.get("turn_count"),
        "prompt_tokens": sum(_prompt_tokens(one) for one in usage) if usage else None,
        "completion_tokens": sum(one.get("output_tokens", 0) for one in usage) if usage else None,
        "seconds": sample.get("total_time"),
        "repo": (sample.get("metadata") or {}).get("repo"),
    }
    if limit := sample.get("limit"):
        row["exit_status"] = f"{limit.get('type', limit) if isinstance(limit, Mapping) else limit}_limit"
    if error := sample.get("error"):
        message = error.get("message", "") if isinstance(error, Mapping) else str(error)
        return row | {"outcome": Outcome.ERROR.value, "cause": message[:200]}
    score = _score(sample)
    if score is None:
        return row | {"cause": "no score"}
    if score not in SCORES:
        raise DataError(f"{path}: sample {sample['id']} epoch {sample['epoch']} has the score {score!r}, not 0 or 1")
    return row | {"resolved": SCORES[score]}


def _prompt_tokens(usage: Mapping[str, Any]) -> int:
    """`input_tokens` leaves out what came from or went to a cache."""
    return sum(usage.get(key) or 0 for key in ("input_tokens", "input_tokens_cache_read", "input_tokens_cache_write"))


def _score(sample: Mapping[str, Any]) -> Any:
    scores = sample.get("scores") or {}
    name = next((name for name in scores if name.startswith("swe_bench")), next(iter(scores), None))
    return None if name is None else scores[name].get("value")


def _scorer(samples: Sequence[Mapping[str, Any]]) -> str:
    names = [name for sample in samples for name in sample.get("scores") or {}]
    return next((name for name in names if name.startswith("swe_bench")), names[0] if names else "")


def _json_file(path: Path) -> tuple[Any, list[Mapping[str, Any]]]:
    log = read_json(path)
    if not holds(log, "eval", "samples"):
        raise DataError(f"{path} is not an Inspect log with samples")
    return log, log["samples"]


def _eval_file(path: Path) -> tuple[Any, list[Mapping[str, Any]]]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            # A log that was cut short has no header.json, but it has what was written at the start.
            header = _member(archive, "header.json" if "header.json" in names else "_journal/start.json")
            if "summaries.json" in names:
                return header, _member(archive, "summaries.json")
            parts = sorted(name for name in names if name.startswith("_journal/summaries/"))
            return header, [sample for name in parts for sample in _member(archive, name)]
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise DataError(f"{path} is not an Inspect log: {error}") from None


def _member(archive: zipfile.ZipFile, name: str) -> Any:
    info = archive.getinfo(name)
    if info.compress_type != ZSTANDARD:
        return json.loads(archive.read(info))
    import pyarrow

    assert archive.fp is not None
    archive.fp.seek(info.header_offset)
    name_length, extra_length = struct.unpack("<HH", archive.fp.read(30)[26:30])
    archive.fp.seek(info.header_offset + 30 + name_length + extra_length)
    packed = pyarrow.BufferReader(archive.fp.read(info.compress_size))
    return json.loads(pyarrow.CompressedInputStream(packed, "zstd").read())
