"""The grader's own noise: how often the same patch gets another verdict, and the effect on a difference."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import special

from aem_harness.harness.compare.mcnemar import wilson
from aem_harness.harness.compare.outcomes import ArmFacts
from aem_harness.harness.compare.records import Contrast, GraderNoise, Widened
from aem_harness.harness.run.regrading import GRADED, Again, read_regrades
from aem_harness.harness.schema import repo_of
from aem_harness.harness.types import Outcome


@dataclass(frozen=True)
class Stratum:
    """The graded patches of one arm whose tasks `moved`, or did not: their number, and of the `seen` ones that were
    graded again the mean share of gradings that flipped."""

    moved: bool
    size: int
    seen: int
    share: float


def grader_noise(
    facts: Mapping[str, ArmFacts],
    contrasts: Sequence[Contrast],
    tables: Mapping[str, pd.DataFrame],
    level: float = 0.95,
) -> GraderNoise | None:
    """From the regradings of the arms' runs; None if nothing was graded again. `tables` holds the arms' rollouts."""
    found = {name: read_regrades(Path(arm.source)) if arm.source else [] for name, arm in facts.items()}
    return noise_of(found, tables, contrasts, level) if any(found.values()) else None


def noise_of(
    regrades: Mapping[str, Sequence[Again]],
    tables: Mapping[str, pd.DataFrame],
    contrasts: Sequence[Contrast] = (),
    level: float = 0.95,
) -> GraderNoise:
    """The flip rate of all graded patches in `tables`, from the `regrades` of some, both by arm; wider intervals.

    A grading lost to infrastructure is no flip; it is counted separately. If the same patches were graded again, a
    difference of two arms would move by sqrt(f (1 - f) S) (standard deviation), with f the flip rate and S from
    `rest_on_one`. f enters at the upper end of its interval: no flip among a few patches does not show that nothing
    flips. Gradings of different rollouts are independent, so part of this is in the run noise already, and gradings
    that are alike add half of f at most: the widened interval is conservative.
    """
    every = [one for found in regrades.values() for one in found]
    sound = {arm: [one for one in found if one.now is not Outcome.ERROR] for arm, found in regrades.items()}
    anywhere = {one.instance_id for found in sound.values() for one in found if one.moved}
    strata = {arm: strata_of(sound.get(arm, []), table, anywhere) for arm, table in tables.items()}
    graded = {arm: float(sum(one.size for one in found)) for arm, found in strata.items()}
    rate, low, high = flip_rate(strata, graded, level)
    by_task = dict(_counts([one for found in sound.values() for one in found]))
    by_repo: dict[str, int] = {}
    for task, flips in by_task.items():
        by_repo[repo_of(task)] = by_repo.get(repo_of(task), 0) + flips
    moved, others = (_share_of(strata, graded, kind) for kind in (True, False))
    return GraderNoise(
        patches=sum(len(_patches(found)) for found in sound.values()),
        gradings=sum(map(len, sound.values())),
        errors=len(every) - sum(map(len, sound.values())),
        flips=sum(by_task.values()),
        rate=rate,
        low=low,
        high=high,
        moved_rate=moved,
        others_rate=others,
        by_task=by_task,
        by_repository=by_repo,
        widened=tuple(_widened(one, strata, tables, level) for one in contrasts),
    )


def strata_of(again: Sequence[Again], table: pd.DataFrame, anywhere: Set[str] = frozenset()) -> tuple[Stratum, Stratum]:
    """An arm's graded patches of tasks that moved, all of which are graded again, and the others, of which a sample is.

    A task moved if any of its patches was chosen for that; in an arm without regradings, if it moved `anywhere`.
    Gradings of rollouts that `table` does not hold, of quarantined tasks for example, do not count.
    """
    graded = table[table["outcome"].isin([one.value for one in GRADED])]
    tasks = {one.instance_id for one in again if one.moved} if again else anywhere
    keys = set(zip(graded["instance_id"], graded["seed"], strict=True))
    patches = {key: flips for key, flips in _patches(again).items() if key[:2] in keys}
    moved = int(graded["instance_id"].isin(tasks).sum())
    return (
        _stratum(True, moved, [flips for key, flips in patches.items() if key[0] in tasks]),
        _stratum(False, len(graded) - moved, [flips for key, flips in patches.items() if key[0] not in tasks]),
    )


def flip_rate(
    strata: Mapping[str, Sequence[Stratum]], weights: Mapping[str, float], level: float = 0.95
) -> tuple[float, float, float]:
    """The flip rate over all patches of the arms, which count by their `weights`, with its interval.

    Tasks that moved are few, and all of their patches are graded again; a verdict that flips moves its task. The
    others alone would therefore understate the rate, and all regraded patches together overstate it: both kinds count
    by how many patches there are of each (Horvitz and Thompson 1952). Wilson's interval of each kind over its patches
    (J gradings of one are one observation; arms that are sampled unequally by Kish's effective number), put together by
    square-and-add (Zou and Donner 2008). A kind of which nothing was graded again is taken to be like the other one.
    """
    ends = [_of_kind(strata, weights, moved) for moved in (True, False)]
    known = [one for one in ends if one is not None]
    total = sum(weight for weight, _, _ in known)
    if not total:
        return 0.0, 0.0, 1.0
    rate, down, up = 0.0, 0.0, 0.0
    for weight, share, number in known:
        low, high = wilson(share, number, level)
        rate += weight / total * share
        down, up = np.hypot(down, weight / total * (share - low)), np.hypot(up, weight / total * (high - share))
    return rate, max(rate - float(down), 0.0), min(rate + float(up), 1.0)


def rest_on_one(*arms: pd.DataFrame) -> tuple[float, ...]:
    """Of each arm, the sum over its gradings of the squared share of the difference that rests on each: 1 / (N K) where
    every rollout of N tasks x K seeds was graded by itself.

    Reused verdicts rest on one grading: all of a task and arm are taken to be on the same one, the worst case.
    """
    scored = [arm[arm["resolved"].notna()] for arm in arms]
    shared = set.intersection(*(set(arm["instance_id"]) for arm in scored))
    return tuple(_rests(arm[arm["instance_id"].isin(shared)]) / max(len(shared), 1) ** 2 for arm in scored)


def _rests(arm: pd.DataFrame) -> float:
    by_task = arm["reuse"].eq("reused").fillna(False).groupby(arm["instance_id"])
    k, again = by_task.size().to_numpy(), by_task.sum().to_numpy()
    own = k - again
    return float((np.where(own > 0, (1 + again) ** 2 + own - 1, again**2) / k**2).sum())


def _widened(
    one: Contrast, strata: Mapping[str, Sequence[Stratum]], tables: Mapping[str, pd.DataFrame], level: float
) -> Widened:
    pair = one.baseline, one.candidate
    rests = dict(zip(pair, rest_on_one(*(tables[arm] for arm in pair)), strict=True))
    _, _, share = flip_rate({arm: strata[arm] for arm in pair}, rests, level)
    if not any(each.seen for arm in pair for each in strata[arm]):  # only other arms were graded again
        _, _, share = flip_rate(strata, dict.fromkeys(strata, 1.0), level)
    share = min(share, 0.5)  # where flips do most
    delta, sd = one.difference, float(np.sqrt(share * (1 - share) * sum(rests.values())))
    extra = float(special.ndtri((1 + level) / 2)) * sd
    low = max(delta.value - float(np.hypot(delta.value - delta.these.low, extra)), -1.0)
    high = min(delta.value + float(np.hypot(delta.these.high - delta.value, extra)), 1.0)
    shown = one.decision.verdict in ("better", "worse")
    turns = shown and low <= 0 <= high
    return Widened(baseline=one.baseline, candidate=one.candidate, low=low, high=high, flips=share, turns=turns)


def _of_kind(
    strata: Mapping[str, Sequence[Stratum]], weights: Mapping[str, float], moved: bool
) -> tuple[float, float, float] | None:
    """Weight, flip rate and effective number of patches of one kind over the arms; None if none was graded again."""
    weight, parts = 0.0, []
    for arm, found in strata.items():
        total = sum(one.size for one in found)
        for one in found:
            own = weights[arm] * one.size / total if total and one.moved == moved else 0.0
            weight += own
            parts += [(own, one)] if own and one.seen else []
    known = sum(own for own, _ in parts)
    if not known:
        return None
    share = sum(own / known * one.share for own, one in parts)
    return weight, share, 1 / sum((own / known) ** 2 / one.seen for own, one in parts)


def _share_of(strata: Mapping[str, Sequence[Stratum]], weights: Mapping[str, float], moved: bool) -> float | None:
    found = _of_kind(strata, weights, moved)
    return None if found is None else found[1]


def _stratum(moved: bool, size: int, patches: Sequence[list[bool]]) -> Stratum:
    share = float(np.mean([np.mean(flips) for flips in patches])) if patches else 0.0
    return Stratum(moved, size, len(patches), share)


def _patches(regrades: Sequence[Again]) -> dict[tuple[str, int, str], list[bool]]:
    out: dict[tuple[str, int, str], list[bool]] = {}
    for one in regrades:
        out.setdefault((one.instance_id, one.seed, one.patch_sha256), []).append(one.flipped)
    return out


def _counts(regrades: Sequence[Again]) -> Iterator[tuple[str, int]]:
    """The tasks with a flip, and how many."""
    flipped = [one.instance_id for one in regrades if one.flipped]
    yield from ((task, flipped.count(task)) for task in sorted(set(flipped)))
