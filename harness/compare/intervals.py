"""Confidence intervals of a mean over tasks, for both questions.

Two-stage sampling (Cochran, Sampling Techniques, chapter 11; Miller, arXiv 2411.00640): tasks first, rollouts within
tasks second. For *these tasks* only the second stage is random, for *tasks like these* both are.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from harness.compare.records import Interval
from harness.compare.values import Floats, TaskValues


def these_tasks(sample: TaskValues, level: float = 0.95) -> Interval:
    """Interval of the mean for a re-run on the same tasks: variance sum(noise) / N^2, Student t, Satterthwaite's df.

    Assumes independent rollouts. The noise of tasks with one rollout cannot be estimated; they are collapsed into one
    stratum (Cochran 5A.12), which counts their task spread as noise: an upper bound, marked as such. A variance
    estimated as zero is replaced by that of one changed rollout in the whole sample.
    """
    n = len(sample)
    known = np.isfinite(sample.noise)
    variance, spread = float(sample.noise[known].sum()), float(sample.noise_spread[known].sum())
    alone = int((~known).sum())
    if alone:
        collapsed = float(sample.values[~known].var(ddof=1)) * alone if alone > 1 else 1.0
        variance += collapsed
        spread += collapsed**2 / max(alone - 1, 1)
    floor = float(sample.grain.max()) ** 2
    df = variance**2 / spread if spread else 1.0
    if variance < floor:
        variance, df = floor, max(1 / sample.grain.max() - 1, 1.0)
    se = float(np.sqrt(variance)) / n
    note = "upper bound: run noise cannot be told from task spread where a task has one rollout" if alone else ""
    method = "Student t, rollouts within tasks"
    return _interval("these tasks", float(sample.values.mean()), se, df, level, method, bound=bool(alone), note=note)


def like_these(sample: TaskValues, level: float = 0.95, *, clustered: bool = True) -> Interval:
    """Interval of the mean for new tasks of the same kind, clustered by repository where there are at least two.

    Clustered: CR2 variance with Bell and McCaffrey's degrees of freedom (2002; Imbens and Kolesar 2016), which stays
    honest with few clusters of very unequal size. Otherwise the variance over tasks with Student t, N - 1.
    """
    n = len(sample)
    mean = float(sample.values.mean())
    labels = np.unique(sample.clusters)
    if clustered and len(labels) > 1:
        variance, df = cr2(sample.values, sample.clusters)
        method, note = f"CR2 by repository ({len(labels)}), Bell-McCaffrey df", ""
    else:
        variance, df = (float(sample.values.var(ddof=1)) / n if n > 1 else np.inf), max(n - 1.0, 1.0)
        method = "Student t over tasks"
        note = (
            "all tasks are of one repository: says nothing about others" if clustered else "tasks taken as independent"
        )
    floor = (float(sample.grain.max()) / n) ** 2
    return _interval("tasks like these", mean, float(np.sqrt(max(variance, floor))), df, level, method, note=note)


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
    ratio = share / np.sqrt(1 - share)
    matrix = -np.outer(ratio, ratio)
    np.fill_diagonal(matrix, share)
    return variance, float(np.trace(matrix) ** 2 / (matrix**2).sum())


def _interval(
    question: str, mean: float, se: float, df: float, level: float, method: str, *, bound: bool = False, note: str = ""
) -> Interval:
    half = float(stats.t.ppf((1 + level) / 2, df)) * se
    return Interval(
        question=question,
        low=mean - half,
        high=mean + half,
        se=se,
        df=df,
        level=level,
        method=method,
        bound=bound,
        note=note,
    )
