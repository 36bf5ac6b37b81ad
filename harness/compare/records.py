"""What a comparison comes to, as records: every number with its n, its seeds and its interval, ready to be rendered."""

from collections.abc import Mapping
from typing import Any, Literal

from harness.types import Record

Question = Literal["these tasks", "tasks like these"]
Verdict = Literal["better", "worse", "no difference detected", "inconclusive"]


class Interval(Record):
    """A confidence interval and the question that it answers.

    "these tasks": would a re-run on the same tasks agree? Only run noise counts.
    "tasks like these": would it hold on new tasks of the same kind? Run noise and task noise count.
    `bound` is true where the standard error is only an upper bound, with the reason in `note`.
    """

    question: Question
    low: float
    high: float
    se: float
    df: float
    level: float
    method: str
    bound: bool = False
    note: str = ""


class Estimate(Record):
    """A mean over tasks of means over seeds. `seeds` is the fewest and the most rollouts of a task."""

    value: float
    tasks: int
    rollouts: int
    seeds: tuple[int, int]
    these: Interval
    like: Interval


class Test(Record):
    """A significance test: what it assumes is in `hypothesis`. `p_holm` is filled where it belongs to a family."""

    __test__ = False

    name: str
    hypothesis: str
    question: Question
    p: float
    p_mid: float | None = None
    p_holm: float | None = None


class Bounds(Record):
    """How far the difference can move if every missing rollout of one arm had failed and of the other had passed."""

    missing_baseline: int
    missing_candidate: int
    low: float
    high: float
    verdict_low: Verdict
    verdict_high: Verdict


class Contrast(Record):
    """Candidate minus baseline on the tasks that both have. Differences are fractions (0.014 is 1.4 points)."""

    baseline: str
    candidate: str
    difference: Estimate
    bootstrap: Mapping[Question, tuple[float, float]] = {}
    tests: tuple[Test, ...] = ()
    gained: int = 0
    lost: int = 0
    bounds: Bounds | None = None
    verdict: Verdict
    reason: str
    detectable: Mapping[Question, float] = {}


class ArmSummary(Record):
    """One arm: what was run, what is missing, and its resolved rate."""

    arm: str
    tasks: int
    rollouts: int
    scored: int
    errors: int
    missing: int
    resolved: Estimate
    official: float
    versions: Mapping[str, str] = {}


class Comparison(Record):
    """Everything `aem compare` prints, exports and hands to tables and reports."""

    level: float
    arms: tuple[ArmSummary, ...]
    contrasts: tuple[Contrast, ...]
    warnings: tuple[str, ...] = ()
    versions: Mapping[str, Any] = {}
