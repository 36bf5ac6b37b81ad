"""`aem table`: a comparison as a table for a paper, with the note and the hash that make it reproducible."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from aem_harness.commands.lean import import_pandas
from aem_harness.commands.options import Pairing, Registered, TwoWay, given, grouped, names

if TYPE_CHECKING:
    from aem_harness.harness.report.again import MadeTable, TableOptions

EXAMPLES = """
LaTeX into a file; other columns; published figures beside:

  aem table results/base results/aem --out paper/main.tex

  aem table results/base results/aem --columns resolved,resolved-like,p

  aem table results/base results/aem --reference aem-paper

Rates by two columns, gains, and the interaction test:

  aem table results/* --two-way scaffold,model

The same bytes again, or one line on what has changed; on another machine, with the folders there:

  aem table --again paper/main.tex

  aem table --again paper/main.tex runs/base runs/aem

Columns: tasks seeds rollouts lost resolved resolved-like official highest adjusted adjusted-difference difference
difference-like p p-like moved verdict model, pass@K, pass^K, difficulty, repository, year, and every metric of
`aem compare` by its name with dashes (response-entropy, steps-per-resolved, ...), its paired difference as NAME:diff.
"""


class Format(StrEnum):
    latex = "latex"
    markdown = "markdown"
    csv = "csv"
    html = "html"


SUFFIXES = {".tex": Format.latex, ".md": Format.markdown, ".csv": Format.csv, ".html": Format.html}


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(grouped(table))


@dataclass
class Form:
    """What the table shows, and how."""

    PANEL: ClassVar[str] = "Form of the table"

    format: Annotated[Format | None, typer.Option(help="Default: from the suffix of --out, else markdown.")] = None
    columns: Annotated[str | None, typer.Option(metavar="NAME,...", help="Columns; see below.")] = None
    reference: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Published figures to add as rows: aem-paper.")
    ] = None
    two_way: TwoWay = None
    transpose: Annotated[bool, typer.Option("--transpose", help="Show arms as columns, for many metrics.")] = False
    wide: Annotated[bool, typer.Option("--wide", help="LaTeX: span both columns of the page (table*).")] = False
    caption: Annotated[str, typer.Option(help="Caption (default: a sentence on what was compared).")] = ""
    label: Annotated[str, typer.Option(help="LaTeX label.")] = "tab:aem"


def table(
    context: typer.Context,
    arms: Annotated[
        list[str] | None, typer.Argument(help="What `aem compare` takes; the first is the baseline.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="File to write (default: standard output).")
    ] = None,
    again: Annotated[
        str | None,
        typer.Option(metavar="HASH|FILE", help="Reproduce a table from the hash in its note, or from its file."),
    ] = None,
    registered: Registered = None,
    *,
    how: Pairing,
    look: Form,
) -> None:
    """Print a comparison as LaTeX, Markdown, CSV or HTML, with intervals, marks of significance and provenance."""
    if not (how.instances or again):
        import_pandas()
    from aem_harness.harness.errors import ConfigError
    from aem_harness.harness.io import write_text
    from aem_harness.harness.report.again import TABLES, make_again, make_table, remember

    how.refuse_contradictions()
    if again:
        ignored = [*(["--registered"] if registered else []), *given(context, how), *given(context, look)]
        if ignored:
            raise ConfigError(f"--again makes a table as it was made: remove {', '.join(ignored)}")
        made = make_again(again, sources=arms or ())
    else:
        made = make_table(arms or [], _options(out, registered, how, look))
    _warn_of_width(made)
    if out is None:
        typer.echo(made.text, nl=False)
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, made.text)
    if not again:
        path = remember(made, out.parent if out else TABLES)
        typer.echo(f"inputs, for --again: {path}", err=True)


def _options(out: Path | None, registered: Path | None, how: Pairing, look: Form) -> "TableOptions":
    from aem_harness.harness.ends import read_ends
    from aem_harness.harness.report.again import TableOptions
    from aem_harness.harness.report.paper import DEFAULT_COLUMNS

    chosen = look.format or SUFFIXES.get(out.suffix if out else "", Format.markdown)
    return TableOptions(
        format=chosen.value,
        columns=names(look.columns) or DEFAULT_COLUMNS,
        baseline=how.baseline,
        series=how.series,
        common=how.common,
        level=how.level,
        instances=how.instances,
        references=tuple(look.reference or ()),
        caption=look.caption,
        label=look.label,
        transpose=look.transpose,
        all_pairs=how.all_pairs,
        wide=look.wide,
        two_way=look.two_way,
        margin=None if how.margin is None else how.margin / 100,
        registered=str(registered) if registered else None,
        ends=read_ends(how.ends).overrides,
    )


def _warn_of_width(made: "MadeTable") -> None:
    """Say on stderr where the table will not fit a page or a column, and what would help."""
    from aem_harness.harness.report.formats import COLUMN_WIDTH, TEXT_WIDTH, WIDE

    options = made.inputs.options
    ways = {"--transpose": not options.transpose, "fewer --columns": not options.two_way}
    tries = [name for name, useful in ways.items() if useful]
    tried = f": try {' or '.join(tries)}" if tries else ""
    page = TEXT_WIDTH * (WIDE if options.wide else 1)
    if made.width > 1.15 * page:
        typer.echo(f"about {made.width / page:.1f} times as wide as a page{tried}", err=True)
    elif made.width > COLUMN_WIDTH and not options.wide:
        typer.echo("wider than one column of a two-column paper: there, give --wide (table*)", err=True)
