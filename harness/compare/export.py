"""A comparison as files: the record as JSON, its tables as CSV, and the terminal output as text."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from aem_harness.harness.compare.records import Comparison
from aem_harness.harness.compare.terminal import show
from aem_harness.harness.io import write_text


def to_csv(comparison: Comparison) -> str:
    """One line per contrast; fractions, not percent."""
    rows = []
    versions = _versions(comparison)
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
        clean = contrast.unmarked or contrast
        row |= {"integrity_adjusted": clean.difference.value, "integrity_adjusted_verdict": clean.decision.verdict}
        rows.append(row | versions)
    return rows_to_csv(rows)


def flips_csv(comparison: Comparison) -> str:
    """One line per changed task, the surest first, with the paths of two trajectories to look at."""
    rows = []
    for flip in comparison.flips:
        row: dict[str, object] = {"instance_id": flip.instance_id, "repo": flip.repo}
        for prefix, at in (("baseline", 0), ("candidate", 1)):
            row |= {prefix: (flip.baseline, flip.candidate)[at], f"{prefix}_solved": flip.solved[at]}
            row |= {f"{prefix}_rollouts": flip.rollouts[at], f"{prefix}_trajectory": flip.trajectories[at]}
            row[f"{prefix}_action"] = flip.actions[at]
        rows.append(row | {"p_worse": flip.p_worse, "p_better": flip.p_better, "first_diverging_step": flip.step})
    return rows_to_csv(rows)


def metrics_csv(comparison: Comparison) -> str:
    """One line per metric and arm: its mean, and the difference to the baseline with its interval for these tasks."""
    rows = []
    for metric in comparison.metrics:
        for arm, one in metric.arms.items():
            row: dict[str, object] = {"section": metric.section, "metric": metric.name, "unit": metric.unit, "arm": arm}
            row |= {"tasks": one.tasks, "rollouts": one.rollouts, "value": one.value}
            row |= {"these_low": one.these.low, "these_high": one.these.high}
            delta = metric.differences.get(arm)
            row |= {"difference": delta.value if delta else "", "p_holm": metric.p_holm.get(arm, "")}
            ends = (delta.these.low, delta.these.high) if delta else ("", "")
            row |= {"difference_low": ends[0], "difference_high": ends[1]}
            rows.append(row)
    return rows_to_csv(rows)


def groups_csv(comparison: Comparison) -> str:
    """One line per part of the tasks and candidate."""
    rows = []
    first = comparison.baseline
    for group in comparison.groups:
        for arm, one in group.differences.items():
            row: dict[str, object] = {"by": group.by, "value": group.value, "tasks": group.tasks, "baseline": first}
            row["candidate"] = arm
            for prefix, name in (("baseline", first), ("candidate", arm)):
                rate = group.rates[name]
                row |= {
                    f"{prefix}_rate": rate.value,
                    f"{prefix}_low": rate.these.low,
                    f"{prefix}_high": rate.these.high,
                }
            row |= {"difference": one.value, "these_low": one.these.low, "these_high": one.these.high}
            rows.append(row | {"p": group.p[arm], "p_holm": group.p_holm[arm]})
    return rows_to_csv(rows)


def _versions(comparison: Comparison) -> dict[str, object]:
    """The settings behind the numbers, one value where the arms agree."""
    found: dict[str, object] = {"level": comparison.level, "aem": comparison.versions.get("aem", "")}
    for name in ("grader", "dataset", "scaffold"):
        found[name] = " | ".join(sorted({arm.versions.get(name) or "unknown" for arm in comparison.arms}))
    return found


def rows_to_csv(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows with equal keys as CSV text; empty for no rows."""
    if not rows:
        return ""
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
    """Write comparison.json, .csv and .txt, flips.csv, metrics.csv and groups.csv into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "comparison.json", comparison.model_dump_json(indent=1) + "\n")
    write_text(folder / "comparison.csv", to_csv(comparison))
    write_text(folder / "comparison.txt", to_text(comparison))
    for name, text in (("flips", flips_csv), ("metrics", metrics_csv), ("groups", groups_csv)):
        write_text(folder / f"{name}.csv", text(comparison))
