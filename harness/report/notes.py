"""The note under a table: n, K, what was lost, which interval and test answers what, and the versions behind it."""

import re
from collections.abc import Iterator, Sequence

from aem_harness.harness.compare.records import QUESTIONS, Comparison, Estimate, Question
from aem_harness.harness.compare.words import about_times, ends_words, like_words, percent, reused_words, seeds_of
from aem_harness.harness.report.columns import WAYS, Cell, Column, interval_of, same_tasks, slug
from aem_harness.harness.report.reference import Reference

STAMPED = ("grader", "scaffold", "dataset")
STATUS = {"running": "still running", "stopped": "stopped on its results: biased"}
DIGEST = re.compile(r" [0-9a-f]{12,}$")
UPPER_BOUND = (
    "† interval from an upper bound of the run noise: with one rollout per task, too few rollouts, or rollouts all "
    "alike, it cannot be estimated better."
)


def caption_of(comparison: Comparison) -> str:
    named = {DIGEST.sub("", arm.versions.get("dataset") or "unknown") for arm in comparison.arms}
    datasets = "; ".join(sorted(named))
    return "Resolved tasks" + (f" of {datasets}" if datasets != "unknown" else "")


def _stamp(comparison: Comparison, name: str) -> str:
    return "; ".join(sorted({arm.versions.get(name) or "unknown" for arm in comparison.arms}))


def notes_of(
    comparison: Comparison,
    columns: Sequence[Column],
    rows: Sequence[tuple[str, Sequence[Cell]]],
    references: Sequence[Reference],
    digest: str,
) -> Iterator[str]:
    cells = [cell for _, row in rows for cell in row]
    rates = [arm.resolved for arm in comparison.arms]
    ns, seeds = sorted({rate.tasks for rate in rates}), sorted({seeds_of(rate) for rate in rates})
    yield f"n = {', '.join(map(str, ns))} tasks, K = {', '.join(seeds)} rollouts of each task; {_lost(comparison)}."
    yield from (f"{line}." for line in reused_words(comparison))
    yield from _fewer_tasks(comparison, {column.name for column in columns})
    yield _training_runs(comparison)
    yield from _about_intervals(comparison, columns)
    if any(cell.mark for cell in cells):
        yield _about_marks(comparison, columns)
    yield from _about_margin(comparison)
    shown = {column.name.removesuffix(":diff") for column in columns}
    if times := about_times(comparison, (row for row in comparison.metrics if slug(row.name) in shown)):
        yield times
    if any("¶" in cell.sign for cell in cells):
        yield _about_tasks(comparison)
    if any("§" in cell.sign for cell in cells):
        yield "§ the interval of this row alone excludes zero; after Holm over all rows zero is not rejected."
    if any("†" in cell.sign for cell in cells):
        yield UPPER_BOUND
    yield "; ".join(f"{name}: {_stamp(comparison, name)}" for name in STAMPED) + "."
    if comparison.ends:
        yield f"Whose fault an exit status is, {ends_words(comparison.ends)}."
    if comparison.registration:
        yield f"{comparison.registration}."
    yield from (f"‡ {one.note.strip()}" for one in references)
    if digest:
        yield made_by(comparison.versions.get("aem", ""), digest)


def made_by(version: str, digest: str) -> str:
    return f"aem {version}, table {digest}: `aem table --again {digest}` reproduces it."


def _fewer_tasks(comparison: Comparison, names: set[str]) -> Iterator[str]:
    """Which pass@k are over fewer tasks than the rates, because some tasks have fewer than k rollouts."""
    tasks = {arm.arm: arm.resolved.tasks for arm in comparison.arms}
    points = [(f"{one.kind[:-1]}{one.k}", one.arm, one.estimate.tasks) for one in comparison.passes]
    points += [
        (f"{one.kind[:-1]}{one.k}:diff", one.candidate, one.estimate.tasks) for one in comparison.pass_differences
    ]
    fewer = [f"{name} of {arm} over {n}" for name, arm, n in points if name in names and n < tasks[arm]]
    if fewer:
        yield f"Over the tasks that have k rollouts (differences: in both arms) only: {', '.join(fewer)} tasks."


def _training_runs(comparison: Comparison) -> str:
    """Of how many training runs each arm is, as far as the models that its rollouts name tell."""
    counts = {arm.arm: arm.checkpoints for arm in comparison.arms}
    if not all(counts.values()):
        return "It is not known of how many training runs an arm is: its rollouts name no model."
    if set(counts.values()) == {1}:
        return "One checkpoint, that is one training run, an arm: nothing is said of other runs of a method."
    several = ", ".join(f"{n} of {arm}" for arm, n in counts.items())
    return f"Checkpoints pooled as if they were seeds, {several}: nothing is said of other training runs of a method."


def _about_margin(comparison: Comparison) -> Iterator[str]:
    """What was decided about a margin, for these tasks; nothing where none was asked about."""
    decided = {
        f"{one.candidate} \N{MINUS SIGN} {one.baseline}": [
            each for each in one.decisions if each.margin and each.question == "these tasks"
        ]
        for one in comparison.contrasts
        if not one.label
    }
    margins = {each.margin for found in decided.values() for each in found}
    if margins:
        (margin,) = margins
        level = f"one-sided at {100 * (1 - comparison.level) / 2:g} %, Holm over the table"
        said = (f"{pair} {', '.join(each.verdict for each in found)}" for pair, found in decided.items())
        yield f"By a margin of {100 * margin:g} points, for these tasks ({level}): {'; '.join(said)}."


def _about_tasks(comparison: Comparison) -> str:
    """Differences that are over other tasks than the rates beside them, with the rates on their own tasks."""
    found = [
        f"{one.candidate} \N{MINUS SIGN} {one.baseline} over the {one.difference.tasks} tasks of both, of which they "
        f"resolve {percent(one.rates[1])} and {percent(one.rates[0])} %"
        for one in comparison.contrasts
        if one.rates and not same_tasks(comparison, one)
    ]
    return f"¶ THE ARMS HAVE DIFFERENT TASKS: {'; '.join(found)}."


def _lost(comparison: Comparison) -> str:
    lost = {arm.arm: arm.missing for arm in comparison.arms if arm.missing}
    if not lost and all(same_tasks(comparison, one) for one in comparison.contrasts):
        return "none lost"
    if not lost:
        return "no rollout lost, but THE ARMS HAVE DIFFERENT TASKS"
    how = {arm.arm: f" ({STATUS[arm.status]})" for arm in comparison.arms if arm.status in STATUS}
    return "without a verdict and left out: " + ", ".join(f"{n} of {arm}{how.get(arm, '')}" for arm, n in lost.items())


def _about_intervals(comparison: Comparison, columns: Sequence[Column]) -> Iterator[str]:
    level = f"{100 * comparison.level:g} % intervals"
    asked = {column.interval for column in columns}
    if "these tasks" in asked:
        methods = _methods(comparison, "these tasks")
        yield f"{level} in brackets, for these tasks (would a rerun agree? run noise only): {methods}."
    if "tasks like these" in asked:
        methods = _methods(comparison, "tasks like these")
        yield f"{level} for tasks like these (would new tasks agree? run and task noise): {methods}."
        yield from (f"{line[:1].upper()}{line[1:]}." for line in like_words(comparison))


def _methods(comparison: Comparison, question: Question) -> str:
    def of(estimates: Sequence[Estimate]) -> str:
        found = dict.fromkeys(interval.method for one in estimates if (interval := interval_of(one, question)))
        return " or ".join(found) or "none"

    rates = of([arm.resolved for arm in comparison.arms])
    return f"rates by {rates}; differences by {of([one.difference for one in comparison.contrasts])}"


def _about_marks(comparison: Comparison, columns: Sequence[Column]) -> str:
    names = {column.name for column in columns}
    asked = [
        q for q, own in zip(QUESTIONS, ({"difference", "p"}, {"difference-like", "p-like"}), strict=True) if names & own
    ]
    tests = {t.name for c in comparison.contrasts for t in c.tests if t.question in asked}
    about = [f"of resolved tasks by {', '.join(sorted(tests))}"] if tests else []
    if any(name.endswith(":diff") for name in names):
        about.append("of metrics by their interval")
    if any(name.startswith(tuple(WAYS)) for name in names):
        about.append(f"of a part of the tasks, to {comparison.baseline}, by stratified permutation")
    return f"* p < 0.05, ** p < 0.01, *** p < 0.001, Holm-adjusted within their kind: differences {'; '.join(about)}."
