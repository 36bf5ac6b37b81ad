"""A comparison as a table for print: rows of arms, chosen columns, and the note without which no number should travel.

Independent of any format: `formats.py` writes it down.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from aem_harness.harness.compare.records import Comparison
from aem_harness.harness.report.columns import Cell, Head, columns_of, reference_cell, slug
from aem_harness.harness.report.notes import caption_of, notes_of
from aem_harness.harness.report.reference import Reference

DEFAULT_COLUMNS = ("tasks", "seeds", "resolved", "difference", "p", "moved")


@dataclass(frozen=True)
class PaperTable:
    """What a format writes: heads and rows (the arm's name first), notes, and the hash that reproduces it.

    `rules` are the numbers of the rows before which a thin rule stands; `wide` tables span both columns of a page;
    `stub` is the head of the names.
    """

    caption: str
    label: str
    heads: tuple[Head, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    notes: tuple[str, ...]
    rules: tuple[int, ...] = ()
    hash: str = ""
    wide: bool = False
    stub: str = "arm"


def paper_table(
    comparison: Comparison,
    columns: Sequence[str] = DEFAULT_COLUMNS,
    *,
    references: Sequence[Reference] = (),
    caption: str = "",
    label: str = "tab:aem",
    hash: str = "",
    wide: bool = False,
) -> PaperTable:
    """The table of `comparison` with these columns. Raises ConfigError for a column that it cannot fill."""
    chosen = tuple(column for name in columns for column in columns_of(comparison, name))
    plain = [contrast for contrast in comparison.contrasts if not contrast.label]
    by_candidate = {contrast.candidate: contrast for contrast in plain}
    paired = len(by_candidate) < len(plain)  # every pair of arms: the pairs have rows of their own
    rows = [
        (arm.arm, tuple(column.cell(arm, None if paired else by_candidate.get(arm.arm)) for column in chosen))
        for arm in comparison.arms
    ]
    rules = [len(rows)] if paired else []
    summaries = {arm.arm: arm for arm in comparison.arms}
    for contrast in plain if paired else ():
        pair = (column.cell(summaries[contrast.candidate], contrast) if column.of_pair else Cell() for column in chosen)
        rows.append((f"{contrast.candidate} \N{MINUS SIGN} {contrast.baseline}", tuple(pair)))
    for one in references:
        rules.append(len(rows))
        for index, row in enumerate(one.rows):
            cells = tuple(reference_cell(column, one, index, comparison.level) for column in chosen)
            rows.append((f"{row.arm} (as reported)", cells))
    return PaperTable(
        caption=caption or caption_of(comparison),
        label=label,
        heads=tuple(column.head for column in chosen),
        rows=tuple(rows),
        notes=tuple(notes_of(comparison, chosen, rows, references, hash)),
        rules=tuple(rules),
        hash=hash,
        wide=wide,
    )


def transposed(table: PaperTable) -> PaperTable:
    """Arms as columns and columns as rows, for many metrics of few arms."""
    rows = [(head.words, tuple(cells[i] for _, cells in table.rows)) for i, head in enumerate(table.heads)]
    return replace(table, heads=tuple(Head(name, name) for name, _ in table.rows), rows=tuple(rows), rules=())


def needs_trajectories(columns: Sequence[str]) -> bool:
    """Whether a column holds what only trajectories tell."""
    from aem_harness.harness.compare.metrics import METRICS
    from aem_harness.harness.facts.features import FEATURES

    read = {slug(metric.name) for metric in METRICS if metric.column in FEATURES}
    read |= {"diversity-of-seeds", "brier-score", "overconfidence"}
    return any(name.removesuffix(":diff") in read for name in columns)
