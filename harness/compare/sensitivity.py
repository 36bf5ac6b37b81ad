"""What a difference would be with other tasks: without those that cannot be graded here, or have wrong labels."""

from pathlib import Path

from aem_harness.harness.compare.contrast import contrast
from aem_harness.harness.compare.outcomes import Outcomes, load
from aem_harness.harness.compare.records import Contrast
from aem_harness.harness.compare.words import bracket, percent, points
from aem_harness.harness.errors import DataError
from aem_harness.harness.io import read_json


def task_list(source: str) -> tuple[str, ...]:
    """Task ids of a file: one per line, a JSON list (of ids or of rows with `instance_id`), or a JSON object's keys.

    For a run folder of the gold agent: the tasks whose gold patch it did not resolve here.
    """
    path = Path(source)
    if (path / "run.json").is_file():
        return unresolved_by_gold(path)
    if not path.is_file():
        raise DataError(f"no such list of tasks, and no run folder: {source}")
    if path.suffix != ".json":
        lines = (line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines())
        return tuple(dict.fromkeys(line for line in lines if line))
    found = read_json(path)
    if isinstance(found, dict) and isinstance(found.get("changes"), list):
        found = found["changes"]  # a published list of changed labels
    names = [one["instance_id"] if isinstance(one, dict) and "instance_id" in one else one for one in found]
    return tuple(dict.fromkeys(map(str, names)))


def unresolved_by_gold(folder: Path) -> tuple[str, ...]:
    """Tasks whose gold patch got a verdict here, and never "resolved"; those without a verdict are not among them."""
    table = load([folder]).table
    scored = table[table["resolved"].notna()]
    best = scored.groupby("instance_id")["resolved"].max()
    return tuple(sorted(best.index[~best.astype(bool)]))


def without(outcomes: Outcomes, tasks: tuple[str, ...]) -> Outcomes:
    """The outcomes of all arms without these tasks."""
    table = outcomes.table[~outcomes.table["instance_id"].isin(tasks)]
    if table.empty:
        raise DataError("no task is left: the arms have none but those that are to be left out")
    return Outcomes(table.reset_index(drop=True), outcomes.facts, outcomes.notes)


def other_tasks(outcomes: Outcomes, contrasts: tuple[Contrast, ...], name: str, level: float) -> tuple[str, ...]:
    """One line per contrast: its difference over the tasks of `outcomes` instead."""
    lines = []
    for one in contrasts:
        if one.label:
            continue
        a, b = (outcomes.table[outcomes.table["arm"] == arm] for arm in (one.baseline, one.candidate))
        other = contrast(one.baseline, a, one.candidate, b, level=level)
        before, after = other.rates or (0.0, 0.0)
        ends = bracket(other.difference.these, signed=True)
        turns = "" if other.decision.verdict == one.decision.verdict else f", not {one.decision.verdict}"
        lines.append(
            f"{name}, {one.candidate} - {one.baseline}: {points(other.difference.value)} points {ends} on "
            f"{other.difference.tasks} tasks, {percent(before)} → {percent(after)} %: {other.decision.verdict}{turns}"
        )
    return tuple(lines)
