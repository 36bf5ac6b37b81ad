"""`aem images`: lists, pulls, builds and removes the container images of a task set."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aem_harness.api.running import Tasks, choose
from aem_harness.commands import options
from aem_harness.commands.options import grouped

if TYPE_CHECKING:
    from aem_harness.harness.types import Task

GIB = 1 << 30
Workers = Annotated[int, typer.Option("--workers", "-w", min=1, help="Images in parallel.")]


@dataclass
class Part:
    """The part of a task set whose images are meant."""

    dataset: options.DataSet = "sample"
    ids: options.Ids = None
    repos: options.Repos = None
    slice_: options.Slice = None

    @property
    def whole(self) -> bool:
        return not (self.ids or self.repos or self.slice_)

    def tasks(self) -> "list[Task]":
        from rich.console import Console

        tasks = Tasks(self.ids or (), self.repos or (), slice=self.slice_ or "")
        return choose(self.dataset, Console(stderr=True), tasks).tasks


def register(app: typer.Typer) -> None:
    images = typer.Typer(
        help="List, pull, save, load, build and prune the container images of a task set.", no_args_is_help=True
    )
    images.command("list", epilog="Example: aem images list --set verified --repo django/django")(grouped(list_images))
    images.command("pull", epilog="Example: aem images pull --set verified --slice 0:50 -w 4")(grouped(pull))
    images.command("save", epilog="Example: aem images save /media/images --set verified --slice 0:50")(grouped(save))
    images.command("load", epilog="Example: aem images load /media/images")(load)
    images.command("build", epilog="Example: aem images build --set sample")(grouped(build))
    images.command("prune", epilog="Example: aem images prune --set verified --slice 0:50")(grouped(prune))
    app.add_typer(images, name="images")


def list_images(part: Part) -> None:
    """List the images that are present, with digest and size."""
    from rich import box
    from rich.console import Console
    from rich.table import Column, Table

    from aem_harness.harness.sandbox.images import local_images

    console, tasks = Console(), part.tasks()
    present = local_images(tasks)
    table = Table(Column("image", overflow="fold"), "digest", "GiB", "from", box=box.SIMPLE_HEAD)
    for image in present:
        table.add_row(
            image.name, image.digest[:19], f"{image.bytes / GIB:.2f}", "built here" if image.built_here else "registry"
        )
    console.print(table)
    console.print(f"{len(present)} of {len({task.instance.image for task in tasks})} images are present")


def pull(part: Part, workers: Workers = 4, mirror: options.Mirror = None) -> None:
    """Pull images before a run."""
    _each(part, workers, "pulling", mirror)


def save(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="OCI image layout; created if it is missing.")],
    part: Part,
    mirror: options.Mirror = None,
) -> None:
    """Write the images of a task set into a folder, for machines without a registry. Missing ones are pulled first."""
    from aem_harness.harness.sandbox.images import ensure_image
    from aem_harness.harness.sandbox.oci import Layout

    selection = part.tasks()
    layout = Layout(folder)
    have = set(layout.names())

    def one(task: "Task") -> str:
        if task.instance.image in have and layout.complete(task.instance.image):
            return "was there"
        ensure_image(task, mirror=mirror)
        return f"{layout.save(task.instance.image) / 1e6:.0f} MB"

    _one_by_one({task.instance.image: task for task in selection}, one, "saved")


def load(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="OCI image layout written by `aem images save`.")],
) -> None:
    """Load the images of a folder into the engine; those that it already has are kept."""
    from aem_harness.harness.errors import DataError
    from aem_harness.harness.sandbox import fetched
    from aem_harness.harness.sandbox.images import find
    from aem_harness.harness.sandbox.oci import Layout

    layout = Layout(folder)
    names = layout.names()
    if not names:
        raise DataError(f"{folder} holds no images; aem images save {folder} writes some")

    def one(name: str) -> str:
        if (here := find(name)) is not None:
            if here.id != layout.image_id(name):
                raise DataError("the engine has another image of that name: remove it first (docker image rm)")
            fetched.forget(name)  # asked for by a person: no run removes it
            return "was there"
        layout.load(name)
        fetched.forget(name)
        return "done"

    _one_by_one({name: name for name in names}, one, "loaded")


def _one_by_one(work: "dict[str, Any]", do: Callable[[Any], str], verb: str) -> None:
    """A line for each image; what fails keeps nothing else, and ends with exit code 3."""
    from aem_harness.harness.errors import EXIT_INFRASTRUCTURE, AemError

    failed = 0
    for name, item in work.items():
        try:
            typer.echo(f"{do(item):>10}  {name}")
        except AemError as error:
            failed += 1
            typer.echo(f"failed  {name}: {error}", err=True)
    if failed:
        lost = f"{failed} of {len(work)} images could not be {verb}"
        typer.echo(f"error: {lost}; the same command tries again", err=True)
        raise typer.Exit(EXIT_INFRASTRUCTURE)


def build(part: Part, workers: Workers = 2) -> None:
    """Build the images of a bundled set, or of a local file whose rows have a Dockerfile."""
    _each(part, workers, "building")


def prune(
    part: Part,
    base: Annotated[bool, typer.Option("--base", help="Also remove the base image.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be removed, and remove nothing.")] = False,
    mirror: Annotated[
        str | None,
        typer.Option(
            "--mirror",
            metavar="HOST[/PREFIX]",
            envvar="AEM_IMAGE_MIRROR",
            help="Registry that they were pulled from instead of their own.",
        ),
    ] = None,
) -> None:
    """Remove the images of a task set, also those of earlier recipes. Images in use stay."""
    from rich.console import Console

    from aem_harness.harness.sandbox.images import prune as remove

    console = Console()
    removed = remove(part.tasks(), base=base, whole=part.whole, dry_run=dry_run, mirror=mirror)
    if dry_run:
        typer.echo("\n".join(removed))
    console.print(f"{'would remove' if dry_run else 'removed'} {len(removed)} of the images of {part.dataset}")


def _each(part: Part, workers: int, verb: str, mirror: str | None = None) -> None:
    """Make every image present under a progress bar, then print its digest; what could not be had is listed."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from aem_harness.harness.errors import EXIT_INFRASTRUCTURE
    from aem_harness.harness.sandbox import fetched
    from aem_harness.harness.sandbox.fetch import Fetcher

    console = Console(stderr=True)
    tasks = {task.instance.image: task for task in part.tasks()}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(verb, total=len(tasks))
        fetcher = Fetcher(
            workers=workers,
            mirror=mirror,
            say=_describe(progress.update, bar),
            tell=lambda done: progress.advance(bar),
        )
        found = fetcher.fetch(list(tasks.values()))
        fetched.forget(*(image.name for image in found if image.ref))  # asked for by a person: no run removes them
        progress.update(bar, description=f"{verb} done")
    for image in found:
        if image.ref:
            typer.echo(f"{image.ref.digest[:19]}  {image.ref.source:<6}  {image.name}")
    if failed := [image for image in found if image.ref is None]:
        for image in failed:
            typer.echo(f"failed  {image.name}: {image.why}", err=True)
        typer.echo(
            f"error: {len(failed)} of {len(found)} images could not be fetched; the same command tries again", err=True
        )
        raise typer.Exit(EXIT_INFRASTRUCTURE)


def _describe(update: Callable[..., None], bar: int) -> Callable[[str], None]:
    return lambda line: update(bar, description=line[:70])
