"""The results of a comparison as records: every number with its n, its seeds and its interval."""

from collections.abc import Mapping
from typing import Any, Literal

from aem_harness.harness.types import Record

Question = Literal["these tasks", "tasks like these"]
QUESTIONS: tuple[Question, Question] = ("these tasks", "tasks like these")
Conclusion = Literal[
    "better", "worse", "no difference detected", "non-inferior", "inferior", "superior", "not superior", "equivalent",
    "equivalence not shown", "inconclusive",
]  # fmt: skip

PassKind = Literal["pass@k", "pass^k"]
CurveKind = Literal["resolved within steps", "resolved within generated tokens", "response entropy by turn"]


class Interval(Record):
    """A confidence interval and the question that it answers.

    "these tasks": would a rerun on the same tasks agree? Only run noise counts.
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
    """A mean over tasks of means over seeds. `seeds` is the fewest and the most rollouts of a task and arm.

    `like` is None with fewer than two tasks, which are no evidence on others.
    """

    value: float
    tasks: int
    rollouts: int
    seeds: tuple[int, int]
    these: Interval
    like: Interval | None = None


class Test(Record):
    """A significance test: what it assumes is in `hypothesis`. `p_holm` is filled where it belongs to a family.

    Exact tests of counts have a second, `p_mid`, which counts half of the observed outcome's probability: the exact one
    never rejects more often than stated, the mid-p one about as often. Decisions and Holm use the exact one.
    """

    __test__ = False

    name: str
    hypothesis: str
    question: Question
    p: float
    p_mid: float | None = None
    p_holm: float | None = None


class Decision(Record):
    """A verdict, the p-value behind it and the reason in words. `margin` is 0 for a plain difference."""

    question: Question
    verdict: Conclusion
    reason: str
    p: float
    margin: float = 0.0


class Discordance(Record):
    """The 2 x 2 table of one rollout per task and arm, with the score intervals of its difference."""

    both: int
    gained: int
    lost: int
    neither: int
    p_exact: float
    p_mid: float
    tango: tuple[float, float]
    newcombe: tuple[float, float]


class Bounds(Record):
    """How far the difference moves if all missing rollouts of one arm had failed and all of the other's had passed.

    `low` and `high` are the differences at the two extremes, `as_failed` the one with every missing rollout unresolved,
    which is how the leaderboard counts.
    """

    missing_baseline: int
    missing_candidate: int
    low: float
    high: float
    as_failed: float
    verdict_low: Conclusion
    verdict_high: Conclusion
    excused_failed: float | None = None  # the difference with the candidate's missing rollouts alone counted as failed
    verdict_excused: Conclusion | None = None


class Contrast(Record):
    """Candidate minus baseline on the tasks that both have. Differences are fractions (0.014 is 1.4 points).

    `rates` are those of the two arms on these tasks. `gained` and `lost` count tasks whose resolved rate rose and fell.
    `unmarked` is the same contrast with the resolved rollouts that bear a grave integrity mark counted as unresolved;
    None where no rollout of either arm bears one.
    """

    baseline: str
    candidate: str
    label: str = ""
    difference: Estimate
    bootstrap: Mapping[Question, tuple[float, float]] = {}
    tests: tuple[Test, ...] = ()
    discordance: Discordance | None = None
    rates: tuple[float, float] | None = None
    gained: int = 0
    lost: int = 0
    bounds: Bounds | None = None
    decision: Decision
    decisions: tuple[Decision, ...] = ()
    detectable: Mapping[Question, float] = {}
    unmarked: "Contrast | None" = None


class ArmSummary(Record):
    """One arm: what was run, what is missing, and its resolved rate.

    `resolved` leaves rollouts without a verdict out; `official` counts them as unresolved, and `lowest` and `highest`
    are the rates if all of them had failed or passed. `unmarked` counts the `marked` rollouts, which are resolved but
    bear a grave integrity mark, as unresolved; `audited` those that were seen to tamper with their tests, among the
    `regraded` ones that were graded again with canaries (None where none was). `checkpoints`: models that they name.
    `reused` verdicts are those of an equal patch; of the others that could have been, `confirmed` got the same verdict
    and `flipped` another one.
    """

    arm: str
    status: str = ""
    tasks: int
    rollouts: int
    scored: int
    missing: int
    errors: int
    retried: int
    resolved: Estimate
    official: float
    highest: float
    marked: int = 0
    unmarked: Estimate
    regraded: int = 0
    tampered: int = 0
    audited: Estimate | None = None
    reused: int = 0
    confirmed: int = 0
    flipped: int = 0
    outcomes: Mapping[str, int] = {}
    versions: Mapping[str, str] = {}
    checkpoints: int = 0


class PassPoint(Record):
    """pass@k or pass^k of one arm, on the `estimate.tasks` tasks that have at least k rollouts."""

    arm: str
    kind: PassKind
    k: int
    estimate: Estimate


class PassDifference(Record):
    """Paired difference of pass@k or pass^k on the tasks on which both arms have k rollouts."""

    baseline: str
    candidate: str
    kind: PassKind
    k: int
    estimate: Estimate
    p: float


class Interaction(Record):
    """Does the difference of two arms vary between parts of the tasks?

    `p` tests that it is the same in every part, on these tasks. Of two parts (`after` and `before`), `change` is the
    difference in the second less that in the first, with its interval; `like` takes tasks as independent.
    """

    by: str
    candidate: str
    parts: tuple[str, ...]
    p: float
    p_holm: float | None = None
    change: float | None = None
    these: Interval | None = None
    like: Interval | None = None


class Group(Record):
    """A part of the tasks (a repository, a difficulty, a year): the arms' rates, and differences to the baseline."""

    by: Literal["repository", "difficulty", "issue year"]
    value: str
    tasks: int
    rates: Mapping[str, Estimate]
    differences: Mapping[str, Estimate]
    p: Mapping[str, float]
    p_holm: Mapping[str, float] = {}


class TaskChange(Record):
    """A task whose resolved rate differs: rollouts of baseline and candidate, and the posterior of a real change."""

    instance_id: str
    solved: tuple[int, int]
    rollouts: tuple[int, int]
    p_worse: float
    p_better: float

    @property
    def change(self) -> float:
        """By how much the resolved rate rose."""
        before, after = (solved / n for solved, n in zip(self.solved, self.rollouts, strict=True))
        return after - before


class Flip(TaskChange):
    """A changed task of an arm, with two trajectories and where they diverge.

    `step` is the first turn, from 0, at which the two do something else; None if unknown.
    """

    repo: str
    baseline: str
    candidate: str
    trajectories: tuple[str, str] = ("", "")
    step: int | None = None
    actions: tuple[str, str] = ("", "")


class MetricRow(Record):
    """A cost or behaviour metric: each arm's mean, and the paired differences to the baseline with their p-values."""

    section: Literal["cost", "behaviour", "tools", "calibration"]
    name: str
    unit: str
    meaning: str
    arms: Mapping[str, Estimate]
    differences: Mapping[str, Estimate] = {}
    p: Mapping[str, float] = {}
    p_holm: Mapping[str, float] = {}

    @property
    def timed(self) -> bool:
        """Whether it is a time, which the machine's load changes as well."""
        return self.unit == "s"


class CurvePoint(Record):
    """One point of a curve, with the interval for these tasks."""

    x: float
    value: float
    low: float
    high: float
    tasks: int


class Curve(Record):
    """A metric of one arm against a budget or a turn. "resolved within" counts rollouts resolved at no more than x."""

    arm: str
    kind: CurveKind
    points: tuple[CurvePoint, ...]


class BestOf(Record):
    """The arm with the highest rate on the `tasks` that all have, corrected for selection; see `winner`.

    shrunken: empirical-Bayes posterior mean of the picked arm's rate.
    held_out: mean rate, on the other half of the seeds, of the arm that half of the seeds pick; None with one seed.
    low, high: interval that covers the rate of whichever arm is picked.
    probability: posterior probability that the picked arm is the best of them.
    """

    arm: str
    among: int
    tasks: int
    observed: float
    shrunken: float
    held_out: float | None
    low: float
    high: float
    level: float
    probability: float


class LedgerRow(Record):
    """How many rollouts of an arm had this exit status, and whose fault it is; `lost` of them have no verdict."""

    arm: str
    end: str
    whose: str
    rollouts: int
    lost: int


class Widened(Record):
    """A contrast's interval for these tasks with the grader's noise added, at a flip rate of `flips`, and whether a
    verdict no longer stands."""

    baseline: str
    candidate: str
    low: float
    high: float
    flips: float
    turns: bool


class GraderNoise(Record):
    """How often the same patch gets another verdict; see `harness.compare.grader`.

    `rate`, with its interval, is of all graded patches of the arms; `moved_rate` of those of tasks that moved and
    `others_rate` of the others, None where none of them was graded again. `patches`, `gradings` and `flips` are counts
    of what was graded again.
    """

    patches: int
    gradings: int
    errors: int
    flips: int
    rate: float
    low: float
    high: float
    moved_rate: float | None
    others_rate: float | None
    by_task: Mapping[str, int]
    by_repository: Mapping[str, int]
    widened: tuple[Widened, ...]


class Comparison(Record):
    """Everything `aem compare` prints, exports and hands to tables and reports.

    `apart`: why times of the arms are not comparable, empty if they are; `sensitivity`: what the differences would be
    with other tasks; `registration`: whether all is as registered. `bands`: for a series, simultaneous intervals of the
    arms' rates.
    """

    level: float
    baseline: str
    arms: tuple[ArmSummary, ...]
    contrasts: tuple[Contrast, ...]
    passes: tuple[PassPoint, ...] = ()
    pass_differences: tuple[PassDifference, ...] = ()
    bands: Mapping[str, tuple[float, float]] = {}
    grader: GraderNoise | None = None
    apart: str = ""
    sensitivity: tuple[str, ...] = ()
    registration: str = ""
    interactions: tuple[Interaction, ...] = ()
    groups: tuple[Group, ...] = ()
    metrics: tuple[MetricRow, ...] = ()
    curves: tuple[Curve, ...] = ()
    flips: tuple[Flip, ...] = ()
    unique: Mapping[str, tuple[str, ...]] = {}
    best: BestOf | None = None
    ledger: tuple[LedgerRow, ...] = ()
    ends: Mapping[str, str] = {}  # whose fault an exit status is, where the user's rows differ from the table
    warnings: tuple[str, ...] = ()
    versions: Mapping[str, Any] = {}


# --- training runs as units -----------------------------------------------------------------------------------------


class TrainingRun(Record):
    """One training run: the mean resolve rate of its rollouts on the tasks that all runs have."""

    name: str
    rate: float
    rollouts: int


class MethodSummary(Record):
    """A method: its runs, their mean, and what makes it vary, as standard deviations of a resolve rate.

    sd_run: between training runs, beyond what their rollouts explain, with its interval, whose upper end is never that
    of a variance below the rollouts' own; None with one run.
    sd_rerun: of one run's rate over re-runs of its rollouts; None with one rollout per task, which cannot show it: the
    other two then include it. sd_task: of the tasks' rates.
    """

    method: str
    runs: tuple[TrainingRun, ...]
    rate: float
    sd_run: float | None
    sd_run_ends: tuple[float, float] | None
    sd_rerun: float | None
    sd_task: float


class RunBounds(Record):
    """The difference of two methods, and what would be said of it, had the missing rollouts of the baseline's runs all
    passed and the candidate's all failed (`low`), and the other way round (`high`)."""

    low: float
    high: float
    verdict_low: Conclusion
    verdict_high: Conclusion


class RunContrast(Record):
    """Candidate minus baseline method, over their training runs. `p` is of the t test, which decides.

    `p_permutation` assigns the runs to the methods in every way; it cannot be less than `least_p`, so that few runs can
    never reject by it.
    """

    baseline: str
    candidate: str
    runs: tuple[int, int]
    difference: float
    these: Interval
    like: Interval | None
    p: float
    p_holm: float | None = None
    p_permutation: float
    least_p: float
    bounds: RunBounds | None = None
    decision: Decision


class RunComparison(Record):
    """`aem compare --unit run`. `pooled` is the result if runs are taken for seeds: it holds for these runs only.

    `left_out` tasks lack a verdict in some run; `missing` rollouts have none.
    """

    level: float
    baseline: str
    tasks: int
    left_out: int
    missing: int
    methods: tuple[MethodSummary, ...]
    contrasts: tuple[RunContrast, ...]
    pooled: Mapping[str, Contrast]


# --- planning -------------------------------------------------------------------------------------------------------


class Components(Record):
    """Variance components as shares of rate * (1 - rate), and what a rollout costs; see `harness.compare.surface`."""

    source: str
    rate: float
    noise: float
    change: float
    repository: float
    steps: float = 0.0
    seconds: float = 0.0
    prompt_tokens: float = 0.0
    completion_tokens: float = 0.0
    gpu_seconds: float = 0.0


class PlanRow(Record):
    """What `seeds` rollouts per task and arm can show; `rollouts` are those of both arms together.

    se and detectable are fractions, detectable None where not even a gain of all that is unresolved is; power is for
    the plan's difference, passes the chance that an equal candidate is shown non-inferior by the plan's margin.
    """

    seeds: int
    rollouts: int
    se: Mapping[Question, float]
    detectable: Mapping[Question, float | None]
    power: Mapping[Question, float] = {}
    passes: Mapping[Question, float] = {}


class Plan(Record):
    """Seeds per arm needed for each target, None if they are more than 512; `never` are the targets that no number of
    seeds reaches on these many tasks."""

    components: Components
    tasks: int
    alpha: float
    power: float
    difference: float | None
    margin: float | None
    rows: tuple[PlanRow, ...]
    needed: Mapping[str, int | None]
    never: tuple[str, ...] = ()


class Allocation(Record):
    """Seeds per task, in the given order; `equal_rollouts` at equal seeds would give the same standard error."""

    seeds: tuple[int, ...]
    rollouts: int
    equal_rollouts: float
    saving: float
