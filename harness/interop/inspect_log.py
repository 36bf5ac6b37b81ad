"""Inspect logs: `.eval`, a zip of JSON (members stored, deflated or, since 2026, zstandard), and `.json`.

Read are the header (task, model, packages, planned samples) and the samples' summaries: id, epoch, scores, error,
limit, usage, times. The score is the first scorer's, or the one named `swe_bench*`: C or 1 is resolved, I or 0 is not;
of a score with several values, the one called resolved. A sample that ended in an error, was invalidated or is not
scored (null or NaN) has no verdict; nor has one that was planned and is not in the log. Tried with inspect_ai 0.3.285.
"""

import json
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aem_harness.harness.ends import Ends, Whose
from aem_harness.harness.errors import DataError
from aem_harness.harness.interop import ImportSource, Row
from aem_harness.harness.interop.files import holds, peek_json, table
from aem_harness.harness.io import MOST_UNPACKED, read_json
from aem_harness.harness.types import Outcome

ZSTANDARD = 93  # the zip format's number of the method; Python reads it itself from 3.14 on
SCORES = {"C": True, "I": False, "P": False, "N": False, "1": True, "0": False, "1.0": True, "0.0": False}
SCORES |= {"true": True, "false": False, "True": True, "False": False}
NAMED = ("resolved", "swe_bench", "score", "accuracy", "correct")  # the verdict among several values
_CLASS = re.compile(r"^(?:[a-z_]\w*\.)*([A-Z]\w+)\s*[(:]")


def matches(path: Path) -> bool:
    if path.suffix == ".eval":
        return zipfile.is_zipfile(path)
    return path.suffix == ".json" and holds(peek_json(path), "eval", "samples")


def read(source: ImportSource) -> list[Row]:
    header, samples = _eval_file(source.path) if source.path.suffix == ".eval" else _json_file(source.path)
    described = table(header.get("eval"))
    packages = table(described.get("packages"))
    constant = {
        "arm": source.arm or described.get("model", "") or source.path.stem,
        "model": described.get("model"),
        "scaffold": " ".join(["inspect_ai", packages.get("inspect_ai", ""), described.get("task", "")]).strip(),
        "dataset": str(table(described.get("dataset")).get("name") or described.get("task", "")),
        "grader": " ".join(filter(None, ["inspect scorer", _scorer(samples)])),
    }
    rows: list[Row] = [{**constant, **_row(sample, source)} for sample in _usable(samples, source)]
    rows += [{**constant, **row} for row in _missing(described, rows)]
    if (status := header.get("status", "success")) != "success":
        source.problems.note(f"{source.path}: its evaluation ended with the status {status!r}, not success")
    if len({row["seed"] for row in rows}) > 1 and (seed := _seed(header)) is not None:
        # Tried with 0.3.285 (findings/inspect-sends-one-seed-for-all-epochs.sh).
        source.problems.note(
            f"{source.path}: Inspect sent the seed {seed} in every epoch; where the server honours it, the epochs of a "
            "sample are one rollout several times, not independent ones: evaluate without the seed, or with one epoch"
        )
    if rows and all(row.get("outcome") is None for row in rows):
        source.problems.note(f"{source.path}: not one of its {len(rows)} samples has a verdict")
    return rows


def _usable(samples: Any, source: ImportSource) -> Iterator[Mapping[str, Any]]:
    for number, sample in enumerate(samples if isinstance(samples, list) else (), start=1):
        if holds(sample, "id", "epoch") and isinstance(sample["epoch"], int):
            yield sample
        else:
            source.problems.add("have no id and epoch", f"sample {number}")


def _missing(described: Mapping[str, Any], rows: Sequence[Row]) -> Iterator[Row]:
    """What was planned and is not in the log: it was stopped, or samples were lost."""
    ids = table(described.get("dataset")).get("sample_ids")
    epochs = table(described.get("config")).get("epochs") or 1
    if not isinstance(ids, list) or not isinstance(epochs, int):
        return
    present = {(row["instance_id"], row["seed"]) for row in rows}
    for key in ((str(name), seed) for name in ids for seed in range(epochs)):
        if key not in present:
            yield {"instance_id": key[0], "seed": key[1], "outcome": None, "cause": "not in the log", "end": "unscored"}


def _row(sample: Mapping[str, Any], source: ImportSource) -> dict[str, Any]:
    usage = [table(one) for one in table(sample.get("model_usage")).values()]
    row: dict[str, Any] = {
        "instance_id": str(sample["id"]),
        "seed": int(sample["epoch"]) - 1,
        "steps": sample.get("turn_count"),
        "prompt_tokens": sum(_prompt_tokens(one) for one in usage) if usage else None,
        "completion_tokens": sum(one.get("output_tokens") or 0 for one in usage) if usage else None,
        "seconds": sample.get("total_time"),
        "repo": table(sample.get("metadata")).get("repo"),
        "outcome": None,
    }
    if limit := sample.get("limit"):
        word = f"{limit.get('type', limit) if isinstance(limit, Mapping) else limit}_limit"
        row |= {"end": word, "exit_status": source.ends.of(word).status or word}
    if sample.get("invalidation"):
        return row | {"end": "invalidated", "cause": "the sample was invalidated"}
    if error := sample.get("error"):
        message = str(error.get("message", "") if isinstance(error, Mapping) else error)
        row |= {"end": _raised(message, source.ends), "cause": " ".join(message.split())[:200]}
    return row | _verdict(sample, source, row)


def _raised(message: str, ends: Ends) -> str:
    """The class that an error's message begins with, where the table knows it."""
    found = _CLASS.match(message)
    known = found and ends.of(found[1]).whose is not Whose.UNKNOWN
    return found[1] if found and known else "sample error"


def _verdict(sample: Mapping[str, Any], source: ImportSource, row: Mapping[str, Any]) -> dict[str, Any]:
    value = _score(sample)
    text = f"{value:g}" if isinstance(value, int | float) else str(value)  # true and false are 1 and 0
    if text in SCORES:
        return {"outcome": Outcome.RESOLVED if SCORES[text] else Outcome.UNRESOLVED}
    if value is not None and value == value:  # neither null nor NaN
        source.problems.add(
            "have a score that is neither 0 nor 1", f"{sample['id']} epoch {sample['epoch']}: {value!r}"
        )
        return {"cause": f"score is {value!r}"[:200]}
    if not sample.get("error"):
        return {"cause": "no score", "end": "unscored"}
    # It was not scored because of its error: where that is the model's, it is no missing verdict.
    return {"outcome": Outcome.UNRESOLVED if source.ends.of(row["end"]).whose.counts else None}


def _seed(header: Mapping[str, Any]) -> Any:
    """The sampling seed of an evaluation, given with the model or with the evaluation; None where there was none."""
    configs = (table(header.get("eval")).get("model_generate_config"), table(header.get("plan")).get("config"))
    return next((seed for config in configs if (seed := table(config).get("seed")) is not None), None)


def _prompt_tokens(usage: Mapping[str, Any]) -> int:
    """`input_tokens` leaves out what came from or went to a cache."""
    return sum(usage.get(key) or 0 for key in ("input_tokens", "input_tokens_cache_read", "input_tokens_cache_write"))


def _score(sample: Mapping[str, Any]) -> Any:
    scores = table(sample.get("scores"))
    name = next((name for name in scores if name.startswith("swe_bench")), next(iter(scores), None))
    value = table(scores.get(name)).get("value") if name is not None else None
    if isinstance(value, dict):
        return next(
            (value[key] for key in NAMED if key in value), next(iter(value.values())) if len(value) == 1 else value
        )
    return value


def _scorer(samples: Any) -> str:
    names = [name for sample in samples or () for name in table(table(sample).get("scores"))]
    return next((name for name in names if name.startswith("swe_bench")), names[0] if names else "")


# --- files ----------------------------------------------------------------------------------------------------------


def _json_file(path: Path) -> tuple[Any, Any]:
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
                samples = _member(archive, "summaries.json")
            else:
                parts = sorted(name for name in names if name.startswith("_journal/summaries/"))
                samples = [sample for name in parts for sample in _member(archive, name)]
            if header.get("invalidated"):  # only the full samples say which
                samples = [_with_invalidation(archive, names, sample) for sample in samples]
            return header, samples
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise DataError(f"{path} is not an Inspect log: {error}") from None


def _with_invalidation(archive: zipfile.ZipFile, names: set[str], sample: Any) -> Any:
    name = f"samples/{table(sample).get('id')}_epoch_{table(sample).get('epoch')}.json"
    return {**sample, "invalidation": _member(archive, name).get("invalidation")} if name in names else sample


def _member(archive: zipfile.ZipFile, name: str) -> Any:
    info = archive.getinfo(name)
    if info.file_size > MOST_UNPACKED:
        raise ValueError(f"{name} unpacks to more than {MOST_UNPACKED >> 20} MiB")
    if info.compress_type != ZSTANDARD:
        return json.loads(archive.read(info))
    import pyarrow

    assert archive.fp is not None
    archive.fp.seek(info.header_offset)
    name_length, extra_length = struct.unpack("<HH", archive.fp.read(30)[26:30])
    archive.fp.seek(info.header_offset + 30 + name_length + extra_length)
    packed = pyarrow.BufferReader(archive.fp.read(info.compress_size))
    return json.loads(pyarrow.CompressedInputStream(packed, "zstd").read())
