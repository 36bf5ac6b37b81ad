"""Before a run: how many seeds a question needs, what they cost, and how to spread them over tasks."""

import heapq
from collections.abc import Callable, Sequence

import numpy as np
from scipy import optimize, stats

from aem_harness.harness.compare.intervals import bell_mccaffrey_df
from aem_harness.harness.compare.records import Allocation, Components, Plan, PlanRow, Question
from aem_harness.harness.compare.values import Floats, Ints
from aem_harness.harness.errors import ConfigError, DataError

MOST_SEEDS = 512
ENDLESS = 10**9  # seeds: no run noise is left
SHOWN = (1, 2, 4, 8, 16, 32)

# Instances a repository in SWE-bench Verified: 12 clusters, the largest of which holds 46 % of the tasks.
VERIFIED_REPOS = {
    "django/django": 231, "sympy/sympy": 75, "sphinx-doc/sphinx": 44, "matplotlib/matplotlib": 34,
    "scikit-learn/scikit-learn": 32, "astropy/astropy": 22, "pydata/xarray": 22, "pytest-dev/pytest": 19,
    "pylint-dev/pylint": 10, "psf/requests": 8, "mwaskom/seaborn": 2, "pallets/flask": 1,
}  # fmt: skip


def plan(
    components: Components,
    *,
    tasks: int = 500,
    difference: float | None = None,
    margin: float | None = None,
    seeds: int | None = None,
    alpha: float = 0.05,
    power: float = 0.8,
    shares: Floats | None = None,
) -> Plan:
    """What `seeds` per arm can show on `tasks` tasks, and how many are needed for a difference or a margin (fractions).

    A difference is detected by the two-sided test at `alpha`. A margin is for non-inferiority of an equal candidate,
    one-sided at alpha / 2. `shares` are the repositories' shares of the tasks, by default those of SWE-bench Verified.
    Raises DataError for a baseline that resolves everything or nothing, and ConfigError for a difference that is more
    than it leaves unresolved.
    """
    if not 0 < components.rate < 1:
        raise DataError(
            f"the history resolves {'every task' if components.rate else 'no task'}, which says nothing about how much "
            "outcomes vary: give --rate"
        )
    if difference is not None and difference > 1 - components.rate:
        left = 100 * (1 - components.rate)
        raise ConfigError(
            f"a difference of {100 * difference:g} points is more than the {left:.1f} that a baseline at "
            f"{100 * components.rate:.1f} % leaves to gain: give a smaller --difference or another --rate"
        )
    shares = _verified_shares() if shares is None else shares
    rows = [
        _row(components, tasks, k, alpha, power, shares, difference, margin)
        for k in sorted({*SHOWN, *([seeds] if seeds else [])})
    ]
    needed: dict[str, int | None] = {}
    never = []
    questions: tuple[Question, ...] = ("these tasks", "tasks like these")
    for question in questions:
        for name, target, one_sided in (("difference", difference, False), ("margin", margin, True)):
            if target is not None:
                key, enough = (
                    f"{name}, {question}",
                    _enough(components, tasks, target, alpha, power, shares, question, one_sided=one_sided),
                )
                needed[key] = _seeds_needed(enough)
                never += [] if enough(ENDLESS) else [key]
    return Plan(
        components=components,
        tasks=tasks,
        alpha=alpha,
        power=power,
        difference=difference,
        margin=margin,
        rows=tuple(rows),
        needed=needed,
        never=tuple(never),
    )


def standard_error(
    components: Components,
    tasks: int,
    seeds: int,
    question: Question,
    shares: Floats | None = None,
    difference: float = 0.0,
) -> float:
    """Expected standard error of the paired difference at `seeds` rollouts per task and arm.

    These tasks: sqrt((W_a + W_b) / (K N)), where W_b is the candidate's run noise when it is `difference` better.
    Tasks like these adds change / N and the repositories' part, sum(share^2) * repository.
    """
    spread = components.rate * (1 - components.rate)
    run = (components.noise * spread + _lifted(components, difference)[0]) / (seeds * tasks)
    if question == "these tasks":
        return float(np.sqrt(run))
    shares = _verified_shares() if shares is None else shares
    return float(np.sqrt(run + spread * (components.change / tasks + components.repository * float((shares**2).sum()))))


def _lifted(components: Components, difference: float) -> tuple[float, float]:
    """Run noise of a candidate that is better by `difference`, and the share of tasks that are then discordant.

    The gain must come from somewhere: every task is assumed to gain the same share c of what it leaves unresolved, q =
    p + c (1 - p), which turns certain failures into noisy tasks.
    """
    m = components.rate
    noise = components.noise * m * (1 - m)
    c = min(abs(difference) / (1 - m), 1.0)
    failing = (1 - m) ** 2 + (1 - components.noise) * m * (1 - m)  # E[(1 - p)^2]
    square = m - noise  # E[p^2]
    return (1 - c) * (noise + c * failing), 2 * m + c * (1 - m) - 2 * (square + c * noise)


def power_of(difference: float, se: float, df: float, alpha: float = 0.05) -> float:
    """Power of the two-sided t test at `alpha` for a true `difference` (noncentral t)."""
    critical = float(stats.t.ppf(1 - alpha / 2, df))
    return _beyond(critical, df, difference / se) + _beyond(critical, df, -difference / se)


def power_once(difference: float, discordant: float, tasks: int, alpha: float = 0.05) -> float:
    """Power of McNemar's exact test at one rollout a task: the number of discordant tasks is binomial with the
    probability `discordant`, and each of them is a gain with probability 1/2 + difference / (2 discordant)."""
    share = max(discordant, abs(difference))
    counts = np.arange(tasks + 1)
    weight = stats.binom.pmf(counts, tasks, share)
    critical = np.asarray(stats.binom.ppf(alpha / 2, counts, 0.5))
    critical = critical - (stats.binom.cdf(critical, counts, 0.5) > alpha / 2)  # the largest count that rejects
    gain = 0.5 + difference / (2 * share)
    rejected = stats.binom.cdf(critical, counts, gain) + stats.binom.cdf(critical, counts, 1 - gain)
    return float(weight @ rejected)


def allocate(variances: Floats, budget: int, *, at_least: int = 1) -> Allocation:
    """Spread `budget` rollouts over N tasks so that the sum of variance / seeds is smallest (Neyman 1934).

    `variances` (N,) are the expected p (1 - p) of the tasks. Every task keeps `at_least` rollouts, and its weight 1/N,
    so the estimate stays unbiased. Greedy by the largest gain, which is optimal because gains only shrink. A task with
    one rollout has no noise estimate of its own; use at least two if the interval for these tasks matters.
    """
    n = len(variances)
    seeds = np.full(n, at_least, dtype=np.int64)
    gains = [(-v / (k * (k + 1)), i) for i, (v, k) in enumerate(zip(variances, seeds.tolist(), strict=True))]
    heapq.heapify(gains)
    for _ in range(max(budget - n * at_least, 0)):
        _, i = gains[0]
        seeds[i] += 1
        heapq.heapreplace(gains, (-variances[i] / (int(seeds[i]) * (int(seeds[i]) + 1)), i))
    spent = int(seeds.sum())
    achieved = float((variances / seeds).sum())
    uniform = float(variances.sum()) / achieved * n if achieved else float(spent)
    return Allocation(seeds=tuple(seeds.tolist()), rollouts=spent, equal_rollouts=uniform, saving=1 - spent / uniform)


def costs(components: Components, rollouts: int, *, workers: int, gpus: float, tasks: int) -> dict[str, float]:
    """The cost of `rollouts`: steps, tokens, wall hours with `workers` in parallel, GPU hours, and disk in GB.

    Wall time assumes independent rollouts, packed longest first (1.07 times the mean load). Images take 0.56 GB per
    task (280 GB for the 500 of Verified, inspect_evals issue 926), a trajectory 0.25 MB. GPU hours are those of the
    history if it has them, else `gpus` busy throughout.
    """
    hours = rollouts * components.seconds / workers / 3600 * 1.07
    measured = rollouts * components.gpu_seconds / 3600
    totals = {"rollouts": float(rollouts), "wall hours": hours, "GPU hours": measured or hours * gpus}
    totals |= {"disk GB": 0.56 * tasks + 0.00025 * rollouts}
    per_rollout = {"steps": components.steps, "prompt tokens": components.prompt_tokens}
    per_rollout["completion tokens"] = components.completion_tokens
    return totals | {name: rollouts * each for name, each in per_rollout.items() if each}


def curve(
    components: Components, tasks: int, seeds: int, question: Question, alpha: float, shares: Floats | None = None
) -> Callable[[float], float]:
    """Power as a function of the true difference (a fraction), for `seeds` per arm."""
    return _chance(components, tasks, seeds, question, _verified_shares() if shares is None else shares, alpha)


def _row(
    components: Components,
    tasks: int,
    seeds: int,
    alpha: float,
    power: float,
    shares: Floats,
    difference: float | None,
    margin: float | None,
) -> PlanRow:
    cells: dict[str, dict[Question, float]] = {"se": {}, "power": {}, "passes": {}}
    detectable: dict[Question, float | None] = {}
    questions: tuple[Question, ...] = ("these tasks", "tasks like these")
    for question in questions:
        chance = _chance(components, tasks, seeds, question, shares, alpha)
        se, df = standard_error(components, tasks, seeds, question, shares), _df(question, shares)
        cells["se"][question] = se
        most = 1 - components.rate  # more cannot be gained
        detectable[question] = _smallest(chance, power, most) if chance(most) >= power else None
        if difference is not None:
            cells["power"][question] = chance(difference)
        if margin is not None:
            cells["passes"][question] = _beyond(float(stats.t.ppf(1 - alpha / 2, df)), df, margin / se)
    return PlanRow(seeds=seeds, rollouts=2 * seeds * tasks, detectable=detectable, **cells)


def _smallest(chance: Callable[[float], float], power: float, most: float) -> float:
    """The smallest difference up to `most` that is detected with this power."""
    return float(optimize.brentq(lambda difference: chance(difference) - power, 0, most))


def _chance(
    components: Components, tasks: int, seeds: int, question: Question, shares: Floats, alpha: float
) -> Callable[[float], float]:
    """Power as a function of the true difference, of the test that `compare` uses for the question."""
    if seeds == 1 and question == "these tasks":
        return lambda difference: power_once(difference, _lifted(components, difference)[1], tasks, alpha)
    df = _df(question, shares)

    def chance(difference: float) -> float:
        se = standard_error(components, tasks, seeds, question, shares, difference)
        found = power_of(difference, se, df, alpha)
        if seeds > 1:
            return found
        possible = min(difference, 1.0)
        return min(found, power_once(possible, _lifted(components, possible)[1], tasks, alpha))  # never surer

    return chance


def _enough(
    components: Components,
    tasks: int,
    target: float,
    alpha: float,
    power: float,
    shares: Floats,
    question: Question,
    *,
    one_sided: bool,
) -> Callable[[int], bool]:
    """Whether so many seeds per arm reach the target with this power."""
    df = _df(question, shares)

    def enough(seeds: int) -> bool:
        if one_sided:
            se = standard_error(components, tasks, seeds, question, shares)
            return _beyond(float(stats.t.ppf(1 - alpha / 2, df)), df, target / se) >= power
        return _chance(components, tasks, seeds, question, shares, alpha)(target) >= power

    return enough


def _seeds_needed(enough: Callable[[int], bool]) -> int | None:
    """The fewest seeds per arm, or None if they are more than MOST_SEEDS."""
    if not enough(MOST_SEEDS):
        return None
    low, high = 0, MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _beyond(critical: float, df: float, shift: float) -> float:
    """P(T > critical) of the noncentral t distribution; normal where df is infinite."""
    if np.isinf(df):
        return float(stats.norm.sf(critical - shift))
    tail = float(stats.nct.sf(critical, df, shift))
    return tail if np.isfinite(tail) else float(shift > critical)


def _df(question: Question, shares: Floats) -> float:
    if question == "these tasks":
        return np.inf
    return bell_mccaffrey_df(shares) if len(shares) > 1 else np.inf


def _verified_shares() -> Floats:
    sizes = np.array(list(VERIFIED_REPOS.values()), dtype=float)
    return sizes / sizes.sum()


def shares_of(repos: Sequence[str]) -> Floats:
    """Each repository's share of the tasks."""
    _, sizes = np.unique(np.asarray(repos, dtype=str), return_counts=True)
    counted: Ints = sizes.astype(np.int64)
    return counted / counted.sum()
