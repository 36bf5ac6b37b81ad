"""Physical lines to logical lines: comments removed, continuation lines joined."""

from dataclasses import dataclass

COMMENT_CHARS = "#;"
QUOTES = "\"'"


@dataclass
class LogicalLine:
    """One statement of the file: the number of its first physical line (from 1) and its text without comment."""

    number: int
    text: str


def strip_comment(line):
    """`line` without a trailing comment.

    A comment starts at a `#` or `;` outside quotes that opens the line or follows white space, so that
    `http://host/#anchor` stays whole.
    """
    quote = None
    position = 0
    while position < len(line):
        char = line[position]
        if quote:
            if char == "\\":
                position += 1
            elif char == quote:
                quote = None
        elif char in QUOTES and _opens_value(line, position):
            quote = char
        elif char in COMMENT_CHARS and (position == 0 or line[position - 1].isspace()):
            return line[:position].rstrip()
        position += 1
    return line.rstrip()


def logical_lines(text):
    """The statements of `text`. An indented line continues the one before it; a blank line ends a statement."""
    current = None
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = strip_comment(line)
        if not stripped.strip():
            if current and not line.strip():
                yield current
                current = None
            continue
        if line[0].isspace() and current:
            current.text += "\n" + stripped.strip()
            continue
        if current:
            yield current
        current = LogicalLine(number, stripped.strip())
    if current:
        yield current


def _opens_value(line, position):
    """Whether a quote at `position` opens a quoted value: only white space between it and `=`, `,` or line start."""
    before = line[:position].rstrip()
    return not before or before[-1] in "=,:["
