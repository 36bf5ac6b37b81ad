"""Two or many arms -> one `Comparison`: a pure function of the outcomes table."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy import stats

from harness import __version__
from harness.compare.bootstrap import Trials, bootstrap_differences
from harness.compare.intervals import like_these, these_tasks
from harness.compare.outcomes import Outcomes
from harness.compare.permutation import stratified_permutation
from harness.compare.records import ArmSummary, Comparison, Contrast, Estimate, Interval, Question, Test, Verdict
from harness.compare.schema import listed
from harness.compare.values import TaskValues, common, difference, task_values
from harness.errors import DataError

STAMPS = ("grader", "dataset", "scaffold", "model")


def compare(
    outcomes: Outcomes, baseline: str | None = None, candidates: Sequence[str] = (), *, level: float = 0.95
) -> Comparison:
    """Every candidate against the baseline (by default the first arm), on the tasks that both have results for."""
    arms = outcomes.arms
    baseline = baseline or arms[0]
    candidates = list(candidates) or [arm for arm in arms if arm != baseline]
    for arm in (baseline, *candidates):
        if arm not in arms:
            raise DataError(f"no arm {arm!r}; the table has: {listed(arms)}")
    if not candidates:
        raise DataError(f"only one arm ({baseline}); give a second run folder or file to compare it with")
    tables = {arm: outcomes.table[outcomes.table["arm"] == arm] for arm in (baseline, *candidates)}
    return Comparison(
        level=level,
        arms=tuple(summarise(arm, table, level) for arm, table in tables.items()),
        contrasts=tuple(contrast(baseline, tables[baseline], arm, tables[arm], level) for arm in candidates),
        warnings=tuple(stamp_warnings(tables)),
        versions={"aem": __version__},
    )


def summarise(arm: str, table: pd.DataFrame, level: float) -> ArmSummary:
    """One arm: counts, resolved rate over scored rollouts, and the official rate (no verdict counts as unresolved)."""
    values = task_values(table, "resolved")
    (scored,) = common(values)
    if not len(scored):
        raise DataError(f"arm {arm!r} has no verdict at all ({len(table)} rollouts without one)")
    return ArmSummary(
        arm=arm,
        tasks=len(values),
        rollouts=len(table),
        scored=int(table["resolved"].notna().sum()),
        errors=int((table["outcome"] == "error").sum()),
        missing=int(table["resolved"].isna().sum()),
        resolved=estimate(scored, table, level),
        official=float(table["resolved"].fillna(False).astype(float).groupby(table["instance_id"]).mean().mean()),
        versions={name: _only(table[name]) for name in STAMPS},
    )


def estimate(values: TaskValues, table: pd.DataFrame, level: float) -> Estimate:
    """The mean of `values` with both intervals; `table` says how many rollouts stand behind each task."""
    scored = table[table["resolved"].notna() & table["instance_id"].isin(values.tasks)]
    seeds = scored.groupby(["arm", "instance_id"]).size()
    return Estimate(
        value=float(values.values.mean()),
        tasks=len(values),
        rollouts=len(scored),
        seeds=(int(seeds.min()), int(seeds.max())),
        these=these_tasks(values, level),
        like=like_these(values, level),
    )


def contrast(baseline: str, table_a: pd.DataFrame, candidate: str, table_b: pd.DataFrame, level: float) -> Contrast:
    """Candidate minus baseline on their common tasks, with tests, and what could have been detected."""
    tasks = tuple(sorted(set(table_a["instance_id"]) & set(table_b["instance_id"])))
    a, b = common(task_values(table_a, "resolved", tasks), task_values(table_b, "resolved", tasks))
    if len(a) < 2:
        raise DataError(f"{baseline!r} and {candidate!r} have results for {len(a)} common tasks; at least 2 are needed")
    delta = difference(a, b)
    result = estimate(delta, pd.concat([table_a, table_b]), level)
    trials_a, trials_b = trials(table_a, a.tasks), trials(table_b, a.tasks)
    permuted = stratified_permutation((trials_a.solved, trials_a.rollouts), (trials_b.solved, trials_b.rollouts))
    tests = (
        Test(
            name="stratified permutation" + ("" if permuted.exact else " (Monte Carlo)"),
            hypothesis="on every task both arms resolve with the same probability",
            question="these tasks",
            p=permuted.p,
            p_mid=permuted.p_mid,
        ),
        Test(
            name="t test, " + result.like.method,
            hypothesis="the mean difference over tasks like these is zero",
            question="tasks like these",
            p=t_test(result.value, result.like),
        ),
    )
    verdict, reason = judge(result, tests[0].p, level)
    return Contrast(
        baseline=baseline,
        candidate=candidate,
        difference=result,
        bootstrap={
            "these tasks": _percentiles(trials_a, trials_b, 1.0, level) if not result.these.bound else (np.nan, np.nan),
            "tasks like these": _percentiles(trials_a, trials_b, 0.0, level),
        },
        tests=tests,
        gained=int((delta.values > 0).sum()),
        lost=int((delta.values < 0).sum()),
        verdict=verdict,
        reason=reason,
        detectable={question: detectable(result, question) for question in ("these tasks", "tasks like these")},
    )


def trials(table: pd.DataFrame, tasks: Sequence[str]) -> Trials:
    """Successes and scored rollouts of each of `tasks`."""
    scored = table[table["resolved"].notna()]
    counts = scored.groupby("instance_id")["resolved"].agg(["sum", "count"]).reindex(list(tasks))
    return Trials(counts["sum"].to_numpy(dtype=np.int64), counts["count"].to_numpy(dtype=np.int64))


def judge(result: Estimate, p: float, level: float) -> tuple[Verdict, str]:
    """The verdict on these tasks, from the exact test, in words that say what it does not show."""
    if p <= 1 - level:
        better = result.value > 0
        return ("better" if better else "worse"), f"on these tasks, p = {p:.2g}"
    smallest = detectable(result, "these tasks")
    return (
        "no difference detected",
        f"the smallest difference this comparison could detect with 80 % power is {100 * smallest:.1f} points",
    )


def detectable(result: Estimate, question: Question, *, power: float = 0.8) -> float:
    """Difference found with the given power by the two-sided test at 1 - level: (t_alpha/2 + t_power) * SE."""
    interval = result.these if question == "these tasks" else result.like
    quantiles = stats.t.ppf((1 + interval.level) / 2, interval.df) + stats.t.ppf(power, interval.df)
    return float(quantiles * interval.se)


def t_test(value: float, interval: Interval) -> float:
    """Two-sided p-value of zero from the interval's standard error and degrees of freedom."""
    return float(2 * stats.t.sf(abs(value) / interval.se, interval.df))


def stamp_warnings(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """One line for every version stamp in which arms differ although only the weights should."""
    out = []
    for name in ("grader", "dataset", "scaffold"):
        found = {arm: _only(table[name]) for arm, table in tables.items()}
        if len(set(found.values())) > 1:
            out.append(f"{name} differs: " + "; ".join(f"{arm}: {value or 'unknown'}" for arm, value in found.items()))
    ids = {arm: set(table["instance_id"]) for arm, table in tables.items()}
    first, *rest = ids
    for arm in rest:
        if ids[arm] != ids[first]:
            shared, ours, theirs = ids[first] & ids[arm], ids[first] - ids[arm], ids[arm] - ids[first]
            out.append(
                f"tasks differ: {len(shared)} in common, {len(ours)} only in {first}, {len(theirs)} only in {arm}"
            )
    return out


def series(arms: Sequence[str]) -> list[tuple[str, str]]:
    """Each arm with the one before it."""
    return list(pairwise(arms))


def _percentiles(a: Trials, b: Trials, fraction: float, level: float) -> tuple[float, float]:
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(bootstrap_differences(a, b, fraction=fraction), [tail, 100 - tail])
    return float(low), float(high)


def _only(column: pd.Series) -> str:
    return listed(column.dropna().unique(), most=3)
