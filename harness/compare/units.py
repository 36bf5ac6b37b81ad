"""The training run as the unit: "method B beats method A" is a claim about trainings; a checkpoint is one draw.

Rollouts of one checkpoint show how good that checkpoint is. Another training seed gives another checkpoint: pooling
training runs as if they were seeds treats their spread as run noise, and covers far less often than stated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd
from scipy import special, stats

from aem_harness.harness.compare.arms import sample
from aem_harness.harness.compare.contrast import contrast
from aem_harness.harness.compare.decisions import decide, difference_claim, holm, holm_among
from aem_harness.harness.compare.intervals import agreeing, clustered_variance, never_surer, these_tasks
from aem_harness.harness.compare.methods import RUN
from aem_harness.harness.compare.outcomes import Outcomes
from aem_harness.harness.compare.records import (
    Interval,
    MethodSummary,
    RunBounds,
    RunComparison,
    RunContrast,
    TrainingRun,
)
from aem_harness.harness.compare.values import Floats
from aem_harness.harness.errors import DataError, listed

SPLITS = 200_000  # assignments of runs to methods that are enumerated; more are sampled


@dataclass(frozen=True)
class RunMeans:
    """The resolve rates of one method's runs on the common tasks, and their run noise, both (M, N).

    noise: variance of a rate over re-runs; nan where it cannot be estimated (one rollout).
    at_most: an upper bound of the mean over runs of the variance of a run's mean over a re-run of its rollouts.
    """

    names: tuple[str, ...]
    rates: Floats
    noise: Floats
    at_most: float

    @property
    def means(self) -> Floats:
        return np.asarray(self.rates.mean(axis=1), dtype=float)

    @property
    def within(self) -> float | None:
        """Mean over runs of the variance of a run's mean over a re-run of its rollouts.

        Tasks of one rollout are taken to be as noisy as the others of their run; None if most tasks have only one.
        """
        known = np.isfinite(self.noise)
        if (known.mean(axis=1) < 0.5).any():
            return None
        return float(np.nanmean(self.noise, axis=1).mean()) / self.rates.shape[1]

    @property
    def rerun(self) -> float:
        """`within`, or where nothing is known of it, or all rollouts agree, what bounds it from above and is not zero.

        That is the variance between runs task by task, which has the rollouts' noise in it; of a single run, or of runs
        that agree on every task, `at_most`.
        """
        between = float(self.rates.var(axis=0, ddof=1).mean()) / self.rates.shape[1] if len(self.names) > 1 else 0.0
        return self.within or between or self.at_most


def compare_runs(outcomes: Outcomes, baseline: str | None = None, *, level: float = 0.95) -> RunComparison:
    """Every method against the baseline (by default the first); a training run is one observation.

    Over the tasks on which every run has a verdict. Raises DataError if the spread of runs cannot be estimated: one run
    of each method.
    """
    table, methods = outcomes.table, outcomes.arms
    first = baseline or methods[0]
    if first not in methods or len(methods) < 2:
        raise DataError(f"two methods are needed, one of them the baseline; there are: {listed(methods)}")
    methods = [first, *(method for method in methods if method != first)]
    found, repos, left_out = _run_means(table, methods)
    contrasts = [_contrast(first, found[first], method, found[method], repos, level) for method in methods[1:]]
    adjusted = holm([one.p for one in contrasts])
    settled = tuple(_settled(one, p, len(contrasts)) for one, p in zip(contrasts, adjusted, strict=True))
    if table["resolved"].isna().any():
        ends = [_at_an_end(table, methods, level, passed=passed) for passed in (True, False)]
        settled = tuple(_bounded(i, settled, *ends) for i in range(len(settled)))
    pooled = {
        one.candidate: contrast(
            first, table[table["arm"] == first], one.candidate, table[table["arm"] == one.candidate], level=level
        )
        for one in settled
    }
    return RunComparison(
        level=level,
        baseline=first,
        tasks=len(repos),
        left_out=left_out,
        missing=int(table["resolved"].isna().sum()),
        methods=tuple(_summary(method, found[method], table[table["arm"] == method], level) for method in methods),
        contrasts=settled,
        pooled=pooled,
    )


def _run_means(table: pd.DataFrame, methods: Sequence[str]) -> tuple[dict[str, RunMeans], "np.ndarray", int]:
    samples = {
        (method, str(run)): sample(f"{method}, training run {run}", part)
        for method in methods
        for run, part in table[table["arm"] == method].groupby(RUN, sort=True)
    }
    shared = sorted(set.intersection(*(set(one.tasks) for one in samples.values())))
    if len(shared) < 2:
        raise DataError(
            f"the {len(samples)} training runs have verdicts in common on {len(shared)} tasks; 2 are needed"
        )
    means: dict[str, RunMeans] = {}
    for method in methods:
        own = {run: one for (of, run), one in samples.items() if of == method}
        values = [one.values.where(np.isin(one.tasks, shared)) for one in own.values()]
        noise, at_most = np.array([v.noise for v in values]), float(np.mean([these_tasks(v).se ** 2 for v in values]))
        means[method] = RunMeans(tuple(own), np.array([v.values for v in values]), noise, at_most)
    repos = values[0].clusters
    return means, repos, len(set(table["instance_id"])) - len(shared)


def _contrast(
    baseline: str, a: RunMeans, candidate: str, b: RunMeans, repos: "np.ndarray", level: float
) -> RunContrast:
    difference = float(b.means.mean() - a.means.mean())
    variance, df, how = run_variance(a.means, b.means)
    rerun = a.rerun / len(a.names) + b.rerun / len(b.names)
    of_rollouts = max(len(repos) - 1.0, 1.0)
    # Few runs may agree by chance, even exactly; that makes them known no better than their own rollouts say.
    if _half(rerun, of_rollouts, level) > _half(variance, df, level):
        variance, df, how = rerun, of_rollouts, "the noise of their rollouts, as the runs differ by less"
    these = _interval("these tasks", difference, variance, df, level, f"Student t over training runs, {how}")
    p = float(2 * special.stdtr(df, -abs(difference) / np.sqrt(variance))) if variance else float(difference == 0)
    per_task = b.rates.mean(axis=0) - a.rates.mean(axis=0)
    like = None
    if len(set(repos)) > 1:
        task_variance, task_df = clustered_variance(per_task, repos, level)
        total = max(variance + task_variance - rerun, variance, task_variance)  # re-runs are in both parts
        both = (variance + task_variance) ** 2 / (variance**2 / df + task_variance**2 / task_df)
        method = "training runs and tasks, CR2 by repository, Satterthwaite's df"
        like = never_surer(_interval("tasks like these", difference, total, both, level, method), these)
    p_exact, least = permuted_runs(a.means, b.means)
    return RunContrast(
        baseline=baseline,
        candidate=candidate,
        runs=(len(a.names), len(b.names)),
        difference=difference,
        these=agreeing(these, p),
        like=like,
        p=p,
        p_permutation=p_exact,
        least_p=least,
        decision=decide(difference_claim(difference, these, p)),
    )


def run_variance(a: Floats, b: Floats) -> tuple[float, float, str]:
    """Variance of the difference of two methods' means over their runs' means, and its degrees of freedom.

    Pooled if both have as many runs (the test is then robust against unequal spreads) or one has a single run; else
    Welch's (1947).
    """
    m, n = len(a), len(b)
    if m + n < 3:
        raise DataError("one training run of each method gives no spread of training runs: train at least one more")
    if m == n or min(m, n) == 1:
        squares = float(((a - a.mean()) ** 2).sum() + ((b - b.mean()) ** 2).sum())
        return squares / (m + n - 2) * (1 / m + 1 / n), m + n - 2.0, "pooled variance"
    v, w = float(a.var(ddof=1)) / m, float(b.var(ddof=1)) / n
    spread = v**2 / (m - 1) + w**2 / (n - 1)
    return v + w, (v + w) ** 2 / spread if spread else min(m, n) - 1.0, "Welch"


def permuted_runs(a: Floats, b: Floats, *, seed: int = 0) -> tuple[float, float]:
    """Two-sided p-value of the difference of means if runs were assigned to the methods at random, and its minimum.

    All assignments are counted if they are few enough, otherwise drawn. Null hypothesis: the methods'
    training runs have the same distribution.
    """
    values, m = np.concatenate([a, b]), len(a)
    observed = abs(float(b.mean() - a.mean()))
    ways = comb(len(values), m)
    if ways <= SPLITS:
        chosen = np.array(list(combinations(range(len(values)), m)))
    else:
        order = np.random.default_rng(seed).random((SPLITS, len(values))).argsort(axis=1)
        chosen = order[:, :m]
    sums = values[chosen].sum(axis=1)
    apart = np.abs((values.sum() - sums) / (len(values) - m) - sums / m)
    extra = 0 if ways <= SPLITS else 1  # the observed deal is one of those that could be drawn
    p = (int((apart >= observed - 1e-12).sum()) + extra) / (len(chosen) + extra)
    return p, (2 if m == len(b) else 1) / ways


def _settled(one: RunContrast, p_holm: float, family: int) -> RunContrast:
    decision = decide(difference_claim(one.difference, one.these, one.p), [p_holm], family=family)
    return one.model_copy(update={"decision": decision, "p_holm": p_holm})


def _at_an_end(table: pd.DataFrame, methods: Sequence[str], level: float, *, passed: bool) -> list[RunContrast]:
    """The contrasts if the baseline's missing rollouts had all `passed`, and the others' had not."""
    first = methods[0]
    of_baseline = (table["arm"] == first) == passed
    filled = table.assign(resolved=table["resolved"].fillna(of_baseline))
    found, repos, _ = _run_means(filled, methods)
    return [_contrast(first, found[first], method, found[method], repos, level) for method in methods[1:]]


def _bounded(
    number: int, scored: Sequence[RunContrast], low: Sequence[RunContrast], high: Sequence[RunContrast]
) -> RunContrast:
    """The contrast with its bounds; inconclusive where the missing rollouts could turn it, Holm at its worst."""
    one, family = scored[number], len(scored)
    others = [max(each[i].p for each in (scored, low, high)) for i in range(family) if i != number]
    verdicts = []
    for end in (low[number], high[number]):
        claim = difference_claim(end.difference, end.these, end.p)
        verdicts.append(decide(claim, [holm_among(end.p, others)], family=family).verdict)
    ends = low[number].difference, high[number].difference
    bounds = RunBounds(low=ends[0], high=ends[1], verdict_low=verdicts[0], verdict_high=verdicts[1])
    decision = one.decision
    if set(verdicts) != {decision.verdict}:
        reason = (
            f"depending on the rollouts without a verdict the difference lies between {100 * ends[0]:+z.1f} "
            f"({verdicts[0]}) and {100 * ends[1]:+z.1f} ({verdicts[1]}); without them: {decision.verdict}"
        )
        decision = decision.model_copy(update={"verdict": "inconclusive", "reason": reason})
    return one.model_copy(update={"bounds": bounds, "decision": decision})


def _summary(method: str, runs: RunMeans, table: pd.DataFrame, level: float) -> MethodSummary:
    """Components by the method of moments: run means vary by sd_run^2 + W / (N K), the second known from rollouts.

    With one rollout per task W is unknown, and stays in the other two.
    """
    m, within, spread = len(runs.names), runs.within, spread_of(runs, level)
    per_task = runs.rates.mean(axis=0)
    task = max(float(per_task.var(ddof=1)) - (within or 0.0) * len(per_task) / m, 0.0)
    counts = table[table["resolved"].notna()].groupby(RUN).size()
    names = pd.Index(runs.names)
    return MethodSummary(
        method=method,
        runs=tuple(
            TrainingRun(name=name, rate=float(rate), rollouts=int(count))
            for name, rate, count in zip(runs.names, runs.means, counts.reindex(names), strict=True)
        ),
        rate=float(runs.means.mean()),
        sd_run=spread[0] if spread else None,
        sd_run_ends=spread[1:] if spread else None,
        sd_rerun=None if within is None else float(np.sqrt(within)),
        sd_task=float(np.sqrt(task)),
    )


def spread_of(runs: RunMeans, level: float = 0.95) -> tuple[float, float, float] | None:
    """Standard deviation between a method's runs beyond what their rollouts explain, and its ends; None of one run.

    The ends are those of a chi-square for the variance of the run means, less the rollouts' part. Runs that happen to
    agree better than their rollouts allow would give [0, 0] (Williams 1962), which no few runs can show. So the upper
    end is that of a variance of at least what the rollouts alone make: a wider interval, which covers no less.
    """
    m, within = len(runs.names), runs.within or 0.0
    if m < 2:
        return None
    between = float(runs.means.var(ddof=1))
    low, high = (
        float(np.sqrt(max((m - 1) * spread / float(stats.chi2.ppf(tail, m - 1)) - within, 0.0)))
        for tail, spread in (((1 + level) / 2, between), ((1 - level) / 2, max(between, runs.rerun)))
    )
    return float(np.sqrt(max(between - within, 0.0))), low, min(high, 0.5)  # of rates, none is larger


def _half(variance: float, df: float, level: float) -> float:
    """Half the width of Student's interval."""
    return float(special.stdtrit(df, (1 + level) / 2) * np.sqrt(variance))


def _interval(question: str, value: float, variance: float, df: float, level: float, method: str) -> Interval:
    se, half = float(np.sqrt(variance)), _half(variance, df, level)
    ends = {"low": max(value - half, -1.0), "high": min(value + half, 1.0)}
    return Interval.model_validate({"question": question, **ends, "se": se, "df": df, "level": level, "method": method})
