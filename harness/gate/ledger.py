"""The record of all gates: a candidate has one order for each baseline, so that nobody repeats a gate until it passes.

Each line of the file is one gate. A candidate is identified by its weights, or if unknown by its outcomes.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from aem_harness.harness.errors import ConfigError, DataError, validating
from aem_harness.harness.io import read_json_lines
from aem_harness.harness.run.store import now
from aem_harness.harness.types import Record


class GateAttempt(Record):
    """What makes two gates the same attempt: both arms, the order, and the rollouts."""

    baseline: str
    candidate: str
    order: str
    outcomes: str
    single_look: bool
    question: str
    orders: int
    futility: float

    def same_question(self, other: "GateAttempt") -> bool:
        """The same two arms and settings, in any order."""
        names = ("baseline", "candidate", "single_look", "question")
        return all(getattr(self, name) == getattr(other, name) for name in names)

    def same_rollouts(self, other: "GateAttempt") -> bool:
        return (self.order, self.outcomes) == (other.order, other.outcomes)


class GateEntry(Record):
    """One gate in the ledger; margins and error rates are fractions."""

    attempt: GateAttempt
    name: str
    margin: float
    alpha: float
    verdict: str
    rollouts: int
    at: str


def default_ledger() -> Path:
    """One file per user, in the platform's folder for state."""
    from platformdirs import user_state_path

    return user_state_path("aem-harness") / "gates.jsonl"


def read(path: Path) -> list[GateEntry]:
    """All gates of a ledger, the oldest first."""
    if not path.exists():
        return []
    with validating(DataError, f"{path} is not a ledger of gates"):
        return [GateEntry.model_validate(value) for _, value in read_json_lines(path)]


def check(past: Sequence[GateEntry], attempt: GateAttempt, path: Path) -> None:
    """Raise ConfigError if this candidate has used its orders against this baseline."""
    before = [line for line in past if line.attempt.same_question(attempt)]
    if not before:
        return
    last = before[-1]
    when = f"{last.name} was gated against this baseline on {last.at[:10]} ({last.verdict}; {path})"
    if last.attempt.orders != attempt.orders:
        raise ConfigError(
            f"{when}, planned with --orders {last.attempt.orders}, not {attempt.orders}; keep the planned number"
        )
    known = [line.attempt for line in before if line.attempt.same_rollouts(attempt)]
    if known and known[-1].futility != attempt.futility:
        raise ConfigError(f"{when} with --futility {known[-1].futility:g}; another value would change its error rates")
    tried = {(line.attempt.order, line.attempt.outcomes) for line in before}
    if not known and len(tried) >= attempt.orders:
        raise ConfigError(
            f"{when} in another order or with other rollouts; each attempt raises the error rates. Keep that "
            "verdict, or plan the attempts beforehand with --orders N, which divides alpha among them"
        )


def record(path: Path, line: GateEntry) -> bool:
    """Add a gate; False if the ledger cannot be written. A repeated gate is added again."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line.model_dump_json() + "\n")
        return True
    return False


def line(attempt: GateAttempt, name: str, *, margin: float, alpha: float, verdict: str, rollouts: int) -> GateEntry:
    """A gate that ended now."""
    return GateEntry(
        attempt=attempt, name=name, margin=margin, alpha=alpha, verdict=verdict, rollouts=rollouts, at=now()
    )
