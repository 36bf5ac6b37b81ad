"""How many terminal cells a text takes, and cutting and padding by that measure."""

import re
import unicodedata

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
RESET = "\x1b[0m"


def strip_ansi(text):
    """`text` without colour codes."""
    return _ANSI.sub("", text)


def char_width(char):
    """0 for combining and control characters, 2 for East Asian wide ones, 1 for the rest."""
    if unicodedata.combining(char) or unicodedata.category(char) in ("Cc", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cell_width(text):
    """The terminal cells that one line of text takes."""
    return sum(map(char_width, strip_ansi(text)))


def pieces(text):
    """`text` in order as (piece, cells): each character, and each colour code as one piece of no width."""
    position = 0
    while position < len(text):
        code = _ANSI.match(text, position)
        if code:
            yield code.group(), 0
            position = code.end()
        else:
            yield text[position], char_width(text[position])
            position += 1


def truncate(text, width, ellipsis="…"):
    """`text` if it fits into `width` cells, else its beginning with the ellipsis, at most `width` cells in all.

    Colour codes cost nothing; if any were cut through, the result ends with a reset.
    """
    if cell_width(text) <= width:
        return text
    room = width - cell_width(ellipsis)
    if room < 0:
        return ""
    kept = []
    coloured = False
    for piece, cells in pieces(text):
        if cells > room:
            break
        room -= cells
        coloured = coloured or piece.startswith("\x1b")
        kept.append(piece)
    return "".join(kept) + ellipsis + (RESET if coloured else "")


def pad(text, width, align="l"):
    """`text` filled with spaces to `width` cells: left, right or centred (the odd space goes right)."""
    space = max(0, width - cell_width(text))
    if align == "r":
        return " " * space + text
    if align == "c":
        return " " * (space // 2) + text + " " * (space - space // 2)
    return text + " " * space
