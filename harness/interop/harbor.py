"""Harbor jobs: a folder with one folder a trial, each with a `result.json` (fields of Harbor 0.25).

A reward of 1 is resolved. A trial without a reward has no verdict: Harbor itself counts it as 0, which would make an
infrastructure fault a wrong answer. So has one with an exception, except an agent that ran out of time: its patch was
verified all the same.
"""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from aem_harness.harness.errors import DataError
from aem_harness.harness.interop import Row, Source
from aem_harness.harness.interop.files import holds, peek_json
from aem_harness.harness.io import read_json
from aem_harness.harness.types import Outcome

LIMITS = {"AgentTimeoutError": "wall_limit"}


def matches(path: Path) -> bool:
    results = path.glob("*/result.json") if path.is_dir() else iter(())
    return any(holds(peek_json(file), "task_name", "trial_name") for file in results)


def read(source: Source) -> list[Row]:
    seeds: Counter[str] = Counter()
    rows: list[Row] = []
    for file in sorted(source.path.glob("*/result.json")):
        trial = read_json(file)
        if not holds(trial, "task_name", "trial_name"):
            raise DataError(f"{file} is not a trial's result: it has no task_name and trial_name")
        name = str(trial["task_name"]).split("/")[-1]
        rows.append({"seed": seeds[name], **_row(trial, name, source, file)})
        seeds[name] += 1
    return rows


def _row(trial: Mapping[str, Any], name: str, source: Source, file: Path) -> dict[str, Any]:
    agent = trial.get("agent_info") or {}
    spent = trial.get("agent_result") or {}
    trajectory = file.parent / "agent" / "trajectory.json"
    row: dict[str, Any] = {
        "arm": source.arm or source.path.name,
        "instance_id": name,
        "resolved": None,
        "model": (agent.get("model_info") or {}).get("name"),
        "scaffold": " ".join(filter(None, [agent.get("name"), agent.get("version")])),
        "dataset": trial.get("source"),
        "grader": "harbor verifier",
        "prompt_tokens": spent.get("n_input_tokens"),
        "completion_tokens": spent.get("n_output_tokens"),
        "cost_usd": spent.get("cost_usd"),
        "seconds": _seconds(trial.get("agent_execution")),
        "image_digest": trial.get("task_checksum"),
        "atif": str(trajectory) if trajectory.is_file() else None,
    }
    raised = (trial.get("exception_info") or {}).get("exception_type", "")
    rewards = (trial.get("verifier_result") or {}).get("rewards") or {}
    row["exit_status"] = LIMITS.get(raised, "fault" if raised else "submitted")
    if raised and raised not in LIMITS:
        return row | {"outcome": Outcome.ERROR.value, "cause": raised}
    if not rewards:
        return row | {"outcome": Outcome.ERROR.value, "cause": "no reward"}
    reward = rewards.get("reward", next(iter(rewards.values())))
    if reward not in (0, 1):
        raise DataError(f"{file}: reward is {reward!r}; only 0 and 1 can be compared as resolved and unresolved")
    return row | {"resolved": bool(reward)}


def _seconds(timing: Mapping[str, Any] | None) -> float | None:
    if not timing or not timing.get("started_at") or not timing.get("finished_at"):
        return None
    start, end = (datetime.fromisoformat(timing[key].replace("Z", "+00:00")) for key in ("started_at", "finished_at"))
    return (end - start).total_seconds()
