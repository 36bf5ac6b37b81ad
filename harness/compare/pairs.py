"""Every pair of many arms at once, in matrices: 174 leaderboard submissions are 15,051 pairs."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from aem_harness.harness.compare.decisions import holm
from aem_harness.harness.compare.intervals import bell_mccaffrey_df
from aem_harness.harness.compare.values import Floats, count_trials
from aem_harness.harness.errors import DataError


def all_pairs(table: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """One row a pair of arms, on the tasks on which every arm has a verdict.

    Columns: baseline, candidate, tasks, difference, these_se, these_low, these_high, p_these, p_these_holm, like_se,
    like_low, like_high, p_like, gained, lost. These tasks: McNemar's exact test where every task has one rollout in
    both arms, else Student's t with Satterthwaite's df (the exact permutation test of `contrast` is not run for
    thousands of pairs, nor are the bounds of run noise). Tasks like these: clustered by repository, as in `intervals`.
    """
    names = list(dict.fromkeys(table["arm"]))
    if len(names) < 2:
        raise DataError(f"pairs need two arms or more; there is {len(names)}")
    scored = table[table["resolved"].notna()]
    held = scored.groupby("instance_id")["arm"].nunique()
    tasks = tuple(sorted(held.index[held == len(names)]))
    if len(tasks) < 2:
        raise DataError(f"the {len(names)} arms have verdicts in common on {len(tasks)} tasks; 2 or more are needed")
    arms = [count_trials(scored[scored["arm"] == name], tasks) for name in names]
    repos = scored.drop_duplicates("instance_id").set_index("instance_id")["repo"].reindex(list(tasks))
    solved, rollouts = (
        np.stack([getattr(arm, field) for arm in arms]).astype(float) for field in ("solved", "rollouts")
    )
    first, second = np.triu_indices(len(names), 1)
    rates = solved / rollouts
    difference = (rates[second] - rates[first]).mean(axis=1)
    gained, lost = _discordant(rates, first, second)
    these_se, these_df = _these(rates, rollouts, first, second, difference)
    like_se, like_df = _like(rates, repos.to_numpy(dtype=str), first, second)
    p_these = np.asarray(2 * stats.t.sf(np.abs(difference) / these_se, these_df))
    if rollouts.max() == 1:
        p_these = _mcnemar(gained, lost)
    out = pd.DataFrame({"baseline": np.array(names)[first], "candidate": np.array(names)[second], "tasks": len(tasks)})
    out["difference"] = difference
    for prefix, se, df in (("these", these_se, these_df), ("like", like_se, np.full(len(first), like_df))):
        half = stats.t.ppf((1 + level) / 2, df) * se
        out[f"{prefix}_se"], out[f"{prefix}_low"], out[f"{prefix}_high"] = se, difference - half, difference + half
    out["p_these"], out["p_these_holm"] = p_these, holm(p_these.tolist())
    out["p_like"] = 2 * stats.t.sf(np.abs(difference) / like_se, like_df)
    return out.assign(gained=gained, lost=lost)


def _discordant(rates: Floats, first: NDArray[np.int64], second: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Tasks on which the second arm's rate is higher, and lower."""
    up = np.array([(rates[b] > rates[a]).sum() for a, b in zip(first, second, strict=True)])
    down = np.array([(rates[b] < rates[a]).sum() for a, b in zip(first, second, strict=True)])
    return up, down


def _these(
    rates: Floats, rollouts: Floats, first: NDArray[np.int64], second: NDArray[np.int64], difference: Floats
) -> tuple[Floats, Floats]:
    """Standard errors and df of the differences for a re-run; tasks with one rollout collapsed as in `intervals`."""
    n = rates.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        noise = np.where(rollouts > 1, rates * (1 - rates) / (rollouts - 1), np.nan)
        spread = noise**2 / (rollouts - 1)
    variance, df = np.empty(len(first)), np.empty(len(first))
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        both = noise[a] + noise[b]
        alone = np.isnan(both)
        total, weight = float(np.nansum(both)), float(np.nansum(spread[a] + spread[b]))
        m = int(alone.sum())
        if m:
            delta = rates[b, alone] - rates[a, alone]
            collapsed = float(((delta - delta.mean()) ** 2).sum()) * m / max(m - 1, 1)
            total, weight = total + collapsed, weight + collapsed**2 / max(m - 1, 1)
        floor = 1 / min(rollouts[a].min(), rollouts[b].min()) ** 2
        variance[i] = max(total, floor)
        df[i] = total**2 / weight if weight and total >= floor else max(1 / np.sqrt(floor) - 1, 1)
    return np.sqrt(variance) / n, df


def _like(
    rates: Floats, repos: NDArray[np.str_], first: NDArray[np.int64], second: NDArray[np.int64]
) -> tuple[Floats, float]:
    """CR2 standard errors: clusters' sums of residuals are linear in the arms, so pairs are differences of rows."""
    n = rates.shape[1]
    labels, index, sizes = np.unique(repos, return_inverse=True, return_counts=True)
    centred = rates - rates.mean(axis=1, keepdims=True)
    if len(labels) < 2:
        residuals = (centred[second] - centred[first]) ** 2
        return np.sqrt(np.maximum(residuals.sum(axis=1) / (n - 1) / n, 1 / n**2)), n - 1.0
    member = (index[:, None] == np.arange(len(labels))).astype(float)
    sums = centred @ member
    share = sizes / n
    variance = ((sums[second] - sums[first]) ** 2 / (1 - share)).sum(axis=1) / n**2
    return np.sqrt(np.maximum(variance, 1 / n**2)), bell_mccaffrey_df(share)


def _mcnemar(gained: Floats, lost: Floats) -> Floats:
    return np.minimum(1.0, 2 * stats.binom.cdf(np.minimum(gained, lost), gained + lost, 0.5))
