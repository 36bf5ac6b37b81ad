"""Forests of the report: estimates below each other on one axis, with both intervals, as rows of a table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from aem_harness.harness.compare.records import ArmSummary, Comparison, Contrast, Estimate, Group
from aem_harness.harness.compare.words import adjusted_p, percent, seeds_of
from aem_harness.harness.report import plots, words


@dataclass(frozen=True)
class ForestRow:
    """One line of a forest: name, what stands beside it, its picture, its numbers."""

    name: str
    aside: str
    svg: str
    value: str
    interval: str
    like: str = ""
    p: str = ""
    arm: int = 0


@dataclass(frozen=True)
class Forest:
    """Estimates below each other on one axis."""

    title: str
    caption: str
    rows: tuple[ForestRow, ...]
    axis: str
    heads: tuple[str, str]


def rates(comparison: Comparison, number: dict[str, int]) -> Forest:
    shown: list[tuple[ArmSummary, str, str, Estimate]] = []
    for arm in comparison.arms:
        aside = f"{arm.resolved.tasks} × {seeds_of(arm.resolved)}" + (f", {arm.missing} lost" if arm.missing else "")
        shown.append((arm, arm.arm, aside, arm.resolved))
        if arm.marked:
            shown.append((arm, f"{arm.arm}, integrity-adjusted", f"{arm.marked} marked", arm.unmarked))
    scale = plots.forest_scale(_ends(words.pair(rate) for *_, rate in shown), zero=False, limit=(0, 1))
    rows = [
        ForestRow(
            name=name,
            aside=aside,
            svg=plots.interval(scale, rate.value, *words.pair(rate), number[arm.arm]),
            value=percent(rate.value),
            interval=words.rate_ends(rate.these),
            like=words.rate_ends(rate.like),
            arm=number[arm.arm],
        )
        for arm, name, aside, rate in shown
    ]
    caption = "Mean over tasks of the mean over their rollouts; rollouts without a verdict are left out."
    if any(arm.marked for arm in comparison.arms):
        caption += " Integrity-adjusted: resolved rollouts with a grave mark counted as failed."
    return Forest("Resolved, %", caption, tuple(rows), plots.axis(scale), ("arm", "tasks × seeds"))


def differences(comparison: Comparison, number: dict[str, int]) -> Forest:
    pairs = [words.pair(one.difference) for one in comparison.contrasts]
    scale = plots.forest_scale(_ends(pairs))
    rows = []
    for contrast, (these, like) in zip(comparison.contrasts, pairs, strict=True):
        rows.append(
            ForestRow(
                name=pair_name(comparison, contrast),
                aside=f"{contrast.gained} up, {contrast.lost} down",
                svg=plots.interval(scale, contrast.difference.value, these, like, number[contrast.candidate]),
                value=words.signed(contrast.difference.value),
                interval=words.ends(contrast.difference.these),
                like=words.ends(contrast.difference.like) if contrast.difference.like else "",
                p=" / ".join(adjusted_p(test.p, test.p_holm, comparison.level) for test in contrast.tests),
                arm=number[contrast.candidate],
            )
        )
    caption = "Paired by task." + (
        " p adjusted over the differences (Holm); alone: before it." if len(rows) > 1 else ""
    )
    title = "Difference" + (f" from {comparison.baseline}" if one_baseline(comparison) else "") + ", points"
    return Forest(title, caption, tuple(rows), plots.axis(scale, signed=True), ("candidate", "tasks moved"))


def one_baseline(comparison: Comparison) -> bool:
    """Whether every difference is to the same arm, so that naming it once is enough."""
    return {one.baseline for one in comparison.contrasts} == {comparison.baseline}


def pair_name(comparison: Comparison, contrast: Contrast) -> str:
    name = contrast.candidate if one_baseline(comparison) else f"{contrast.candidate} − {contrast.baseline}"
    return f"{contrast.label}: {name}" if contrast.label else name


def parts(comparison: Comparison, number: dict[str, int]) -> Iterator[Forest]:
    """A forest for every way of parting the tasks and every candidate."""
    for by in dict.fromkeys(group.by for group in comparison.groups):
        groups = [group for group in comparison.groups if group.by == by]
        for arm in groups[0].differences:
            yield _part(groups, arm, comparison.baseline, number[arm])


def _part(groups: Sequence[Group], arm: str, baseline: str, number: int) -> Forest:
    by = groups[0].by
    ordered = sorted(groups, key=lambda group: -group.tasks) if by == "repository" else list(groups)
    scale = plots.forest_scale(
        _ends(((g.differences[arm].these.low, g.differences[arm].these.high), None) for g in groups)
    )
    rows = []
    for group in ordered:
        delta = group.differences[arm]
        these = (delta.these.low, delta.these.high)
        rows.append(
            ForestRow(
                name=group.value,
                aside=f"{group.tasks}: {percent(group.rates[baseline].value)} → {percent(group.rates[arm].value)}",
                svg=plots.interval(scale, delta.value, these, None, number),
                value=words.signed(delta.value),
                interval=words.ends(delta.these),
                p=adjusted_p(group.p[arm], group.p_holm.get(arm), delta.these.level),
                arm=number,
            )
        )
    caption = f"Difference of {arm} from {baseline} in points, on these tasks; p adjusted over the parts (Holm); "
    caption += "alone: before that; so are the intervals."
    title = f"By {by}, {arm} − {baseline}"
    return Forest(title, caption, tuple(rows), plots.axis(scale, signed=True), (by, "tasks: % before → after"))


def _ends(pairs: Any) -> list[float]:
    return [end for pair in pairs for ends in pair if ends for end in ends]
