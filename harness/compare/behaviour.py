"""What a policy does: features of single rollouts, read from their trajectories, and diversity across seeds.

The features become columns of the outcomes table, so that the comparison treats them like any other metric.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from aem_harness.harness.compare.values import TaskValues
from aem_harness.harness.errors import DataError
from aem_harness.harness.interop.trajectories import Trajectory, read_trajectory

# Commands that run tests, in the projects of SWE-bench and in general.
TESTING = re.compile(
    r"\b(pytest|py\.test|tox|nosetests|unittest|runtests\.py|bin/test|manage\.py\s+test|make\s+(test|check))\b"
    r"|\bpython[\d.]*\s+(-[XW]\s*\S+\s+|-\S+\s+)*\S*?\b(t|test\w*|\w+_tests?)\.py\b"  # a script of the agent's own
)
FEATURES = (
    "entropy_early",
    "entropy_late",
    "surprisal",
    "response_tokens",
    "commands",
    "repeated_commands",
    "test_runs",
    "edited_lines",
    "malformed_share",
    "stated_success",
)


@dataclass(frozen=True)
class Sketch:
    """The part of a trajectory that is kept: thousands of whole ones do not fit in memory.

    Per turn: `keys`, equal if the commands are; `actions`, one short line to show; `entropies` (nats, None if unknown).
    `used` is the set of single commands.
    """

    exit_status: str
    keys: tuple[int, ...]
    actions: tuple[str, ...]
    entropies: tuple[float | None, ...]
    used: frozenset[int]


def with_features(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[int, Sketch], list[str]]:
    """`table` with the columns FEATURES, sketches by row label, and one line per trajectory that could not be read.

    A column that the table already has is kept where it holds a value. Rows without a trajectory keep empty features.
    """
    found: dict[int, dict[str, float]] = {}
    sketches: dict[int, Sketch] = {}
    problems: list[str] = []
    for row, path in zip(table.index, table["trajectory"].fillna(""), strict=True):
        if not path:
            continue
        try:
            trajectory = read_trajectory(Path(path))
        except DataError as error:
            problems.append(str(error))
            continue
        found[int(row)], sketches[int(row)] = features(trajectory), sketch(trajectory)
    values = (
        pd.DataFrame.from_dict(found, orient="index", columns=list(FEATURES)).astype("float64").reindex(table.index)
    )
    columns = {
        name: pd.to_numeric(table[name], errors="coerce").fillna(values[name]) if name in table else values[name]
        for name in FEATURES
    }
    return table.assign(**columns), sketches, problems


def sketch(trajectory: Trajectory, most: int = 120) -> Sketch:
    """See `Sketch`; actions are cut to `most` characters."""
    turns = [tuple(" ".join(command.split()) for command in turn.commands) for turn in trajectory.turns]
    shown = [
        " && ".join(commands) or " ".join(turn.text.split())
        for commands, turn in zip(turns, trajectory.turns, strict=True)
    ]
    return Sketch(
        exit_status=trajectory.exit_status,
        keys=tuple(hash(commands) for commands in turns),
        actions=tuple(text[:most] for text in shown),
        entropies=tuple(turn.entropy for turn in trajectory.turns),
        used=frozenset(hash(command) for commands in turns for command in commands),
    )


def features(trajectory: Trajectory) -> dict[str, float]:
    """The features of one rollout; nan where the trajectory does not have them."""
    turns = trajectory.turns
    entropies = [turn.entropy for turn in turns if turn.entropy is not None]
    third = max(len(entropies) // 3, 1)
    commands = [" ".join(command.split()) for turn in turns for command in turn.commands]
    return {
        "entropy_early": _mean(entropies[:third]),
        "entropy_late": _mean(entropies[-third:]),
        "surprisal": _mean([turn.surprisal for turn in turns if turn.surprisal is not None]),
        "response_tokens": _mean([turn.completion_tokens for turn in turns if turn.completion_tokens]),
        "commands": float(len(commands)),
        "repeated_commands": 1 - len(set(commands)) / len(commands) if commands else np.nan,
        "test_runs": float(sum(bool(TESTING.search(command)) for command in commands)),
        "edited_lines": np.nan if trajectory.submission is None else float(edited_lines(trajectory.submission)),
        "malformed_share": _mean([float(turn.malformed) for turn in turns]),
        "stated_success": _probability(trajectory.info.get("stated_success")),
    }


def edited_lines(patch: str) -> int:
    """Added plus removed lines of a patch."""
    return sum(line[:1] in "+-" and not line.startswith(("+++", "---")) for line in patch.splitlines() if line)


def diversity(table: pd.DataFrame, sketches: Mapping[int, Sketch]) -> TaskValues:
    """How differently the seeds of a task proceed: 1 - Jaccard similarity of their sets of commands.

    Mean over pairs of seeds; tasks with fewer than two trajectories are left out. One arm in `table`. Low diversity at
    equal success is a warning sign of suppressed exploration (compare with arXiv 2604.28182).
    """
    sets: dict[str, list[frozenset[int]]] = {}
    repos: dict[str, str] = {}
    for row, task, repo in zip(table.index, table["instance_id"], table["repo"], strict=True):
        if row in sketches:
            sets.setdefault(task, []).append(sketches[row].used)
            repos[task] = repo
    names = tuple(task for task in sorted(sets) if len(sets[task]) > 1)
    values = np.array([_spread(sets[task]) for task in names])
    counts = np.array([len(sets[task]) for task in names], dtype=np.int64)
    unknown = np.full(len(names), np.nan)
    clusters = np.array([repos[task] for task in names], dtype=str)
    return TaskValues(names, values, unknown, unknown, np.zeros(len(names)), clusters, (counts,))


def first_divergence(a: Sketch, b: Sketch) -> int | None:
    """The first turn, from 0, whose commands differ; None when they are the same to the end."""
    for step, (one, other) in enumerate(zip(a.keys, b.keys, strict=False)):
        if one != other:
            return step
    return None if len(a.keys) == len(b.keys) else min(len(a.keys), len(b.keys))


def action_at(one: Sketch, step: int | None) -> str:
    """What the model did at a turn, as one short line."""
    if step is None:
        return ""
    return one.actions[step] if step < len(one.actions) else f"(ended: {one.exit_status or 'unknown'})"


def _spread(sets: Sequence[frozenset[int]]) -> float:
    pairs = [1 - len(a & b) / len(a | b) if a | b else 0.0 for a, b in combinations(sets, 2)]
    return float(np.mean(pairs))


def _mean(numbers: Sequence[float]) -> float:
    return float(np.mean(numbers)) if numbers else np.nan


def _probability(value: object) -> float:
    try:
        number = float(str(value))
    except ValueError:
        return np.nan
    return number if 0 <= number <= 1 else np.nan
