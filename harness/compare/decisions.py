"""From an estimate to a decision: difference, non-inferiority, superiority by a margin; Holm over a family."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from aem_harness.harness.compare.intervals import detectable, p_above
from aem_harness.harness.compare.mcnemar import tango_statistic
from aem_harness.harness.compare.records import Decision, Discordance, Estimate, Interval, Question, Verdict
from aem_harness.harness.compare.words import p_words


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values (1979), in the order given: controls the chance of any false positive."""
    order = np.argsort(ps, kind="stable")
    adjusted = np.empty(len(ps))
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = running
    return [float(value) for value in adjusted]


def difference_decision(value: float, interval: Interval, p: float, *, family: int = 1) -> Decision:
    """Better, worse, or no difference detected, at the interval's level. `p` is already adjusted for its family."""
    of = f", Holm over {family}" if family > 1 else ""
    if p <= 1 - interval.level:
        verdict: Verdict = "better" if value > 0 else "worse"
        reason = f"{100 * value:+z.1f} points, {p_words(p)}{of}"
        return Decision(question=interval.question, verdict=verdict, reason=reason, p=p)
    smallest = 100 * detectable(interval)
    least = f"the smallest difference this comparison could detect with 80 % power is {smallest:.1f} points"
    if smallest > 100:
        least = "too little data to detect any difference with 80 % power"
    reason = f"{p_words(p)}{of}; {least}"
    return Decision(question=interval.question, verdict="no difference detected", reason=reason, p=p)


def noninferiority(
    estimate: Estimate, margin: float, question: Question, discordance: Discordance | None = None
) -> Decision:
    """Is the candidate at most `margin` (a positive fraction) worse? One-sided at (1 - level) / 2.

    Null hypothesis: difference <= -margin. "inferior" needs the same evidence on the other side of the margin;
    between the two the answer is "inconclusive". With one rollout a task the test is Tango's (1998).
    """
    interval = _interval(estimate, question)
    p, p_inferior = _one_sided(estimate, interval, -margin, discordance)
    alpha = (1 - interval.level) / 2
    verdict: Verdict = "inconclusive"
    words = f"a drop of {100 * margin:.1f} points is neither excluded ({p_words(p)}) nor shown ({p_words(p_inferior)})"
    if p <= alpha:
        verdict, words = "non-inferior", f"at most {100 * margin:.1f} points worse ({p_words(p)})"
    elif p_inferior <= alpha:
        verdict, words = "inferior", f"more than {100 * margin:.1f} points worse ({p_words(p_inferior)})"
    return Decision(question=question, verdict=verdict, reason=words, p=p, margin=margin)


def superiority(
    estimate: Estimate, margin: float, question: Question, discordance: Discordance | None = None
) -> Decision:
    """Is the candidate more than `margin` better? One-sided at (1 - level) / 2, against "difference <= margin"."""
    interval = _interval(estimate, question)
    p, _ = _one_sided(estimate, interval, margin, discordance)
    shown = p <= (1 - interval.level) / 2
    words = f"{'more than' if shown else 'not shown to be more than'} {100 * margin:.1f} points better ({p_words(p)})"
    verdict: Verdict = "superior" if shown else "not superior"
    return Decision(question=question, verdict=verdict, reason=words, p=p, margin=margin)


def _one_sided(
    estimate: Estimate, interval: Interval, null: float, discordance: Discordance | None
) -> tuple[float, float]:
    """P-values against "at most `null`" and against "at least `null`"."""
    if discordance is not None and interval.question == "these tasks":
        z = tango_statistic(discordance.gained, discordance.lost, estimate.tasks, null)
        return float(stats.norm.sf(z)), float(stats.norm.cdf(z))
    p = p_above(estimate.value, interval, null)
    return p, 1 - p


def _interval(estimate: Estimate, question: Question) -> Interval:
    if question == "these tasks" or estimate.like is None:
        return estimate.these
    return estimate.like
