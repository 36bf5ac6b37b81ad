"""`aem fsck`: does a run on disk match its journal, and what is still to do? Rebuilds a damaged journal.

Nothing is thrown away: a damaged journal is kept beside the new one, and damaged rollouts stay until the continued run
does them again.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aem_harness.harness.io import make_durable, read_json, write_text
from aem_harness.harness.run.folder import require_run
from aem_harness.harness.run.seeds import seeds_of
from aem_harness.harness.run.store import GRADE_EVENT, ROLLOUT_EVENT, Event, Key, Progress, damage_of, event_in, locked

JOURNAL = "journal.jsonl"


@dataclass
class FsckResult:
    """What `check` found. `to_do` counts, per kind of work, what a continued run would do."""

    finished: int = 0
    graded: int = 0
    bad_lines: list[int] = field(default_factory=list)
    recovered: int = 0  # events in the folders that the journal lacks
    damaged: dict[Key, str] = field(default_factory=dict)
    to_do: Counter[str] = field(default_factory=Counter)
    rebuilt: Path | None = None  # where the damaged journal was kept

    @property
    def sound(self) -> bool:
        return not (self.bad_lines or self.recovered or self.damaged)


def check(run: Path, *, repair: bool = True) -> FsckResult:
    """Verify every hash of a run, and (with `repair`) rebuild its journal where lines are damaged or missing.

    Raises DataError when `run` is no run folder, ConfigError when another process is writing it.
    """
    require_run(run)
    with locked(run):
        finding = FsckResult()
        events = _lines(run / JOURNAL, finding)
        events += _unjournaled(run, events)
        finding.recovered = len(events) - sum(1 for event in events if not event.pop("_recovered", False))
        if repair and (finding.bad_lines or finding.recovered or not (run / JOURNAL).exists()):
            finding.rebuilt = _rewrite(run, events)
        _judge(run, progress_of(events), finding)
    return finding


def _lines(journal: Path, finding: FsckResult) -> list[Event]:
    """The valid events of a journal, in order; the numbers of invalid lines go into `finding`."""
    events: list[Event] = []
    known: set[Key] = set()
    raw = journal.read_bytes() if journal.exists() else b""
    for number, line in enumerate(raw.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            event = json.loads(line)
            key = event["instance_id"], event["seed"]
            sound = event["event"] == "rollout" or (event["event"] == "grade" and key in known)
        except (ValueError, TypeError, KeyError):
            sound = False
        if not sound:
            finding.bad_lines.append(number)
            continue
        known.add(key)
        events.append(event)
    return events


def _unjournaled(run: Path, events: list[Event]) -> list[Event]:
    """The events in the rollout folders that the journal lacks, marked as such."""
    progress = progress_of(events)
    more: list[Event] = []
    for folder in sorted(run.glob("rollouts/*/*")):
        if not folder.name.isdigit():
            continue
        key = folder.parent.name, int(folder.name)
        rollout, grade = event_in(folder, ROLLOUT_EVENT, key), event_in(folder, GRADE_EVENT, key)
        known = progress.get(key)
        if rollout and (known is None or known.rollout["attempt"] < rollout["attempt"]):
            more.append({**rollout, "_recovered": True})
            known = Progress(rollout)
        if grade and known and known.grade != grade and grade.get("attempt") == known.rollout["attempt"]:
            more.append({**grade, "_recovered": True})
    return more


def progress_of(events: Iterable[Event]) -> dict[Key, Progress]:
    """The newest rollout of each instance and seed, with its grade."""
    progress: dict[Key, Progress] = {}
    for event in events:
        key = event["instance_id"], event["seed"]
        if event["event"] == "rollout":
            progress[key] = Progress(event)
        else:
            progress[key].grade = event
    return progress


def _judge(run: Path, progress: Mapping[Key, Progress], finding: FsckResult) -> None:
    plan: Mapping[str, Any] = read_json(run / "run.json").get("plan") or {"instances": [], "seeds": 0}
    planned = [(instance, seed) for instance, seeds in seeds_of(plan).items() for seed in range(seeds)]
    finding.to_do["rollouts not run yet"] = sum(key not in progress for key in planned)
    for key, state in progress.items():
        wrong = damage_of(run / "rollouts" / key[0] / str(key[1]), state)
        if wrong:
            finding.damaged[key] = wrong
        elif state.infrastructure:
            finding.to_do["lost to infrastructure (with --retry infra)"] += 1
        elif state.grade is None:
            finding.to_do["gradings"] += 1
        finding.finished += not wrong and state.rollout["fault"] is None
        finding.graded += not wrong and state.grade is not None
    finding.to_do["damaged"] = len(finding.damaged)
    finding.to_do = +finding.to_do


def _rewrite(run: Path, events: list[Event]) -> Path | None:
    """The journal made of `events`; the old one is kept under the returned name, if there was one."""
    journal, kept = run / JOURNAL, None
    if journal.exists():
        names = (run / f"{JOURNAL}.damaged{number or ''}" for number in range(10**6))
        kept = next(name for name in names if not name.exists())
        journal.rename(kept)
    write_text(journal, "".join(json.dumps(event) + "\n" for event in events))
    make_durable(run)
    return kept or journal
