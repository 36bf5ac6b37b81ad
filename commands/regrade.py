"""`aem regrade`: grades stored patches again, to measure the noise of the grader."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from aem_harness.commands import options
from aem_harness.commands.options import grouped

if TYPE_CHECKING:
    from rich.console import Console

EXAMPLES = """
The patches of changed tasks, and 40 others of each run:

  aem regrade results/base results/aem --times 3

Their stored logs, read by the swebench that is installed elsewhere:

  aem regrade results/base results/aem --release old/bin/python

The tasks whose gold patch does not resolve on this machine:

  aem regrade results/gold --quarantine quarantine.txt
"""


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(grouped(regrade))


@dataclass
class Instead:
    """What is read of runs instead of a new grading."""

    PANEL: ClassVar[str] = "Instead of grading again"

    quarantine: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="For a run of --agent gold: write the tasks that it does not resolve."),
    ] = None
    release: Annotated[
        Path | None,
        typer.Option(metavar="PYTHON", help="Read the stored test output with the swebench of another interpreter."),
    ] = None

    @property
    def option(self) -> str:
        """The option that was given, "" without one."""
        return "--quarantine" if self.quarantine is not None else "--release" if self.release is not None else ""


def regrade(
    context: typer.Context,
    folders: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders; the first is the baseline.")],
    times: Annotated[int, typer.Option(min=1, help="How often to grade each patch again.")] = 1,
    sample: Annotated[int, typer.Option(min=0, help="Random patches of each run, beside those of changed tasks.")] = 40,
    dataset: Annotated[
        str | None, typer.Option("--set", metavar="NAME|FILE", help="Task set (default: that of the run).")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, help="Containers in parallel.")] = 2,
    *,
    instead: Instead,
    machines: options.Machines,
) -> None:
    """Does the grader give the same patch the same verdict? `aem compare` widens its intervals accordingly.

    Grades the patches of tasks whose rate differs between the first run and another one, and a random sample. The
    verdicts of the runs do not change. Repeat the command to continue, and to repeat gradings that were lost to
    infrastructure; with such losses the exit code is 3.
    """
    from rich.console import Console

    from aem_harness.api.grading import regrade as again
    from aem_harness.harness.errors import ConfigError, EnvironmentFault, counted
    from aem_harness.harness.run.folder import require_run
    from aem_harness.harness.run.regrading import Again
    from aem_harness.harness.types import Outcome

    where, console = machines.where(), Console(stderr=True)
    for folder in folders:
        require_run(folder)
    if instead.option and (ignored := options.given(context, machines)):
        raise ConfigError(f"{instead.option} starts no container: remove {', '.join(ignored)}")
    if instead.quarantine is not None:
        _quarantine(folders, instead.quarantine)
        return
    if instead.release is not None:
        for folder in folders:
            _by_release(folder, instead.release, dataset, console)
        return
    lost: list[Again] = []

    def tell(one: Again) -> None:
        if one.now is Outcome.ERROR:
            lost.append(one)

    again(folders, dataset, times=times, sample=sample, workers=workers, where=where, console=console, tell=tell)
    _show_noise(folders)
    if lost:
        raise EnvironmentFault(
            f"{counted(len(lost), 'grading')} lost to infrastructure (the last: {lost[-1].cause}): give the same "
            "command again, which repeats them"
        )


def _quarantine(folders: Sequence[Path], out: Path) -> None:
    """Write the tasks that the gold patch does not resolve in these runs."""
    from aem_harness.harness.compare.sensitivity import unresolved_by_gold
    from aem_harness.harness.io import write_text

    found = sorted({task for folder in folders for task in unresolved_by_gold(folder)})
    write_text(out, "".join(f"{task}\n" for task in found))
    typer.echo(f"{len(found)} tasks whose gold patch does not resolve here -> {out}")


def _show_noise(folders: Sequence[Path]) -> None:
    """Print how often the grader's verdicts flipped."""
    from aem_harness.harness.compare.grader import noise_of
    from aem_harness.harness.compare.outcomes import load
    from aem_harness.harness.compare.words import grader_words
    from aem_harness.harness.run.regrading import read_regrades

    regrades = {str(folder): read_regrades(folder) for folder in folders}
    for line in grader_words(noise_of(regrades, {str(folder): load([folder]).table for folder in folders})):
        typer.echo(line)


def _by_release(folder: Path, python: Path, dataset: str | None, console: "Console") -> None:
    """Print what another release says of a run's logs, as a diff."""
    from aem_harness.api.running import choose
    from aem_harness.harness.config import RunConfig
    from aem_harness.harness.errors import counted, listed
    from aem_harness.harness.run.folder import run_json
    from aem_harness.harness.run.fsck import progress_of
    from aem_harness.harness.run.regrading import by_release
    from aem_harness.harness.run.store import read_journal

    config = RunConfig(**run_json(folder)["config"])
    tasks = {task.instance_id: task for task in choose(dataset or config.dataset, console).tasks}
    found = by_release(folder, tasks, progress_of(read_journal(folder)), python)
    was, now = (f"{100 * rate:.1f} %" for rate in found.rates)
    typer.echo(
        f"{folder.name} by swebench {found.release}: {found.alike} verdicts alike, {len(found.changed)} changed, "
        f"{len(found.unread)} logs not read; resolved {was} -> {now}"
    )
    for name, change in found.changed.items():
        typer.echo(f"  {name}: {change}")
    for reason in sorted(set(found.unread.values())):
        names = [name for name, why in found.unread.items() if why == reason]
        typer.echo(f"  not read, {reason}: {len(names)}, first {names[0]}")
    typer.echo(f"  eval scripts: the same for {counted(found.scripts, 'instance')}")
    for task, change in found.reruns.items():
        typer.echo(f"  {task}: its log does not count, the eval script differs ({change})")
    if found.reruns:
        typer.echo(
            f"  {counted(len(found.reruns), 'instance')} would have to run again in containers: {python} -m "
            f"swebench.harness.run_evaluation, --instance_ids {' '.join(list(found.reruns)[:5])}"
            + (" ..." if len(found.reruns) > 5 else "")
        )
    if found.unscripted:
        typer.echo(
            f"  swebench {found.release} makes no eval script for {listed(found.unscripted, most=3)}: whether it would "
            "have made their logs is not known"
        )
