"""Options that several commands share, declared once."""

import inspect
import math
import re
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup
from typer.models import ArgumentInfo, OptionInfo

if TYPE_CHECKING:
    from aem_harness.api.running import Tasks
    from aem_harness.api.sites import Where
    from aem_harness.harness.compare.compare import CompareOptions
    from aem_harness.harness.run.flow import Supply
    from aem_harness.harness.run.origin import Reuse

SETS = "verified, lite, full, multilingual, sample, tiny, OWNER/NAME[:SPLIT] (hub), or a .json, .jsonl or .parquet file"
DataSet = Annotated[
    str,
    typer.Option(
        "--set",
        metavar="NAME|FILE",
        help=f"{SETS}.",
    ),
]
Ids = Annotated[
    list[str] | None,
    typer.Option(
        "--instance",
        "-i",
        metavar="ID|GLOB|@FILE",
        help="Instance id or glob, or @FILE with one per line. Repeatable.",
    ),
]
Repos = Annotated[
    list[str] | None, typer.Option("--repo", metavar="OWNER/NAME", help="Only this repository. Repeatable.")
]
Difficulties = Annotated[
    list[str] | None, typer.Option("--difficulty", metavar="LEVEL", help="Only this difficulty. Repeatable.")
]
Slice = Annotated[
    str | None,
    typer.Option("--slice", metavar="FROM:TO", help="Slice of the selection, as in Python: 0:50 is its first 50."),
]
Sample = Annotated[int | None, typer.Option("--sample", metavar="COUNT", help="Random subset of this many instances.")]
SampleSeed = Annotated[int, typer.Option("--sample-seed", help="Seed of that subset.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--config-value", "-c", metavar="KEY=VALUE", help="Override a setting: dotted.key=value. Repeatable."),
]
ConfigFile = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="YAML file with run settings.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FOLDER", help="Run folder (default: results/<arm>-<digest>)."),
]
Workers = Annotated[int, typer.Option("--workers", "-w", min=1, help="Rollouts in parallel.")]
GradeWorkers = Annotated[int, typer.Option("--grade-workers", min=1, help="Gradings in parallel.")]
MetricsPort = Annotated[
    int | None,
    typer.Option(
        "--metrics-port", min=1, max=65535, metavar="PORT", help="Serve the run's state for Prometheus at this port."
    ),
]
Engines = Annotated[
    list[str] | None,
    typer.Option(
        "--engine",
        metavar="ADDRESS[*N],...",
        help="Engines that share the work: ssh://HOST, tcp://HOST:PORT, unix:///PATH, context:NAME.",
    ),
]
RayCluster = Annotated[
    str | None,
    typer.Option("--ray", metavar="auto|ADDRESS", help="Ray cluster whose nodes share the work, each with its engine."),
]
Canary = Annotated[
    float,
    typer.Option(
        "--canary",
        metavar="SHARE",
        min=0,
        max=1,
        help="Share of the resolved rollouts without integrity marks to grade again with canaries (planted tests); "
        "those with marks always are.",
    ),
]
NoCanary = Annotated[bool, typer.Option("--no-canary", help="Grade nothing again with canaries.")]
ReuseFrom = Annotated[
    list[Path] | None,
    typer.Option(
        "--reuse-from", metavar="RUN", help="Also reuse the verdicts of this run for equal patches. Repeatable."
    ),
]
ReuseCheck = Annotated[
    float | None,
    typer.Option(
        "--reuse-check",
        metavar="SHARE",
        min=0,
        max=1,
        help="Share of the reusable verdicts to grade anyway, as a check (default: 0.05).",
    ),
]
Seeds = Annotated[int, typer.Option("--seeds", "-k", min=1, max=10**5, help="Rollouts per instance.")]
RegistryFolder = Annotated[
    Path | None,
    typer.Option(
        "--registry",
        metavar="FOLDER",
        help="Folder of checkpoint cards, searched before ./checkpoints and the shipped ones.",
    ),
]
Baseline = Annotated[
    str | None, typer.Option(metavar="ARM", help="Arm to compare the others with (default: the first).")
]
Series = Annotated[bool, typer.Option("--series", help="Compare every arm with the one before it.")]
AllPairs = Annotated[bool, typer.Option("--all-pairs", help="Compare every pair of arms.")]
TwoWay = Annotated[
    str | None,
    typer.Option(metavar="ROWS,COLUMNS", help="For example scaffold,model: does a gain depend on the row?"),
]
Registered = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Plan from `aem plan --register`: report every deviation from it."),
]
Level = Annotated[float, typer.Option(metavar="SHARE", min=0.5, max=0.999, help="Confidence level of the intervals.")]
Margin = Annotated[
    float | None,
    typer.Option(metavar="POINTS", min=0, max=100, help="Also test non-inferiority and superiority by this margin."),
]
Common = Annotated[
    bool, typer.Option("--common", help="Leave out tasks that only one arm has, instead of counting them as missing.")
]
Describe = Annotated[
    str | None,
    typer.Option(
        "--instances",
        metavar="NAME|FILE",
        help="Dataset that knows difficulty and issue date of the tasks: a name, or a .jsonl file.",
    ),
]
Cutoff = Annotated[
    str | None,
    typer.Option(metavar="DATE", help="YYYY-MM-DD: does the difference change for issues opened from this date on?"),
]
Calls = Annotated[
    str | None,
    typer.Option(
        metavar="FREE,WITHOUT[,FORCED]",
        help="Arms that may, cannot and must call a tool: which calls were needless, harmful or missed?",
    ),
]
Tax = Annotated[
    str | None,
    typer.Option(
        metavar="NATIVE,PROMPT,NULL,TOOL",
        help="Arms without tools, with the tool prompt, with idle tools, with tools: costs and gains of tools.",
    ),
]
EndsFile = Annotated[
    Path | None,
    typer.Option(
        "--ends",
        metavar="FILE",
        help="YAML file that overrides whose fault an exit status is, in all arms (docs/ends.md).",
    ),
]


DiskBudget = Annotated[
    str | None,
    typer.Option(
        "--disk-budget",
        metavar="SIZE",
        envvar="AEM_DISK_BUDGET",
        help="Disk for the task images, for example 200GB (default: free space less a reserve).",
    ),
]
EvictOthers = Annotated[
    bool,
    typer.Option(
        "--evict-others",
        envvar="AEM_EVICT_OTHERS",
        help="To keep within the disk budget, also remove images of these tasks that the run did not fetch.",
    ),
]
Mirror = Annotated[
    str | None,
    typer.Option(
        "--mirror",
        metavar="HOST[/PREFIX]",
        envvar="AEM_IMAGE_MIRROR",
        help="Registry to pull from instead of an image's own.",
    ),
]


class Retry(StrEnum):
    infra = "infra"


@dataclass
class Selecting:
    """Which tasks of a set: what `aem run`, `aem instances list` and `aem data prepare` share."""

    PANEL: ClassVar[str] = "Tasks of the set"

    ids: Ids = None
    repos: Repos = None
    difficulties: Difficulties = None
    slice_: Slice = None
    sample: Sample = None
    sample_seed: SampleSeed = 0

    def tasks(self) -> "Tasks":
        from aem_harness.api.running import Tasks

        parts = self.ids or (), self.repos or (), self.difficulties or (), self.slice_ or ""
        return Tasks(*parts, self.sample, self.sample_seed)


@dataclass
class Grading:
    """How patches are graded in containers: what `aem grade` and `aem data prepare` share."""

    workers: Annotated[int, typer.Option("--workers", "-w", min=1, help="Containers in parallel.")] = 4
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=1, help="Time limit for the tests of an instance.")
    ] = 1800
    memory: Annotated[str, typer.Option(metavar="SIZE", help="Memory limit of a container, for example 8g.")] = "4g"
    retry: Annotated[Retry | None, typer.Option(help="Also repeat gradings lost to infrastructure.")] = None


@dataclass
class Rechecking:
    """What is graded twice, and what is not: what `aem run` and `aem grade` share."""

    PANEL: ClassVar[str] = "Canaries and reused verdicts"

    canary: Canary = 0.05
    no_canary: NoCanary = False
    reuse_from: ReuseFrom = None
    reuse_check: ReuseCheck = None

    @property
    def share(self) -> float | None:
        """The share of the resolved rollouts without marks that get canaries; None: no rollout does."""
        return None if self.no_canary else self.canary

    def reuse(self, *, verdicts: bool = False) -> "Reuse | None":
        """Which verdicts are reused; None where the options ask for none. Raises ConfigError for a check of nothing."""
        from aem_harness.harness.errors import ConfigError
        from aem_harness.harness.run.origin import CHECK, Reuse

        if verdicts or self.reuse_from:
            return Reuse(self.reuse_from or (), CHECK if self.reuse_check is None else self.reuse_check)
        if self.reuse_check is not None:
            raise ConfigError(
                "--reuse-check without verdicts to reuse: give --reuse-verdicts or --reuse-from RUN as well"
            )
        return None


@dataclass
class Sites:
    """Where containers are: what all commands share that work on other engines."""

    engine: Engines = None
    ray: RayCluster = None

    def where(self) -> "Where":
        return where(self.engine, self.ray)


@dataclass
class Machines(Sites):
    """Where containers are, and how images get there: what all commands share that grade on other engines."""

    PANEL: ClassVar[str] = "Engines and images"

    disk_budget: DiskBudget = None
    evict_others: EvictOthers = False
    mirror: Mirror = None

    def where(self) -> "Where":
        from aem_harness.harness.run.flow import Supply, size_of

        budget = size_of(self.disk_budget) if self.disk_budget else None
        return where(self.engine, self.ray, Supply(budget, self.evict_others, self.mirror))


@dataclass
class Pairing:
    """Which arms are compared with which, and how sure: what `aem compare`, `aem report` and `aem table` share."""

    baseline: Baseline = None
    series: Series = False
    all_pairs: AllPairs = False
    common: Common = False
    level: Level = 0.95
    margin: Margin = None
    instances: Describe = None
    ends: EndsFile = None

    def refuse_contradictions(self) -> None:
        from aem_harness.harness.errors import ConfigError

        if self.series and self.all_pairs:
            raise ConfigError("--series and --all-pairs ask for different comparisons: give one of them")


@dataclass
class Comparing(Pairing):
    """How arms are compared: what `aem compare` and `aem report` share."""

    calls: Calls = None
    tax: Tax = None
    cutoff: Cutoff = None

    def options(self, *, trajectories: bool = True) -> "CompareOptions":
        from aem_harness.harness.compare.compare import CompareOptions

        self.refuse_contradictions()
        return CompareOptions(
            level=self.level,
            against="all" if self.all_pairs else "previous" if self.series else "baseline",
            common=self.common,
            margin=None if self.margin is None else self.margin / 100,
            trajectories=trajectories,
            calls=names(self.calls),
            tax=names(self.tax),
            cutoff=self.cutoff,
        )


def _without_types(parameters: list[Any]) -> list[Any]:
    """Leave out what typer says of a value by the name of its Python type: `<bool>`, `<list[Path]>`."""
    for one in parameters:
        if getattr(one, "is_flag", False):
            one.metavar = one.metavar or ""
        elif isinstance(one, TyperArgument):
            vars(one)["display_type_rich"] = lambda ctx: ""  # its name stands before it
    return parameters


class Plain(TyperCommand):
    """A command whose help has no names of Python types."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


class PlainGroup(TyperGroup):
    """The same for commands that have commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


# What `--help` shows as the value of an option that names none itself.
PLACEHOLDERS: dict[Any, str] = {str: "TEXT", int: "N", float: "NUMBER", Path: "PATH", bool: ""}


def name_values(app: typer.Typer) -> None:
    """Give every option of `app` a placeholder by its type, and every argument one by its name, of a list in singular.

    Options that take a number refuse `nan` and `inf`, which bounds let through in one release of typer or another.
    Choices and ranges stay as typer shows them. Prose is left to the terminal to wrap.
    """
    commands = [*app.registered_commands]
    app.info.cls = PlainGroup
    for group in app.registered_groups:
        group.cls = PlainGroup
        commands += group.typer_instance.registered_commands if group.typer_instance else []
    for command in commands:
        command.cls = Plain
        command.help = flowing(command.help or inspect.getdoc(command.callback) or "")
        command.epilog = flowing(command.epilog or "")
        for parameter in inspect.signature(command.callback).parameters.values() if command.callback else ():
            kind, *notes = get_args(parameter.annotation) or [None]
            inner = [one for one in (kind, *get_args(kind)) if one is not type(None)]
            inner += [one for outer in inner for one in get_args(outer)]
            word = next((PLACEHOLDERS[one] for one in inner if one in PLACEHOLDERS), None)
            for note in notes:
                if float in inner and isinstance(note, OptionInfo) and note.callback is None:
                    note.callback = _finite
                if word is not None and isinstance(note, OptionInfo) and note.metavar is None:
                    note.metavar = word
                if isinstance(note, ArgumentInfo) and note.metavar is None:
                    many = any(get_origin(one) is list for one in (kind, *get_args(kind)))
                    note.metavar = (parameter.name.removesuffix("s") if many else parameter.name).upper()


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter("give a finite number")
    return value


def flowing(text: str) -> str:
    """The text with one line for each paragraph; lines that begin with a space stay lines of their own."""
    return re.sub(r"(?<=\S)\n(?=\S)", " ", text)


def warn(notes: Iterable[str]) -> None:
    """Print what the reader has to know about the data on stderr, one line each."""
    for note in notes:
        typer.echo(f"warning: {note}", err=True)


def where(engines: Iterable[str] | None, ray: str | None, supply: "Supply | None" = None) -> "Where":
    """Where the containers are, by the options that say so, and how images get there."""
    from aem_harness.api.sites import Where, split
    from aem_harness.harness.errors import ConfigError

    if engines and ray:
        raise ConfigError("--engine and --ray both say where containers are: give one of them")
    return Where(split(list(engines or ())), ray or "", supply)


def given(context: typer.Context, group: Any) -> list[str]:
    """The options of a dataclass (see `grouped`) that stand on the command line; environment variables are for all."""
    own = {one.name: context.get_parameter_source(one.name) for one in fields(group)}
    said = {name for name, source in own.items() if source is not None and source.name == "COMMANDLINE"}
    return [max(option.opts, key=len) for option in context.command.params if option.name in said]


def names(text: str | None) -> tuple[str, ...]:
    """The parts of a comma-separated option."""
    return tuple(text.split(",")) if text else ()


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """A Typer command from a function that takes dataclasses: each of their fields becomes an option, declared there.

    A dataclass with a `PANEL` has its options in a panel of that title in `--help`.
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    parameters = [
        option
        for one in inspect.signature(command).parameters.values()
        for option in (
            _options_of(groups[one.name])
            if one.name in groups
            else [one.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[one.name])]
        )
    ]

    @wraps(command)
    def flat(**values: Any) -> None:
        made = {name: kind(**{one.name: values.pop(one.name) for one in fields(kind)}) for name, kind in groups.items()}  # type: ignore[operator]
        command(**made, **values)

    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {one.name: one.annotation for one in parameters}
    del flat.__wrapped__
    return flat


def _options_of(group: Any) -> list[inspect.Parameter]:
    """The fields of a dataclass as keyword parameters, in the panel that it names."""
    annotations = get_type_hints(group, include_extras=True)
    parameters = []
    for one in fields(group):
        kind, declared = get_args(annotations[one.name])
        declared = copy(declared)  # several commands may share it
        declared.rich_help_panel = declared.rich_help_panel or getattr(group, "PANEL", None)
        default = inspect.Parameter.empty if one.default is MISSING else one.default
        parameters.append(
            inspect.Parameter(
                one.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, declared]
            )
        )
    return parameters
