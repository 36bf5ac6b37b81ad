"""`aem audit`: grades resolved rollouts again with canaries, and with held-out variants of their tests."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aem_harness.commands import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aem_harness.harness.types import Task

EXAMPLES = """
Grade every marked rollout again, and one in five of the other resolved ones:

  aem audit results/base-1a2b3c4d5e6f results/candidate-0f1e2d3c4b5a --canary 0.2

Check the commands in trajectories of other tools:

  aem audit --trajectories trajs/ --out audit.json

Every resolved rollout:

  aem audit results/candidate-0f1e2d3c4b5a --canary 1

Make held-out variants of the listed tests; `aem audit RUN...` then runs them on every resolved rollout:

  aem audit --make-variants --set sample
"""


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(audit)


def audit(
    folders: Annotated[list[Path] | None, typer.Argument(metavar="RUN...", help="Run folders.")] = None,
    canary: options.Canary = 0.05,
    dataset: Annotated[
        str | None, typer.Option("--set", metavar="NAME|FILE", help="Task set (default: that of the run).")
    ] = None,
    trajectories: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Instead of runs: check trajectories of other tools (.traj, .traj.json)."),
    ] = None,
    make_variants: Annotated[
        bool,
        typer.Option(
            "--make-variants", help="Instead of runs: make variants of the listed tests of --set, and validate them."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="With --make-variants: another seed changes other literals.")] = 0,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="With --trajectories: where the marks go.")
    ] = Path("audit.json"),
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, help="Containers in parallel.")] = 2,
    engine: options.Engines = None,
    ray: options.RayCluster = None,
) -> None:
    """Grade resolved rollouts again with canaries: planted tests that must fail or pass. Official verdicts stay.

    If an instance has held-out variants (--make-variants), its resolved rollouts are run with them too. A patch that
    passes the listed tests, but fails variants that the gold patch passes, is marked.

    Earlier findings are kept. `aem compare` then shows official, audited and adjusted rates.
    """
    from rich.console import Console

    from aem_harness.api.running import audit as audit_run
    from aem_harness.api.running import audit_variants, choose
    from aem_harness.api.sites import AtATime, opened
    from aem_harness.harness.config import RunConfig
    from aem_harness.harness.errors import ConfigError, DataError
    from aem_harness.harness.io import read_json
    from aem_harness.harness.run.fsck import progress_of
    from aem_harness.harness.run.identity import Identity
    from aem_harness.harness.run.store import locked, read_journal
    from aem_harness.harness.run.submission import Submission

    if [bool(folders), trajectories is not None, make_variants].count(True) != 1:
        raise ConfigError("give run folders, --trajectories FOLDER, or --make-variants")
    if make_variants:
        if dataset is None:
            raise ConfigError("--make-variants needs a task set: add --set")
        _make_variants(choose(dataset, Console(stderr=True)).tasks, seed)
        return
    if trajectories is not None:
        _audit_trajectories(trajectories, out)
        return
    console = Console(stderr=True)
    for folder in folders or ():
        if not (folder / "run.json").is_file():
            raise DataError(f"{folder} is not a run folder: it has no run.json")
        run = read_json(folder / "run.json")
        config = RunConfig(**run["config"])
        chosen = choose(dataset or config.dataset, console)
        planned = {task.instance_id: task for task in chosen.tasks}
        tasks = [planned[name] for name in run["plan"]["instances"] if name in planned]
        if not tasks:
            raise DataError(f"{dataset or config.dataset} has none of the instances of {folder}; name it with --set")
        with locked(folder):
            progress = progress_of(read_journal(folder))
            how, at_a_time = options.where(engine, ray), AtATime(1, workers, "grade_workers")
            identity, by_id = Identity.of(folder, config), {task.instance_id: task for task in tasks}
            with opened(how, identity, by_id, Submission(), at_a_time, console) as site:
                at_once: dict[str, Any] = {"workers": site.grade_workers, "site": site.site}
                audit_variants(folder, tasks, config, progress, console, **at_once)
                audit_run(folder, tasks, config, progress, console, share=canary, **at_once)


def _make_variants(tasks: "Sequence[Task]", seed: int) -> None:
    """One line an instance; what was made before with this seed is kept."""
    from aem_harness.harness.errors import AemError, EnvironmentFault
    from aem_harness.harness.grading import heldout

    having, failed = 0, ""
    for task in tasks:
        found = heldout.stored(task)
        if found is None or found.seed != seed:
            try:
                found = heldout.make(task, seed=seed)
            except AemError as error:
                failed = f"{task.instance_id}: {error.boundary}: {error}"
                typer.echo(failed)
                continue
        having += bool(found.variants)
        why = f" ({found.reason})" if found.reason else ""
        typer.echo(f"{task.instance_id}: {len(found.variants)} variants of {found.tried} candidates{why}")
    typer.echo(f"{having} of {len(tasks)} instances have held-out variants")
    if failed:
        raise EnvironmentFault(f"not every instance could be tried (the last: {failed}): run the same command again")


def _audit_trajectories(folder: Path, out: Path) -> None:
    from collections import Counter

    from aem_harness.harness.errors import DataError
    from aem_harness.harness.interop.conduct import audit_trajectory, find_trajectories
    from aem_harness.harness.io import write_json

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
    write_json(out, entries)
    counts = Counter(mark["name"] for entry in entries for mark in entry["marks"])
    said = ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "no mark"
    typer.echo(f"{len(paths) - len(unread)} trajectories: {said} -> {out}")
    if unread:
        typer.echo(f"{len(unread)} could not be read, the first: {unread[0]}")
