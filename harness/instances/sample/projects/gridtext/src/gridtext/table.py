"""Rows and columns, and their rendering in plain text."""

from dataclasses import dataclass

from .layout import fit_columns
from .width import cell_width, pad, truncate
from .wrap import wrap


@dataclass(frozen=True)
class Style:
    """The text between columns, and the character of the line under the header (none if empty)."""

    separator: str = "  "
    rule: str = "-"


class Table:
    """A table with a header. `align` has one of l, r, c for each column, by default all l."""

    def __init__(self, headers, rows=None, align=None, style=Style()):
        self.headers = [str(header) for header in headers]
        self.align = align or "l" * len(self.headers)
        if len(self.align) != len(self.headers):
            raise ValueError(f"{len(self.headers)} columns but {len(self.align)} alignments")
        if set(self.align) - set("lrc"):
            raise ValueError(f"alignments are l, r and c, not {self.align!r}")
        self.style = style
        self.rows = []
        for row in rows or ():
            self.add_row(*row)

    def add_row(self, *cells):
        """One cell for each column; None is shown as nothing, floats with two decimals."""
        if len(cells) != len(self.headers):
            raise ValueError(f"{len(self.headers)} columns but {len(cells)} cells: {cells!r}")
        self.rows.append([_text(cell) for cell in cells])

    def sort(self, column, reverse=False):
        """Sort the rows by the text of a column, given by header."""
        index = self.headers.index(column)
        self.rows.sort(key=lambda row: row[index], reverse=reverse)

    def natural_widths(self):
        """The width of each column if nothing were wrapped or cut."""
        columns = zip(self.headers, *self.rows)
        return [max(cell_width(line) for cell in column for line in cell.split("\n")) for column in columns]

    def render(self, width=None, wrap_cells=True):
        """The table as text, no line wider than `width` cells if the columns can be made to fit.

        Cells too wide for their column are wrapped over several lines, or cut without `wrap_cells`.
        """
        widths = self.natural_widths()
        if width is not None:
            widths = fit_columns(widths, width - cell_width(self.style.separator) * (len(widths) - 1))
        lines = self._lines(self.headers, widths, wrap_cells)
        if self.style.rule:
            lines.append(self.style.separator.join(self.style.rule * each for each in widths))
        for row in self.rows:
            lines.extend(self._lines(row, widths, wrap_cells))
        return "\n".join(line.rstrip() for line in lines)

    def _lines(self, row, widths, wrap_cells):
        """The text lines of one row, as many as its tallest cell has."""
        cells = [_fit(cell, width, wrap_cells) for cell, width in zip(row, widths)]
        height = max(map(len, cells), default=0)
        lines = []
        for index in range(height):
            parts = [cell[index] if index < len(cell) else "" for cell in cells]
            padded = [pad(part, width, align) for part, width, align in zip(parts, widths, self.align)]
            lines.append(self.style.separator.join(padded))
        return lines


def _fit(cell, width, wrap_cells):
    if not width:
        return [""]
    if wrap_cells:
        return wrap(cell, width)
    return [truncate(line, width) for line in cell.split("\n")]


def _text(cell):
    if cell is None:
        return ""
    return f"{cell:.2f}" if isinstance(cell, float) else str(cell)
