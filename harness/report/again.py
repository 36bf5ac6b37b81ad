"""A table that can be made again: its inputs in a small file named by their hash, refused when they have changed."""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

from aem_harness.harness.compare.outcomes import Outcomes, describe_tasks, load, readable
from aem_harness.harness.ends import Whose, read_ends
from aem_harness.harness.errors import ConfigError, DataError, validating
from aem_harness.harness.io import read_json, write_json
from aem_harness.harness.report.paper import DEFAULT_COLUMNS, PaperTable, needs_trajectories, paper_table, transposed
from aem_harness.harness.schema import KEY
from aem_harness.harness.types import Record

TABLES = Path("results") / "tables"
PLACES = {"source", "trajectory", "at"}  # columns that say where and when, not what happened


class TableOptions(Record):
    """How a table is made from its outcomes. `ends` are the rows of a user's own, not the file that they came from."""

    format: str = "markdown"
    columns: tuple[str, ...] = DEFAULT_COLUMNS
    baseline: str | None = None
    series: bool = False
    common: bool = False
    level: float = 0.95
    instances: str | None = None
    references: tuple[str, ...] = ()
    caption: str = ""
    label: str = "tab:aem"
    transpose: bool = False
    all_pairs: bool = False
    wide: bool = False
    registered: str | None = None
    ends: Mapping[str, Whose] = {}
    two_way: str | None = None
    margin: float | None = None

    def facts(self) -> dict[str, Any]:
        """What is hashed; a table that does not use a later option keeps the hash that it had before there was one."""
        return self.model_dump(
            mode="json", exclude={name for name in ("ends", "two_way", "margin") if not getattr(self, name)}
        )


class TableInputs(Record):
    """The small file. `folder` leads from its own folder to where the sources' relative paths begin.

    `outcomes` is the digest of each arm's rows, `output` that of the text.
    """

    hash: str
    aem: str
    sources: tuple[str, ...]
    folder: str
    outcomes: dict[str, str]
    options: TableOptions
    output: str = ""


class MadeTable(Record):
    """A table's text and the inputs that make it again. `width` in characters, 0 unless it is LaTeX."""

    text: str
    inputs: TableInputs
    width: int = 0


def make_table(sources: Sequence[str], options: TableOptions) -> MadeTable:
    """Read the arms, compare them, and write the table down."""
    from aem_harness import __version__
    from aem_harness.harness.compare.compare import CompareOptions, compare
    from aem_harness.harness.compare.registration import as_registered
    from aem_harness.harness.report.formats import FORMATS
    from aem_harness.harness.report.reference import reference

    if options.format not in FORMATS:
        raise ConfigError(f"no format {options.format!r}; there are: {', '.join(FORMATS)}")
    references = [reference(name) for name in options.references]
    outcomes = load(sources, read_ends(options.ends))
    if options.instances:
        outcomes = describe_tasks(outcomes, options.instances)
    reads = needs_trajectories(options.columns)
    digests = {arm: outcome_digest(outcomes, arm, trajectories=reads) for arm in outcomes.arms}
    inputs = TableInputs(
        hash=_hash({"aem": __version__, "outcomes": digests, "options": options.facts()}),
        aem=__version__,
        sources=tuple(map(str, sources)),
        folder=".",
        outcomes=digests,
        options=options,
    )
    if options.two_way:
        return _written(_two_way(outcomes, options, inputs), inputs)
    how = CompareOptions(
        level=options.level,
        against="all" if options.all_pairs else "previous" if options.series else "baseline",
        common=options.common,
        trajectories=reads,
        margin=options.margin,
    )
    comparison = compare(outcomes, options.baseline, options=how)
    if options.registered:
        comparison = as_registered(comparison, outcomes, Path(options.registered), how)
    comparison = comparison.model_copy(update={"ends": options.ends})
    table = paper_table(
        comparison,
        options.columns,
        references=references,
        caption=options.caption,
        label=options.label,
        hash=inputs.hash,
        wide=options.wide,
    )
    return _written(table, inputs)


def _written(table: PaperTable, inputs: TableInputs) -> MadeTable:
    from aem_harness.harness.report.formats import FORMATS, latex_width

    table = transposed(table) if inputs.options.transpose else table
    text = FORMATS[inputs.options.format](table)
    width = latex_width(table) if inputs.options.format == "latex" else 0
    return MadeTable(text=text, inputs=inputs.model_copy(update={"output": _sha(text.encode())}), width=width)


def _two_way(outcomes: Outcomes, options: TableOptions, inputs: TableInputs) -> PaperTable:
    """ConfigError for an option that a two-way table ignores."""
    from aem_harness.harness.compare.two_way import two_way
    from aem_harness.harness.report.two_way import two_way_table

    usual = TableOptions()
    unused = ("columns", "baseline", "series", "common", "references", "all_pairs", "registered", "margin")
    given = [f"--{name.replace('_', '-')}" for name in unused if getattr(options, name) != getattr(usual, name)]
    if given:
        have = "has" if len(given) == 1 else "have"
        raise ConfigError(f"{', '.join(given).replace('--references', '--reference')} {have} no effect with --two-way")
    return two_way_table(
        two_way(outcomes.table, options.two_way or "", level=options.level),
        outcomes.table,
        caption=options.caption,
        label=options.label,
        hash=inputs.hash,
        version=inputs.aem,
        wide=options.wide,
    )


def remember(made: MadeTable, folder: Path) -> Path:
    """Write the inputs into `folder` as `<hash>.json`; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{made.inputs.hash}.json"
    inputs = made.inputs.model_copy(update={"folder": os.path.relpath(Path.cwd(), folder)})
    write_json(path, inputs.model_dump(mode="json"))
    return path


def make_again(name: str, folder: Path = TABLES, sources: Sequence[str] = ()) -> MadeTable:
    """The same table once more, byte by byte. `name` is a hash, a `<hash>.json`, or a file that holds the table.

    `sources` says where its arms are now, in any order: the digests decide whether they are the same. Raises DataError
    when its arms hold other outcomes by now, or when other versions would print something else.
    """
    from aem_harness import __version__

    path = find_inputs(name, folder)
    known = _read_inputs(path)
    if known.aem != __version__:
        raise DataError(f"table {known.hash} was made by aem {known.aem}, this is {__version__}: make a new table")
    made = make_table(_in_order(sources, known), known.options) if sources else _where_it_was(path, known)
    then, today = known.outcomes, made.inputs.outcomes
    changed = [arm for arm in {**then, **today} if then.get(arm) != today.get(arm)]
    if changed:
        raise DataError(f"table {known.hash} cannot be reproduced: the outcomes of {', '.join(changed)} have changed")
    if made.inputs.output != known.output:
        raise DataError(
            f"table {known.hash} differs now for the same outcomes: numpy, scipy or the shipped reference "
            "has changed since; make a new table"
        )
    return made


def _where_it_was(path: Path, known: TableInputs) -> MadeTable:
    give = f"give the present place of its arms: aem table --again {path} ARM ..."
    start = path.parent / known.folder
    if not start.is_dir():
        raise DataError(f"table {known.hash} was made in a folder that does not exist here ({start}); {give}")
    with chdir(start):
        lost = [source for source in known.sources if not readable(source)]
        if lost:
            raise DataError(f"table {known.hash} needs {lost[0]}, which does not exist here; {give}")
        return make_table(known.sources, known.options)


def _in_order(sources: Sequence[str], known: TableInputs) -> list[str]:
    """The given sources in the order in which the table has their arms; those that it does not have come last."""
    places = {arm: place for place, arm in enumerate(known.outcomes)}
    found = [(min(places.get(arm, len(places)) for arm in load([source]).arms), str(source)) for source in sources]
    return [source for _, source in sorted(found, key=lambda one: one[0])]


def find_inputs(name: str, folder: Path) -> Path:
    """The file of a table's inputs; ConfigError says where it was looked for."""
    path = Path(name)
    if path.is_file() and path.suffix == ".json":
        return path
    places = [folder, Path()]
    if path.is_file():
        found = re.search(r"aem table -(?:\{\})?-again ([0-9a-f]{12})", path.read_text())
        if not found:
            raise ConfigError(f"{path} holds no `aem table --again HASH`: it is not a table of aem, or lost its note")
        name, places = found[1], [path.parent, *places]
    for place in places:
        if (place / f"{name}.json").is_file():
            return place / f"{name}.json"
    looked = " or ".join(dict.fromkeys("this folder" if place == Path() else str(place) for place in places))
    raise ConfigError(f"no {name}.json, with a table's inputs, in {looked}: give its path, or that of the table")


def _read_inputs(path: Path) -> TableInputs:
    with validating(DataError, f"{path} does not hold the inputs of a table"):
        return TableInputs.model_validate(read_json(path))


def outcome_digest(outcomes: Outcomes, arm: str, *, trajectories: bool = False) -> str:
    """A digest of what an arm's rows say, wherever they lie; with `trajectories` also of those files' bytes."""
    table = outcomes.table[outcomes.table["arm"] == arm].sort_values(KEY, kind="stable")
    columns = [name for name in table.columns if name not in PLACES and table[name].notna().any()]
    parts = [table[columns].to_csv(index=False)]
    if trajectories:
        parts += [_sha(Path(path).read_bytes()) for path in table["trajectory"].dropna()]
    return _sha("\n".join(parts).encode("utf-8", "surrogatepass"))[:16]


def _hash(value: Any) -> str:
    return _sha(json.dumps(value, sort_keys=True).encode())[:12]


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
