"""A comparison as files: the record itself as JSON, its contrasts as CSV, and what the terminal shows as text."""

import csv
import io
from pathlib import Path

from rich.console import Console

from harness.compare.records import Comparison
from harness.compare.terminal import show
from harness.run.store import write_text


def to_csv(comparison: Comparison) -> str:
    """One line a contrast; fractions, not percent."""
    rows = []
    for contrast in comparison.contrasts:
        delta = contrast.difference
        row: dict[str, object] = {"baseline": contrast.baseline, "candidate": contrast.candidate, "tasks": delta.tasks}
        row |= {"seeds_min": delta.seeds[0], "seeds_max": delta.seeds[1], "difference": delta.value}
        for prefix, interval in (("these", delta.these), ("like", delta.like)):
            for name in ("se", "low", "high"):
                row[f"{prefix}_{name}"] = getattr(interval, name, "")
        row |= {f"p_{'these' if test.question == 'these tasks' else 'like'}": test.p for test in contrast.tests}
        rows.append(row | {"gained": contrast.gained, "lost": contrast.lost, "verdict": contrast.decision.verdict})
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_text(comparison: Comparison, width: int = 140) -> str:
    """What `aem compare` prints, without colour."""
    console = Console(file=io.StringIO(), width=width, no_color=True)
    show(comparison, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def write_folder(comparison: Comparison, folder: Path) -> None:
    """comparison.json, comparison.csv and comparison.txt in `folder`, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "comparison.json", comparison.model_dump_json(indent=1) + "\n")
    write_text(folder / "comparison.csv", to_csv(comparison))
    write_text(folder / "comparison.txt", to_text(comparison))
