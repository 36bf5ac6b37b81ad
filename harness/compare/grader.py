"""The grader's own noise: how often the same patch gets another verdict, and the effect on a difference."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import special

from aem_harness.harness.compare.mcnemar import wilson
from aem_harness.harness.compare.outcomes import ArmFacts
from aem_harness.harness.compare.records import Contrast, GraderNoise, Widened
from aem_harness.harness.run.regrading import Again, read_regrades
from aem_harness.harness.schema import repo_of
from aem_harness.harness.types import Outcome


def grader_noise(
    facts: Mapping[str, ArmFacts], contrasts: Sequence[Contrast], level: float = 0.95
) -> GraderNoise | None:
    """From the regradings of the arms' runs; None if nothing was graded again."""
    found = [one for arm in facts.values() if arm.source for one in read_regrades(Path(arm.source))]
    return noise_of(found, contrasts, level) if found else None


def noise_of(regrades: Sequence[Again], contrasts: Sequence[Contrast], level: float = 0.95) -> GraderNoise:
    """Flip rates with Wilson's interval over patches (J gradings of one are one observation), and wider intervals.

    A grading lost to infrastructure is no flip; it is counted separately. If the same patches were graded again, a
    difference of two arms would move by sqrt(2 f (1 - f) / (N K)) (standard deviation, f the flip rate of the patches
    drawn at random; that of changed tasks if none were). f enters at the upper end of its interval: no flip among a few
    patches does not show that nothing flips. Gradings of different rollouts are independent, so part of this is in the
    run noise already: the widened interval is conservative.
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
        widened=tuple(_widened(one, high, level) for one in contrasts),
    )


def _widened(one: Contrast, share: float, level: float) -> Widened:
    delta, share = one.difference, min(share, 0.5)  # where flips do most
    sd = float(np.sqrt(share * (1 - share) * 4 / max(delta.rollouts, 1)))  # N K rollouts per arm: rollouts / 2
    extra = float(special.ndtri((1 + level) / 2)) * sd
    low = delta.value - float(np.hypot(delta.value - delta.these.low, extra))
    high = delta.value + float(np.hypot(delta.these.high - delta.value, extra))
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
