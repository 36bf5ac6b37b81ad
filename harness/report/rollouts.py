"""What the report's page holds of single rollouts: one line of facts each, and the trajectories that fit in.

Facts are columns of numbers; a trajectory is gzipped JSON in base64, unpacked by the browser when it is opened.
"""

import gzip
import json
import os
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from aem_harness.harness.compare.outcomes import Outcomes
from aem_harness.harness.compare.records import Comparison
from aem_harness.harness.errors import DataError
from aem_harness.harness.interop.trajectories import read_raw
from aem_harness.harness.io import read_json
from aem_harness.harness.run.store import read_patch
from aem_harness.harness.run.thoughts import thought_in

MESSAGE, PATCH, LOG = 6_000, 40_000, 12_000  # characters kept of each
OUTCOMES = ("resolved", "unresolved", "not_applied", "empty_patch", "test_timeout", "error", "")

Marks = Mapping[tuple[str, str, int], list[dict[str, Any]]]


@dataclass
class Pages:
    """`facts` is what the list shows, `blobs` the packed trajectories by number, `left_out` how many did not fit."""

    facts: dict[str, Any]
    blobs: list[str] = field(default_factory=list)
    left_out: int = 0


def collect(outcomes: Outcomes, comparison: Comparison, out: Path, budget: int) -> Pages:
    """The rollouts of the compared arms for a page written to `out`, with at most `budget` bytes of trajectories.

    Those of tasks that moved come first, then those with integrity marks or without a verdict, then seed by seed.
    """
    arms = [arm.arm for arm in comparison.arms]
    table = outcomes.table[outcomes.table["arm"].isin(arms)]
    marks = audit_marks(outcomes, arms)
    pages = Pages(facts=_facts(table, arms, marks, out.parent.resolve()))
    columns = pages.facts["rollouts"]
    paths = table["trajectory"].tolist()
    keys = list(zip(table["arm"], table["instance_id"], table["seed"], strict=True))
    for row in _order(table, comparison, marks):
        packed = _pack(page(Path(paths[row]), marks.get(keys[row], [])))
        if len(packed) > budget:
            break
        budget -= len(packed)
        columns["page"][row] = len(pages.blobs)
        pages.blobs.append(packed)
    pages.left_out = sum(isinstance(path, str) for path in paths) - len(pages.blobs)
    return pages


def audit_marks(outcomes: Outcomes, arms: Sequence[str]) -> dict[tuple[str, str, int], list[dict[str, Any]]]:
    """The integrity marks of our own runs, by arm, instance and seed."""
    found: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for arm in arms:
        facts = outcomes.facts.get(arm)
        path = Path(facts.source) / "audit.json" if facts and facts.source else None
        if path and path.is_file():
            found |= {(arm, one["instance_id"], one["seed"]): one["marks"] for one in read_json(path)}
    return found


def page(trajectory: Path, marks: list[dict[str, Any]]) -> dict[str, Any]:
    """One rollout for reading: messages, patch, verdict, tail of the log; long texts lose their middle."""
    folder = trajectory.parent
    try:
        document = read_raw(trajectory)
    except DataError as error:
        return {"problem": str(error)}
    info = document["info"]
    patch = folder / "patch.diff"
    text = read_patch(patch) if patch.is_file() else str(info.get("submission") or "")
    grade = read_json(folder / "grade.json") if (folder / "grade.json").is_file() else {}
    log = folder / "test_output.txt"
    return {
        "messages": list(_messages(document)),
        "exit": str(info.get("exit_status") or ""),
        "patch": shortened(text.encode("utf-8", "replace").decode(), PATCH),
        "cause": str(grade.get("cause") or ""),
        "tests": _tests(folder / "report.json"),
        "log": log.read_bytes()[-LOG:].decode("utf-8", "replace") if log.is_file() else "",
        "marks": marks,
    }


def shortened(text: str, most: int) -> str:
    """`text` with its middle left out where it is longer than `most` characters."""
    if len(text) <= most:
        return text
    head = 2 * most // 3
    return f"{text[:head]}\n… {len(text) - most} characters left out …\n{text[head - most :]}"


# --- facts ----------------------------------------------------------------------------------------------------------


def _facts(table: pd.DataFrame, arms: Sequence[str], marks: Marks, base: Path) -> dict[str, Any]:
    tasks = table.drop_duplicates("instance_id").sort_values("instance_id", kind="stable")
    number = {name: i for i, name in enumerate(tasks["instance_id"])}
    arm_number = {name: i for i, name in enumerate(arms)}
    keys = zip(table["arm"], table["instance_id"], table["seed"], strict=True)
    tokens = table["completion_tokens"].astype("float64")
    return {
        "arms": list(arms),
        "outcomes": list(OUTCOMES),
        "tasks": [
            [_text(row.instance_id), _text(row.repo), _text(row.difficulty), _text(row.created_at)[:10]]
            for row in tasks.itertuples()
        ],
        "rollouts": {
            "task": [number[name] for name in table["instance_id"]],
            "arm": [arm_number[name] for name in table["arm"]],
            "seed": table["seed"].astype(int).tolist(),
            "outcome": [OUTCOMES.index(_text(value)) for value in table["outcome"]],
            "steps": _numbers(table["steps"].astype("float64"), 0),
            "tokens": _numbers(tokens.where(tokens > 0), 0),
            "seconds": _numbers(table["seconds"], 1),
            "entropy": _numbers(table["mean_entropy"], 4),
            "marks": [len(marks.get((arm, task, int(seed)), ())) for arm, task, seed in keys],
            "cause": [_text(value)[:200] for value in table["cause"]],
            "exit": [_text(value) for value in table["exit_status"]],
            "path": _relative(table, base),
            "page": [-1] * len(table),
        },
    }


def _numbers(column: pd.Series, digits: int) -> list[float | int | None]:
    return [None if value != value else (int(value) if not digits else round(value, digits)) for value in column]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _relative(table: pd.DataFrame, base: Path) -> list[str]:
    """The path of each trajectory from `base` on; empty where there is none."""
    roots: dict[str, str] = {}  # of a run only its folder is followed through links
    out = []
    for path, source in zip(table["trajectory"].tolist(), table["source"].tolist(), strict=True):
        if not isinstance(path, str):
            out.append("")
        elif path.startswith(f"{source}/"):
            if source not in roots:
                roots[source] = os.path.relpath(Path(source).resolve(), base)
            out.append(roots[source] + path[len(source) :])
        else:
            out.append(os.path.relpath(Path(path).resolve(), base))
    return out


def _order(table: pd.DataFrame, comparison: Comparison, marks: Marks) -> Iterator[int]:
    """Positions of the rows that have a trajectory, what one wants to read first in front."""
    moved = {path for flip in comparison.flips for path in flip.trajectories if path}
    tasks = {flip.instance_id for flip in comparison.flips}
    paths = table["trajectory"].tolist()
    rows = list(zip(table["arm"], table["instance_id"], table["seed"], table["resolved"].isna(), strict=True))

    def rank(row: int) -> tuple[int, int]:
        arm, task, seed, lost = rows[row]
        if paths[row] in moved:
            return 0, 0
        if lost or (arm, task, seed) in marks:
            return 1, seed
        return (2 if task in tasks else 3), seed

    yield from sorted((row for row, path in enumerate(paths) if isinstance(path, str)), key=rank)


# --- one page -------------------------------------------------------------------------------------------------------


def _messages(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Messages of a mini-swe-agent trajectory, or the steps of a SWE-agent one as messages.

    A reply that held no valid action is kept by mini-swe-agent in the complaint about it; it is a turn all the same.
    """
    for message in document.get("messages") or ():
        extra = message.get("extra") or {}
        role, text = str(message.get("role") or ""), _content(message)
        facts = {
            "entropy": extra.get("mean_entropy"),
            "tokens": extra.get("completion_tokens") or None,
            "seconds": extra.get("model_seconds") or None,
            "malformed": bool(extra.get("malformed")) or None,
            "reasoning": shortened(thought_in(message), MESSAGE) or None,
        }
        known = {name: value for name, value in facts.items() if value is not None}
        if "model_response" in extra:
            reply = shortened(str(extra["model_response"]), MESSAGE)
            yield {**known, "role": "assistant", "text": reply, "malformed": True}
            known = {}
        yield {**known, "role": role, "text": shortened(text, MESSAGE)}
    for step in document.get("trajectory") or ():
        yield {"role": "assistant", "text": shortened(str(step.get("response") or step.get("action") or ""), MESSAGE)}
        yield {"role": "tool", "text": shortened(str(step.get("observation") or ""), MESSAGE)}


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content)
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        content += f"\n{function.get('name')}({function.get('arguments')})"
    return str(content)


def _tests(path: Path) -> list[Any]:
    """(kind, passed, names of the failed) for each list of tests of an official report."""
    if not path.is_file():
        return []
    report: dict[str, Any] = next(iter(read_json(path).values()), {})
    status = report.get("tests_status") or {}
    kinds = ("FAIL_TO_PASS", "PASS_TO_PASS")
    return [[k, len(status[k]["success"]), status[k]["failure"][:40]] for k in kinds if k in status]


def _pack(value: Any) -> str:
    raw = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return b64encode(gzip.compress(raw, 6, mtime=0)).decode()
