"""The page that is opened every morning: all runs of a laboratory on one page, with no server.

Resolved rates over time with their intervals, the newest comparison, tasks that changed and came back, the gates and
what each day cost. Everything is read from run folders and from the state files of `aem gate --sequence`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

from aem_harness.harness.compare.words import headline
from aem_harness.harness.errors import AemError, DataError, counted
from aem_harness.harness.io import read_json
from aem_harness.harness.report import plots, words
from aem_harness.harness.report.runs import rate_words, resolved_rate, size_words
from aem_harness.harness.run.listing import RunState, find_runs, newest, read_state
from aem_harness.harness.run.store import latest, read_journal
from aem_harness.harness.types import Outcome

MOST_TASKS = 20  # that came back, named on the page


@dataclass(frozen=True)
class Day:
    """What the rollouts of one day (UTC) took."""

    date: str
    rollouts: int
    lost: int
    tokens: int
    hours: float


def build_overview(roots: Sequence[Path]) -> tuple[str, list[str]]:
    """The page for the runs below `roots`, and one line for each run that could not be read. DataError without any."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    states, problems = read_all(roots)
    if not states:
        raise DataError(f"no runs in {', '.join(map(str, roots))}")
    folder = files("aem_harness.harness.report") / "page"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["svg"] = Markup
    template = environment.from_string((folder / "overview.html.j2").read_text())
    page = template.render(
        style=Markup((folder / "page.css").read_text()),
        title=f"{counted(len(states), 'run')}, newest {states[-1].started[:16].replace('T', ' ')} UTC",
        charts=[{"set": name, "svg": _chart(group)} for name, group in by_dataset(states).items()],
        newest=[one for group in by_dataset(states).values() if (one := newest_comparison(group))],
        returned=[one for group in by_dataset(states).values() for one in came_back(group)],
        most=MOST_TASKS,
        gates=gates(roots),
        days=days(states),
        runs=[_row(state) for state in reversed(states)],
        problems=problems,
    )
    return page, problems


def read_all(roots: Sequence[Path]) -> tuple[list[RunState], list[str]]:
    """The runs below `roots`, oldest first, and one line for each that cannot be read."""
    states, problems = [], []
    for folder in find_runs(roots):
        try:
            states.append(read_state(folder, sizes=True))
        except AemError as error:
            problems.append(str(error))
    return sorted(states, key=lambda state: (state.started, str(state.folder))), problems


def by_dataset(states: Sequence[RunState]) -> dict[str, list[RunState]]:
    """Runs of the same dataset together: rates of different tasks share no axis."""
    groups: dict[str, list[RunState]] = {}
    for state in states:
        groups.setdefault(state.dataset, []).append(state)
    return groups


def newest_comparison(states: Sequence[RunState]) -> dict[str, str] | None:
    """The newest finished run against the finished run before it, in words; None where there are not two."""
    from aem_harness.harness.compare.compare import CompareOptions, compare
    from aem_harness.harness.compare.outcomes import load

    finished = [state for state in states if state.status == "finished"]
    if len(finished) < 2:
        return None
    before, after = finished[-2:]
    alike = before.folder.name == after.folder.name
    names = [str(state.folder) if alike else state.folder.name for state in (before, after)]
    sources = [f"{name}={state.folder}" for name, state in zip(names, (before, after), strict=True)]
    try:
        comparison = compare(load(sources), options=CompareOptions(trajectories=False))
    except AemError as error:
        return {
            "headline": f"{after.folder} cannot be compared with {before.folder}",
            "sentence": str(error),
            "tone": "",
        }
    (contrast,) = comparison.contrasts
    return {
        "headline": headline(comparison),
        "sentence": words.sentence(comparison, contrast),
        "tone": words.TONES.get(contrast.decision.verdict, ""),
    }


def came_back(states: Sequence[RunState]) -> Iterator[dict[str, Any]]:
    """Tasks that one finished run resolved, the next did not, and a later one does again, or the other way round.

    A task counts as resolved in a run when more than half of its rollouts with a verdict are.
    """
    history: dict[str, list[bool]] = {}
    for state in (one for one in states if one.status == "finished"):
        for task, resolved in _majorities(state.folder).items():
            history.setdefault(task, []).append(resolved)
    for task, verdicts in sorted(history.items()):
        changes = sum(a != b for a, b in pairwise(verdicts))
        if changes > 1:
            yield {"task": task, "changes": changes, "verdicts": verdicts}


def _majorities(folder: Path) -> dict[str, bool]:
    counts: dict[str, list[int]] = {}
    for (task, _), one in newest(read_journal(folder)).items():
        if one.grade is not None and not one.infrastructure:
            tally = counts.setdefault(task, [0, 0])
            tally[0] += one.grade["outcome"] == Outcome.RESOLVED.value
            tally[1] += 1
    return {task: 2 * solved > scored for task, (solved, scored) in counts.items()}


def gates(roots: Sequence[Path]) -> list[dict[str, Any]]:
    """The gates in the state files (`aem gate --sequence FILE`) that lie in `roots`, newest first."""
    rows: list[dict[str, Any]] = []
    for root in roots:
        for path in sorted(root.glob("*.json")) if root.is_dir() else []:
            try:
                document = read_json(path)
            except AemError:
                continue
            listed = document.get("gates") if isinstance(document, Mapping) else None
            for gate in listed if isinstance(listed, list) else []:
                if isinstance(gate, Mapping) and {"verdict", "candidate", "at"} <= set(gate):
                    rows.append({**gate, "file": path.name, "tone": _tone(str(gate["verdict"]))})
    return sorted(rows, key=lambda gate: str(gate["at"]), reverse=True)


def _tone(verdict: str) -> str:
    return {"PASS": "good", "BLOCK": "bad"}.get(verdict, "")


def days(states: Sequence[RunState]) -> list[Day]:
    """What was spent by day, newest first: rollouts, losses, generated tokens, hours of rollouts."""
    totals: dict[str, list[float]] = {}
    for state in states:
        for one in newest(read_journal(state.folder)).values():
            total = totals.setdefault(latest([one.rollout.get("at")])[:10] or "unknown", [0, 0, 0, 0.0])
            total[0] += 1
            total[1] += one.infrastructure
            total[2] += one.rollout.get("completion_tokens") or 0
            total[3] += (one.rollout.get("seconds") or 0.0) / 3600
    return [
        Day(date, int(n), int(lost), int(tokens), hours)
        for date, (n, lost, tokens, hours) in sorted(totals.items(), reverse=True)
    ]


def _chart(states: Sequence[RunState]) -> str:
    """Resolved rates in the order of time, a line for each arm, with the intervals for a repetition on these tasks."""
    places = {state.folder: place for place, state in enumerate(states)}
    arms = list(dict.fromkeys(state.arm for state in states))
    series = []
    for number, arm in enumerate(arms):
        points = []
        for state in (one for one in states if one.arm == arm):
            rate = resolved_rate(state)
            if rate is not None:
                points.append((float(places[state.folder]), rate.value, rate.these.low, rate.these.high))
        if points:
            series.append(plots.Series(arm, number, tuple(points)))
    if not series:
        return ""
    ticks = [(float(place), state.started[5:10]) for place, state in enumerate(states)]
    return plots.lines(series, title="resolved rate of every run, in order of time", x="day", ticks=ticks, bars=True)


def _row(state: RunState) -> dict[str, str]:
    return {
        "folder": str(state.folder),
        "arm": state.arm,
        "set": state.dataset,
        "tasks": f"{state.tasks} x {state.seeds}",
        "status": state.status if state.status == "finished" else f"{state.status}, {state.done} of {state.rollouts}",
        "resolved": rate_words(state),
        "lost": str(state.outcomes.get(Outcome.ERROR.value, 0)),
        "tokens": f"{state.tokens:,}",
        "hours": f"{state.seconds / 3600:.2f}",
        "started": state.started[:16].replace("T", " "),
        "size": size_words(state.bytes or 0),
        "note": state.note,
    }
