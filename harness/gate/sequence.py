"""A sequence of gates, for example every night, that keeps false alarms rare; its state is one small file.

The rule: in any `window` consecutive gates, the chance of *any* false BLOCK is at most alpha, because each may BLOCK
with probability alpha / window (Bonferroni, valid under any dependence, so also with one baseline for all). Every night
has the same power. A PASS keeps alpha: its error is per bad checkpoint, not per night. A new baseline starts a new
sequence; one that is run afresh every night is identified by its settings instead of its outcomes.
"""

from pathlib import Path

from aem_harness.harness.errors import ConfigError, DataError, validating
from aem_harness.harness.io import read_json, write_json
from aem_harness.harness.types import Record


class PastGate(Record):
    """One gate of the sequence; `candidate_digest` identifies a repeated gate, which spends nothing new."""

    number: int
    candidate: str
    candidate_digest: str
    block_alpha: float
    verdict: str
    rollouts: int
    difference: float
    at: str


class GateSequence(Record):
    """The state file. Without `window`, one of an older format: alpha / (j (j + 1)) for the j-th gate, alpha in all."""

    baseline_digest: str
    alpha: float
    window: int | None = None
    gates: tuple[PastGate, ...] = ()

    def number(self, candidate_digest: str | None) -> int:
        """The number of this candidate's gate; an earlier one if its outcomes were gated before.

        Names do not count, since they are reused. None: the candidate has no outcomes yet.
        """
        known = [gate.number for gate in self.gates if gate.candidate_digest == candidate_digest]
        return known[-1] if known else len(self.gates) + 1

    def block_alpha(self, number: int) -> float:
        return self.alpha / (self.window or number * (number + 1))

    @property
    def guarantee(self) -> str:
        """The gates that share the error rate of BLOCK."""
        return f"any {self.window} consecutive gates" if self.window else "all gates of the sequence"


WINDOW = 7  # gates, a week of nights


def open_sequence(path: Path, baseline: str, alpha: float, window: int | None = None) -> GateSequence:
    """Read the state file, or start one. Raises ConfigError if it has another baseline, alpha or window.

    `baseline` is a digest: of its stored outcomes, or of its settings where it is run afresh.
    """
    if not path.exists():
        return GateSequence(baseline_digest=baseline, alpha=alpha, window=window or WINDOW)
    with validating(DataError, f"{path} is not the state of a sequence of gates"):
        sequence = GateSequence.model_validate(read_json(path))
    for name, theirs, ours in (
        ("baseline", sequence.baseline_digest, baseline),
        ("alpha", sequence.alpha, alpha),
        ("window", sequence.window, window or sequence.window),
    ):
        if theirs != ours:
            raise ConfigError(f"{path} belongs to {name} {theirs}, not {ours}; start a new file for the new {name}")
    return sequence


def record(path: Path, sequence: GateSequence, gate: PastGate) -> GateSequence:
    """Add a finished gate to the state file, unless it is there."""
    if gate.number <= len(sequence.gates):
        return sequence
    longer = sequence.model_copy(update={"gates": (*sequence.gates, gate)})
    write_json(path, longer.model_dump(mode="json"))
    return longer
