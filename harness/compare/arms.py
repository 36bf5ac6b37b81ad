"""A single arm: its rate, its missing rollouts, pass@k; and the best of several arms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from aem_harness.harness.compare.drift import STAMPS
from aem_harness.harness.compare.intervals import estimate, p_value
from aem_harness.harness.compare.passk import pass_values
from aem_harness.harness.compare.records import ArmSummary, BestOf, PassDifference, PassKind, PassPoint
from aem_harness.harness.compare.values import TaskValues, Trials, by_task, count_trials, difference, rates
from aem_harness.harness.compare.winner import best_of
from aem_harness.harness.errors import DataError, listed
from aem_harness.harness.run.origin import REUSES
from aem_harness.harness.schema import suspect, tampered, without_suspects, without_tampered

KS = (1, 2, 4, 8, 16, 32, 64)
KINDS: tuple[PassKind, PassKind] = ("pass@k", "pass^k")


@dataclass(frozen=True)
class Sample:
    """One arm on the tasks on which it has verdicts."""

    tasks: tuple[str, ...]
    trials: Trials
    values: TaskValues


def sample(arm: str, table: pd.DataFrame) -> Sample:
    """The arm's tasks that have a verdict, with their rates."""
    known = by_task(table)
    scored = np.bincount(known.number[table["resolved"].notna()], minlength=len(known.names)) > 0
    tasks = tuple(name for name, kept in zip(known.names, scored, strict=True) if kept)
    if not tasks:
        raise DataError(f"arm {arm!r} has no verdict ({len(table)} rollouts without one)")
    trials = count_trials(table, tasks)
    return Sample(tasks, trials, rates(trials, tasks, known.repos[scored]))


def summarise(arm: str, table: pd.DataFrame, scored: Sample, level: float) -> ArmSummary:
    """One arm: counts, resolved rate over rollouts with a verdict, and the rates if all others had failed or passed."""
    trials = count_trials(table, tuple(sorted(set(table["instance_id"]))))
    regraded = table["canary"].isin(["clean", "marked"])
    as_failed, as_passed = trials.filled(False), trials.filled(True)
    return ArmSummary(
        arm=arm,
        tasks=len(trials.solved),
        rollouts=len(table),
        scored=int(trials.rollouts.sum()),
        missing=int(trials.missing.sum()),
        errors=int((table["outcome"] == "error").sum()),
        retried=int((table["attempt"] > 0).sum()),
        resolved=estimate(scored.values, level, rate=True),
        official=float((as_failed.solved / as_failed.rollouts).mean()),
        highest=float((as_passed.solved / as_passed.rollouts).mean()),
        marked=int(suspect(table).sum()),
        unmarked=estimate(sample(arm, without_suspects(table)).values, level, rate=True),
        regraded=int(regraded.sum()),
        tampered=int(tampered(table).sum()),
        audited=estimate(sample(arm, without_tampered(table)).values, level, rate=True) if regraded.any() else None,
        **{name: int(table["reuse"].eq(name).sum()) for name in REUSES},
        outcomes={str(name): int(count) for name, count in table["outcome"].value_counts().items()},
        versions={name: listed(table[name].dropna().unique(), most=3) for name in (*STAMPS, "model")},
        checkpoints=int(table["model"].nunique()),
    )


def passes(samples: Mapping[str, Sample], level: float) -> list[PassPoint]:
    """pass@k and pass^k of every arm for k = 1, 2, 4, ... up to the most rollouts that half of its tasks have."""
    out = []
    for arm, one in samples.items():
        most = int(np.median(one.trials.rollouts))
        ks = [k for k in KS if k <= most]
        for kind in KINDS:
            for k in ks if most > 1 else ():
                values = pass_values(one.tasks, one.values.clusters, one.trials.solved, one.trials.rollouts, k, kind)
                out.append(PassPoint(arm=arm, kind=kind, k=k, estimate=estimate(values, level, rate=True, each=k)))
    return out


def pass_differences(
    samples: Mapping[str, Sample], pairs: Sequence[tuple[str, str]], level: float
) -> list[PassDifference]:
    """Paired differences of pass@k and pass^k, k from 2 on, on the tasks where both arms have k rollouts."""
    out = []
    for baseline, candidate in pairs:
        most = min(int(np.median(samples[arm].trials.rollouts)) for arm in (baseline, candidate))
        for kind in KINDS:
            for k in [k for k in KS if 1 < k <= most]:
                a, b = (
                    pass_values(one.tasks, one.values.clusters, one.trials.solved, one.trials.rollouts, k, kind)
                    for one in (samples[baseline], samples[candidate])
                )
                shared = sorted(set(a.tasks) & set(b.tasks))
                if len(shared) < 2:
                    continue
                delta = difference(a.where(np.isin(a.tasks, shared)), b.where(np.isin(b.tasks, shared)))
                gain = estimate(delta, level, within=(-1, 1))
                p = p_value(gain.value, gain.these)
                out.append(PassDifference(baseline=baseline, candidate=candidate, kind=kind, k=k, estimate=gain, p=p))
    return out


def bands(samples: Mapping[str, Sample], level: float) -> dict[str, tuple[float, float]]:
    """Intervals of the arms' rates that hold for all of them at once, for these tasks: Sidak over independent arms."""
    each = level ** (1 / len(samples))
    intervals = {arm: estimate(one.values, each, rate=True).these for arm, one in samples.items()}
    return {arm: (interval.low, interval.high) for arm, interval in intervals.items()}


def best(samples: Mapping[str, Sample], level: float) -> BestOf | None:
    """The best arm of several on the tasks they share, corrected for selection; None if they share too few."""
    shared = sorted(set.intersection(*(set(one.tasks) for one in samples.values())))
    if len(shared) < 2:
        return None
    keep = {arm: np.isin(one.tasks, shared) for arm, one in samples.items()}
    trials = [one.trials.where(keep[arm]) for arm, one in samples.items()]
    estimates = [estimate(one.values.where(keep[arm]), level) for arm, one in samples.items()]
    values = np.array([one.value for one in estimates])
    return best_of(list(samples), values, np.array([one.these.se for one in estimates]), trials, level=level)
