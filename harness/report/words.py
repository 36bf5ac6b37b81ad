"""A comparison in sentences: what was found, or plainly that nothing was."""

import re

from aem_harness.harness.compare.records import Comparison, Contrast, Decision, Estimate, Interval
from aem_harness.harness.compare.verdicts import SURE
from aem_harness.harness.compare.words import chance, percent, points

MINUS = r"(?<!\w)-(?=\d)"  # a hyphen that stands for a minus
TONES = {"better": "good", "non-inferior": "good", "superior": "good", "worse": "bad", "inferior": "bad"}


def sentence(comparison: Comparison, contrast: Contrast) -> str:
    """Rates, difference and interval, and how sure one may be, on these tasks."""
    delta = contrast.difference
    level = f"{100 * comparison.level:g} %"
    before, after = contrast.rates or (0.0, 0.0)
    return (
        f"On the {delta.tasks} tasks that both have, {contrast.candidate} resolves {percent(after)} %, "
        f"{contrast.baseline} {percent(before)} %; paired by task, the difference is {signed(delta.value)} points, "
        f"{level} interval {ends(delta.these)} on these tasks"
        + (f" and {ends(delta.like)} on tasks like these{_noted(delta.like)}." if delta.like else ".")
    )


def _noted(interval: Interval) -> str:
    return f" ({interval.note})" if interval.note else ""


def decision_words(decision: Decision) -> str:
    """`On these tasks: no difference detected (p = 0.4; ...)`."""
    return f"On {decision.question}: {decision.verdict} ({re.sub(MINUS, '−', decision.reason)})"


def about_missing(contrast: Contrast) -> str:
    """What the missing rollouts could do to the verdict; empty where none is missing."""
    bounds = contrast.bounds
    if bounds is None or not bounds.missing_baseline + bounds.missing_candidate:
        return ""
    return (
        f"Rollouts without a verdict: {bounds.missing_baseline} of {contrast.baseline}, {bounds.missing_candidate} of "
        f"{contrast.candidate}. Had they gone as badly or as well as can be, the difference would lie between "
        f"{signed(bounds.low)} ({bounds.verdict_low}) and {signed(bounds.high)} points ({bounds.verdict_high})."
    )


def about_marks(comparison: Comparison, contrast: Contrast) -> str:
    """What the verdict would be if rollouts with a grave integrity mark had failed; empty where none bears one."""
    clean = contrast.unmarked
    if clean is None:
        return ""
    marked = {arm.arm: arm.marked for arm in comparison.arms}
    return (
        f"Integrity-adjusted: {clean.decision.verdict}, {signed(clean.difference.value)} points "
        f"{ends(clean.difference.these)} on these tasks, if the resolved rollouts with a grave mark "
        f"({marked[contrast.baseline]} of {contrast.baseline}, {marked[contrast.candidate]} of {contrast.candidate}) "
        "are counted as failed."
    )


def best_words(comparison: Comparison) -> str:
    """The best of a series, corrected for having been picked; empty without a series."""
    best = comparison.best
    if best is None or best.probability < SURE:
        return ""
    held = "" if best.held_out is None else f", {percent(best.held_out)} % on held-out seeds"
    return (
        f"Best of {best.among} on the {best.tasks} shared tasks: {best.arm}, {percent(best.observed)} % as observed, "
        f"{percent(best.shrunken)} % corrected for having been picked{held}; the best in truth with "
        f"probability {chance(best.probability)} %."
    )


def signed(fraction: float) -> str:
    """`+1.4`, with a typographic minus."""
    return points(fraction).replace("-", "−")


def ends(interval: Interval) -> str:
    """`[−0.4, +3.2]`."""
    return f"[{signed(interval.low)}, {signed(interval.high)}]" + ("†" if interval.bound else "")


def rate_ends(interval: Interval | None) -> str:
    """`[30.2, 38.5]`, in percent."""
    if interval is None:
        return ""
    return f"[{percent(interval.low)}, {percent(interval.high)}]" + ("†" if interval.bound else "")


def pair(estimate: Estimate) -> tuple[tuple[float, float], tuple[float, float] | None]:
    """The ends of both intervals, for a plot."""
    like = (estimate.like.low, estimate.like.high) if estimate.like else None
    return (estimate.these.low, estimate.these.high), like
