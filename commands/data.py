"""`aem data`: training rows in one format, without evaluation tasks, validated in containers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aem_harness.commands import options
from aem_harness.commands.options import Retry, grouped

if TYPE_CHECKING:
    from aem_harness.api.training_data import Prepared

EXAMPLES = """
Rows of a file, and of the Hugging Face hub (split train), validated in containers:

  aem data prepare swe-gym.parquet --out data/swe-gym

  aem data prepare SWE-Gym/SWE-Gym --out data/swe-gym --slice 0:100

Also leave out the tasks of a held-out set of your own:

  aem data prepare r2e.jsonl --out data/r2e --held-out nightly.jsonl

Then, to train on them:

  aem train --config deepswe-aem -c sandbox.instances=data/swe-gym/rows.jsonl
"""


def register(app: typer.Typer) -> None:
    data = typer.Typer(help="Prepare training rows: SWE-Gym, SWE-smith, R2E-Gym, NeMo Gym.", no_args_is_help=True)
    data.command("prepare", epilog=EXAMPLES)(grouped(prepare))
    data.command("show", epilog="Example: aem data show data/swe-gym")(show)
    app.add_typer(data, name="data")


def prepare(
    source: Annotated[str, typer.Argument(metavar="FILE|NAME", help="Rows: a file, a folder, or a name of the hub.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder for rows and certificate.")],
    split: Annotated[str, typer.Option(metavar="NAME", help="Split of a hub set or of a folder.")] = "train",
    held_out: Annotated[
        list[str] | None,
        typer.Option("--held-out", metavar="NAME|FILE", help="Also leave out the tasks of this set. Repeatable."),
    ] = None,
    validate: Annotated[
        bool, typer.Option("--validate/--no-validate", help="Grade the gold patch and an unchanged tree of every row.")
    ] = True,
    *,
    selecting: options.Selecting,
    grading: options.Grading,
    retry_infra: Annotated[bool, typer.Option("--retry-infra", hidden=True)] = False,  # its earlier name
) -> None:
    """Make training rows of a published set: drop evaluation tasks and rows that do not work, certify the rest.

    Repeat the command to continue. Exit code 3: rows lost to infrastructure are neither kept nor dropped.
    """
    from rich.console import Console

    from aem_harness.api.grading import How
    from aem_harness.api.training_data import prepare as run

    prepared = run(
        source,
        out,
        split=split,
        tasks=selecting.tasks(),
        held_out=held_out or (),
        validate=validate,
        how=How(grading.workers, grading.timeout, grading.memory, retry_infra or grading.retry is Retry.infra),
        console=Console(stderr=True),
    )
    _say(prepared)
    raise typer.Exit(prepared.exit_code)


def _say(prepared: "Prepared") -> None:
    from aem_harness.api.training_data import DROPPED, ROWS
    from aem_harness.harness.errors import listed

    certificate = prepared.certificate
    typer.echo(f"{len(prepared.kept)} of {certificate['read']} rows -> {prepared.folder / ROWS}")
    for reason, count in certificate["dropped"].items():
        names = [one.instance_id for one in prepared.dropped if one.reason == reason and one.instance_id]
        typer.echo(f"  {count} dropped: {reason}" + (f" ({listed(names, most=3)})" if names else ""))
    if prepared.pending:
        first, why = next(iter(prepared.pending.items()))
        typer.echo(
            f"  {len(prepared.pending)} lost to infrastructure, the first {first}: {why}; --retry infra tries again"
        )
    if not certificate["validated"]:
        typer.echo("  not validated in containers (--validate)")
    if certificate["dropped"] or prepared.pending:
        typer.echo(f"each of them: {prepared.folder / DROPPED}")


def show(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder written by `aem data prepare`.")],
) -> None:
    """Show the certificate of prepared rows, checked against the rows beside it."""
    from aem_harness.api.training_data import ROWS
    from aem_harness.harness.instances.load import load_tasks
    from aem_harness.training.guard import certificate_of

    rows = folder / ROWS
    for name, value in certificate_of(str(rows), load_tasks(rows)).items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {count}" for key, count in value.items()) or "none"
        typer.echo(f"{name:<14} {', '.join(value) if isinstance(value, list) else value}")
