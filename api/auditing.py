"""Auditing runs: resolved rollouts graded again with canaries, and with held-out variants of their tests."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from aem_harness.api.sites import Where
    from aem_harness.harness.grading.heldout import HeldOut
    from aem_harness.harness.run.flow import Supply
    from aem_harness.harness.types import Task


def audit_folder(
    folder: Path, dataset: str | None, console: "Console", *, share: float, workers: int, where: "Where"
) -> int:
    """Audit a stored run with canaries and, where there are any, held-out variants. `dataset` None: that of the run.

    Returns how many regrades were lost to infrastructure; the next audit repeats them. Raises DataError if `folder` is
    no run, or the dataset has none of its instances.
    """
    from aem_harness.api.running import audit, audit_variants, choose
    from aem_harness.api.sites import AtATime, Driver, opened
    from aem_harness.harness.config import RunConfig
    from aem_harness.harness.errors import DataError
    from aem_harness.harness.run.folder import run_json
    from aem_harness.harness.run.fsck import progress_of
    from aem_harness.harness.run.identity import Identity
    from aem_harness.harness.run.store import locked, read_journal
    from aem_harness.harness.run.submission import Submission
    from aem_harness.harness.sandbox.reaping import say_reaped

    run = run_json(folder)
    config = RunConfig(**run["config"])
    name = dataset or config.dataset
    chosen = {task.instance_id: task for task in choose(name, console).tasks}
    tasks = {task: chosen[task] for task in run["plan"]["instances"] if task in chosen}
    if not tasks:
        raise DataError(f"{name} has none of the instances of {folder}; name it with --set")
    with locked(folder):
        progress = progress_of(read_journal(folder))
        identity, at_a_time = Identity.of(folder, config), AtATime(1, workers, "grade_workers")
        with opened(where, identity, tasks, Driver(Submission()), at_a_time, console) as site:
            say_reaped(site.site.reap(), console)
            how: dict[str, Any] = {"workers": site.grade_workers, "site": site.site}
            lost = audit_variants(folder, [*tasks.values()], config, progress, console, **how)
            return lost + audit(folder, [*tasks.values()], config, progress, console, share=share, **how)


def make_variants(
    tasks: "Sequence[Task]", seed: int, supply: "Supply | None" = None
) -> "Iterator[tuple[Task, HeldOut | str]]":
    """Make and validate the held-out variants of each task, or give the reason why that failed.

    Variants that exist for this seed are kept. `supply` says how images get here; None: as the environment says.
    """
    from aem_harness.harness.config import RunConfig
    from aem_harness.harness.errors import AemError
    from aem_harness.harness.grading import heldout
    from aem_harness.harness.io import cache_folder
    from aem_harness.harness.run.identity import Identity
    from aem_harness.harness.run.sites import Here, containers, supplied
    from aem_harness.harness.run.submission import Submission

    identity = Identity(RunConfig(arm="variants", agent=Submission.name), {}, "")
    places = containers(identity, supply)
    site = Here({}, Submission(), places, identity)
    with supplied(site, cache_folder("variants"), identity.config.outage_seconds):
        for task in tasks:
            found = heldout.stored(task)
            if found is None or found.seed != seed:
                try:
                    with places.image(task):
                        found = heldout.make(task, seed=seed)
                except AemError as error:
                    yield task, f"{error.boundary}: {error}"
                    continue
            yield task, found


@dataclass(frozen=True)
class TrajectoryAudit:
    """The marks in a folder of trajectories: `entries` as in audit.json, and the errors of `unread` files."""

    read: int
    entries: Sequence[Mapping[str, Any]]
    unread: Sequence[str]

    @property
    def counts(self) -> "Counter[str]":
        """How often each mark occurs."""
        return Counter(mark["name"] for entry in self.entries for mark in entry["marks"])


def audit_trajectories(folder: Path) -> TrajectoryAudit:
    """Check the commands in trajectories of any tool. Raises DataError if `folder` has none."""
    from aem_harness.harness.errors import DataError
    from aem_harness.harness.interop.conduct import audit_trajectory, find_trajectories

    paths = find_trajectories(folder)
    if not paths:
        raise DataError(f"{folder} holds no trajectories (.traj or .traj.json)")
    entries: list[dict[str, Any]] = []
    unread: list[str] = []
    for path in paths:
        try:
            marks = audit_trajectory(path)
        except DataError as error:
            unread.append(str(error))
            continue
        if marks:
            name = str(path.relative_to(folder))
            entries.append({"trajectory": name, "marks": [mark.model_dump() for mark in marks]})
    return TrajectoryAudit(len(paths) - len(unread), entries, unread)
