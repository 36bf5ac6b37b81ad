"""NeMo Evaluator: `results.jsonl`, one line per problem and repeat (fields of nemo-evaluator 0.3).

A reward of 1 is resolved, one of 0 is not. It writes a reward of 0 also for what it could not measure: then
`scoring_details.error_category` says how it ended, and `harness.ends` whose fault that is.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aem_harness.harness.interop import ImportSource, Row
from aem_harness.harness.interop.files import holds, peek_json, peek_line, records, table
from aem_harness.harness.types import Outcome

NAME = "results.jsonl"


def matches(path: Path) -> bool:
    return holds(peek_line(path / NAME if path.is_dir() else path), "problem_idx", "reward")


def read(source: ImportSource) -> list[Row]:
    file = source.path / NAME if source.path.is_dir() else source.path
    bundle = _bundle(file.parent)
    constant = {
        "arm": source.arm or (source.path if source.path.is_dir() else file.parent).resolve().name,
        "model": _model(bundle),
        "dataset": table(bundle.get("benchmark")).get("name"),
        "scaffold": " ".join(["nemo-evaluator", str(bundle.get("sdk_version") or "")]).strip(),
        "grader": "nemo-evaluator verifier",
    }
    return [{**constant, **_row(line, number, source)} for number, line in records(file, source.problems)]


def _bundle(folder: Path) -> Mapping[str, Any]:
    """The run's own description, `<run_id>.json` beside the results."""
    found = (peek_json(path) for path in sorted(folder.glob("*.json")))
    return next((one for one in found if holds(one, "benchmark", "run_id")), {})


def _model(bundle: Mapping[str, Any]) -> Any:
    config = table(bundle.get("config"))
    return config.get("model") or table(config.get("solver")).get("model")


def _row(line: Mapping[str, Any], number: int, source: ImportSource) -> dict[str, Any]:
    metadata, details = table(line.get("metadata")), table(line.get("scoring_details"))
    name = (
        metadata.get("instance_id") or line.get("instance_id") or metadata.get("task_name") or line.get("problem_idx")
    )
    category = details.get("error_category")
    seconds = line.get("latency_ms")
    row: dict[str, Any] = {
        "instance_id": str(name).rpartition("/")[2],
        "seed": source.seed + (line["repeat"] if isinstance(line.get("repeat"), int) else 0),
        "model_seconds": seconds / 1000 if isinstance(seconds, int | float) else None,
        "repo": metadata.get("repo"),
        "outcome": None,
        "cause": str(details.get("error") or "")[:200],
        "end": category,
        "exit_status": source.ends.of(category).status or category if category else "submitted",
    }
    reward = line.get("reward")
    if isinstance(reward, bool | int | float) and reward in (0, 1):
        return row | {"outcome": Outcome.RESOLVED if reward else Outcome.UNRESOLVED}
    if "reward" in line:
        source.problems.add("have a reward that is neither 0 nor 1", f"line {number}: {reward!r}")
    return row | {"cause": row["cause"] or "no reward of 0 or 1"}
