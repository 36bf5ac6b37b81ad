"""Numbers of a comparison in writing, and its answer in a sentence: what terminal, tables and report share."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile

from aem_harness.harness.compare.records import Comparison, Contrast, Estimate, Flip, GraderNoise, Interval, MetricRow
from aem_harness.harness.errors import listed
from aem_harness.harness.run.origin import reuse_line

# What the star of `bracket` means.
BOUND = "* from an upper bound of the run noise: one rollout per task, too few rollouts, or all equal"


def percent(fraction: float, digits: int = 1) -> str:
    """0.342 -> `34.2`."""
    return f"{100 * fraction:.{digits}f}"


def points(fraction: float) -> str:
    """0.014 -> `+1.4`; what rounds to zero is `+0.0`, not `-0.0`."""
    return f"{100 * fraction:+z.1f}"


def amount(value: float, *, signed: bool = False) -> str:
    """Four significant digits, thousands grouped."""
    size = abs(value)
    digits = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 1 else 3
    return f"{value:{'+' if signed else ''}z,.{digits}f}"  # z: what rounds to zero has no minus


def probability(p: float) -> str:
    """A p-value: `0.03`, `< 0.0001`."""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def chance(probability: float) -> str:
    """A probability in whole percent; what is not certain is not written as 0 or 100."""
    if probability < 0.005:
        return "< 1"
    return "> 99" if probability >= 0.995 else percent(probability, 0)


def p_words(p: float) -> str:
    """`p = 0.03`, `p < 0.0001`."""
    return p_is(probability(p))


def p_is(words: str) -> str:
    """`p = 0.03`, `p < 0.0001`, from the words of a p-value."""
    return f"p {words}" if words.startswith("<") else f"p = {words}"


def adjusted_p(p: float, holm: float | None, level: float) -> str:
    """A p-value after Holm; where only that keeps it from rejecting, which its interval does not know, also before."""
    if holm is None:
        return probability(p)
    turned = p <= 1 - level < holm
    return probability(holm) + (f" (alone {probability(p)})" if turned else "")


def seeds_of(estimate: Estimate) -> str:
    """Rollouts a task: `4`, or `3-4` where they are not equal."""
    fewest, most = estimate.seeds
    return str(most) if fewest == most else f"{fewest}-{most}"


def bracket(interval: Interval | None, *, signed: bool = False) -> str:
    """`[30.2, 38.5]` in percent; a star where the standard error is only an upper bound."""
    if interval is None:
        return "-"
    write = points if signed else percent
    return f"[{write(interval.low)}, {write(interval.high)}]" + ("*" if interval.bound else "")


def interaction_lines(comparison: Comparison, *, asked: bool = False) -> list[str]:
    """Whether the difference is another one in other parts of the tasks: a line for each candidate and parting.

    With `asked`, only for a date that was asked for.
    """
    lines = []
    for one in comparison.interactions:
        if asked and one.change is None:
            continue
        p = adjusted_p(one.p, one.p_holm if len(comparison.interactions) > 1 else None, comparison.level)
        if one.change is None:
            lines.append(f"{one.candidate}, by {one.by} ({len(one.parts)} parts): {p_is(p)}")
        else:
            ends = f"{bracket(one.these, signed=True)} these, {bracket(one.like, signed=True)} like these"
            lines.append(f"{one.candidate}, {one.by}: {points(one.change)} points {ends}, {p_is(p)}")
    return lines


def unit_of(row: MetricRow) -> str:
    """The unit of a metric where its name does not say it: `edited lines` are lines."""
    return "" if row.unit in row.name.split() else row.unit


def about_times(comparison: Comparison, rows: Iterable[MetricRow]) -> str:
    """The caveat before times of the arms are compared, if `rows` have any; else empty."""
    if not comparison.apart or not any(row.timed for row in rows):
        return ""
    return (
        f"Times also depend on the load of the machine, and {comparison.apart}: no difference of the checkpoints alone."
    )


def short(arm: str, most: int = 16) -> str:
    """An arm's name as a column head: long ones keep both ends."""
    return arm if len(arm) <= most else f"{arm[: most // 2 - 1]}…{arm[-most // 2 :]}"


def distinct(arms: Sequence[str], most: int = 16) -> dict[str, str]:
    """Short names by which all arms can be told apart: where ends are alike, without what all have in common.

    Where that does not help either, they are numbered.
    """
    for parts in (lambda names: names, _own_parts):
        made = {arm: short(part, most) for arm, part in zip(arms, parts(arms), strict=True)}
        if len(set(made.values())) == len(made):
            return made
    return {arm: f"{short(arm, most - 3)} {number}" for number, arm in enumerate(arms, 1)}


def _own_parts(names: Sequence[str]) -> list[str]:
    """Names without the words that all of them begin and end with; words end at separators."""
    words = [re.findall(r"[^-_./: ]*[-_./: ]*", name)[:-1] for name in names]
    head = _alike(words)
    tail = _alike([line[head:][::-1] for line in words])
    own = ["".join(line[head : len(line) - tail]).rstrip("-_./: ") for line in words]
    return [part or name for part, name in zip(own, names, strict=True)]


def _alike(lines: Sequence[Sequence[str]]) -> int:
    """How many first words are the same in all lines."""
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*lines, strict=False)))


def stacked(arm: str, most: int = 10) -> str:
    """An arm's name as a narrow column head, broken after its own separators: `qwen3-8b-` over `step-400`."""
    lines = [""]
    for part in re.findall(r"[^-_./: ]*[-_./: ]*", arm):
        if lines[-1] and len(lines[-1] + part) > most:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines) if len(lines) <= 3 and max(map(len, lines)) <= most else short(arm, most)


def sureness(flip: Flip) -> str:
    """In percent, the posterior that a task's rate truly changed."""
    return chance(max(flip.p_worse, flip.p_better))


def title_of(contrast: Contrast) -> str:
    """`aem - base`, with its label where it has one."""
    name = f"{short(contrast.candidate, 24)} - {short(contrast.baseline, 24)}"
    return f"{contrast.label}: {name}" if contrast.label else name


def headline(comparison: Comparison) -> str:
    """The answer in one line, for these tasks."""
    plain = [contrast for contrast in comparison.contrasts if not contrast.label]
    if len(plain) == 1:
        return _answer(plain[0]) + _if_clean(plain[0])
    found = Counter[str](one.decision.verdict for one in plain)
    if found["no difference detected"] == len(plain):
        return f"No difference detected in {len(plain)} comparisons"
    words = {"no difference detected": "without a detected difference"}
    counts = ", ".join(f"{n} {words.get(verdict, verdict)}" for verdict, n in sorted(found.items()))
    return f"{len(plain)} comparisons: {counts}"


def _answer(one: Contrast) -> str:
    match one.decision.verdict:
        case "better" | "worse":
            return f"{one.candidate} is {one.decision.verdict} than {one.baseline}"
        case "no difference detected":
            return f"No difference detected between {one.candidate} and {one.baseline}"
        case "inconclusive":
            return f"Inconclusive: {one.candidate} against {one.baseline}"
        case verdict:
            return f"{one.candidate} is {verdict} to {one.baseline}"


def _if_clean(one: Contrast) -> str:
    """The answer without marked rollouts, if it differs."""
    if one.unmarked is None or one.unmarked.decision.verdict == one.decision.verdict:
        return ""
    return f" (integrity-adjusted: {one.unmarked.decision.verdict})"


def grader_words(noise: GraderNoise | None) -> list[str]:
    """The grader's noise, in lines."""
    if noise is None:
        return ["the grader's noise was not measured (aem regrade) and is not in the intervals"]
    rate = f"{100 * noise.rate:.1f} % [{100 * noise.low:.1f}, {100 * noise.high:.1f}]"
    kinds = [(noise.moved_rate, "tasks that moved"), (noise.others_rate, "the others")]
    of_kinds = ", ".join(f"{100 * share:.1f} % of {name}" for share, name in kinds if share is not None)
    failed = f"; {noise.errors} gradings failed and count as neither" if noise.errors else ""
    lines = [
        f"the grader: {noise.flips} of {noise.gradings} gradings of {noise.patches} patches flipped; of all patches "
        f"{rate} would ({of_kinds}){failed}"
    ]
    for one in noise.widened:
        turns = ": the verdict does not stand" if one.turns else ""
        ends = f"[{100 * one.low:+z.1f}, {100 * one.high:+z.1f}]"
        rate = f"at {100 * one.flips:.1f} % flips, the upper end"
        lines.append(f"with the grader's noise ({rate}), {one.candidate} - {one.baseline}: {ends}{turns}")
    if noise.by_task:
        lines.append("verdicts that flip: " + ", ".join(f"{task} ({n})" for task, n in list(noise.by_task.items())[:6]))
    return lines


def like_words(comparison: Comparison) -> list[str]:
    """What the intervals of differences for tasks like these are not to be trusted for, in lines."""
    notes: dict[str, list[str]] = {}
    for one in comparison.contrasts:
        if one.difference.like is not None and one.difference.like.note:
            notes.setdefault(one.difference.like.note, []).append(title_of(one))
    every = len(comparison.contrasts)
    of = {note: "" if len(names) == every else f", {listed(names, most=3)}" for note, names in notes.items()}
    return [f"like these{names}: {note}" for note, names in of.items()]


def reused_words(comparison: Comparison) -> list[str]:
    """How many verdicts are those of an equal patch, and what came of those that were checked; empty without any."""
    lines = (
        reuse_line(arm.reused, arm.confirmed, arm.flipped, of=f"{arm.rollouts} verdicts of {arm.arm}")
        for arm in comparison.arms
    )
    return [line for line in lines if line]


def ends_words(overrides: Mapping[str, str]) -> str:
    """The user's rows on whose fault an exit status is, in a line; else empty."""
    rows = ", ".join(f"{word}: {whose}" for word, whose in overrides.items())
    return f"by --ends, in all arms: {rows}" if rows else ""
