"""A paper table written down: LaTeX (booktabs), Markdown, CSV, HTML."""

import csv
import html
import io
import textwrap
from collections.abc import Callable, Mapping, Sequence

from aem_harness.harness.compare.words import amount, percent, points, probability
from aem_harness.harness.report.columns import Cell, Head
from aem_harness.harness.report.paper import PaperTable

MINUS = "\N{MINUS SIGN}"
COLUMN_WIDTH = 55  # of a footnotesize one that fit one column of two, 229 pt; 50 of a small one
WIDE = 1.36  # the text width of a two-column article (469 pt) in that of a one-column one (345 pt)
TEXT_WIDTH = 76  # characters of a footnotesize LaTeX table that fit the text width of an article; 66 of a small one


def number(cell: Cell, value: float) -> str:
    """A number as its column shows it, with a typographic minus."""
    match cell.kind:
        case "percent":
            text = percent(value)
        case "points":
            text = points(value)
        case "count":
            text = f"{value:.0f}"
        case "change":
            text = amount(value, signed=True)
        case "p":
            text = probability(value)
        case _:
            text = amount(value)
    return text.replace("-", MINUS)


def value_text(cell: Cell) -> str:
    """The cell without interval and marks."""
    return cell.text if cell.value is None else number(cell, cell.value)


def interval_text(cell: Cell) -> str:
    """`[38.0, 46.7]`, with its sign; empty where there is none."""
    if cell.low is None or cell.high is None:
        return ""
    return f"[{number(cell, cell.low)}, {number(cell, cell.high)}]" + cell.sign


# --- LaTeX ----------------------------------------------------------------------------------------------------------

_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$", MINUS: "$-$",
    "†": r"$^\dagger$", "‡": r"$^\ddagger$", "§": r"$^\S$", "¶": r"$^\P$",
    "…": r"\dots{}", "≥": r"$\ge$", "≤": r"$\le$",
}  # fmt: skip


def tex(text: str) -> str:
    """`text` with what LaTeX would take for its own escaped; `code` in backticks becomes typewriter."""
    plain = "".join(_TEX.get(char, char if ord(char) < 0x250 else "?") for char in text)
    parts = plain.split("`")
    return "".join(
        rf"\texttt{{{part.replace('--', '-{}-')}}}" if i % 2 and len(parts) % 2 else part
        for i, part in enumerate(parts)
    )


def latex(table: PaperTable) -> str:
    r"""A `table` float; the document needs `\usepackage{booktabs}` only. Intervals stand in a column of their own."""
    double = [_has_interval(table, i) for i in range(len(table.heads))]
    starred = [any(cells[i].mark for _, cells in table.rows) for i in range(len(table.heads))]
    spec = "l" + "".join("r@{}l" if two else _align(c) for c, two in zip(table.heads, double, strict=True))
    environment = "table*" if table.wide else "table"
    width = latex_width(table)
    tight = width > 66 or (not table.wide and 50 < width <= COLUMN_WIDTH)  # else a line too long for a small one
    heads = [
        rf"\multicolumn{{2}}{{c}}{{{_tex_head(table, i)}}}" if two else _tex_head(table, i)
        for i, two in enumerate(double)
    ]
    lines = [
        "% Needs \\usepackage{booktabs}.",
        rf"\begin{{{environment}}}[t]",
        r"\centering",
        rf"\caption{{{tex(table.caption)}}}",
        rf"\label{{{table.label}}}",
        *([r"\footnotesize", r"\setlength{\tabcolsep}{4pt}"] if tight else [r"\small"]),
        rf"\begin{{tabular}}{{@{{}}{spec}@{{}}}}",
        r"\toprule",
        " & ".join(["", *heads]).strip() + r" \\",
        r"\midrule",
    ]
    for index, (name, cells) in enumerate(table.rows):
        if index in table.rules:
            lines.append(r"\midrule")
        lines.append(" & ".join([tex(name), *_tex_cells(cells, double, starred)]) + r" \\")
    notes = " ".join(tex(note) for note in table.notes)
    lines += [
        r"\bottomrule",
        r"\end{tabular}",
        r"",
        r"\vspace{4pt}",
        rf"\parbox{{\linewidth}}{{\scriptsize {notes}}}",
        rf"\end{{{environment}}}",
    ]
    return "\n".join(lines) + "\n"


def latex_width(table: PaperTable) -> int:
    """About how many characters of its small print a line of the LaTeX table takes; TEXT_WIDTH fit an article's."""
    names = max(len(name) for name, _ in table.rows)
    columns = [max(_cell_width(table, i), max(map(len, _head_lines(table, i)))) for i in range(len(table.heads))]
    return names + sum(width + 2 for width in columns)


def _tex_head(table: PaperTable, index: int) -> str:
    first, *more = map(tex, _head_lines(table, index))
    stacked = r" \\ ".join([first, *more])
    return rf"\shortstack{{{stacked}}}" if more else first


def _head_lines(table: PaperTable, index: int) -> list[str]:
    """A column's words, broken where they would make it wider than its cells."""
    return textwrap.wrap(
        table.heads[index].words, max(12, _cell_width(table, index)), break_long_words=False, break_on_hyphens=False
    )


def _cell_width(table: PaperTable, index: int) -> int:
    cells = [cells[index] for _, cells in table.rows]
    return max(len(value_text(cell)) + len(cell.mark) + round(0.8 * len(interval_text(cell))) for cell in cells)


def _tex_cells(cells: Sequence[Cell], double: Sequence[bool], starred: Sequence[bool]) -> list[str]:
    """Stars have a column of their own before the interval, so that values and intervals stay aligned."""
    out = []
    for cell, two, stars in zip(cells, double, starred, strict=True):
        mark = rf"$^{{{cell.mark}}}$" if cell.mark else ""
        value = tex(value_text(cell))
        if two and cell.low is not None:
            space = rf"\makebox[1.5em][l]{{{mark}}}" if stars else r"\,"
            out += [value, rf"{space}{{\scriptsize {tex(interval_text(cell))}}}"]
        elif two:
            out += [value, mark]
        else:
            out.append(value + mark)
    return out


def _has_interval(table: PaperTable, index: int) -> bool:
    return any(cells[index].low is not None for _, cells in table.rows)


def _align(head: Head) -> str:
    return "r" if head.numeric else "l"


# --- Markdown, CSV, HTML --------------------------------------------------------------------------------------------


def markdown(table: PaperTable) -> str:
    """A pipe table with its caption above and its notes below."""
    heads = [table.stub, *(head.words for head in table.heads)]
    rules = [":---", *("---:" if head.numeric else ":---" for head in table.heads)]
    rows = [[name, *(_markdown_cell(cell) for cell in cells)] for name, cells in table.rows]
    body = [[text.replace("|", r"\|") for text in row] for row in (heads, *rows)]
    lines = [f"**{table.caption}**", "", _pipes(body[0]), _pipes(rules), *(_pipes(row) for row in body[1:]), ""]
    return "\n".join([*lines, *(f"- {note}" for note in map(_stars_escaped, table.notes))]) + "\n"


def _markdown_cell(cell: Cell) -> str:
    stars = cell.mark.replace("*", r"\*")
    return " ".join(part for part in (value_text(cell) + stars, interval_text(cell)) if part)


def _stars_escaped(note: str) -> str:
    return note.replace("*", r"\*")


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


FRACTIONS = "Here rates and their differences are fractions, not percent or points"
CSV_PARTS = {
    "_low": "X_low and X_high are the ends of the interval in brackets",
    "_p": "X_p is the p-value behind stars",
}


def to_csv(table: PaperTable) -> str:
    """Numbers in full, as fractions where the other formats show percent; the notes as lines that start with `#`."""
    heads, rows = [table.stub], [[name] for name, _ in table.rows]
    for index, head in enumerate(table.heads):
        cells = [row[index] for _, row in table.rows]
        parts = [("", "value"), ("_low", "low"), ("_high", "high"), ("_p", "p")]
        for suffix, field in parts:
            values = [getattr(cell, field) for cell in cells]
            if field != "value" and all(value is None for value in values):
                continue
            heads.append(head.name + suffix)
            for row, cell, value in zip(rows, cells, values, strict=True):
                row.append(cell.text if field == "value" and value is None else "" if value is None else f"{value:.6g}")
    text = io.StringIO()
    here = [CSV_PARTS[end] for end in CSV_PARTS if any(head.endswith(end) for head in heads)]
    text.writelines(f"# {note}\n" for note in (table.caption, *table.notes, "; ".join([FRACTIONS, *here]) + "."))
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows(rows)
    return text.getvalue()


def to_html(table: PaperTable) -> str:
    """A `<figure>` to be placed in a page: semantic, without style of its own."""
    lines = ['<figure class="aem-table">', f"<figcaption>{html.escape(table.caption)}</figcaption>", "<table>"]
    heads = "".join(f'<th scope="col">{html.escape(head.words)}</th>' for head in table.heads)
    lines += [f'<thead><tr><th scope="col">{html.escape(table.stub)}</th>{heads}</tr></thead>', "<tbody>"]
    for index, (name, cells) in enumerate(table.rows):
        rule = ' class="ruled"' if index in table.rules else ""
        body = "".join(_html_cell(cell, head) for cell, head in zip(cells, table.heads, strict=True))
        lines.append(f'<tr{rule}><th scope="row">{html.escape(name)}</th>{body}</tr>')
    lines += ["</tbody>", "</table>", *(f'<p class="note">{html.escape(note)}</p>' for note in table.notes)]
    return "\n".join([*lines, "</figure>"]) + "\n"


def _html_cell(cell: Cell, head: Head) -> str:
    mark = f"<sup>{cell.mark}</sup>" if cell.mark else ""
    inside = interval_text(cell)
    span = f' <span class="interval">{html.escape(inside)}</span>' if inside else ""
    kind = ' class="number"' if head.numeric else ""
    return f"<td{kind}>{html.escape(value_text(cell))}{mark}{span}</td>"


FORMATS: Mapping[str, Callable[[PaperTable], str]] = {
    "latex": latex,
    "markdown": markdown,
    "csv": to_csv,
    "html": to_html,
}
