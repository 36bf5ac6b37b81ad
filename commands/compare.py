"""`aem compare`: two or more arms, side by side, with intervals."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from aem_harness.commands.lean import import_pandas
from aem_harness.commands.options import Comparing, Registered, RegistryFolder, TwoWay, grouped, warn

if TYPE_CHECKING:
    from aem_harness.harness.compare.outcomes import Outcomes
    from aem_harness.harness.compare.records import Comparison


class Unit(StrEnum):
    rollout, run = "rollout", "run"


EXAMPLES = """
Two run folders, the first is the baseline; checkpoints of one training, each against the one before:

  aem compare results/base results/aem

  aem compare results/base results/step-* --series

An arm of a CSV file under another name, with a margin of 2 points; every pair of many arms, as CSV:

  aem compare base=other.csv:gpt results/aem --margin 2

  aem compare leaderboard.csv.gz --pairs

Rates by two columns, and whether a gain depends on the row; methods, with the training run as the unit:

  aem compare results/* --two-way scaffold,model

  aem compare results/* --unit run --group grpo=grpo-* --group aem=aem-*
"""


@dataclass
class Methods:
    """Training runs as the unit."""

    PANEL: ClassVar[str] = "Comparing methods over their training runs"

    unit: Annotated[
        Unit, typer.Option(help="With run, methods are compared: each training run is one observation of its method.")
    ] = Unit.rollout
    group: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METHOD=GLOB", help="With --unit run: the arms that are training runs of a method. Repeatable."
        ),
    ] = None
    run_column: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="With --unit run: arms are methods, and this column names their training runs."
        ),
    ] = None
    registry: RegistryFolder = None


@dataclass
class Table:
    """Rates by two columns of the outcomes."""

    PANEL: ClassVar[str] = "Two-way tables"

    two_way: TwoWay = None


@dataclass
class Checks:
    """What the comparison is checked against."""

    PANEL: ClassVar[str] = "Checks"

    quarantine: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|RUN",
            help="Tasks to leave out of all arms: a file of ids, or a run of --agent gold (those it does not resolve).",
        ),
    ] = None
    suspect: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE", help="Tasks with doubtful labels: also show the difference without them. Repeatable."
        ),
    ] = None
    registered: Registered = None


@dataclass
class Output:
    """What is printed and written."""

    PANEL: ClassVar[str] = "Output"

    pairs: Annotated[bool, typer.Option("--pairs", help="Print only the difference of every pair of arms, as CSV.")] = (
        False
    )
    trajectories: Annotated[
        bool,
        typer.Option("--trajectories/--no-trajectories", help="Read trajectories, for behaviour and changed tasks."),
    ] = True
    brief: Annotated[bool, typer.Option("--brief", help="Print only the verdict, the rates and the differences.")] = (
        False
    )
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole comparison as JSON.")] = False
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, one line per contrast.")] = False
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FOLDER", help="Write JSON, CSV and text here.")
    ] = None
    log: Annotated[
        str | None,
        typer.Option(
            "--log", metavar="TRACKER", help="Also log to tensorboard, wandb or mlflow, one step per checkpoint."
        ),
    ] = None
    log_to: Annotated[Path, typer.Option(metavar="FOLDER", help="Where --log writes.")] = Path("results/tracking")


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(grouped(compare))


def compare(
    arms: Annotated[
        list[str],
        typer.Argument(help="Run folders, CSV files (FILE:ARM picks an arm), or what `aem import` reads."),
    ],
    how: Comparing,
    methods: Methods,
    table: Table,
    checks: Checks,
    output: Output,
) -> None:
    """Is one arm better than another? Resolved rates and paired differences with intervals, costs, behaviour.

    Every interval answers one of two questions. These tasks: would a rerun agree? Tasks like these: would new tasks?
    """
    if not how.instances:
        import_pandas()
    from aem_harness.api.comparing import compare_checked, read
    from aem_harness.commands.methods import as_methods
    from aem_harness.harness.compare.pairs import all_pairs as every_pair
    from aem_harness.harness.compare.registration import as_registered
    from aem_harness.harness.compare.sensitivity import task_list, without
    from aem_harness.harness.ends import read_ends
    from aem_harness.harness.errors import ConfigError
    from aem_harness.harness.trackers import library

    if methods.unit is not Unit.run and (methods.group or methods.run_column):
        raise ConfigError("--group and --run-column are for --unit run")
    if output.log:
        library(output.log)
    ends = read_ends(how.ends)
    outcomes = read(arms, instances=how.instances or "", ends=ends)
    warn(outcomes.notes)
    if view := _view(methods, table, output):
        _refuse_without_effect(view, how, checks, output)
        if checks.quarantine:
            outcomes = without(outcomes, task_list(checks.quarantine))
    if output.pairs:
        typer.echo(every_pair(outcomes.table, how.level, common=how.common).to_csv(index=False), nl=False)
        return
    if methods.unit is Unit.run:
        _compare_methods(
            as_methods(outcomes, methods.group or (), methods.run_column, methods.registry),
            how.baseline,
            how.level,
            output.out,
            as_json=output.as_json,
        )
        return
    if table.two_way:
        _compare_both_ways(outcomes, table.two_way, how.level, output.out, as_json=output.as_json)
        return
    options = how.options(trajectories=output.trajectories)
    comparison, compared = compare_checked(
        outcomes,
        how.baseline,
        options=options,
        ends=ends,
        quarantine=checks.quarantine,
        suspect=checks.suspect or (),
    )
    if checks.registered:
        comparison = as_registered(comparison, compared, checks.registered, options)
    _show(comparison, output)


def _view(methods: Methods, table: Table, output: Output) -> str:
    """The option that asks for something else than the comparison of the arms; empty for none. ConfigError for two."""
    from aem_harness.harness.errors import ConfigError

    asked = {"--pairs": output.pairs, "--unit run": methods.unit is Unit.run, "--two-way": bool(table.two_way)}
    views = [name for name, wanted in asked.items() if wanted]
    if len(views) > 1:
        raise ConfigError(f"{' and '.join(views)} are different tables: ask for one at a time")
    return next(iter(views), "")


def _refuse_without_effect(view: str, how: Comparing, checks: Checks, output: Output) -> None:
    """ConfigError for an option that `view` ignores: a check that is asked for and not made looks passed."""
    from aem_harness.harness.errors import ConfigError

    given = {
        "--registered": checks.registered,
        "--suspect": checks.suspect,
        "--csv": view != "--pairs" and output.as_csv,
        "--json": view == "--pairs" and output.as_json,
        "--out": view == "--pairs" and output.out,
        "--brief": output.brief,
        "--log": output.log,
        "--margin": how.margin,
        "--baseline": view != "--unit run" and how.baseline,
        "--common": view != "--pairs" and how.common,
        "--series": how.series,
        "--all-pairs": how.all_pairs,
        "--cutoff": how.cutoff,
        "--calls": how.calls,
        "--tax": how.tax,
    }
    if ignored := [name for name, value in given.items() if value]:
        raise ConfigError(f"{', '.join(ignored)} {'has' if len(ignored) == 1 else 'have'} no effect with {view}")


def _show(comparison: "Comparison", output: Output) -> None:
    from rich.console import Console

    from aem_harness.harness.compare import export, ledger, terminal

    if output.as_json:
        typer.echo(comparison.model_dump_json(indent=1))
    elif output.as_csv:
        typer.echo(export.to_csv(comparison), nl=False)
    else:
        terminal.show(comparison, Console(), brief=output.brief)
        if not output.brief and ledger.worth_showing(comparison.ledger):
            ledger.show(comparison.ledger, Console())
    if output.out:
        export.write_folder(comparison, output.out)
    if output.log:
        from aem_harness.harness.report.tracked import log as track

        count = track(comparison, output.log, output.log_to)
        typer.echo(f"{count} numbers logged to {output.log} in {output.log_to}", err=True)


def _compare_both_ways(outcomes: "Outcomes", by: str, level: float, out: Path | None, *, as_json: bool) -> None:
    from rich.console import Console

    from aem_harness.harness.compare.two_way import show_two_way, two_way
    from aem_harness.harness.io import write_text

    found = two_way(outcomes.table, by, level=level)
    text = found.model_dump_json(indent=1)
    if as_json:
        typer.echo(text)
    else:
        show_two_way(found, Console())
    if out:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "two-way.json", text + "\n")


def _compare_methods(
    outcomes: "Outcomes", baseline: str | None, level: float, out: Path | None, *, as_json: bool
) -> None:
    from rich.console import Console

    from aem_harness.harness.compare.units import compare_runs
    from aem_harness.harness.compare.units_view import show_runs
    from aem_harness.harness.io import write_text

    found = compare_runs(outcomes, baseline, level=level)
    text = found.model_dump_json(indent=1)
    if as_json:
        typer.echo(text)
    else:
        show_runs(found, Console())
    if out:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "methods.json", text + "\n")
