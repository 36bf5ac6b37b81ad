"""`aem grade`: predictions of any tool in fresh containers, or stored test output without containers."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aem_harness.commands import options
from aem_harness.commands.ending import conclude
from aem_harness.commands.options import Retry, grouped
from aem_harness.harness.errors import EXIT_INFRASTRUCTURE, ConfigError, counted

if TYPE_CHECKING:
    from rich.console import Console


EXAMPLES = """
Grade in fresh containers (repeat it to continue), or only check the file:

  aem grade preds.json --set verified -w 4

  aem grade preds.json --set verified --dry-run

Grade stored test output again, without containers:

  aem grade --logs logs/ --out verdicts.csv
"""


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(grouped(grade))


@dataclass
class Asked:
    """What is graded, and where the verdicts go."""

    logs: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Test output to grade again: <run>/<model>/<instance>/ or <instance>/<submission>/."
        ),
    ] = None
    dataset: Annotated[
        str,
        typer.Option(
            "--set",
            "--dataset",
            metavar="NAME|FILE",
            help=f"{options.SETS}.",
        ),
    ] = "verified"
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FOLDER|FILE",
            help="Run folder (default: results/<model>-<digest>); with --logs the CSV file (default: verdicts.csv).",
        ),
    ] = None
    ids: options.Ids = None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check everything, but start no container.")] = (
        False
    )
    add_markers: Annotated[
        bool, typer.Option("--add-markers", help="With --logs: add the test markers that logs of 2024 lack.")
    ] = False


def grade(
    context: typer.Context,
    predictions: Annotated[
        Path | None, typer.Argument(help="Predictions in the official format: .json or .jsonl, also gzipped.")
    ] = None,
    *,
    asked: Asked,
    grading: options.Grading,
    rechecking: options.Rechecking,
    machines: options.Machines,
) -> None:
    """Score patches with the official grader: in fresh containers, or from stored test output (--logs)."""
    from rich.console import Console

    console, where = Console(stderr=True), machines.where()
    if (predictions is None) == (asked.logs is None):
        raise ConfigError("give either a predictions file or --logs FOLDER")
    if asked.logs is not None:
        if ignored := options.given(context, machines):
            raise ConfigError(f"--logs starts no container: remove {', '.join(ignored)}")
        out = asked.out or Path("verdicts.csv")
        _grade_logs(asked.logs, out, asked.dataset, console, add_markers=asked.add_markers)
        return
    assert predictions is not None
    from aem_harness.api.grading import How, grade_all, known, refuse, require_file
    from aem_harness.api.running import Tasks, choose

    how = How(grading.workers, grading.timeout, grading.memory, grading.retry is Retry.infra, rechecking.share)
    require_file(predictions)
    selection = choose(asked.dataset, console, Tasks(ids=asked.ids or ()))
    chosen = known(predictions, selection, console)
    if asked.dry_run:
        refuse(chosen, selection, how, dataset=asked.dataset, out=asked.out)
        empty = sum(not prediction.model_patch for prediction in chosen)
        tasks = counted(len(selection.tasks), "instance")
        typer.echo(f"{counted(len(chosen), 'prediction')} for {tasks}, {empty} of them empty")
        return
    finished = grade_all(
        chosen,
        selection,
        console,
        how,
        dataset=asked.dataset,
        out=asked.out,
        reuse=rechecking.reuse(),
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
