"""Breaking text into lines of limited width."""

from .width import cell_width, pieces


def wrap(text, width):
    """The lines of `text`, none wider than `width` cells, broken at spaces; longer words are broken where they must.

    Line breaks in the text are kept. There is always at least one line, perhaps empty.
    """
    if width < 1:
        raise ValueError(f"cannot wrap to {width} cells")
    lines = []
    for paragraph in text.split("\n"):
        lines.extend(_wrap_paragraph(paragraph, width))
    return lines


def _wrap_paragraph(paragraph, width):
    lines = []
    line = ""
    for word in paragraph.split():
        candidate = f"{line} {word}" if line else word
        if cell_width(candidate) <= width:
            line = candidate
            continue
        if line:
            lines.append(line)
        *full, line = _break_word(word, width)
        lines.extend(full)
    lines.append(line)
    return lines


def _break_word(word, width):
    """A word in parts of at most `width` cells (a character wider than that stands alone)."""
    parts = [""]
    used = 0
    for piece, cells in pieces(word):
        if used + cells > width and used:
            parts.append("")
            used = 0
        parts[-1] += piece
        used += cells
    return parts
