"""`aem grade`: anyone's predictions in fresh containers, or stored test output without any."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aem_harness.commands import options
from aem_harness.commands.evaluate import choose, conclude, open_run, perform
from aem_harness.commands.run import Retry
from aem_harness.harness.errors import EXIT_INFRASTRUCTURE, ConfigError, DataError

if TYPE_CHECKING:
    from rich.console import Console

    from aem_harness.commands.evaluate import Selection
    from aem_harness.harness.types import Prediction

EXAMPLES = """
Examples:

  aem grade preds.json --set verified -w 4                grade a predictions file in fresh containers; again: continue

  aem grade preds.json --set verified --dry-run           only read it, and say what is wrong with it

  aem grade --logs logs/ --out verdicts.csv               grade stored test output again, without containers
"""


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(grade)


def grade(
    predictions: Annotated[
        Path | None, typer.Argument(help="Predictions in an official form: .json or .jsonl, also with .gz.")
    ] = None,
    logs: Annotated[
        Path | None,
        typer.Option(help="Grade the test output in <run>/<model>/<instance>/ or <instance>/<submission>/ again."),
    ] = None,
    dataset: Annotated[
        str,
        typer.Option("--set", "--dataset", help="verified, lite, full, multilingual, sample, or a local file."),
    ] = "verified",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Run folder (default: results/<model>-<digest>); with --logs the CSV file."),
    ] = None,
    ids: options.Ids = None,
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, help="Containers at a time.")] = 4,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that the tests of an instance may take.")] = 1800,
    memory: Annotated[str, typer.Option(help="Memory limit of a container, for example 8g.")] = "4g",
    retry: Annotated[Retry | None, typer.Option(help="Also repeat what was lost to infrastructure.")] = None,
    canary: options.Canary = 0.05,
    no_canary: options.NoCanary = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check everything, start no container.")] = False,
    add_markers: Annotated[
        bool, typer.Option("--add-markers", help="With --logs: put test markers around logs of 2024, which have none.")
    ] = False,
) -> None:
    """Score patches with the official grader: in fresh containers, or from stored test output (--logs)."""
    from rich.console import Console

    console = Console(stderr=True)
    if (predictions is None) == (logs is None):
        raise ConfigError("give either a predictions file or --logs DIR")
    if logs is not None:
        _grade_logs(logs, out or Path("verdicts.csv"), dataset, console, add_markers=add_markers)
        return
    assert predictions is not None
    selection = choose(dataset, console, ids=ids)
    chosen = _known(predictions, selection, console)
    if dry_run:
        empty = sum(not prediction.model_patch for prediction in chosen)
        typer.echo(f"{len(chosen)} predictions for {len(selection.tasks)} instances, {empty} of them empty")
        return
    _grade_predictions(
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
    )


def _known(path: Path, selection: "Selection", console: "Console") -> "list[Prediction]":
    """The predictions for instances of the selection; what is left out is said."""
    from aem_harness.harness.grading.predictions import read_predictions

    read = read_predictions(path)
    known = {task.instance_id for task in selection.tasks}
    unknown = [prediction.instance_id for prediction in read.predictions if prediction.instance_id not in known]
    problems = list(read.problems)
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        problems.append(f"{path.name}: not among the chosen instances: {', '.join(unknown[:3])}{more}")
    if len(unknown) == len(read.predictions):
        raise DataError(f"{problems[-1]}; nothing to grade")
    for problem in problems:
        console.print(f"[yellow]warning:[/] {problem}", highlight=False, soft_wrap=True)
    return [prediction for prediction in read.predictions if prediction.instance_id in known]


def _grade_predictions(
    predictions: "list[Prediction]",
    selection: "Selection",
    console: "Console",
    *,
    dataset: str,
    out: Path | None,
    workers: int,
    timeout: float,
    memory: str,
    retry_infrastructure: bool,
    canary: float | None,
) -> None:
    from aem_harness.harness.config import RunConfig
    from aem_harness.harness.run.counts import outcomes
    from aem_harness.harness.run.submission import Submission, enter

    models = {prediction.model_name_or_path for prediction in predictions}
    if len(models) > 1:
        raise DataError(f"one model at a time: the file holds predictions of {', '.join(sorted(models))}")
    config = RunConfig.load(
        arm=models.pop(), dataset=dataset, agent=Submission.name, grade_timeout=timeout, limits={"memory": memory}
    )
    folder = out or Path("results") / f"{config.arm.replace('/', '__')}-{config.digest}"
    keys = [(prediction.instance_id, 0) for prediction in predictions]
    with open_run(folder, config, selection, Submission(), seeds=1) as store:
        enter(store, predictions)
        perform(
            store,
            selection,
            Submission(),
            keys,
            console,
            workers=1,
            grade_workers=workers,
            retry_infrastructure=retry_infrastructure,
            canary=canary,
        )
        counts = outcomes(store, keys)
    if missing := len(selection.tasks) - len(keys):
        console.print(f"{missing} of the {len(selection.tasks)} chosen instances have no prediction")
    conclude(folder, counts, console, n=len(keys), seeds=1)


def _grade_logs(root: Path, out: Path, dataset: str, console: "Console", *, add_markers: bool) -> None:
    from rich.progress import track

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
