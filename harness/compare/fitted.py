"""Tables for the terminal in which numbers and intervals stay whole: where a line is too long, words give way."""

import re
from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

LEAST = 9  # cells of the text column, if words have to be cut
BETWEEN = 2  # cells between two columns

# Where a cell may be broken: nowhere, before a bracket (`0.1 (alone 0.012)`), outside intervals, at spaces, anywhere.
WHOLE, ASIDE, LOOSE, WORDS, ANYWHERE = r"\n", r"\n| (?=[(\[])", r"\n| (?![^\[]*\])", r"\s+", ""
# What gives way, for the text column, the numbers and the headings over them; the first that fits is taken.
STEPS = (
    (WHOLE, WHOLE, WHOLE),
    (WHOLE, WHOLE, WORDS),
    (WORDS, ASIDE, WORDS),
    (WORDS, LOOSE, WORDS),
    (ANYWHERE, ASIDE, WORDS),
    (ANYWHERE, LOOSE, WORDS),
)


class Fitted(Table):
    """A text column and columns of numbers. Where no step fits, rich wraps as it can."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        texts = [[_plain(console, one) for one in (column.header, *column.cells)] for column in self.columns]
        widths = fit(texts, options.max_width - BETWEEN * len(texts))
        for at, column in enumerate(self.columns):
            # rich counts one of the first column's two margins where margins are collapsed
            column.width = widths[at] + (not at) if widths else None
        yield from super().__rich_console__(console, options)


def table_of(title: str, first: str, others: Sequence[str]) -> Table:
    """An empty table: a text column and columns of numbers."""
    table = Fitted(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.padding, table.collapse_padding, table.show_edge = (0, 1, 0, 1), True, False
    table.add_column(first, overflow="fold", min_width=12)
    for name in others:
        table.add_column(name, justify="right", overflow="fold")
    return table


def fit(columns: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """Widths of the columns, each a heading and its cells, that take up no more than `room`; None: there are none."""
    wanted = [_width(texts, WHOLE) for texts in columns]
    for first, numbers, heads in STEPS:
        widths = [_width(columns[0], first) if first else LEAST]
        widths += [max(_width(texts[:1], heads), _width(texts[1:], numbers)) for texts in columns[1:]]
        spare = room - sum(widths)
        if spare < 0:
            continue
        more = min(spare, max(wanted[0] - widths[0], 0))
        widths[0], spare = widths[0] + more, spare - more
        for at, most in [*enumerate(wanted)][1:]:  # what the text leaves makes numbers whole
            if most - widths[at] <= spare:
                widths[at], spare = most, spare - (most - widths[at])
        return widths
    return None


def _width(texts: Iterable[str], breaks: str) -> int:
    """The longest piece of the texts."""
    return max((cell_len(part) for text in texts for part in re.split(breaks, text)), default=0)


def _plain(console: Console, cell: RenderableType) -> str:
    return console.render_str(cell).plain if isinstance(cell, str) else str(cell) if isinstance(cell, Text) else ""
