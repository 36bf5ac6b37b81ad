"""Does the difference vary between parts of the tasks: by difficulty, by repository, after a cut-off?"""

from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from aem_harness.harness.compare.decisions import holm
from aem_harness.harness.compare.groups import WAYS, labels_of
from aem_harness.harness.compare.intervals import never_surer, p_value, these_tasks
from aem_harness.harness.compare.records import Interaction, Interval, Question
from aem_harness.harness.compare.values import TaskValues, count_trials, difference, rates
from aem_harness.harness.errors import ConfigError, DataError

FEWEST = 2  # tasks of a part that takes part
# Without it parts like the repositories of Verified, some of two to ten tasks, were called different in 6 to 9 % of
# equal ones at 5 % (`benchmarks/paper_statistics.py`), and with a pooled noise for all of them in up to 8 %.
PRIOR = 3.0


def interactions(
    tables: Mapping[str, pd.DataFrame], baseline: str, *, level: float = 0.95, cutoff: str | None = None
) -> list[Interaction]:
    """Every grouping of the tasks, for every candidate; with `cutoff` (a date) also issues before and from it on.

    Holm over all of them.
    """
    out: list[Interaction] = []
    for candidate in tables:
        if candidate == baseline:
            continue
        for by in WAYS:
            parts = {arm: labels_of(tables[arm], by) for arm in (baseline, candidate)}
            out += _over_parts(by, tables, baseline, candidate, parts)
        if cutoff:
            out.append(_contamination(tables, baseline, candidate, cutoff, level))
    adjusted = holm([one.p for one in out])
    return [one.model_copy(update={"p_holm": p}) for one, p in zip(out, adjusted, strict=True)]


def heterogeneity(parts: Sequence[TaskValues]) -> float:
    """P-value of "the mean is the same in every part": Cochran's Q (1954) of the parts' means by their noise.

    Q = sum of (mean - weighted mean)^2 / se^2, chi-square with one degree less than parts. The noise of a small part
    may by chance come out far too low; so that of every part is moderated (Smyth 2004): shrunk towards that of all
    tasks, which counts as PRIOR degrees of freedom. Noise that is only known from above makes it conservative.
    """
    means = np.array([float(part.values.mean()) for part in parts])
    sizes = np.array([len(part) for part in parts])
    ends = [these_tasks(part) for part in parts]
    own, df = np.array([one.se**2 for one in ends]), np.array([one.df for one in ends])
    usual = (own * sizes**2).sum() / sizes.sum() / sizes
    weights = (df + PRIOR) / (df * own + PRIOR * usual)
    centre = (weights * means).sum() / weights.sum()
    return float(special.chdtrc(len(parts) - 1, float((weights * (means - centre) ** 2).sum())))


def apart(before: TaskValues, after: TaskValues, level: float = 0.95) -> tuple[float, Interval, Interval]:
    """Mean of `after` less mean of `before`, with its intervals: for a rerun, and over independent tasks (Welch)."""
    change = float(after.values.mean() - before.values.mean())
    ends = [these_tasks(part, level) for part in (before, after)]
    rerun = _welch("these tasks", change, [one.se for one in ends], [one.df for one in ends], level)
    spread = [float(part.values.std(ddof=1)) / np.sqrt(len(part)) for part in (before, after)]
    tasks = _welch("tasks like these", change, spread, [len(before) - 1.0, len(after) - 1.0], level)
    return change, rerun, never_surer(tasks, rerun)


def _welch(question: Question, value: float, ses: Sequence[float], dfs: Sequence[float], level: float) -> Interval:
    variances = [se**2 for se in ses]
    total = sum(variances)
    spread = sum(v**2 / df for v, df in zip(variances, dfs, strict=True))
    df = total**2 / spread if spread else min(dfs)
    half = float(special.stdtrit(df, (1 + level) / 2) * np.sqrt(total))
    method = "Welch over parts"
    return Interval(
        question=question,
        low=max(value - half, -2.0),
        high=min(value + half, 2.0),
        se=float(np.sqrt(total)),
        df=df,
        level=level,
        method=method,
    )


def _over_parts(
    by: str, tables: Mapping[str, pd.DataFrame], baseline: str, candidate: str, parts: Mapping[str, pd.Series]
) -> list[Interaction]:
    delta, of = _aligned(tables[baseline], tables[candidate], parts[candidate])
    names = [name for name in sorted(set(of) - {""}) if (of == name).sum() >= FEWEST]
    if len(names) < 2:
        return []
    p = heterogeneity([delta.where(of == name) for name in names])
    return [Interaction(by=by, candidate=candidate, parts=tuple(names), p=p)]


def _contamination(
    tables: Mapping[str, pd.DataFrame], baseline: str, candidate: str, cutoff: str, level: float
) -> Interaction:
    dates = tables[candidate]["created_at"]
    try:
        cutoff = date.fromisoformat(cutoff).isoformat()
    except ValueError:
        raise ConfigError(f"--cutoff {cutoff} is no date: write YYYY-MM-DD") from None
    if dates.isna().all():
        raise DataError("the tasks have no issue dates (created_at): add --instances DATASET")
    labels = pd.Series(np.where(dates < cutoff, "before", "from"), index=dates.index).where(dates.notna(), "")
    delta, of = _aligned(tables[baseline], tables[candidate], labels)
    counts = {name: int((of == name).sum()) for name in ("before", "from")}
    if min(counts.values()) < FEWEST:
        raise DataError(f"issues before {cutoff}: {counts['before']}, from then on: {counts['from']}; 2 of each needed")
    change, these, like = apart(delta.where(of == "before"), delta.where(of == "from"), level)
    return Interaction(
        by=f"issues before and from {cutoff}",
        candidate=candidate,
        parts=(f"before ({counts['before']})", f"from then on ({counts['from']})"),
        p=p_value(change, these),
        change=change,
        these=these,
        like=like,
    )


def _aligned(a: pd.DataFrame, b: pd.DataFrame, labels: pd.Series) -> tuple[TaskValues, NDArray[np.str_]]:
    """The difference on the tasks on which both have a verdict, and the part of each; "" where it is unknown."""
    a, b = (one.loc[one["resolved"].notna(), ["instance_id", "repo", "resolved"]] for one in (a, b))
    tasks = tuple(sorted(set(a["instance_id"]) & set(b["instance_id"])))
    first = b.assign(part=labels.reindex(b.index)).drop_duplicates("instance_id").set_index("instance_id")
    repos = first["repo"].reindex(list(tasks)).to_numpy(dtype=str)
    part = first["part"].reindex(list(tasks)).astype("object").fillna("").to_numpy(dtype=str)
    counts = [count_trials(one, tasks) for one in (a, b)]
    return difference(*(rates(one, tasks, repos) for one in counts)), part
