"""`aem audit`: the resolved rollouts of runs graded again with canaries."""

from pathlib import Path
from typing import Annotated

import typer

from aem_harness.commands import options

EXAMPLES = """
Grade again what bears a mark, and one in five of the other resolved rollouts:

  aem audit results/base-1a2b3c4d5e6f results/candidate-0f1e2d3c4b5a --canary 0.2

Every resolved rollout:

  aem audit results/candidate-0f1e2d3c4b5a --canary 1
"""


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(audit)


def audit(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")],
    canary: options.Canary = 0.05,
    dataset: Annotated[str | None, typer.Option("--set", help="Task set (default: that of the run).")] = None,
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, help="Containers at a time.")] = 2,
) -> None:
    """Grade resolved rollouts again with canaries: planted tests that must fail or pass. Official verdicts stay.

    What was found before is kept; `aem compare` then shows official, audited and adjusted rates.
    """
    from rich.console import Console

    from aem_harness.commands.evaluate import audit as audit_run
    from aem_harness.commands.evaluate import choose
    from aem_harness.harness.config import RunConfig
    from aem_harness.harness.errors import DataError
    from aem_harness.harness.io import read_json
    from aem_harness.harness.run.fsck import progress_of
    from aem_harness.harness.run.store import locked, read_journal

    console = Console(stderr=True)
    for folder in folders:
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
            audit_run(folder, tasks, config, progress, console, share=canary, workers=workers)
