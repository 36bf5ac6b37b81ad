"""`aem images`: lists, pulls, builds and removes the container images of a task set."""

from collections.abc import Callable
from typing import Annotated

import typer

from aem_harness.api.running import Tasks, choose
from aem_harness.commands import options

GIB = 1 << 30


def register(app: typer.Typer) -> None:
    images = typer.Typer(help="List, pull, build and prune the container images of a task set.", no_args_is_help=True)
    images.command("list", epilog="Example: aem images list --set verified --repo django/django")(list_images)
    images.command("pull", epilog="Example: aem images pull --set verified --slice 0:50 -w 4")(pull)
    images.command("build", epilog="Example: aem images build --set sample")(build)
    images.command("prune", epilog="Example: aem images prune --set verified --slice 0:50")(prune)
    app.add_typer(images, name="images")


def list_images(dataset: options.DataSet = "sample", ids: options.Ids = None, repos: options.Repos = None) -> None:
    """List the images that are present, with digest and size."""
    from rich import box
    from rich.console import Console
    from rich.table import Column, Table

    from aem_harness.harness.sandbox.images import local_images

    console = Console()
    tasks = choose(dataset, console, Tasks(ids or (), repos or ())).tasks
    present = local_images(tasks)
    table = Table(Column("image", overflow="fold"), "digest", "GiB", "from", box=box.SIMPLE_HEAD)
    for image in present:
        table.add_row(
            image.name, image.digest[:19], f"{image.bytes / GIB:.2f}", "built here" if image.built_here else "registry"
        )
    console.print(table)
    console.print(f"{len(present)} of {len({task.instance.image for task in tasks})} images are present")


def pull(
    dataset: options.DataSet = "sample",
    ids: options.Ids = None,
    repos: options.Repos = None,
    slice_: options.Slice = None,
    workers: options.Workers = 4,
) -> None:
    """Pull images before a run."""
    _each(dataset, ids, repos, slice_, workers, "pulling")


def build(
    dataset: options.DataSet = "sample",
    ids: options.Ids = None,
    repos: options.Repos = None,
    slice_: options.Slice = None,
    workers: options.Workers = 2,
) -> None:
    """Build the images of a bundled set, or of a local file whose rows have a Dockerfile."""
    _each(dataset, ids, repos, slice_, workers, "building")


def prune(
    dataset: options.DataSet = "sample",
    ids: options.Ids = None,
    repos: options.Repos = None,
    slice_: options.Slice = None,
    base: Annotated[bool, typer.Option("--base", help="Also remove the base image.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be removed, and remove nothing.")] = False,
) -> None:
    """Remove the images of a task set, also those of earlier recipes. Images in use stay."""
    from rich.console import Console

    from aem_harness.harness.sandbox.images import prune as remove

    console = Console()
    tasks = choose(dataset, console, Tasks(ids or (), repos or (), slice=slice_ or "")).tasks
    removed = remove(tasks, base=base, whole=not (ids or repos or slice_), dry_run=dry_run)
    if dry_run:
        typer.echo("\n".join(removed))
    console.print(f"{'would remove' if dry_run else 'removed'} {len(removed)} of the images of {dataset}")


def _each(
    dataset: str, ids: list[str] | None, repos: list[str] | None, slice_: str | None, workers: int, verb: str
) -> None:
    """Make every image present under a progress bar, then print its digest; what could not be had is listed."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from aem_harness.harness.errors import EXIT_INFRASTRUCTURE
    from aem_harness.harness.sandbox.fetch import Fetcher

    console = Console(stderr=True)
    selection = choose(dataset, console, Tasks(ids or (), repos or (), slice=slice_ or ""))
    tasks = {task.instance.image: task for task in selection.tasks}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(verb, total=len(tasks))
        fetcher = Fetcher(workers=workers, say=_describe(progress.update, bar), tell=lambda done: progress.advance(bar))
        found = fetcher.fetch(list(tasks.values()))
        progress.update(bar, description=f"{verb} done")
    for image in found:
        if image.ref:
            typer.echo(f"{image.ref.digest[:19]}  {image.ref.source:<6}  {image.name}")
    if failed := [image for image in found if image.ref is None]:
        for image in failed:
            typer.echo(f"failed  {image.name}: {image.why}", err=True)
        typer.echo(
            f"error: {len(failed)} of {len(found)} images could not be had; the same command tries them again", err=True
        )
        raise typer.Exit(EXIT_INFRASTRUCTURE)


def _describe(update: Callable[..., None], bar: int) -> Callable[[str], None]:
    return lambda line: update(bar, description=line[:70])
