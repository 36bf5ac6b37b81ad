"""A comparison as numbers by step, for experiment trackers: one step for each checkpoint, curves by turn."""

import re
from collections.abc import Iterator
from pathlib import Path

from aem_harness.harness.compare.records import Comparison, Estimate
from aem_harness.harness.trackers import tracker

Point = tuple[str, int, dict[str, float]]  # axis, step, numbers by name


def points(comparison: Comparison) -> Iterator[Point]:
    """Rates with the ends of both intervals, losses, costs and behaviour of each arm at its step; curves by turn.

    The step of an arm is the number that its name ends in where all have one (`aem@50`, `step-100`), else its place.
    """
    for step, arm in zip(steps([arm.arm for arm in comparison.arms]), comparison.arms, strict=True):
        numbers = _estimate("resolved", arm.resolved)
        numbers |= {"resolved/tasks": arm.tasks, "resolved/rollouts": arm.rollouts, "resolved/lost": arm.missing}
        for row in comparison.metrics:
            if arm.arm in row.arms:
                numbers |= _estimate(f"{row.section}/{row.name}", row.arms[arm.arm])
        for one in comparison.contrasts:
            if one.candidate == arm.arm and not one.label:
                numbers |= _estimate(f"difference/to {one.baseline}", one.difference)
        yield "checkpoint", step, numbers
    for curve in comparison.curves:
        for point in curve.points:
            name = f"{curve.kind}/{curve.arm}"
            numbers = {name: point.value, f"{name} low": point.low, f"{name} high": point.high}
            yield "turn" if "entropy" in curve.kind else "budget", int(point.x), numbers


def steps(arms: list[str]) -> list[int]:
    """The training step of every arm, read off the ends of their names, or their places where any has none."""
    read = [re.search(r"(\d+)$", arm) for arm in arms]
    numbers = [int(one[1]) for one in read if one]
    return numbers if len(set(numbers)) == len(arms) else list(range(len(arms)))


def _estimate(name: str, estimate: Estimate) -> dict[str, float]:
    numbers = {name: estimate.value, f"{name} low": estimate.these.low, f"{name} high": estimate.these.high}
    if estimate.like is not None:
        numbers |= {f"{name} like these low": estimate.like.low, f"{name} like these high": estimate.like.high}
    return numbers


def log(comparison: Comparison, kind: str, folder: Path) -> int:
    """Write a comparison into a tracker; how many points. See `trackers.tracker` for errors."""
    name = "-".join(arm.arm for arm in comparison.arms)[:80]
    settings = {"level": comparison.level, "baseline": comparison.baseline, **comparison.versions}
    with tracker(kind, folder, name, settings) as opened:
        written = 0
        for axis, step, numbers in points(comparison):
            opened.log(numbers, step, axis)
            written += len(numbers)
    return written
