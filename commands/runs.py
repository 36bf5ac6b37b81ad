"""`aem runs`: list, annotate, remove and archive runs; `aem status`: the progress of one."""

import json
import shutil
import time
from pathlib import Path
from typing import Annotated

import typer

from aem_harness.commands.options import MetricsPort
from aem_harness.harness.errors import AemError, ConfigError, DataError, counted

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]
Runs = Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def register(app: typer.Typer) -> None:
    runs = typer.Typer(help="List, annotate, remove, archive and restore runs.", no_args_is_help=True)
    runs.command("list", epilog="Example: aem runs list results /data/nightly")(list_)
    runs.command("note", epilog="Example: aem runs note results/base-1a2b3c4d5e6f 'before the tokenizer fix'")(note)
    runs.command("rm", epilog="Example: aem runs rm results/base-1a2b3c4d5e6f --yes")(remove)
    runs.command("archive", epilog="Example: aem runs archive results/base-1a2b3c4d5e6f --out base.tar.gz")(archive_)
    runs.command("restore", epilog="Example: aem runs restore base.tar.gz --into results")(restore_)
    runs.command("verify", epilog="Example: aem runs verify results/base-1a2b3c4d5e6f")(verify_)
    app.add_typer(runs, name="runs")
    app.command(epilog="Example: aem status results/base-1a2b3c4d5e6f --follow")(status)


def list_(
    roots: Annotated[
        list[Path] | None, typer.Argument(metavar="FOLDER", help="Folders to search (default: results).")
    ] = None,
    as_json: Json = False,
) -> None:
    """List every run below the folders: progress, resolved rate, losses, age and size."""
    from rich.console import Console

    from aem_harness.harness.report.runs import runs_table
    from aem_harness.harness.run.listing import as_rows, find_runs, read_state

    roots = roots or [Path("results")]
    for root in roots:
        if not root.is_dir():
            raise ConfigError(f"no such folder: {root}")
    states = []
    for folder in find_runs(roots):
        try:
            states.append(read_state(folder, sizes=True))
        except AemError as error:  # one damaged run does not hide the others
            typer.secho(f"warning: {error}", fg="yellow", err=True)
    if as_json:
        typer.echo(json.dumps(as_rows(states), indent=1))
    elif states:
        Console().print(runs_table(states))
    else:
        typer.echo(f"no runs in {', '.join(map(str, roots))}")


def note(run: Run, text: Annotated[str, typer.Argument(help="The note; an empty one removes it.")]) -> None:
    """Attach a note to a run; `aem runs list` shows it."""
    from aem_harness.harness.io import write_text
    from aem_harness.harness.run.listing import NOTE, read_state

    read_state(run)
    if text.strip():
        write_text(run / NOTE, text.strip() + "\n")
    else:
        (run / NOTE).unlink(missing_ok=True)


def remove(
    runs: Runs,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete run folders, except those of running processes."""
    from aem_harness.harness.report.runs import size_words
    from aem_harness.harness.run.listing import read_state

    states = [read_state(run, sizes=True) for run in runs]
    for state in states:
        if state.status == "running":
            raise ConfigError(f"{state.folder} is being written by another aem process; nothing was deleted")
    for state in states:
        words = f"{state.folder}: {counted(state.done, 'rollout')}, {size_words(state.bytes or 0)}"
        if yes or typer.confirm(f"delete {words}?"):
            shutil.rmtree(state.folder)
            typer.echo(f"deleted {words}")


def archive_(
    run: Run,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Archive to write (default: RUN.tar.gz).")
    ] = None,
) -> None:
    """Pack a run into a tar archive with the SHA-256 of every file. Equal runs give equal archives."""
    from aem_harness.harness.report.runs import size_words
    from aem_harness.harness.run.archive import archive
    from aem_harness.harness.run.listing import read_state

    read_state(run)
    out = out or run.resolve().with_name(f"{run.resolve().name}.tar.gz")
    files = archive(run.resolve(), out)
    typer.echo(f"{out}: {counted(files, 'file')}, {size_words(out.stat().st_size)}")


def restore_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Archive from `aem runs archive`.")],
    into: Annotated[Path, typer.Option("--into", metavar="FOLDER", help="Parent of the restored run folder.")] = Path(
        "results"
    ),
) -> None:
    """Unpack an archive and check every file against its digest."""
    from aem_harness.harness.run.archive import restore

    typer.echo(f"{restore(file, into)}: every file is as it was archived")


def verify_(run: Run) -> None:
    """Check a restored run against the digests in its archive."""
    from aem_harness.harness.run.archive import verify

    problems = list(verify(run))
    for problem in problems:
        typer.echo(f"{run}: {problem}")
    if problems:
        raise DataError(f"{run}: {len(problems)} files are not as they were archived: restore the archive again")
    typer.echo(f"{run}: every file is as it was archived")


def status(
    run: Run,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Update until the run ends.")] = False,
    every: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, max=86400, help="Time between updates of --follow.")
    ] = 2.0,
    as_json: Json = False,
    metrics_port: MetricsPort = None,
) -> None:
    """Show the progress of any run: pace, time left, outcomes, exit statuses and current rollouts."""
    from rich.console import Console
    from rich.live import Live

    from aem_harness.harness.report.runs import state_view
    from aem_harness.harness.run.listing import as_rows, read_state

    state = read_state(run)
    if as_json:
        typer.echo(json.dumps(as_rows([state])[0], indent=1))
    elif metrics_port:
        from aem_harness.harness.report.metrics import served

        with served(run, metrics_port) as port:
            typer.echo(f"metrics of {run} at http://localhost:{port}/metrics until interrupted", err=True)
            while True:
                time.sleep(3600)
    elif follow:
        with Live(state_view(state), console=Console(), auto_refresh=False) as live:
            while state.status == "running":
                time.sleep(every)
                state = read_state(run)
                live.update(state_view(state), refresh=True)
    else:
        Console().print(state_view(state))
