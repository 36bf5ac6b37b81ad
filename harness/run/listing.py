"""Run folders for a reader: which there are, how far each has progressed, and which are being written.

Reads only `run.json` and the journal, so that a listing of many large runs is quick. Writes nothing.
"""

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from aem_harness.harness.errors import DataError, in_one_line
from aem_harness.harness.run.folder import run_json
from aem_harness.harness.run.schedule import Durations, makespan
from aem_harness.harness.run.seeds import seeds_of
from aem_harness.harness.run.store import Key, Progress, latest, moment, read_journal
from aem_harness.harness.types import Outcome, Record

Status = Literal["running", "finished", "unfinished"]
NOTE = "note.txt"
STOPPED = "stopped.json"  # left, with the reason, by what ends a run early because of its results


class Working(Record):
    """A rollout in progress: its number of messages, the age of its last line and its own age, in seconds."""

    instance_id: str
    seed: int
    messages: int
    seconds: float
    idle_seconds: float


class RunState(Record):
    """The state of a run folder.

    `rollouts` are those planned. `outcomes` counts the newest verdict of each ("error": lost to infrastructure),
    `exits` their exit statuses. `solved` has, for each task with a verdict, the rollouts resolved and those with a
    verdict. `left_seconds` is the expected time left, None unless the run is in progress and some rollouts are done.
    Times are ISO 8601, UTC, empty where unknown; `bytes` is the size of the folder, None if not asked for.
    """

    folder: Path
    arm: str
    checkpoint: str
    dataset: str
    digest: str
    tasks: int
    seeds: int
    rollouts: int
    status: Status
    outcomes: Mapping[str, int]
    exits: Mapping[str, int]
    solved: tuple[tuple[int, int], ...]
    started: str
    last: str
    seconds: float
    tokens: int
    note: str
    left_seconds: float | None = None
    bytes: int | None = None
    working: tuple[Working, ...] = ()

    @property
    def done(self) -> int:
        """Rollouts with a verdict, or lost to infrastructure."""
        return sum(self.outcomes.values())

    @property
    def scored(self) -> int:
        """Rollouts with a verdict."""
        return self.done - self.outcomes.get(Outcome.ERROR.value, 0)


def find_runs(roots: Iterable[Path], depth: int = 3) -> list[Path]:
    """The run folders at or below `roots` (a gate keeps its two arms one level down), by name."""
    return [folder for root in roots for folder in _walk(root, depth)]


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    if (folder / "run.json").is_file():
        yield folder
    elif depth and folder.is_dir():
        for child in sorted(folder.iterdir()):
            if child.is_dir() and not child.is_symlink() and not child.name.startswith("."):
                yield from _walk(child, depth - 1)


def read_state(folder: Path, *, sizes: bool = False) -> RunState:
    """The state in run.json and the journal; DataError if the folder is no run. `sizes`: count its bytes too."""
    run = run_json(folder)
    try:
        plan = seeds_of(run["plan"])
        events = list(read_journal(folder)) if (folder / "journal.jsonl").exists() else []
        progress = newest(events)
        started = latest([run["created_at"]])
        return RunState(
            folder=folder,
            arm=run["arm"],
            checkpoint=run["config"].get("checkpoint", ""),
            dataset=run["dataset"]["name"],
            digest=run["config_digest"],
            tasks=len(plan),
            seeds=max(plan.values(), default=0),
            rollouts=sum(plan.values()),
            status=_status(folder, plan, progress),
            outcomes=_outcomes(progress.values()),
            exits=Counter(one.rollout["exit_status"] for one in progress.values()),
            solved=_solved(progress),
            started=started,
            last=latest(event.get("at") for event in events) or started,
            seconds=sum(one.rollout.get("seconds") or 0.0 for one in progress.values()),
            tokens=sum(one.rollout.get("completion_tokens") or 0 for one in progress.values()),
            note=read_note(folder),
            left_seconds=_left(folder, plan, progress),
            bytes=folder_bytes(folder) if sizes else None,
            working=tuple(_working(folder)) if is_written(folder) else (),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else f"has odd values ({in_one_line(error, 150)})"
        raise DataError(f"{folder}: run.json or the journal {what}; it is damaged or of another program") from None


def newest(events: Iterable[Mapping[str, Any]]) -> dict[Key, Progress]:
    """The newest rollout of every instance and seed, and its grade."""
    progress: dict[Key, Progress] = {}
    for event in events:
        key = event["instance_id"], event["seed"]
        if event["event"] == "rollout":
            progress[key] = Progress(rollout=dict(event))
        elif event["event"] == "grade" and key in progress:
            progress[key].grade = dict(event)
    return progress


def is_written(folder: Path) -> bool:
    """Does a living process hold the folder's lock? False if the file system has no locks."""
    try:
        with (folder / ".lock").open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def read_note(folder: Path) -> str:
    """The note attached to the run."""
    path = folder / NOTE
    return path.read_text(errors="replace").strip() if path.is_file() else ""


def folder_bytes(folder: Path) -> int:
    """The size of the files below a folder, on disk."""
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            try:
                total += (Path(place) / name).lstat().st_blocks * 512
            except FileNotFoundError:  # the run may be in progress
                continue
    return total


def pace(state: RunState, now: datetime) -> tuple[float, float] | None:
    """Rollouts per hour since the run started, and the seconds that the rest will take at that pace.

    None before the first verdict, and where its start is not known. A run that was paused looks slower than it is.
    """
    started = moment(state.started)
    elapsed = (now - started).total_seconds() if started else 0.0
    if not state.done or elapsed <= 0:
        return None
    return 3600 * state.done / elapsed, (state.rollouts - state.done) * elapsed / state.done


def _left(folder: Path, plan: Mapping[str, int], progress: Mapping[Key, Progress]) -> float | None:
    """Seconds until the rollouts of a run in progress are done, with as many at a time as now; None if nobody knows.

    Each takes as long as those of its instance did so far, or as all did, the longest first.
    """
    durations = Durations(one.rollout for one in progress.values())
    under_way = {(one.instance_id, one.seed): one.seconds for one in _working(folder)} if is_written(folder) else {}
    if not under_way or not any(durations.known(name) for name in plan):
        return None
    left = [
        durations.of(name)
        for name, seeds in plan.items()
        for seed in range(seeds)
        if (name, seed) not in progress and (name, seed) not in under_way
    ]
    busy = [max(durations.of(name) - seconds, 0.0) for (name, _), seconds in under_way.items()]
    return round(makespan(sorted(left, reverse=True), len(busy), busy=busy), 1)


def _status(folder: Path, plan: Mapping[str, int], progress: Mapping[Key, Progress]) -> Status:
    if is_written(folder):
        return "running"
    ended = sum(1 for one in progress.values() if one.grade is not None or one.rollout["fault"] is not None)
    return "finished" if ended >= sum(plan.values()) else "unfinished"


def _outcomes(progress: Iterable[Progress]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for one in progress:
        if one.infrastructure:
            counts[Outcome.ERROR.value] += 1
        elif one.grade is not None:
            counts[one.grade["outcome"]] += 1
    return counts


def _solved(progress: Mapping[Key, Progress]) -> tuple[tuple[int, int], ...]:
    tasks: dict[str, list[int]] = {}
    for (instance_id, _), one in progress.items():
        if one.grade is not None and not one.infrastructure:
            counts = tasks.setdefault(instance_id, [0, 0])
            counts[0] += one.grade["outcome"] == Outcome.RESOLVED.value
            counts[1] += 1
    return tuple((solved, scored) for solved, scored in tasks.values())


def _working(folder: Path) -> Iterator[Working]:
    """The scratch folders of rollouts in progress, `.<seed>.<random>`, oldest first."""
    now = datetime.now().timestamp()
    scratch = [path for path in folder.glob("rollouts/*/.*.*") if path.name.split(".")[1].isdigit()]
    for path in sorted(scratch, key=_born):
        growing = path / "trajectory.jsonl"
        try:
            lines = growing.read_bytes().count(b"\n")
            idle = now - growing.stat().st_mtime
        except OSError:  # just begun, or just finished
            continue
        born = now - _born(path)
        yield Working(
            instance_id=path.parent.name,
            seed=int(path.name.split(".")[1]),
            messages=lines,
            seconds=round(max(born, idle), 1),
            idle_seconds=round(max(idle, 0.0), 1),
        )


def _born(scratch: Path) -> float:
    """When a rollout started: the time of its first message, else of its folder."""
    try:
        with (scratch / "trajectory.jsonl").open() as handle:
            return float(json.loads(handle.readline())["extra"]["timestamp"])
    except (OSError, ValueError, KeyError):
        return scratch.stat().st_mtime if scratch.exists() else 0.0


def as_rows(states: Sequence[RunState]) -> list[dict[str, Any]]:
    """The states as JSON values."""
    return [state.model_dump(mode="json") | {"done": state.done, "scored": state.scored} for state in states]
