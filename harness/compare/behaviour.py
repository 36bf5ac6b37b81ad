"""What a policy does on the way: features of single rollouts, read from their trajectories, and diversity across seeds.

The features become columns of the outcomes table, so that the comparison treats them like any other metric.
"""

import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from harness.compare.values import TaskValues
from harness.errors import DataError
from harness.interop.trajectories import Trajectory, read_trajectory

# Commands that run tests, in the projects of SWE-bench and in general.
TESTING = re.compile(
    r"\b(pytest|py\.test|tox|nosetests|unittest|runtests\.py|bin/test|manage\.py\s+test|make\s+(test|check))\b"
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


def with_features(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[int, Trajectory], list[str]]:
    """`table` with the columns FEATURES, the trajectories read (by row label), and one line per file that could not be.

    A column that the table already has is kept where it holds a value. Rows without a trajectory keep empty features.
    """
    read: dict[int, Trajectory] = {}
    problems: list[str] = []
    for row, path in table["trajectory"].dropna().items():
        try:
            read[row] = read_trajectory(Path(path))  # type: ignore[index]
        except DataError as error:
            problems.append(str(error))
    found = pd.DataFrame([features(one) for one in read.values()], index=list(read), columns=list(FEATURES))
    found = found.astype("float64").reindex(table.index)
    columns = {
        name: pd.to_numeric(table[name], errors="coerce").fillna(found[name]) if name in table else found[name]
        for name in FEATURES
    }
    return table.assign(**columns), read, problems


def features(trajectory: Trajectory) -> dict[str, float]:
    """One rollout in numbers; nan where the trajectory does not tell."""
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
        "edited_lines": float(edited_lines(trajectory.submission)) if trajectory.submission else np.nan,
        "malformed_share": _mean([float(turn.malformed) for turn in turns]),
        "stated_success": _probability(trajectory.info.get("stated_success")),
    }


def edited_lines(patch: str) -> int:
    """Added plus removed lines of a patch."""
    return sum(line[:1] in "+-" and not line.startswith(("+++", "---")) for line in patch.splitlines() if line)


def diversity(table: pd.DataFrame, read: dict[int, Trajectory]) -> TaskValues:
    """How differently the seeds of a task go about it: 1 - Jaccard similarity of their sets of commands.

    Mean over pairs of seeds; tasks with fewer than two trajectories are left out. One arm in `table`. Low diversity at
    equal success is a warning sign of suppressed exploration (compare with arXiv 2604.28182).
    """
    sets: dict[str, list[frozenset[str]]] = {}
    for row, trajectory in read.items():
        if row in table.index:
            used = frozenset(" ".join(command.split()) for turn in trajectory.turns for command in turn.commands)
            sets.setdefault(str(table.at[row, "instance_id"]), []).append(used)
    known = {task: _spread(sets[task]) for task in sorted(sets) if len(sets[task]) > 1}
    counts = np.array([len(sets[task]) for task in known], dtype=np.int64)
    repos = table.drop_duplicates("instance_id").set_index("instance_id")["repo"]
    names = tuple(known)
    unknown = np.full(len(names), np.nan)
    values = np.array([known[task] for task in names])
    clusters = np.array([repos[task] for task in names], dtype=str)
    return TaskValues(names, values, unknown, unknown, np.zeros(len(names)), clusters, (counts,))


def first_divergence(a: Trajectory, b: Trajectory) -> int | None:
    """The first turn, from 0, whose commands differ; None when one is a prefix of the other and they end together."""
    for step, (one, other) in enumerate(zip(a.turns, b.turns, strict=False)):
        if one.commands != other.commands:
            return step
    return None if len(a.turns) == len(b.turns) else min(len(a.turns), len(b.turns))


def action_at(trajectory: Trajectory, step: int | None, most: int = 200) -> str:
    """What the model did at a turn, as one short line."""
    if step is None:
        return ""
    if step >= len(trajectory.turns):
        return f"(ended: {trajectory.exit_status or 'unknown'})"
    turn = trajectory.turns[step]
    return " ".join((" && ".join(turn.commands) or turn.text).split())[:most]


def _spread(sets: Sequence[frozenset[str]]) -> float:
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
