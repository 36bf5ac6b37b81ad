"""Tables for the terminal in which numbers and intervals stay whole: where a line is too long, words give way."""

import copy
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markup import escape
from rich.table import Table
from rich.text import Text

LEAST = 9  # cells of the text column, if words have to be cut
BETWEEN = 2  # cells between two columns

# Where a cell may be broken: nowhere, before a bracket (`0.1 (alone 0.012)`), outside intervals, at spaces, anywhere.
WHOLE, ASIDE, LOOSE, WORDS, ANYWHERE = r"\n", r"\n| (?=[(\[])", r"\n| (?![^\[]*\])", r"(?<=\S)\s+", ""


class Step(NamedTuple):
    """What gives way: where the text column, the numbers and the headings over them may be broken."""

    first: str
    numbers: str
    heads: str

    def of(self, at: int, *, head: bool) -> str:
        return self.heads if head and at else self.numbers if at else self.first


STEPS = (  # the first that fits is taken
    Step(WHOLE, WHOLE, WHOLE),
    Step(WHOLE, WHOLE, WORDS),
    Step(WORDS, ASIDE, WORDS),
    Step(WORDS, LOOSE, WORDS),
    Step(ANYWHERE, ASIDE, WORDS),
    Step(ANYWHERE, LOOSE, WORDS),
    Step(ANYWHERE, WORDS, WORDS),
)


class Fit(NamedTuple):
    step: Step
    widths: list[int]


class Fitted(Table):
    """A text column and columns of numbers. Where no step fits, rich wraps as it can."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        cells = [[_text(console, one) for one in (column.header, *column.cells)] for column in self.columns]
        texts = [[cell.plain for cell in column] for column in cells]
        shown = copy.copy(self)
        if found := fit(texts, options.max_width - BETWEEN * len(texts)):
            shown.columns = []
            for at, (column, width) in enumerate(zip(self.columns, found.widths, strict=True)):
                lines: list[RenderableType] = [
                    _lines(cell, found.step.of(at, head=not n), width) for n, cell in enumerate(cells[at])
                ]
                # rich counts one of the first column's two margins where margins are collapsed
                shown.columns.append(replace(column, width=width + (not at), header=lines[0], _cells=lines[1:]))
        yield from Table.__rich_console__(shown, console, options)


def table_of(title: str, first: str, others: Sequence[str]) -> Table:
    """An empty table: a text column and columns of numbers. Title and headings are no markup; cells are."""
    table = Fitted(title=escape(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.padding, table.collapse_padding, table.show_edge = (0, 1, 0, 1), True, False
    table.add_column(escape(first), overflow="fold")
    for name in others:
        table.add_column(escape(name), justify="right", overflow="fold")
    return table


def fit(columns: Sequence[Sequence[str]], room: int) -> Fit | None:
    """Widths of the columns, each a heading and its cells, that take up no more than `room`; None: there are none."""
    wanted = [_width(texts, WHOLE) for texts in columns]
    for step in STEPS:
        widths = [_width(columns[0], step.first) if step.first else LEAST]
        widths += [max(_width(texts[:1], step.heads), _width(texts[1:], step.numbers)) for texts in columns[1:]]
        spare = room - sum(widths)
        if spare < 0:
            continue
        more = min(spare, max(wanted[0] - widths[0], 0))
        widths[0], spare = widths[0] + more, spare - more
        for at, most in [*enumerate(wanted)][1:]:  # what the text leaves makes numbers whole
            if most - widths[at] <= spare:
                widths[at], spare = most, spare - (most - widths[at])
        return Fit(step, widths)
    return None


def _width(texts: Iterable[str], breaks: str) -> int:
    """The longest piece of the texts."""
    return max((cell_len(part) for text in texts for part in re.split(breaks, text)), default=0)


def _text(console: Console, cell: RenderableType) -> Text:
    return console.render_str(cell) if isinstance(cell, str) else cell if isinstance(cell, Text) else Text()


def _lines(text: Text, breaks: str, width: int) -> Text:
    """The text in lines that end where it may be broken; rich alone would break it at any space."""
    if not breaks or all(cell_len(line) <= width for line in text.plain.split("\n")):
        return text
    return Text("\n").join(text[start:stop] for start, stop in _spans(text.plain, breaks, width))


def _spans(plain: str, breaks: str, width: int) -> Iterator[tuple[int, int]]:
    """Where the lines begin and end: as many pieces in each as go into the width."""
    gaps = [gap.span() for gap in re.finditer(breaks, plain)]
    pieces = zip([0, *(end for _, end in gaps)], [*(start for start, _ in gaps), len(plain)], strict=True)
    first, last = next(pieces)
    for start, stop in pieces:
        if "\n" in plain[last:start] or cell_len(plain[first:stop]) > width:
            yield first, last
            first = start
        last = stop
    yield first, last
