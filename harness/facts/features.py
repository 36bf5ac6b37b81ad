"""The features of one rollout, in numbers and as a sketch: what comparisons need of its trajectory."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from aem_harness.harness.interop.trajectories import Trajectory

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
    """The part of a trajectory that is kept beside its features.

    Per turn: `keys`, equal where the commands are; `actions`, one short line to show; `entropies` (nats, None where
    unknown). `used` is the set of single commands. Keys and commands are 64-bit hashes that are the same everywhere.
    """

    exit_status: str
    keys: tuple[int, ...]
    actions: tuple[str, ...]
    entropies: tuple[float | None, ...]
    used: frozenset[int]


def sketch(trajectory: Trajectory, most: int = 120) -> Sketch:
    """See `Sketch`; actions are cut to `most` characters."""
    turns = [tuple(" ".join(command.split()) for command in turn.commands) for turn in trajectory.turns]
    shown = [
        " && ".join(commands) or " ".join(turn.text.split())
        for commands, turn in zip(turns, trajectory.turns, strict=True)
    ]
    return Sketch(
        exit_status=trajectory.exit_status,
        keys=tuple(_hash("\0".join((str(len(commands)), *commands))) for commands in turns),
        actions=tuple(text[:most] for text in shown),
        entropies=tuple(turn.entropy for turn in trajectory.turns),
        used=frozenset(_hash(command) for commands in turns for command in commands),
    )


def features(trajectory: Trajectory) -> dict[str, float]:
    """The features of one rollout, by the names in `FEATURES`; nan if the trajectory lacks them."""
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


def _hash(text: str) -> int:
    """64 bits that identify a text in any process: Python's own hash of a text differs between processes."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _mean(numbers: Sequence[float]) -> float:
    return float(np.mean(numbers)) if numbers else np.nan


def _probability(value: object) -> float:
    try:
        number = float(str(value))
    except ValueError:
        return np.nan
    return number if 0 <= number <= 1 else np.nan
