"""A comparison as files: the record itself as JSON, its contrasts as CSV, and what the terminal shows as text."""

import csv
import io
from collections.abc import Mapping, Sequence
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
        row: dict[str, object] = {
            "baseline": contrast.baseline,
            "candidate": contrast.candidate,
            "label": contrast.label,
        }
        row |= {
            "tasks": delta.tasks,
            "rollouts": delta.rollouts,
            "seeds_min": delta.seeds[0],
            "seeds_max": delta.seeds[1],
        }
        row["difference"] = delta.value
        for prefix, interval in (("these", delta.these), ("like", delta.like)):
            for name in ("se", "low", "high"):
                row[f"{prefix}_{name}"] = getattr(interval, name, "")
        p = {test.question: test for test in contrast.tests}
        for prefix, question in (("these", "these tasks"), ("like", "tasks like these")):
            row[f"p_{prefix}"] = p[question].p if question in p else ""
            row[f"p_{prefix}_holm"] = p[question].p_holm if question in p else ""
        row |= {"gained": contrast.gained, "lost": contrast.lost, "verdict": contrast.decision.verdict}
        lost = contrast.bounds
        row["missing"] = lost.missing_baseline + lost.missing_candidate if lost else 0
        row |= {"low_if_missing": lost.low if lost else "", "high_if_missing": lost.high if lost else ""}
        rows.append(row)
    return rows_to_csv(rows)


def rows_to_csv(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows with equal keys as CSV text."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_text(comparison: Comparison, width: int = 160) -> str:
    """What `aem compare` prints, without colour."""
    text = io.StringIO()
    show(comparison, Console(file=text, width=width, no_color=True))
    return text.getvalue()


def write_folder(comparison: Comparison, folder: Path) -> None:
    """comparison.json, comparison.csv and comparison.txt in `folder`, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "comparison.json", comparison.model_dump_json(indent=1) + "\n")
    write_text(folder / "comparison.csv", to_csv(comparison))
    write_text(folder / "comparison.txt", to_text(comparison))
