"""Harbor jobs: a folder with one folder per trial, each with a `result.json` (fields of Harbor 0.25 and 0.26).

A reward of 1 is resolved, one of 0 is not. Harbor 0.26 says itself whether a trial's reward is valid (`reward_valid`):
a context that overflowed or an agent that exited with an error counts, a lost server does not. Where a file does not
say, `harness.ends` decides by the exception. A trial without a result, or whose reward is neither, has no verdict.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from aem_harness.harness.ends import Ends
from aem_harness.harness.errors import DataError
from aem_harness.harness.interop import ImportSource, Row
from aem_harness.harness.interop.files import holds, is_file, peek_json, table
from aem_harness.harness.types import Outcome

NAME = "result.json"
TOKENS = {"prompt_tokens": "n_input_tokens", "completion_tokens": "n_output_tokens", "cost_usd": "cost_usd"}


def matches(path: Path) -> bool:
    if not path.is_dir():
        return False
    return any(_is_trial(peek_json(file)) for file in (path / NAME, *path.glob(f"*/{NAME}"), *path.glob(f"*/*/{NAME}")))


def read(source: ImportSource) -> list[Row]:
    seeds: Counter[str] = Counter()
    rows: list[Row] = []
    for folder in _trials(source.path):
        trial = peek_json(folder / NAME)
        if not _is_trial(trial):
            lost = "have no result.json" if not is_file(folder / NAME) else "have a result.json that is no trial's"
            source.problems.add(lost, folder.name)
            trial = {"task_name": _task_of(folder), "exception_info": {"exception_type": "no result"}}
        name = str(trial["task_name"]).split("/")[-1]
        rows.append({"seed": source.seed + seeds[name], **_row(trial, name, source, folder)})
        seeds[name] += 1
    return rows


def _is_trial(value: Any) -> bool:
    return holds(value, "task_name", "trial_name")


def _trials(path: Path) -> list[Path]:
    """The folders of trials: all folders of a job, or the folder itself where that is one trial's."""
    if _is_trial(peek_json(path / NAME)):
        return [path]
    folders = [entry for entry in sorted(path.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]
    if any(_is_trial(peek_json(folder / NAME)) for folder in folders):
        return [folder for folder in folders if "__" in folder.name or is_file(folder / NAME)]
    jobs = [folder for folder in folders if any(_is_trial(peek_json(file)) for file in folder.glob(f"*/{NAME}"))]
    if len(jobs) != 1:
        raise DataError(f"{path} holds several jobs ({', '.join(job.name for job in jobs)}); name the one to read")
    return _trials(jobs[0])


def _task_of(folder: Path) -> str:
    """The task of a trial without a result: from its config, else from the folder's name, `<task>__<random>`."""
    task = table(table(peek_json(folder / "config.json")).get("task"))
    named = str(task.get("name") or task.get("path") or "").rstrip("/").rpartition("/")[2]
    return named or folder.name.rpartition("__")[0] or folder.name


def _row(trial: Mapping[str, Any], name: str, source: ImportSource, folder: Path) -> dict[str, Any]:
    agent = table(trial.get("agent_info"))
    trajectory = folder / "agent" / "trajectory.json"
    return {
        "arm": source.arm or source.path.name,
        "instance_id": name,
        "resolved": None,
        "model": table(agent.get("model_info")).get("name"),
        "scaffold": " ".join(str(part) for part in (agent.get("name"), agent.get("version")) if part),
        "dataset": trial.get("source"),
        "grader": "harbor verifier",
        **_spent(trial),
        "seconds": _seconds(table(trial.get("agent_execution"))),
        "image_digest": trial.get("task_checksum"),
        "atif": str(trajectory) if is_file(trajectory) else None,
        **_verdict(trial, folder, source),
    }


def _exceptions(trial: Mapping[str, Any]) -> Iterator[str]:
    """The trial's own exception, then its steps'."""
    for part in (trial, *(trial.get("step_results") or ())):
        if raised := table(table(part).get("exception_info")).get("exception_type"):
            yield str(raised)


def _end(trial: Mapping[str, Any], ends: Ends) -> tuple[str | None, str]:
    """The word for how the trial ended, None where that is no news, and our exit status for it."""
    raised = [ends.of(word) for word in _exceptions(trial)]
    row = next((row for row in raised if not row.whose.counts), raised[0] if raised else ends.of("submitted"))
    valid = trial.get("reward_valid")
    status = row.status or row.word
    if not isinstance(valid, bool) or ends.says(row.word) or valid is row.whose.counts:
        return (row.word if raised else None), status
    return ("reward valid" if valid else "reward not valid"), status


def _verdict(trial: Mapping[str, Any], folder: Path, source: ImportSource) -> dict[str, Any]:
    rewards = table(table(trial.get("verifier_result")).get("rewards"))
    end, status = _end(trial, source.ends)
    raised = ", ".join(_exceptions(trial))
    row = {"end": end, "exit_status": status, "outcome": None, "cause": raised}
    if not rewards:
        if end is None or source.ends.of(end).whose.counts:
            row["end"] = "no reward"
        return row | {"cause": raised or "no reward"}
    reward = rewards.get("reward", next(iter(rewards.values())) if len(rewards) == 1 else None)
    if isinstance(reward, bool | int | float) and reward in (0, 1):
        return row | {"outcome": Outcome.RESOLVED if reward else Outcome.UNRESOLVED}
    several = "have several rewards and none called reward"
    source.problems.add(several if reward is None else "have a reward that is neither 0 nor 1", folder.name)
    return row | {"cause": f"reward is {rewards if reward is None else reward!r}"[:200]}


def _spent(trial: Mapping[str, Any]) -> dict[str, Any]:
    """Tokens and price: the trial's, or the sum over its steps."""
    results = [table(trial.get("agent_result"))] if trial.get("agent_result") else []
    results = results or [table(table(step).get("agent_result")) for step in trial.get("step_results") or ()]
    spent = {
        ours: [one[theirs] for one in results if isinstance(one.get(theirs), int | float)]
        for ours, theirs in TOKENS.items()
    }
    return {name: sum(values) if values else None for name, values in spent.items()}


def _seconds(timing: Mapping[str, Any]) -> float | None:
    try:
        start, end = (
            datetime.fromisoformat(re.sub(r"Z$", "+00:00", timing[key])) for key in ("started_at", "finished_at")
        )
    except (KeyError, TypeError, ValueError):
        return None
    return (end - start).total_seconds()
