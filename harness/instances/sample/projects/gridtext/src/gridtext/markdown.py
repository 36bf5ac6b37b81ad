"""Tables for Markdown files (GitHub's dialect)."""

from .width import cell_width, pad, strip_ansi

_RULES = {"l": ":---", "r": "---:", "c": ":---:"}


def to_markdown(table):
    """A `Table` as a Markdown table, padded so that the source reads well too."""
    rows = [[_escape(cell) for cell in row] for row in (table.headers, *table.rows)]
    rules = [_RULES[align] for align in table.align]
    widths = [max(map(cell_width, column)) for column in zip(rules, *rows)]
    lines = [_line(row, widths, table.align) for row in rows]
    lines.insert(1, _line([_rule(rule, width) for rule, width in zip(rules, widths)], widths, table.align))
    return "\n".join(lines)


def _line(cells, widths, align):
    return "| " + " | ".join(pad(cell, width, side) for cell, width, side in zip(cells, widths, align)) + " |"


def _rule(rule, width):
    """The rule stretched to the column, its colons at the ends."""
    return rule.replace("---", "-" * (width - len(rule) + 3))


def _escape(cell):
    """A cell that stays one cell: no colour codes, bars escaped, line breaks as tags."""
    return strip_ansi(cell).replace("|", "\\|").replace("\n", "<br>")
