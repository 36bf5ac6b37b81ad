"""`aem fsck`: checks a run folder against its journal, and lists what is still to do."""

from pathlib import Path
from typing import Annotated

import typer

from aem_harness.harness.errors import EXIT_INFRASTRUCTURE


def register(app: typer.Typer) -> None:
    app.command(epilog="Example: aem fsck results/gold-1a2b3c4d5e6f")(fsck)


def fsck(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check, and repair nothing.")] = False,
) -> None:
    """Verify the hashes of a run, rebuild a damaged or missing journal from its folders, list what is still to do."""
    from aem_harness.harness.run.fsck import check

    finding = check(folder, repair=not dry_run)
    if finding.bad_lines:
        typer.echo(f"journal.jsonl: {len(finding.bad_lines)} damaged line(s), first: line {finding.bad_lines[0]}")
    if finding.recovered:
        typer.echo(f"journal.jsonl lacked {finding.recovered} event(s) that the rollout folders hold")
    if finding.rebuilt:
        kept = "" if finding.rebuilt.name == "journal.jsonl" else f"; the damaged one is kept as {finding.rebuilt.name}"
        typer.echo(f"journal.jsonl was rebuilt{kept}")
    for (instance_id, seed), wrong in sorted(finding.damaged.items()):
        typer.echo(f"{instance_id} seed {seed}: {wrong}")
    typer.echo(f"{finding.finished} complete rollouts, {finding.graded} of them graded")
    for what, count in finding.to_do.items():
        typer.echo(f"to do: {count} {what}")
    if finding.damaged or (finding.bad_lines and dry_run):
        raise typer.Exit(EXIT_INFRASTRUCTURE)
