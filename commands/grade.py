"""`aem grade`: predictions of any tool in fresh containers, or stored test output without containers."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aem_harness.commands import options
from aem_harness.commands.ending import conclude
from aem_harness.commands.options import grouped
from aem_harness.commands.run import Retry
from aem_harness.harness.errors import EXIT_INFRASTRUCTURE, ConfigError, counted

if TYPE_CHECKING:
    from rich.console import Console


EXAMPLES = """
Examples:

  aem grade preds.json --set verified -w 4                grade in fresh containers; the same command continues

  aem grade preds.json --set verified --dry-run           only check the file

  aem grade --logs logs/ --out verdicts.csv               grade stored test output again, without containers
"""


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(grouped(grade))


def grade(
    predictions: Annotated[
        Path | None, typer.Argument(help="Predictions in the official format: .json or .jsonl, also gzipped.")
    ] = None,
    logs: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Test output to grade again: <run>/<model>/<instance>/ or <instance>/<submission>/."
        ),
    ] = None,
    dataset: Annotated[
        str,
        typer.Option(
            "--set",
            "--dataset",
            metavar="NAME|FILE",
            help="verified, lite, full, multilingual, sample, tiny, or a .json, .jsonl or .parquet file.",
        ),
    ] = "verified",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FOLDER|FILE",
            help="Run folder (default: results/<model>-<digest>); with --logs the CSV file (default: verdicts.csv).",
        ),
    ] = None,
    ids: options.Ids = None,
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, help="Containers in parallel.")] = 4,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=1, help="Time limit for the tests of an instance.")
    ] = 1800,
    memory: Annotated[str, typer.Option(metavar="SIZE", help="Memory limit of a container, for example 8g.")] = "4g",
    retry: Annotated[Retry | None, typer.Option(help="Also repeat gradings lost to infrastructure.")] = None,
    canary: options.Canary = 0.05,
    no_canary: options.NoCanary = False,
    reuse_from: options.ReuseFrom = None,
    reuse_check: options.ReuseCheck = None,
    *,
    machines: options.Machines,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and check everything, but start no container.")
    ] = False,
    add_markers: Annotated[
        bool, typer.Option("--add-markers", help="With --logs: add the test markers that logs of 2024 lack.")
    ] = False,
) -> None:
    """Score patches with the official grader: in fresh containers, or from stored test output (--logs)."""
    from rich.console import Console

    console = Console(stderr=True)
    if (predictions is None) == (logs is None):
        raise ConfigError("give either a predictions file or --logs FOLDER")
    where = machines.where()
    if logs is not None:
        if not where.here:
            raise ConfigError(f"--logs starts no container: remove {options.named(where)}")
        _grade_logs(logs, out or Path("verdicts.csv"), dataset, console, add_markers=add_markers)
        return
    assert predictions is not None
    from aem_harness.api.grading import grade_all, known, refuse
    from aem_harness.api.running import Tasks, choose

    selection = choose(dataset, console, Tasks(ids=ids or ()))
    chosen = known(predictions, selection, console)
    if dry_run:
        refuse(chosen, selection, dataset=dataset, out=out, timeout=timeout, memory=memory)
        empty = sum(not prediction.model_patch for prediction in chosen)
        tasks = counted(len(selection.tasks), "instance")
        typer.echo(f"{counted(len(chosen), 'prediction')} for {tasks}, {empty} of them empty")
        return
    finished = grade_all(
        chosen,
        selection,
        console,
        dataset=dataset,
        out=out,
        workers=workers,
        timeout=timeout,
        memory=memory,
        retry_infrastructure=retry is Retry.infra,
        canary=None if no_canary else canary,
        reuse=options.reuse(False, reuse_from, reuse_check),
        where=where,
    )
    if missing := len(selection.tasks) - len(chosen):
        console.print(f"{missing} of the {len(selection.tasks)} chosen instances have no prediction")
    raise typer.Exit(conclude(finished, console))


def _grade_logs(root: Path, out: Path, dataset: str, console: "Console", *, add_markers: bool) -> None:
    from rich.progress import track

    from aem_harness.api.running import choose
    from aem_harness.harness.grading.logs import find_logs, regrade, write_csv
    from aem_harness.harness.types import Outcome

    total = len(find_logs(root))
    tasks = {task.instance_id: task for task in choose(dataset, console).tasks}
    graded = regrade(root, tasks, add_markers=add_markers)
    rows = list(track(graded, "grading", total, console=console, disable=not console.is_terminal))
    write_csv(out, rows)
    counts = Counter(row.grade.outcome for row in rows)
    summary = ", ".join(f"{counts[outcome]} {outcome.value}" for outcome in Outcome if counts[outcome])
    typer.echo(f"{total} logs: {summary} -> {out}")
    if differing := sum(bool(row.differs) for row in rows):
        typer.echo(f"{differing} differ from the report stored beside them; the column `differs` says why")
    if counts[Outcome.ERROR] == total:
        raise typer.Exit(EXIT_INFRASTRUCTURE)
