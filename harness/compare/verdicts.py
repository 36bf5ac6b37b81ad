"""The verdict of a comparison, shown first in the terminal: the result, its certainty, and what could change it."""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.text import Text

from aem_harness.harness.compare.records import BestOf, Comparison, Contrast, Decision
from aem_harness.harness.compare.words import bracket, chance, headline, percent, points, title_of
from aem_harness.harness.errors import listed

GOOD, BAD = ("better", "non-inferior", "superior", "equivalent"), ("worse", "inferior")
COLOURS = dict.fromkeys(GOOD, "green") | dict.fromkeys(BAD, "red")
SURE = 0.5  # the best of several is named where it is the best in truth with this probability
MANY = 5  # contrasts that are each put into words; of more, only which way they went


def verdict_panel(comparison: Comparison) -> Panel:
    """Every contrast in words, or, of many, which way each went; and the best arm of several."""
    lines = [Text(headline(comparison), "bold")]
    if len(comparison.contrasts) > MANY:
        lines += _tally(comparison.contrasts)
    else:
        for contrast in comparison.contrasts:
            lines += _contrast(comparison, contrast)
    if comparison.best is not None and comparison.best.probability >= SURE:
        lines.append(_best(comparison.best))
    return Panel(Group(*map(_hung, lines)), title="Verdict", title_align="left", expand=False)


def _hung(line: Text) -> RenderableType:
    """An indented line, which stays indented where it wraps."""
    return Padding(line[2:], (0, 0, 0, 2), expand=False) if line.plain.startswith("  ") else line


def _contrast(comparison: Comparison, contrast: Contrast) -> Iterator[Text]:
    delta = contrast.difference
    ends = {"these tasks": delta.these, "tasks like these": delta.like}
    yield Text(
        f"{title_of(contrast)}: {points(delta.value)} points{_of_what(comparison, contrast)}",
    )
    level = f"{100 * comparison.level:g} %"
    asked = set[str]()
    for decision in (contrast.decision, *contrast.decisions):
        interval = f"{level} {bracket(ends[decision.question], signed=True)}"
        yield _decision(decision, "by the margin" if decision.question in asked else interval)
        asked.add(decision.question)
    if contrast.bounds is not None:
        one = contrast.bounds
        lost = f"{one.missing_baseline} rollouts of the baseline and {one.missing_candidate} of the candidate"
        yield Text(
            f"  without a verdict are {lost}: the difference would be {points(one.low)} to {points(one.high)} points "
            f"at the extremes, {points(one.as_failed)} with all of them failed"
        )
        if one.verdict_excused is not None and one.excused_failed is not None:
            turned = "" if one.verdict_excused == contrast.decision.verdict else ", a different answer"
            yield Text(
                f"  if only the candidate's {one.missing_candidate} had failed: {one.verdict_excused} "
                f"({points(one.excused_failed)} points){turned}"
            )
    if contrast.unmarked is not None:
        yield _unmarked(comparison, contrast, contrast.unmarked)


def _of_what(comparison: Comparison, contrast: Contrast) -> str:
    """The two rates, if they are of the paired tasks; else the number of these."""
    rates = {arm.arm: arm.resolved for arm in comparison.arms}
    before, after = rates[contrast.baseline], rates[contrast.candidate]
    if before.tasks == after.tasks == contrast.difference.tasks:
        return f", {percent(before.value)} → {percent(after.value)} % resolved"
    there = ""
    if contrast.rates:
        there = f", {percent(contrast.rates[0])} → {percent(contrast.rates[1])} % there"
    return f" on the {contrast.difference.tasks} tasks that both have{there} (the table's rates are over other tasks)"


def _decision(decision: Decision, interval: str) -> Text:
    line = Text(f"  {decision.question}, {interval}: ")
    line.append(decision.verdict, style=COLOURS.get(decision.verdict, "yellow"))
    return line.append(f" ({decision.reason})")


def _unmarked(comparison: Comparison, official: Contrast, clean: Contrast) -> Text:
    marked = {arm.arm: arm.marked for arm in comparison.arms}
    line = Text("  integrity-adjusted: ")
    line.append(clean.decision.verdict, style=COLOURS.get(clean.decision.verdict, "yellow"))
    return line.append(
        f" ({points(clean.difference.value)} points {bracket(clean.difference.these, signed=True)} on these tasks; "
        f"resolved rollouts with a grave mark, {marked[official.baseline]} of the baseline and "
        f"{marked[official.candidate]} of the candidate, count as failures)"
    )


def _tally(contrasts: Sequence[Contrast]) -> Iterator[Text]:
    for verdict in dict.fromkeys(one.decision.verdict for one in contrasts):
        found = [one for one in contrasts if one.decision.verdict == verdict]
        line = Text(f"{verdict}: ", style=COLOURS.get(verdict, "yellow"))
        yield line.append(f"{len(found)} on these tasks ({listed(map(title_of, found), most=4)})", style="default")


def _best(one: BestOf) -> Text:
    held = "" if one.held_out is None else f"; {percent(one.held_out)} % on held-out seeds"
    return Text(
        f"best of {one.among} on the {one.tasks} shared tasks: {one.arm}, {percent(one.observed)} % as observed, "
        f"{percent(one.shrunken)} % corrected for selection{held}; interval [{percent(one.low)}, "
        f"{percent(one.high)}]; probability that it is the best {chance(one.probability)} %"
    )
