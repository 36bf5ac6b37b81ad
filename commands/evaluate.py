"""From settings to a finished run: what `aem run` and `aem gate` share."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from aem_harness.harness.errors import EXIT_INFRASTRUCTURE
from aem_harness.harness.io import read_json

if TYPE_CHECKING:
    from rich.console import Console

    from aem_harness.harness.config import RunConfig
    from aem_harness.harness.instances.load import Loaded
    from aem_harness.harness.run.store import Key, Progress, RunStore
    from aem_harness.harness.types import Agent, Task


@dataclass
class Selection:
    """The tasks to run and the dataset they come from."""

    tasks: "list[Task]"
    loaded: "Loaded"


def choose(
    dataset: str,
    console: "Console",
    *,
    ids: list[str] | None = None,
    repos: list[str] | None = None,
    difficulties: list[str] | None = None,
    slice: str | None = None,
    sample: int | None = None,
    sample_seed: int = 0,
) -> Selection:
    """Load a dataset, say which of its rows are bad, and select."""
    from aem_harness.harness.instances.load import load
    from aem_harness.harness.instances.select import select

    loaded = load(dataset)
    for problem in loaded.problems:
        console.print(f"[yellow]warning:[/] {problem}; the row is left out", highlight=False, soft_wrap=True)
    tasks = select(
        loaded.tasks,
        ids=ids or (),
        repos=repos or (),
        difficulties=difficulties or (),
        slice=slice or "",
        sample=sample,
        sample_seed=sample_seed,
    )
    return Selection(tasks, loaded)


def allocated(selection: Selection, path: Path, folder: Path) -> "tuple[Selection, dict[str, int]]":
    """The selected instances that an allocation names, and the seeds of each, for a run in `folder`."""
    from aem_harness.harness.errors import ConfigError
    from aem_harness.harness.io import read_json
    from aem_harness.harness.run.seeds import read_allocation, refuse_later_allocation

    seeds = read_allocation(path)
    unknown = sorted(set(seeds) - {task.instance_id for task in selection.loaded.tasks})
    if unknown:
        raise ConfigError(
            f"{path} names {len(unknown)} instances that {selection.loaded.name} lacks: {unknown[0]}, ..."
        )
    tasks = [task for task in selection.tasks if task.instance_id in seeds]
    if not tasks:
        raise ConfigError(f"none of the {len(selection.tasks)} selected instances is in {path}")
    seeds = {task.instance_id: seeds[task.instance_id] for task in tasks}
    if (folder / "run.json").is_file():
        refuse_later_allocation(seeds, read_json(folder / "run.json")["plan"], folder)
    return Selection(tasks, selection.loaded), seeds


def open_run(
    folder: Path,
    config: "RunConfig",
    selection: Selection,
    agent: "Agent",
    seeds: "int | Mapping[str, int]",
    fingerprint: "Mapping[str, Any] | None" = None,
) -> "RunStore":
    """Create the run folder, or enter it again under the same configuration and the same server.

    `seeds` are the rollouts of every instance, or how many each gets.
    """
    from aem_harness import __version__
    from aem_harness.harness.grading.official import grader_version
    from aem_harness.harness.run.seeds import plan_of
    from aem_harness.harness.run.store import RunStore

    names = [task.instance_id for task in selection.tasks]
    loaded = selection.loaded
    facts = {
        "plan": plan_of(dict.fromkeys(names, seeds) if isinstance(seeds, int) else seeds),
        "agent": dict(agent.describe()),
        "dataset": {"name": loaded.name, "digest": loaded.digest, "n": len(loaded.tasks)},
        "versions": {"aem": __version__, "swebench": grader_version().removeprefix("swebench ")},
        "fingerprint": dict(fingerprint or {}),
        "tasks": {task.instance_id: _described(task) for task in selection.tasks},
    }
    return RunStore(folder, config, facts)


def _described(task: "Task") -> dict[str, str]:
    """What comparisons group tasks by."""
    return task.instance.model_dump(include={"repo", "difficulty", "created_at"})


def perform(
    store: "RunStore",
    selection: Selection,
    agent: "Agent",
    keys: "Sequence[Key]",
    console: "Console",
    *,
    workers: int,
    grade_workers: int,
    retry_infrastructure: bool = False,
    release: "Callable[[], None]" = lambda: None,
    canary: float | None = None,
) -> None:
    """Do what is owed among `keys` under a live view, then write the official predictions and reports.

    `release` wakes whoever waits for the policy when the run ends early. `canary`: the share of the resolved rollouts
    without marks that are then graded again with canaries, beside all marked ones; None: no canaries.
    """
    from aem_harness.harness.report.live import RunView
    from aem_harness.harness.run.counts import outcomes
    from aem_harness.harness.run.reports import write_reports
    from aem_harness.harness.run.runner import Runner
    from aem_harness.harness.sandbox.reaping import reap

    reaped = reap()
    if reaped:
        console.print(f"[dim]removed {reaped} container(s) left behind by a killed run[/]")
    for (instance_id, seed), wrong in store.damaged.items():
        console.print(f"[yellow]warning:[/] {instance_id} seed {seed}: {wrong}", highlight=False, soft_wrap=True)
    owed = store.owed(list(keys), retry_infrastructure=retry_infrastructure)
    undone = {(i, s) for i, s, _ in owed.rollouts} | set(owed.grades)
    known = outcomes(store, [key for key in keys if key not in undone])
    tasks = {task.instance_id: task for task in selection.tasks}
    with RunView(console, store.config.arm, len(keys), known) as view:
        runner = Runner(
            store,
            tasks,
            agent,
            workers=workers,
            grade_workers=grade_workers,
            on_event=view,
            release=release,
        )
        try:
            runner.run(keys, retry_infrastructure=retry_infrastructure)
        finally:
            write_reports(store.folder, selection.tasks, store.progress)
    if canary is not None:
        audit(store.folder, selection.tasks, store.config, store.progress, console, share=canary, workers=grade_workers)


def audit(
    folder: Path,
    tasks: "Sequence[Task]",
    config: "RunConfig",
    progress: "Mapping[Key, Progress]",
    console: "Console",
    *,
    share: float,
    workers: int,
) -> None:
    """Grade resolved rollouts again with canaries, and say in one line what they found."""
    from aem_harness.harness.run.auditing import line
    from aem_harness.harness.run.reports import audit_run

    found = audit_run(
        folder,
        tasks,
        progress,
        share=share,
        workers=workers,
        timeout=config.grade_timeout,
        limits=config.limits,
        tell=lambda key, seen: console.print(f"[dim]canaries: {key[0]} seed {key[1]}: {seen.state} {seen.reason}[/]"),
    )
    if found:
        console.print(line(found), highlight=False, soft_wrap=True)


def conclude(folder: Path, counts: "Counter[str]", console: "Console", *, n: int, seeds: int) -> None:
    """Print how a run ended; exit with the code for infrastructure when some of it was lost to that."""
    from rich.console import Console as RichConsole

    from aem_harness.harness.report.tables import run_summary

    RichConsole().print(run_summary(folder, counts, n=n, seeds=seeds))
    if suspect := _suspect(folder):
        console.print(f"resolved, but with a grave integrity mark (audit.json says why): {', '.join(suspect)}")
    if counts["error"]:
        console.print(f"{counts['error']} of them were lost to infrastructure; repeat these with --retry infra")
        raise typer.Exit(EXIT_INFRASTRUCTURE)


def _suspect(folder: Path) -> list[str]:
    marked = read_json(folder / "audit.json")
    suspect = [
        entry["instance_id"]
        for entry in marked
        if entry["outcome"] == "resolved" and any(mark["grave"] for mark in entry["marks"])
    ]
    return list(dict.fromkeys(suspect))
