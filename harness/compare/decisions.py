"""From an estimate to a decision: difference, non-inferiority, superiority by a margin; Holm over a family."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from aem_harness.harness.compare.intervals import detectable, p_above
from aem_harness.harness.compare.mcnemar import tango_statistic
from aem_harness.harness.compare.records import Conclusion, Decision, Discordance, Estimate, Interval, Question
from aem_harness.harness.compare.words import p_words

Kind = Literal["difference", "non-inferiority", "superiority", "equivalence"]


@dataclass(frozen=True)
class Claim:
    """What is to be decided: its interval and its p-values, one for each direction in which it can be shown.

    A difference has one, two-sided; non-inferiority has one for "non-inferior" and one for "inferior"; superiority and
    equivalence have one.
    """

    kind: Kind
    value: float
    interval: Interval
    p: tuple[float, ...]
    margin: float = 0.0

    @property
    def question(self) -> Question:
        return self.interval.question


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values (1979), in the order given: controls the chance of any false positive."""
    order = np.argsort(ps, kind="stable")
    adjusted = np.empty(len(ps))
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = running
    return [float(value) for value in adjusted]


def holm_among(p: float, others: Sequence[float]) -> float:
    """Holm's adjusted p-value of one member of a family, given the p-values of the others."""
    below = np.sort(np.asarray(others, dtype=float))
    below = below[below < p]
    m = len(others) + 1
    steps = np.append((m - np.arange(len(below))) * below, (m - len(below)) * p)
    return float(min(steps.max(), 1.0))


def decide(claim: Claim, p: Sequence[float] | None = None, *, family: int = 1) -> Decision:
    """The decision on `claim`; `p` are its p-values adjusted for a family of so many."""
    ps = claim.p if p is None else tuple(p)
    match claim.kind:
        case "difference":
            return _difference(claim, ps[0], family)
        case "non-inferiority":
            return _noninferiority(claim, ps[0], ps[1], family)
        case "superiority":
            return _superiority(claim, ps[0], family)
        case "equivalence":
            return _equivalence(claim, ps[0], family)


def difference_claim(value: float, interval: Interval, p: float) -> Claim:
    """Better, worse, or no difference detected, at the interval's level."""
    return Claim("difference", value, interval, (p,))


def noninferiority_claim(
    estimate: Estimate, margin: float, question: Question, discordance: Discordance | None = None
) -> Claim:
    """Is the candidate at most `margin` (a positive fraction) worse? One-sided at (1 - level) / 2.

    Null hypothesis: difference <= -margin. "inferior" needs the same evidence on the other side of the margin;
    between the two the answer is "inconclusive". With one rollout a task the test is Tango's (1998).
    """
    interval = _interval(estimate, question)
    ps = _one_sided(estimate, interval, -margin, discordance)
    return Claim("non-inferiority", estimate.value, interval, ps, margin)


def superiority_claim(
    estimate: Estimate, margin: float, question: Question, discordance: Discordance | None = None
) -> Claim:
    """Is the candidate more than `margin` better? One-sided at (1 - level) / 2, against "difference <= margin"."""
    interval = _interval(estimate, question)
    p, _ = _one_sided(estimate, interval, margin, discordance)
    return Claim("superiority", estimate.value, interval, (p,), margin)


def equivalence_claim(
    estimate: Estimate, margin: float, question: Question, discordance: Discordance | None = None
) -> Claim:
    """Does the candidate differ by less than `margin` in either direction?

    Two one-sided tests (Schuirmann 1987), each at (1 - level) / 2: both have to reject, so the larger p-value counts.
    """
    interval = _interval(estimate, question)
    below, _ = _one_sided(estimate, interval, -margin, discordance)
    _, above = _one_sided(estimate, interval, margin, discordance)
    return Claim("equivalence", estimate.value, interval, (max(below, above),), margin)


def _difference(claim: Claim, p: float, family: int) -> Decision:
    value, interval, of = claim.value, claim.interval, _of(family)
    if p <= 1 - interval.level:
        verdict: Conclusion = "better" if value > 0 else "worse"
        reason = f"{100 * value:+z.1f} points, {p_words(p)}{of}"
        if interval.low <= 0 <= interval.high:
            reason += "; the test decides, although the interval, from another method, just reaches zero"
        return Decision(question=interval.question, verdict=verdict, reason=reason, p=p)
    smallest = 100 * detectable(interval)
    least = f"the smallest difference this comparison could detect with 80 % power is {smallest:.1f} points"
    if smallest > 100:
        least = "too little data to detect any difference with 80 % power"
    alone = claim.p[0]
    before = f" ({p_words(alone)} alone)" if alone <= 1 - interval.level else ""
    reason = f"{p_words(p)}{of}{before}; {least}"
    return Decision(question=interval.question, verdict="no difference detected", reason=reason, p=p)


def _noninferiority(claim: Claim, p: float, p_inferior: float, family: int) -> Decision:
    alpha, margin = (1 - claim.interval.level) / 2, 100 * claim.margin
    verdict: Conclusion = "inconclusive"
    words = f"a drop of {margin:.1f} points is neither excluded ({p_words(p)}) nor shown ({p_words(p_inferior)})"
    shown = p
    if p <= alpha:
        verdict, words = "non-inferior", f"at most {margin:.1f} points worse ({p_words(p)})"
    elif p_inferior <= alpha:
        verdict, words, shown = "inferior", f"more than {margin:.1f} points worse ({p_words(p_inferior)})", p_inferior
    words += _of(family)
    return Decision(question=claim.question, verdict=verdict, reason=words, p=shown, margin=claim.margin)


def _superiority(claim: Claim, p: float, family: int) -> Decision:
    shown = p <= (1 - claim.interval.level) / 2
    how = "more than" if shown else "not shown to be more than"
    words = f"{how} {100 * claim.margin:.1f} points better ({p_words(p)}){_of(family)}"
    verdict: Conclusion = "superior" if shown else "not superior"
    return Decision(question=claim.question, verdict=verdict, reason=words, p=p, margin=claim.margin)


def _equivalence(claim: Claim, p: float, family: int) -> Decision:
    shown = p <= (1 - claim.interval.level) / 2
    words = f"{'less' if shown else 'not shown to be less'} than {100 * claim.margin:.1f} points apart ({p_words(p)})"
    verdict: Conclusion = "equivalent" if shown else "equivalence not shown"
    return Decision(question=claim.question, verdict=verdict, reason=words + _of(family), p=p, margin=claim.margin)


def _of(family: int) -> str:
    return f", Holm over {family}" if family > 1 else ""


def _one_sided(
    estimate: Estimate, interval: Interval, null: float, discordance: Discordance | None
) -> tuple[float, float]:
    """P-values against "at most `null`" and against "at least `null`"."""
    if discordance is not None and interval.question == "these tasks":
        z = tango_statistic(discordance.gained, discordance.lost, estimate.tasks, null)
        return float(special.ndtr(-z)), float(special.ndtr(z))
    p = p_above(estimate.value, interval, null)
    return p, 1 - p


def _interval(estimate: Estimate, question: Question) -> Interval:
    if question == "these tasks" or estimate.like is None:
        return estimate.these
    return estimate.like
