"""The grader's own noise: how often the same patch gets another verdict, and the effect on a difference."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
from scipy import special

from aem_harness.harness.compare.mcnemar import wilson
from aem_harness.harness.compare.outcomes import ArmFacts
from aem_harness.harness.compare.records import Contrast, GraderNoise, Widened
from aem_harness.harness.run.regrading import Again, read_regrades
from aem_harness.harness.schema import repo_of
from aem_harness.harness.types import Outcome


def grader_noise(
    facts: Mapping[str, ArmFacts],
    contrasts: Sequence[Contrast],
    tables: Mapping[str, pd.DataFrame],
    level: float = 0.95,
) -> GraderNoise | None:
    """From the regradings of the arms' runs; None if nothing was graded again. `tables` holds the arms' rollouts."""
    found = [one for arm in facts.values() if arm.source for one in read_regrades(Path(arm.source))]
    return noise_of(found, contrasts, tables, level) if found else None


def noise_of(
    regrades: Sequence[Again],
    contrasts: Sequence[Contrast] = (),
    tables: Mapping[str, pd.DataFrame] = MappingProxyType({}),
    level: float = 0.95,
) -> GraderNoise:
    """Flip rates with Wilson's interval over patches (J gradings of one are one observation), and wider intervals.

    A grading lost to infrastructure is no flip; it is counted separately. If the same patches were graded again, a
    difference of two arms would move by sqrt(f (1 - f) S) (standard deviation), with f the flip rate of the patches
    drawn at random (that of changed tasks if none were) and S from `rest_on_one`. f enters at the upper end of its
    interval: no flip among a few patches does not show that nothing flips. Gradings of different rollouts are
    independent, so part of this is in the run noise already: the widened interval is conservative.
    """
    sound = [one for one in regrades if one.now is not Outcome.ERROR]
    drawn = [one for one in sound if not one.moved] or sound
    share = _share(drawn)
    low, high = wilson(share, max(len(_patches(drawn)), 1), level)
    by_task = {task: flips for task, flips in _counts(sound) if flips}
    by_repo: dict[str, int] = {}
    for task, flips in by_task.items():
        by_repo[repo_of(task)] = by_repo.get(repo_of(task), 0) + flips
    moved = [one for one in sound if one.moved]
    return GraderNoise(
        patches=len(_patches(sound)),
        gradings=len(sound),
        errors=len(regrades) - len(sound),
        flips=sum(one.flipped for one in sound),
        rate=share,
        low=low,
        high=high,
        moved_rate=_share(moved) if moved else None,
        by_task=by_task,
        by_repository=by_repo,
        widened=tuple(
            _widened(one, high, rest_on_one(tables[one.baseline], tables[one.candidate]), level) for one in contrasts
        ),
    )


def rest_on_one(*arms: pd.DataFrame) -> float:
    """Sum over the gradings of all arms of the squared share of the difference that rests on each: 2 / (N K) where
    every rollout of N tasks x K seeds was graded by itself.

    Reused verdicts rest on one grading: all of a task and arm are taken to be on the same one, the worst case.
    """
    scored = [arm[arm["resolved"].notna()] for arm in arms]
    shared = set.intersection(*(set(arm["instance_id"]) for arm in scored))
    total = 0.0
    for arm in scored:
        reused = arm["reuse"].eq("reused").fillna(False)
        by_task = reused[arm["instance_id"].isin(shared)].groupby(arm["instance_id"])
        k, again = by_task.size().to_numpy(), by_task.sum().to_numpy()
        own = k - again
        total += float((np.where(own > 0, (1 + again) ** 2 + own - 1, again**2) / k**2).sum())
    return total / max(len(shared), 1) ** 2


def _widened(one: Contrast, share: float, rest: float, level: float) -> Widened:
    delta, share = one.difference, min(share, 0.5)  # where flips do most
    sd = float(np.sqrt(share * (1 - share) * rest))
    extra = float(special.ndtri((1 + level) / 2)) * sd
    low = max(delta.value - float(np.hypot(delta.value - delta.these.low, extra)), -1.0)
    high = min(delta.value + float(np.hypot(delta.these.high - delta.value, extra)), 1.0)
    shown = one.decision.verdict in ("better", "worse")
    return Widened(baseline=one.baseline, candidate=one.candidate, low=low, high=high, turns=shown and low <= 0 <= high)


def _share(regrades: Sequence[Again]) -> float:
    patches = _patches(regrades)
    return float(np.mean([np.mean(flips) for flips in patches.values()])) if patches else 0.0


def _patches(regrades: Sequence[Again]) -> dict[tuple[str, int, str], list[bool]]:
    out: dict[tuple[str, int, str], list[bool]] = {}
    for one in regrades:
        out.setdefault((one.instance_id, one.seed, one.patch_sha256), []).append(one.flipped)
    return out


def _counts(regrades: Sequence[Again]) -> Iterator[tuple[str, int]]:
    for task in sorted({one.instance_id for one in regrades}):
        yield task, sum(one.flipped for one in regrades if one.instance_id == task)
