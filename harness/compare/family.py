"""Contrasts as a family: Holm over them for every claim, and decisions that no missing rollout could change."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aem_harness.harness.compare.decisions import Claim, Kind, decide, holm, holm_among
from aem_harness.harness.compare.records import QUESTIONS, Conclusion, Contrast, Decision, Question

if TYPE_CHECKING:
    from aem_harness.harness.compare.contrast import Judged


@dataclass(frozen=True)
class _Member:
    """One contrast's claim of a kind: its place, and itself as scored and at the extremes of its missing rollouts."""

    contrast: int
    place: int
    scored: Claim
    ends: tuple[Claim, ...]

    def worst(self, side: int) -> float:
        """The largest p-value that any outcome of the missing rollouts could give."""
        values = {claim.value > 0 for claim in self.ends}
        through_zero = self.scored.kind == "difference" and len(values) > 1
        return 1.0 if through_zero else max(claim.p[side] for claim in (self.scored, *self.ends))

    def best(self, side: int) -> float:
        return min(claim.p[side] for claim in (self.scored, *self.ends))


def settle(judged: "Sequence[Judged]") -> list[Contrast]:
    """The contrasts of one table with their decisions: Holm over them for each question and kind of claim.

    A decision stands only if it would be the same whatever the missing rollouts, of this contrast and of all others,
    had been; otherwise it is inconclusive. The contrasts without marked rollouts are a family of their own.
    """
    if any(one.unmarked for one in judged):
        official = settle([replace(one, unmarked=None) for one in judged])
        clean = settle([one.unmarked or one for one in judged])
        triples = zip(judged, official, clean, strict=True)
        return [b.model_copy(update={"unmarked": c if a.unmarked else None}) for a, b, c in triples]
    decisions = [list[Decision | None]([None] * len(one.claims)) for one in judged]
    ends: dict[int, tuple[Conclusion, Conclusion]] = {}
    for members in _families(judged):
        adjusted = [holm([member.scored.p[side] for member in members]) for side in range(len(members[0].scored.p))]
        for number, member in enumerate(members):
            ps = [of_side[number] for of_side in adjusted]
            decision = decide(member.scored, ps, family=len(members))
            if member.ends or any(other.ends for other in members):
                low, high = _at_the_ends(members, number, decision.verdict)
                if member.place == 0:
                    ends[member.contrast] = low, high
                decision = _held(judged[member.contrast].contrast, decision, low, high)
            decisions[member.contrast][member.place] = decision
    return [
        _decided(one.contrast, [found for found in own if found], ends.get(i))
        for i, (one, own) in enumerate(zip(_with_holm(judged), decisions, strict=True))
    ]


def _families(judged: "Sequence[Judged]") -> Iterator[list[_Member]]:
    families: dict[tuple[Kind, Question], list[_Member]] = {}
    for number, one in enumerate(judged):
        for place, claim in enumerate(one.claims):
            sides = (one.low[place], one.high[place]) if one.low else ()
            families.setdefault((claim.kind, claim.question), []).append(_Member(number, place, claim, sides))
    yield from families.values()


def _at_the_ends(members: Sequence[_Member], number: int, scored: Conclusion) -> tuple[Conclusion, Conclusion]:
    """The verdicts of a member at both extremes, for any outcome of the others' missing rollouts.

    Holm needs the others' p-values: both the least and the most favourable are tried. If either gives another verdict
    than `scored`, that one is returned.
    """
    member, others = members[number], [*members[:number], *members[number + 1 :]]
    extremes: list[Conclusion] = []
    for claim in member.ends or (member.scored, member.scored):
        verdicts: list[Conclusion] = []
        for worst in (True, False):
            ps = [
                holm_among(p, [other.worst(side) if worst else other.best(side) for other in others])
                for side, p in enumerate(claim.p)
            ]
            verdicts.append(decide(claim, ps, family=len(members)).verdict)
        extremes.append(next((verdict for verdict in verdicts if verdict != scored), verdicts[0]))
    return extremes[0], extremes[1]


def _held(contrast: Contrast, decision: Decision, low: Conclusion, high: Conclusion) -> Decision:
    if low == high == decision.verdict:
        return decision
    bounds = contrast.bounds
    if bounds is None:
        reason = f"depending on the missing rollouts of other arms, Holm makes this {low} or {decision.verdict}"
    else:
        lost = bounds.missing_baseline + bounds.missing_candidate
        reason = (
            f"{lost} rollouts have no verdict; depending on them the difference lies between {100 * bounds.low:+z.1f} "
            f"({low}) and {100 * bounds.high:+z.1f} ({high}); without them: {decision.verdict}"
        )
    return decision.model_copy(update={"verdict": "inconclusive", "reason": reason})


def _with_holm(judged: "Sequence[Judged]") -> list["Judged"]:
    """The tests of every contrast with their p-values adjusted over all contrasts, for each question."""
    out = list(judged)
    for question in QUESTIONS:
        asked = [(i, test) for i, one in enumerate(out) for test in one.contrast.tests if test.question == question]
        for (index, test), p in zip(asked, holm([test.p for _, test in asked]), strict=True):
            one = out[index].contrast
            tests = tuple(t.model_copy(update={"p_holm": p}) if t == test else t for t in one.tests)
            out[index] = replace(out[index], contrast=one.model_copy(update={"tests": tests}))
    return out


def _decided(contrast: Contrast, decisions: Sequence[Decision], ends: tuple[Conclusion, Conclusion] | None) -> Contrast:
    first, *others = decisions
    update: dict[str, object] = {"decision": first, "decisions": tuple(others)}
    if ends and contrast.bounds is not None:
        update["bounds"] = contrast.bounds.model_copy(update={"verdict_low": ends[0], "verdict_high": ends[1]})
    return contrast.model_copy(update=update)
