"""`aem audit`: grades resolved rollouts again with canaries, and with held-out variants of their tests."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from aem_harness.commands import options
from aem_harness.commands.options import grouped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aem_harness.harness.run.flow import Supply
    from aem_harness.harness.types import Task

EXAMPLES = """
Grade every marked rollout again, and one in five of the other resolved ones; every resolved rollout:

  aem audit results/base-* results/candidate-* --canary 0.2

  aem audit results/candidate-0f1e2d3c4b5a --canary 1

Check the commands in trajectories of other tools:

  aem audit --trajectories trajs/ --out audit.json

Make held-out variants of the listed tests; `aem audit RUN...` then runs them on every resolved rollout:

  aem audit --make-variants --set sample
"""


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(grouped(audit))


@dataclass
class Instead:
    """What is done instead of an audit of runs."""

    PANEL: ClassVar[str] = "Instead of runs"

    trajectories: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Check trajectories of other tools (.traj, .traj.json)."),
    ] = None
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="With --trajectories: file for the marks.")
    ] = Path("audit.json")
    make_variants: Annotated[
        bool,
        typer.Option("--make-variants", help="Make variants of the listed tests of --set, and validate them."),
    ] = False
    seed: Annotated[int, typer.Option(help="With --make-variants: another seed changes other literals.")] = 0


def audit(
    context: typer.Context,
    folders: Annotated[list[Path] | None, typer.Argument(metavar="RUN", help="Run folders.")] = None,
    canary: options.Canary = 0.05,
    dataset: Annotated[
        str | None, typer.Option("--set", metavar="NAME|FILE", help="Task set (default: that of the run).")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, help="Containers in parallel.")] = 2,
    *,
    machines: options.Machines,
    instead: Instead,
) -> None:
    """Grade resolved rollouts again with canaries: planted tests that must fail or pass. Verdicts stay as they are.

    If an instance has held-out variants (--make-variants), its resolved rollouts are run with them too. A patch that
    passes the listed tests, but fails variants that the gold patch passes, is marked.

    Earlier findings are kept, and what was lost to infrastructure is repeated; after such losses the exit code is 3.
    `aem compare` then shows official, audited and adjusted rates.
    """
    from rich.console import Console

    from aem_harness.api.auditing import audit_folder
    from aem_harness.api.running import choose
    from aem_harness.harness.errors import ConfigError, EnvironmentFault, counted

    if [bool(folders), instead.trajectories is not None, instead.make_variants].count(True) != 1:
        raise ConfigError("give run folders, --trajectories FOLDER, or --make-variants")
    where = machines.where()
    ignored = [] if folders else options.given(context, machines)
    if instead.trajectories is not None and ignored:
        raise ConfigError(f"--trajectories starts no container: remove {', '.join(ignored)}")
    if elsewhere := {"--engine", "--ray"}.intersection(ignored):
        raise ConfigError(
            f"only audits of run folders use other engines: remove {' and '.join(sorted(elsewhere))}, or set "
            "DOCKER_HOST to the engine that makes variants"
        )
    console = Console(stderr=True)
    if instead.make_variants:
        if dataset is None:
            raise ConfigError("--make-variants needs a task set: add --set")
        _make_variants(choose(dataset, console).tasks, instead.seed, where.supply)
    elif instead.trajectories is not None:
        _audit_trajectories(instead.trajectories, instead.out)
    if lost := sum(
        audit_folder(folder, dataset, console, share=canary, workers=workers, where=where) for folder in folders or ()
    ):
        raise EnvironmentFault(
            f"{counted(lost, 'regrade')} lost to infrastructure: give the same command again, which repeats them"
        )


def _make_variants(tasks: "Sequence[Task]", seed: int, supply: "Supply | None") -> None:
    """Print one line per instance."""
    from aem_harness.api.auditing import make_variants
    from aem_harness.harness.errors import EnvironmentFault

    having, failed = 0, ""
    for task, found in make_variants(tasks, seed, supply):
        if isinstance(found, str):
            failed = f"{task.instance_id}: {found}"
            typer.echo(failed)
            continue
        having += bool(found.variants)
        why = f" ({found.reason})" if found.reason else ""
        typer.echo(f"{task.instance_id}: {len(found.variants)} variants of {found.tried} candidates{why}")
    typer.echo(f"{having} of {len(tasks)} instances have held-out variants")
    if failed:
        raise EnvironmentFault(f"not every instance could be tried (the last: {failed}): run the same command again")


def _audit_trajectories(folder: Path, out: Path) -> None:
    from aem_harness.api.auditing import audit_trajectories
    from aem_harness.harness.io import write_json

    found = audit_trajectories(folder)
    write_json(out, found.entries)
    said = ", ".join(f"{count} {name}" for name, count in found.counts.most_common()) or "no mark"
    typer.echo(f"{found.read} trajectories: {said} -> {out}")
    if found.unread:
        typer.echo(f"{len(found.unread)} could not be read, the first: {found.unread[0]}")
