"""`aem grade`: anyone's predictions in fresh containers, or stored test output without any."""

from pathlib import Path
from typing import Annotated

import typer

from harness.errors import EXIT_INFRASTRUCTURE, ConfigError

EXAMPLES = """
Examples:

  aem grade --logs logs/ --out verdicts.csv               grade stored test output again, without containers
"""


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(grade)


def grade(
    logs: Annotated[
        Path | None,
        typer.Option(
            help="Folder <instance>/<submission>/{test_output.txt[.gz],patch.diff[.gz]}: grade its logs again."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="CSV file for --logs.")] = None,
    dataset: Annotated[
        str,
        typer.Option("--set", "--dataset", help="verified, lite, full, multilingual, sample, or a local file."),
    ] = "verified",
    add_markers: Annotated[
        bool, typer.Option("--add-markers", help="With --logs: put test markers around logs of 2024, which have none.")
    ] = False,
) -> None:
    """Score predictions with the official grader: in fresh containers, or from stored test output (--logs)."""
    if logs is None:
        raise ConfigError("nothing to grade: give --logs DIR")
    _grade_logs(logs, out or Path("verdicts.csv"), dataset, add_markers)


def _grade_logs(root: Path, out: Path, dataset: str, add_markers: bool) -> None:
    from collections import Counter

    from rich.console import Console
    from rich.progress import track

    from harness.grading.logs import find_logs, regrade, write_csv
    from harness.instances.load import load
    from harness.types import Outcome

    console = Console(stderr=True)
    total = len(find_logs(root))
    loaded = load(dataset)
    for problem in loaded.problems:
        console.print(f"[yellow]warning:[/] {problem}; the row is left out", highlight=False, soft_wrap=True)
    tasks = {task.instance_id: task for task in loaded.tasks}
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
