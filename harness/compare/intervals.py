"""Confidence intervals of a mean over tasks, for both questions.

Two-stage sampling (Cochran, Sampling Techniques, chapter 11; Miller, arXiv 2411.00640): tasks first, rollouts within
tasks second. For *these tasks* only the second stage is random, for *tasks like these* both are.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import special

from aem_harness.harness.compare.mcnemar import square_and_add, wilson
from aem_harness.harness.compare.records import Estimate, Interval
from aem_harness.harness.compare.values import Floats, TaskValues, difference

FEW = "upper bound: too few rollouts for a better estimate of run noise"
FEW_MOVED = "few tasks changed, so the interval is as wide as if none had"
FEW_DF = 3.0  # of repositories: below it they are said to be few
ONE_ROLLOUT = "upper bound: run noise and task spread cannot be separated with one rollout per task, or if all agree"


def these_tasks(sample: TaskValues, level: float = 0.95) -> Interval:
    """Interval of the mean for a rerun on the same tasks: variance sum(noise) / N^2, Student t, Satterthwaite's df.

    Assumes independent rollouts. The noise of tasks with one rollout cannot be estimated; they are collapsed into one
    stratum (Cochran 5A.12), which counts their task spread as noise: an upper bound, marked as such. So it is done
    where the rollouts of every task agree exactly. For rates, a variance estimated below that of a single changed
    rollout in the whole sample is replaced by it.
    """
    n = len(sample)
    known = np.isfinite(sample.noise)
    if not sample.noise[known].any() and not sample.grain.any():
        known = np.zeros(n, dtype=bool)  # a metric whose seeds all agree: too few seeds to say that it has no noise
    variance, spread = float(sample.noise[known].sum()), float(sample.noise_spread[known].sum())
    alone = int((~known).sum())
    grain = float(sample.grain.max())
    if alone:
        single = float(sample.noise[known].max()) if known.any() else grain**2
        collapsed = float(sample.values[~known].var(ddof=1)) * alone if alone > 1 else single
        variance += collapsed
        spread += collapsed**2 / max(alone - 1, 1)
    df = variance**2 / spread if spread else 1.0
    if variance < grain**2:
        variance, df = grain**2, max(_fewest(sample) - 1.0, 1.0)
    return Interval(
        question="these tasks",
        **_t_interval(float(sample.values.mean()), float(np.sqrt(variance)) / n, df, level),
        method="Student t, rollouts within tasks",
        bound=bool(alone),
        note=ONE_ROLLOUT if alone else "",
    )


def like_these(
    sample: TaskValues, level: float = 0.95, *, clustered: bool = True, rate: bool = False
) -> Interval | None:
    """Interval of the mean for new tasks of the same kind, by `clustered` where there are at least two repositories.

    Otherwise the variance over tasks with Student t, N - 1. Not narrower than `unseen` tasks allow. `rate`: of one
    arm's proportion, by Wilson's interval. None with fewer than two tasks.
    """
    n, value = len(sample), float(sample.values.mean())
    if n < 2:
        return None
    repos = len(np.unique(sample.clusters))
    if clustered and repos > 1:
        variance, df = clustered_variance(sample.values, sample.clusters, level)
        method = f"CR2 by repository ({repos}), Bell-McCaffrey df"
        note = f"{repos} repositories, of {df:.1f} degrees of freedom: little evidence on others" if df < FEW_DF else ""
    else:
        variance, df = float(sample.values.var(ddof=1)) / n, n - 1.0
        method = "Student t over tasks"
        note = (
            "all tasks are of one repository, and say nothing of others" if clustered else "tasks taken as independent"
        )
    se, least = float(np.sqrt(variance)), unseen(n, level)
    smallest = float(sample.grain.max()) / n if rate else least / float(special.stdtrit(df, (1 + level) / 2))
    if sample.grain.any() and se < smallest:
        se, note = smallest, _noted(note, FEW_MOVED)
    ends = _t_interval(value, se, df, level)
    interval = Interval(question="tasks like these", **ends, method=method, note=note)
    if not rate:
        return interval
    interval = of_a_rate(interval, value, n)
    low, high = min(interval.low, max(value - least, 0.0)), max(interval.high, min(value + least, 1.0))
    return interval.model_copy(update={"low": low, "high": high})


def unseen(tasks: int, level: float = 0.95) -> float:
    """The share of new tasks that may move outright although none of `tasks` did: z^2 / (n + z^2).

    The end of Wilson's interval of 0 out of n, and of Tango's without a discordant task. No half-width for new tasks
    is smaller: where few tasks changed, their spread is no evidence on those that did not. With four or more outright
    changes Student's interval is the wider one.
    """
    z = float(special.ndtri((1 + level) / 2))
    return z * z / (tasks + z * z)


def clustered_variance(values: Floats, clusters: NDArray[np.str_], level: float) -> tuple[float, float]:
    """Variance of the mean of `values` (N,) by repositories, of which there may be few, and its degrees of freedom.

    CR2 with Bell and McCaffrey's df (2002; Imbens and Kolesar 2016) stays honest with few clusters of unequal size, but
    for two things (docs/statistics.md has the simulations; t with G - 1 df is worse in both):

    Repositories that happen to agree make it tiny, of two almost nothing. So the interval is not narrower than with
    tasks taken as independent, as if they were of one repository.

    It is unbiased if tasks are independent. Of effects of repositories, independent and of one variance, it expects a
    part, which is small where one of them has nearly all tasks: 5 % for 200, 4 and 2 of them. Less than half is made
    half.
    """
    n = len(values)
    variance, df = cr2(values, clusters)
    share = np.unique(clusters, return_counts=True)[1] / n
    squares = float((share**2).sum())  # variance of the mean, in units of that of the effects
    expected = float((share**2 * (1 - 2 * share + squares) / (1 - share)).sum())
    variance *= max(1.0, squares / expected / 2)
    quantiles = special.stdtrit(np.array([df, n - 1.0]), (1 + level) / 2)
    independent = float(values.var(ddof=1)) / n * float(quantiles[1] / quantiles[0]) ** 2
    return max(variance, independent), df


def cr2(values: Floats, clusters: NDArray[np.str_]) -> tuple[float, float]:
    """Cluster-robust variance of the mean of `values` (N,), and its degrees of freedom.

    With h the clusters' shares of the tasks and E their sums of residuals: variance = sum(E^2 / (1 - h)) / N^2,
    unbiased when tasks are in truth independent. df = tr(M)^2 / tr(M^2) with M the covariance of the E / sqrt(1 - h)
    under independence (Bell and McCaffrey 2002), here in closed form for a mean.
    """
    n = len(values)
    _, index, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    share = sizes / n
    residuals = np.bincount(index, values - values.mean(), minlength=len(sizes))
    variance = float((residuals**2 / (1 - share)).sum()) / n**2
    return variance, bell_mccaffrey_df(share)


def bell_mccaffrey_df(share: Floats) -> float:
    """Degrees of freedom of the CR2 variance of a mean, from the clusters' `share` (G,) of the tasks."""
    ratio = share / np.sqrt(1 - share)
    matrix = -np.outer(ratio, ratio)
    np.fill_diagonal(matrix, share)
    return float(np.trace(matrix) ** 2 / (matrix**2).sum())


def of_a_rate(interval: Interval, rate: float, observations: int) -> Interval:
    """The same interval for a proportion: Wilson's, with the effective number of observations that gives its SE.

    Stays inside [0, 1] (Korn and Graubard 1998 use the same device). At a rate of 0 or 1, where no SE can be
    estimated, the effective number is `observations`, and the quantile the normal one.
    """
    inside = 0 < rate < 1
    number = rate * (1 - rate) / interval.se**2 if inside else float(observations)
    quantile = float(special.stdtrit(interval.df, (1 + interval.level) / 2)) if inside else None
    low, high = wilson(rate, number, interval.level, quantile)
    return interval.model_copy(
        update={"low": low, "high": high, "method": f"Wilson with effective n; {interval.method}"}
    )


def p_value(value: float, interval: Interval, null: float = 0.0) -> float:
    """Two-sided p-value of "the mean is `null`", from the interval's standard error and degrees of freedom."""
    if interval.se == 0:  # a metric that never varied
        return float(value == null)
    return float(2 * special.stdtr(interval.df, -abs(value - null) / interval.se))


def p_above(value: float, interval: Interval, null: float) -> float:
    """One-sided p-value against "the mean is at most `null`"."""
    return float(special.stdtr(interval.df, (null - value) / interval.se))


def detectable(interval: Interval, *, power: float = 0.8) -> float:
    """The difference that the two-sided test at 1 - level finds with this power: (t_(1 - alpha/2) + t_power) * SE."""
    quantiles = special.stdtrit(interval.df, (1 + interval.level) / 2) + special.stdtrit(interval.df, power)
    return float(quantiles * interval.se)


def estimate(
    values: TaskValues,
    level: float = 0.95,
    *,
    rate: bool = False,
    each: int = 1,
    within: tuple[float, float] | None = None,
) -> Estimate:
    """The mean of `values` with both intervals; `rate` says that it is a proportion of one arm.

    `each` is how many rollouts make one observation of the proportion (k of pass@k). `within` are the ends of the
    scale, beyond which no interval reaches.
    """
    value, these, like = float(values.values.mean()), these_tasks(values, level), like_these(values, level, rate=rate)
    if rate:
        these = of_a_rate(these, value, sum(int(count.sum()) for count in values.counts))
        observations = len(values) * (_fewest(values) // each)
        these = narrower(these, *wilson(value, observations, level), observations, "Wilson")
        like = never_surer(like, these) if like else None
    elif like and not these.bound:
        like = never_surer(like, these)
    if within:
        these, like = _clipped(these, *within), _clipped(like, *within) if like else None
    return _estimate(values, value, these, like)


def estimate_difference(baseline: TaskValues, candidate: TaskValues, level: float = 0.95) -> Estimate:
    """The mean difference of two arms' rates on the same tasks, with both intervals."""
    delta = difference(baseline, candidate)
    value, these, like = float(delta.values.mean()), these_tasks(delta, level), like_these(delta, level)
    before, after = ((float(arm.values.mean()), len(arm) * _fewest(arm)) for arm in (baseline, candidate))
    estimated = not these.bound
    low, high = square_and_add(before, after, level)
    these = narrower(_clipped(these, -1, 1), low, high, before[1] + after[1], "Newcombe")
    if like:
        like = _clipped(never_surer(like, these) if estimated else like, -1, 1)
    return _estimate(delta, value, these, like)


def narrower(these: Interval, low: float, high: float, rollouts: int, by: str) -> Interval:
    """The interval for these tasks or, if narrower, [low, high], which takes all `rollouts` for those of one task.

    Run noise is largest where every task has the mean rate, mean(p (1 - p)) <= p (1 - p) of the mean (Jensen), so that
    the intervals of independent proportions bound it without an estimate of it. They are the narrower ones where tasks
    are so few that their noise is estimated from one or two; taking them then costs no coverage (docs/statistics.md).
    """
    if high - low >= these.high - these.low:
        return these
    se = (high - low) / 2 / float(special.ndtri((1 + these.level) / 2))
    method = f"{by}, all rollouts as if of one task"
    ends = {"low": low, "high": high, "se": se, "df": float(rollouts)}
    return these.model_copy(update={**ends, "method": method, "bound": True, "note": FEW})


def never_surer(like: Interval, these: Interval) -> Interval:
    """The interval for tasks like these, or that for these tasks where it is the wider one.

    Run noise is a part of what makes the first one uncertain, so it can be the narrower only by chance: few
    repositories whose sums happen to agree. For a difference that is no such evidence where run noise
    could not be estimated at all.

    It keeps the degrees of freedom of few repositories, with the standard error that gives this interval: at a smaller
    error rate, as Holm asks for, their t quantile is the one that counts.
    """
    width = these.high - these.low
    if like.high - like.low >= width:
        return like
    se = width / 2 / float(special.stdtrit(like.df, (1 + like.level) / 2))
    note = _noted(like.note, "the interval for these tasks is wider, and is taken")
    return these.model_copy(update={"question": like.question, "note": note, "se": se, "df": like.df})


def agreeing(interval: Interval, p: float) -> Interval:
    """The interval, with an end moved to zero if a test of another method does not reject zero at its level.

    An exact test may accept what an asymptotic interval barely excludes. Wider, the interval covers no less.
    """
    if p <= 1 - interval.level or interval.low <= 0 <= interval.high:
        return interval
    ends = {"low": min(interval.low, 0.0), "high": max(interval.high, 0.0)}
    return interval.model_copy(update={**ends, "method": f"{interval.method}, extended to agree with its test"})


def _noted(*notes: str) -> str:
    return "; ".join(filter(None, notes))


def _clipped(interval: Interval, least: float, most: float) -> Interval:
    return interval.model_copy(update={"low": max(interval.low, least), "high": min(interval.high, most)})


def _fewest(values: TaskValues) -> int:
    return min(int(count.min()) for count in values.counts)


def _estimate(values: TaskValues, value: float, these: Interval, like: Interval | None) -> Estimate:
    seeds = (_fewest(values), max(int(count.max()) for count in values.counts))
    rollouts = sum(int(count.sum()) for count in values.counts)
    return Estimate(value=value, tasks=len(values), rollouts=rollouts, seeds=seeds, these=these, like=like)


def _t_interval(mean: float, se: float, df: float, level: float) -> dict[str, float]:
    half = float(special.stdtrit(df, (1 + level) / 2)) * se
    return {"low": mean - half, "high": mean + half, "se": se, "df": df, "level": level}
