"""Options that several commands share, declared once."""

from pathlib import Path
from typing import Annotated

import typer

DataSet = Annotated[
    str, typer.Option("--set", help="verified, lite, full, multilingual, sample, tiny, or a .json/.jsonl/.parquet file")
]
Ids = Annotated[
    list[str] | None,
    typer.Option("--instance", "-i", help="Instance id or glob, or @FILE with one a line; may be repeated."),
]
Repos = Annotated[list[str] | None, typer.Option("--repo", help="Only this repository; may be repeated.")]
Difficulties = Annotated[list[str] | None, typer.Option("--difficulty", help="Only this difficulty; may be repeated.")]
Slice = Annotated[str | None, typer.Option("--slice", help="Python slice of the selection, for example 0:50.")]
Sample = Annotated[int | None, typer.Option("--sample", help="A random subset of this many instances.")]
SampleSeed = Annotated[int, typer.Option("--sample-seed", help="Seed of that subset.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--config-value", "-c", help="Override a setting: dotted.key=value; may be repeated."),
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file with run settings.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the run (default: results/<arm>-<digest>).")]
Workers = Annotated[int, typer.Option("--workers", "-w", min=1, help="Rollouts at a time.")]
GradeWorkers = Annotated[int, typer.Option("--grade-workers", min=1, help="Gradings at a time.")]
Seeds = Annotated[int, typer.Option("--seeds", "-k", min=1, help="Rollouts per instance.")]
RegistryFolder = Annotated[
    Path | None,
    typer.Option("--registry", help="Folder of checkpoint cards, searched before ./checkpoints and those shipped."),
]
Baseline = Annotated[str | None, typer.Option(help="Arm the others are compared with (default: the first).")]
Series = Annotated[bool, typer.Option("--series", help="Compare every arm with the one before it.")]
Level = Annotated[float, typer.Option(min=0.5, max=0.999, help="Confidence level of the intervals.")]
Margin = Annotated[
    float | None, typer.Option(min=0, max=100, help="Points: also test non-inferiority and superiority by this.")
]
Common = Annotated[
    bool, typer.Option("--common", help="Leave out tasks that only one arm has, instead of counting them missing.")
]
Describe = Annotated[
    str | None,
    typer.Option("--instances", help="Dataset that knows difficulty and issue date: a name, or a .jsonl file."),
]
Calls = Annotated[
    str | None, typer.Option(help="FREE,WITHOUT[,FORCED]: arms for needless, harmful and missed tool calls.")
]
Tax = Annotated[str | None, typer.Option(help="NATIVE,PROMPT,NULL,TOOL: arms for the tool-use tax.")]


def names(text: str | None) -> tuple[str, ...]:
    """What an option lists, separated by commas."""
    return tuple(text.split(",")) if text else ()
