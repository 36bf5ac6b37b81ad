"""`aem instances`: lists, shows and exports the instances of a task set."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aem_harness.api.running import Tasks, choose
from aem_harness.commands import options
from aem_harness.commands.options import grouped
from aem_harness.harness.errors import ConfigError, DataError, counted
from aem_harness.harness.io import write_json_lines

if TYPE_CHECKING:
    from aem_harness.harness.types import Task

Strict = Annotated[bool, typer.Option("--strict", help="Treat invalid rows as an error, not a warning.")]


def register(app: typer.Typer) -> None:
    instances = typer.Typer(help="List, show and export the instances of a task set.", no_args_is_help=True)
    instances.command("list", epilog="Example: aem instances list --set verified --difficulty '1-4 hours'")(
        grouped(list_)
    )
    instances.command("show", epilog="Example: aem instances show aem-sample__calx-9 --solution")(show)
    instances.command("export", epilog="Example: aem instances export rows.jsonl --set old-rows.parquet")(export)
    app.add_typer(instances, name="instances")


def list_(
    selecting: options.Selecting,
    dataset: options.DataSet = "sample",
    strict: Strict = False,
    names: Annotated[
        bool, typer.Option("--ids", help="Print only ids, one per line, as --instance @FILE reads them.")
    ] = False,
) -> None:
    """List the selected instances, and the invalid rows of the source."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    selection = choose(dataset, Console(stderr=True), selecting.tasks())
    loaded = selection.loaded
    if names:
        typer.echo("\n".join(task.instance_id for task in selection.tasks))
    else:
        table = Table("instance", "difficulty", "F2P", "P2P", box=box.SIMPLE_HEAD)
        for task in selection.tasks:
            lists = (str(len(task.fail_to_pass)), str(len(task.pass_to_pass)))
            table.add_row(task.instance_id, task.instance.difficulty, *lists)
        console = Console()
        console.print(table)
        console.print(f"{len(selection.tasks)} of {len(loaded.tasks)} instances of {loaded.name}, {loaded.digest[:12]}")
    if strict and loaded.problems:
        raise DataError(
            f"{counted(len(loaded.problems), 'invalid row')} in {loaded.name}; the first: {loaded.problems[0]}"
        )


def show(
    instance: Annotated[str, typer.Argument(help="Instance id or glob.")],
    dataset: options.DataSet = "sample",
    solution: Annotated[bool, typer.Option("--solution", help="Also show the gold patch and the test patch.")] = False,
) -> None:
    """Show an instance: the issue, the tests that decide, and the source of derived fields."""
    from rich.console import Console

    for task in choose(dataset, Console(stderr=True), Tasks(ids=[instance])).tasks:
        typer.echo(_described(task, solution))


def _described(task: "Task", solution: bool) -> str:
    row = task.instance
    facts = {
        "repo": f"{row.repo} at {row.base_commit}",
        "version": row.version,
        "difficulty": row.difficulty,
        "image": row.image,
        "grading": f"{task.log_parser}, {task.eval_type}, network {'on' if task.network else 'off'}",
        "derived": ", ".join(f"{field} ({source})" for field, source in task.provenance.items()),
    }
    blocks = ["\n".join(f"{name:<11}{value}" for name, value in facts.items() if value), row.problem_statement.strip()]
    if row.hints_text.strip():
        blocks.append(f"--- comments\n{row.hints_text.strip()}")
    blocks += [f"--- fail to pass ({len(task.fail_to_pass)})\n" + "\n".join(task.fail_to_pass)]
    blocks += [f"--- pass to pass ({len(task.pass_to_pass)})\n" + "\n".join(task.pass_to_pass)]
    if solution:
        blocks += [f"--- gold patch\n{task.patch.strip()}", f"--- test patch\n{task.test_patch.strip()}"]
    return "\n\n".join(blocks) + "\n"


def export(
    file: Annotated[Path, typer.Argument(help="The .jsonl file to write.")],
    dataset: options.DataSet = "sample",
    ids: options.Ids = None,
    repos: options.Repos = None,
) -> None:
    """Write instances in the format of swebench 5, with derived fields, for `swebench eval`.

    The additional columns dockerfile, build_args and network are kept, so that `aem run` can use the file as well.
    """
    from rich.console import Console

    from aem_harness.harness.instances.rows import local_columns, to_row

    if file.suffix != ".jsonl":
        raise ConfigError(f"{file} must end in .jsonl")
    tasks = choose(dataset, Console(stderr=True), Tasks(ids or (), repos or ())).tasks
    write_json_lines(file, (to_row(task) | local_columns(task, file) for task in tasks))
    typer.echo(f"{counted(len(tasks), 'instance')} written to {file}")
