"""Signs that rollouts of an arm are not independent draws of one policy: intervals are then too narrow.

Two exact-null tests, given which tasks are hard: do the means of seeds differ by more than their rollouts allow, and
does the resolve rate change during the run?
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from scipy import special

from aem_harness.harness.compare.values import Floats
from aem_harness.harness.errors import listed

ALARM = 0.01  # p-value below which an arm is reported: one in a hundred sound arms is


def alarms(tables: Mapping[str, pd.DataFrame]) -> Iterator[str]:
    """One line for every arm that pools checkpoints, whose seeds spread too much, or that drifted."""
    for arm, table in tables.items():
        models = sorted(table["model"].dropna().unique())
        if len(models) > 1:
            yield (
                f"{arm} pools {len(models)} checkpoints ({listed(models, most=3)}) as if they were seeds: its "
                "intervals hold for these checkpoints only; for a claim on the method compare with --unit run"
            )
        found = seeds_spread(table)
        if found is not None and found[2] < ALARM:
            sd, expected, p = found
            yield (
                f"the seeds of {arm} spread more than their rollouts allow: sd of their rates {100 * sd:.1f} points, "
                f"{100 * expected:.1f} expected (p = {p:.2g}): several launches, servers or checkpoints in one arm?"
            )
        drift = drift_in_time(table)
        if drift is not None and drift[1] < ALARM:
            change, p = drift
            yield (
                f"{arm} {'rose' if change > 0 else 'fell'} while it ran, by {100 * abs(change):.1f} points from its "
                f"first rollouts to its last (p = {p:.2g}): a server or host that changed under load?"
            )


def seeds_spread(table: pd.DataFrame) -> tuple[float, float, float] | None:
    """Standard deviation of the seeds' rates, what their rollouts allow, and Cochran's Q p-value (1950); or None.

    Over the tasks on which the seeds that most tasks have are complete; with fewer than two seeds or five tasks with
    a mixed outcome there is nothing to see. Null hypothesis: given a task's successes, each seed is as likely to hold
    them.
    """
    wide = _complete(table)
    if wide is None:
        return None
    k = wide.shape[1]
    solved = wide.sum(axis=1)
    room = float((solved * (k - solved)).sum())
    if (solved * (k - solved) > 0).sum() < 5:
        return None
    seeds = wide.sum(axis=0)
    q = (k - 1) * k * float(((seeds - seeds.mean()) ** 2).sum()) / room
    expected = np.sqrt(room / (k * (k - 1))) / len(wide)
    return float((seeds / len(wide)).std(ddof=1)), float(expected), float(special.chdtrc(k - 1, q))


def drift_in_time(table: pd.DataFrame) -> tuple[float, float] | None:
    """Change of the resolve rate from the first rollouts to the last, and its p-value; None if times are unknown.

    Only rollouts of the same task are compared: the score test of a slope over the order in which rollouts began, with
    the variance of shuffling each task's outcomes. (Not over the order in which they ended: failures take longer.)
    """
    scored = table.loc[table["resolved"].notna() & table["at"].notna(), ["instance_id", "resolved", "at", "seconds"]]
    if len(scored) < 20:
        return None
    began = pd.Series(_begun(scored), index=scored.index)
    place = began.rank(pct=True).to_numpy(dtype=float)
    frame = pd.DataFrame(
        {"task": scored["instance_id"].to_numpy(), "y": scored["resolved"].to_numpy(dtype=float), "t": place}
    ).dropna()
    inside = frame[["y", "t"]] - frame.groupby("task")[["y", "t"]].transform("mean")
    sums = (
        inside.assign(yt=inside["y"] * inside["t"], yy=inside["y"] ** 2, tt=inside["t"] ** 2)
        .groupby(frame["task"])[["yt", "yy", "tt"]]
        .sum()
    )
    n = frame.groupby("task").size()
    usable = (n > 1) & (sums["yy"] > 0)
    variance = float((sums["yy"] * sums["tt"] / (n - 1))[usable].sum())
    slopes = float(sums["tt"][n > 1].sum())
    if usable.sum() < 5 or not variance or not slopes:
        return None
    score = float(sums["yt"][usable].sum())
    return score / slopes, float(2 * special.ndtr(-abs(score) / np.sqrt(variance)))


def ran_apart(tables: Mapping[str, pd.DataFrame]) -> str:
    """Why times of these arms are not comparable: they ran at different times, or the times are unknown; else empty.

    Two arms ran together if half of the shorter one's time lies within the other's, from first start to last end.
    """
    spans = {arm: _span(table) for arm, table in tables.items()}
    first, *others = spans
    if unknown := [arm for arm, span in spans.items() if span is None]:
        return f"it is not known when {listed(unknown, most=3)} ran"
    apart = [arm for arm in others if _overlap(spans[first], spans[arm]) < 0.5]
    return f"{listed(apart, most=3)} and {first} did not run at the same time" if apart else ""


def _span(table: pd.DataFrame) -> tuple[float, float] | None:
    """First start and last end of an arm's rollouts, in seconds since 1970."""
    ended, begun = _ended(table), _begun(table)
    return (float(np.nanmin(begun)), float(np.nanmax(ended))) if np.isfinite(ended).any() else None


def _ended(table: pd.DataFrame) -> Floats:
    """When each rollout ended (N,), in seconds since 1970; nan where that is not known."""
    at = pd.to_datetime(table["at"], errors="coerce", utc=True, format="ISO8601")
    at = at.dt.as_unit("us")  # in nanoseconds, years beyond 2262 are an error
    return np.where(at.notna(), at.astype("int64") / 1e6, np.nan)


def _begun(table: pd.DataFrame) -> Floats:
    """When each rollout began (N,), likewise; when it ended where its wall time is not known."""
    return _ended(table) - table["seconds"].astype("float64").fillna(0.0).to_numpy()


def _overlap(a: tuple[float, float] | None, b: tuple[float, float] | None) -> float:
    """The share of the shorter span that lies within the other."""
    if a is None or b is None:
        return 0.0
    shared = min(a[1], b[1]) - max(a[0], b[0])
    return max(0.0, shared) / max(min(a[1] - a[0], b[1] - b[0]), 1e-9)


def _complete(table: pd.DataFrame) -> Floats | None:
    """Outcomes (tasks, seeds) of the tasks on which each of the arm's usual seeds has a verdict."""
    scored = table.loc[table["resolved"].notna(), ["instance_id", "seed", "resolved"]]
    usual = scored.groupby("seed")["instance_id"].count()
    kept = usual.index[usual >= 0.5 * usual.max()] if len(usual) else usual.index
    if len(kept) < 2:
        return None
    part = scored[scored["seed"].isin(kept)]
    wide = part.assign(y=part["resolved"].astype("float64")).pivot(index="instance_id", columns="seed", values="y")
    wide = wide.dropna()
    return wide.to_numpy(dtype=float) if len(wide) > 1 else None
