"""Options that several commands share, declared once."""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer
from typer.models import OptionInfo

DataSet = Annotated[
    str,
    typer.Option(
        "--set",
        metavar="NAME|FILE",
        help="verified, lite, full, multilingual, sample, tiny, OWNER/NAME[:SPLIT] of the hub, "
        "or a .json/.jsonl/.parquet file",
    ),
]
Ids = Annotated[
    list[str] | None,
    typer.Option(
        "--instance",
        "-i",
        metavar="ID|GLOB|@FILE",
        help="Instance id or glob, or @FILE with one a line; may be repeated.",
    ),
]
Repos = Annotated[
    list[str] | None, typer.Option("--repo", metavar="OWNER/NAME", help="Only this repository; may be repeated.")
]
Difficulties = Annotated[
    list[str] | None, typer.Option("--difficulty", metavar="TEXT", help="Only this difficulty; may be repeated.")
]
Slice = Annotated[
    str | None, typer.Option("--slice", metavar="FROM:TO", help="Python slice of the selection, for example 0:50.")
]
Sample = Annotated[
    int | None, typer.Option("--sample", metavar="COUNT", help="A random subset of this many instances.")
]
SampleSeed = Annotated[int, typer.Option("--sample-seed", help="Seed of that subset.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--config-value", "-c", metavar="KEY=VALUE", help="Override a setting: dotted.key=value; may be repeated."
    ),
]
ConfigFile = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="YAML file with run settings.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FOLDER", help="Folder of the run (default: results/<arm>-<digest>)."),
]
Workers = Annotated[int, typer.Option("--workers", "-w", min=1, help="Rollouts at a time.")]
GradeWorkers = Annotated[int, typer.Option("--grade-workers", min=1, help="Gradings at a time.")]
Canary = Annotated[
    float,
    typer.Option(
        "--canary",
        min=0,
        max=1,
        help="Share of resolved rollouts without marks that are graded again with canaries, beside all marked ones.",
    ),
]
NoCanary = Annotated[bool, typer.Option("--no-canary", help="Grade nothing again with canaries, marked or not.")]
Seeds = Annotated[int, typer.Option("--seeds", "-k", min=1, help="Rollouts per instance.")]
RegistryFolder = Annotated[
    Path | None,
    typer.Option(
        "--registry",
        metavar="FOLDER",
        help="Folder of checkpoint cards, searched before ./checkpoints and those shipped.",
    ),
]
Baseline = Annotated[
    str | None, typer.Option(metavar="ARM", help="Arm the others are compared with (default: the first).")
]
Series = Annotated[bool, typer.Option("--series", help="Compare every arm with the one before it.")]
AllPairs = Annotated[bool, typer.Option("--all-pairs", help="Compare every arm with every other one.")]
Registered = Annotated[
    Path | None, typer.Option(help="A plan of `aem plan --register`: say whether all is as registered.")
]
Level = Annotated[float, typer.Option(min=0.5, max=0.999, help="Confidence level of the intervals.")]
Margin = Annotated[
    float | None,
    typer.Option(metavar="POINTS", min=0, max=100, help="Points: also test non-inferiority and superiority by this."),
]
Common = Annotated[
    bool, typer.Option("--common", help="Leave out tasks that only one arm has, instead of counting them missing.")
]
Describe = Annotated[
    str | None,
    typer.Option(
        "--instances",
        metavar="NAME|FILE",
        help="Dataset that knows difficulty and issue date: a name, or a .jsonl file.",
    ),
]
Cutoff = Annotated[
    str | None,
    typer.Option(
        metavar="DATE", help="A date, YYYY-MM-DD: is the difference another one on issues opened from then on?"
    ),
]
Calls = Annotated[
    str | None, typer.Option(help="FREE,WITHOUT[,FORCED]: arms for needless, harmful and missed tool calls.")
]
Tax = Annotated[str | None, typer.Option(help="NATIVE,PROMPT,NULL,TOOL: arms for the tool-use tax.")]
EndsFile = Annotated[
    Path | None,
    typer.Option(
        "--ends", metavar="FILE", help="YAML, `word: whose` a line: whose fault an end is, in all arms (docs/ends.md)."
    ),
]


# What `--help` shows as the value of an option that names none itself.
PLACEHOLDERS: dict[Any, str] = {str: "TEXT", int: "N", float: "NUMBER", Path: "PATH"}


def name_values(app: typer.Typer) -> None:
    """Give every option of `app` a placeholder by its type; choices and ranges stay as typer shows them."""
    commands = [*app.registered_commands]
    for group in app.registered_groups:
        commands += group.typer_instance.registered_commands if group.typer_instance else []
    for command in commands:
        for parameter in inspect.signature(command.callback).parameters.values() if command.callback else ():
            kind, *notes = get_args(parameter.annotation) or [None]
            inner = [one for one in (kind, *get_args(kind)) if one is not type(None)]
            inner += [one for outer in inner for one in get_args(outer)]
            word = next((PLACEHOLDERS[one] for one in inner if one in PLACEHOLDERS), None)
            for note in notes:
                if word and isinstance(note, OptionInfo) and note.metavar is None:
                    note.metavar = word


def warn(notes: Iterable[str]) -> None:
    """What the reader has to know about the data, on stderr, a line each."""
    for note in notes:
        typer.echo(f"warning: {note}", err=True)


def names(text: str | None) -> tuple[str, ...]:
    """What an option lists, separated by commas."""
    return tuple(text.split(",")) if text else ()


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """A Typer command from a function of dataclasses: each of their fields becomes an option, declared there."""
    groups = {name: kind for name, kind in get_type_hints(command).items() if is_dataclass(kind)}
    parameters = [
        inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if one.default is MISSING else one.default,
            annotation=get_type_hints(kind, include_extras=True)[one.name],
        )
        for kind in groups.values()
        for one in fields(kind)
    ]

    @wraps(command)
    def flat(**values: Any) -> None:
        made = {name: kind(**{one.name: values[one.name] for one in fields(kind)}) for name, kind in groups.items()}  # type: ignore[operator]
        command(**made)

    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {one.name: one.annotation for one in parameters}
    del flat.__wrapped__
    return flat
