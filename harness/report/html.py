"""The report: one HTML file that needs no server and no network, from a comparison and its rollouts."""

import json
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from aem_harness.harness.compare.flips import surest
from aem_harness.harness.compare.outcomes import ArmFacts, Outcomes
from aem_harness.harness.compare.records import ArmSummary, Comparison, Contrast, MetricRow
from aem_harness.harness.compare.words import (
    about_times,
    adjusted_p,
    amount,
    ends_words,
    headline,
    interaction_lines,
    reused_words,
    seeds_of,
    sureness,
    unit_of,
)
from aem_harness.harness.report import forests, words
from aem_harness.harness.report.again import outcome_digest
from aem_harness.harness.report.figures import figures
from aem_harness.harness.report.rollouts import Pages, collect

EMBED = 16_000_000  # bytes of packed trajectories in a page, unless told otherwise
SHOWN_FLIPS = 15
SECTIONS = {
    "cost": "Cost",
    "behaviour": "Behaviour",
    "tools": "Tool use",
    "calibration": "Calibration of stated success",
}


def build_report(comparison: Comparison, outcomes: Outcomes, out: Path, *, embed: int = EMBED, lead: str = "") -> str:
    """The page, as text. `out` is where it will lie: trajectories that do not fit in are linked relative to it.

    `lead` is what was decided on these outcomes, if something was: it stands above the comparison.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    pages = collect(outcomes, comparison, out, embed)
    folder = files("aem_harness.harness.report") / "page"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["svg"] = Markup
    template = environment.from_string((folder / "page.html.j2").read_text())
    return template.render(
        **view(comparison, outcomes, pages),
        lead=lead,
        style=Markup((folder / "page.css").read_text()),
        script=Markup((folder / "page.js").read_text()),
        data=Markup(_json({**pages.facts, "flips": _flip_steps(comparison)})),
        blobs=pages.blobs,
    )


def view(comparison: Comparison, outcomes: Outcomes, pages: Pages) -> dict[str, Any]:
    """Everything the template shows, in the page's order."""
    arms = [arm.arm for arm in comparison.arms]
    number = {name: i for i, name in enumerate(arms)}
    return {
        "title": f"{arms[1]} against {arms[0]}" if len(arms) == 2 else f"{len(arms)} arms, baseline {arms[0]}",
        "headline": headline(comparison),
        "tone": words.TONES.get(comparison.contrasts[0].decision.verdict, "") if len(comparison.contrasts) == 1 else "",
        "verdicts": [_verdict(comparison, contrast) for contrast in comparison.contrasts],
        "best": words.best_words(comparison),
        "facts": list(_facts(comparison)),
        "warnings": comparison.warnings,
        "rates": forests.rates(comparison, number),
        "differences": forests.differences(comparison, number),
        "plots": list(figures(comparison, number)),
        "parts": list(forests.parts(comparison, number)),
        "interactions": interaction_lines(comparison),
        "sections": list(_sections(comparison)),
        "flips": _flips(comparison),
        "one_baseline": forests.one_baseline(comparison),
        "parted": any(flip.step is not None for flip in comparison.flips),
        "hidden_flips": max(0, len(comparison.flips) - SHOWN_FLIPS),
        "unique": {arm: len(tasks) for arm, tasks in comparison.unique.items()},
        "arms": [_arm(arm, outcomes, number[arm.arm]) for arm in comparison.arms],
        "level": f"{100 * comparison.level:g} %",
        "pages": len(pages.blobs),
        "left_out": pages.left_out,
        "aem": comparison.versions.get("aem", ""),
        "bounded": any(arm.resolved.these.bound for arm in comparison.arms)
        or any(one.difference.these.bound for one in comparison.contrasts)
        or any(one.these.bound for row in comparison.metrics for one in row.differences.values()),
    }


def _verdict(comparison: Comparison, contrast: Contrast) -> dict[str, Any]:
    return {
        "name": forests.pair_name(comparison, contrast),
        "label": contrast.label,
        "sentence": words.sentence(comparison, contrast),
        "decisions": [words.decision_words(one) for one in (contrast.decision, *contrast.decisions)],
        "missing": words.about_missing(contrast),
        "marked": words.about_marks(comparison, contrast),
        "tone": words.TONES.get(contrast.decision.verdict, ""),
    }


def _facts(comparison: Comparison) -> Iterator[str]:
    tasks = sorted({arm.tasks for arm in comparison.arms})
    seeds = sorted({seeds_of(arm.resolved) for arm in comparison.arms})
    yield f"{' / '.join(map(str, tasks))} tasks"
    yield f"{' / '.join(seeds)} rollout{'' if seeds == ['1'] else 's'} per task"
    yield f"{sum(arm.rollouts for arm in comparison.arms):,} rollouts"
    yield f"{sum(arm.missing for arm in comparison.arms)} without a verdict"
    yield from reused_words(comparison)
    if comparison.ends:
        yield f"whose fault an exit status is, {ends_words(comparison.ends)}"
    yield from sorted({arm.versions["grader"] for arm in comparison.arms if arm.versions.get("grader")})


# --- tables ---------------------------------------------------------------------------------------------------------


def _sections(comparison: Comparison) -> Iterator[dict[str, Any]]:
    for section in dict.fromkeys(row.section for row in comparison.metrics):
        rows = [row for row in comparison.metrics if row.section == section]
        arms = list(dict.fromkeys(arm for row in rows for arm in row.arms))
        candidates = list(dict.fromkeys(arm for row in rows for arm in row.differences))
        yield {
            "name": SECTIONS[section],
            "arms": arms,
            "candidates": candidates,
            "rows": [_metric(row, arms, candidates, bold=not (comparison.apart and row.timed)) for row in rows],
            "times": about_times(comparison, rows),
            "bounded": any(one.these.bound for row in rows for one in row.differences.values()),
        }


def _metric(row: MetricRow, arms: Sequence[str], candidates: Sequence[str], *, bold: bool) -> dict[str, Any]:
    changes = []
    for arm in candidates:
        delta = row.differences.get(arm)
        if delta is None:
            changes.append({"value": "", "interval": "", "p": "", "sure": False})
            continue
        low, high = (amount(end, signed=True) for end in (delta.these.low, delta.these.high))
        p, holm = row.p[arm], row.p_holm.get(arm)
        changes.append(
            {
                "value": amount(delta.value, signed=True).replace("-", "−"),
                "interval": f"[{low}, {high}]".replace("-", "−") + ("†" if delta.these.bound else ""),
                "p": adjusted_p(p, holm, delta.these.level),
                "sure": bold and (p if holm is None else holm) <= 0.05,
            }
        )
    means = [amount(row.arms[arm].value) if arm in row.arms else "" for arm in arms]
    if not candidates:
        ends = [(row.arms[arm].these.low, row.arms[arm].these.high) for arm in arms if arm in row.arms]
        means = [f"{mean} [{amount(low)}, {amount(high)}]" for mean, (low, high) in zip(means, ends, strict=True)]
    return {"name": row.name, "unit": unit_of(row), "meaning": row.meaning, "means": means, "changes": changes}


def _flips(comparison: Comparison) -> list[dict[str, Any]]:
    """The surest moves; the list below has them all."""
    return [
        {
            "flip": flip,
            "before": f"{flip.solved[0]}/{flip.rollouts[0]}",
            "after": f"{flip.solved[1]}/{flip.rollouts[1]}",
            "worse": flip.change < 0,
            "sure": sureness(flip),
            "seeds": [_seed(path) for path in flip.trajectories],
        }
        for flip in surest(comparison.flips)[:SHOWN_FLIPS]
    ]


def _seed(path: str) -> int:
    """The seed in the path of a trajectory of ours, rollouts/<instance>/<seed>/..., else 0."""
    name = Path(path).parent.name
    return int(name) if name.isdigit() else 0


def _flip_steps(comparison: Comparison) -> list[list[Any]]:
    """(task, baseline, candidate, seeds, step) of the pairs that are laid side by side."""
    return [
        [flip.instance_id, flip.baseline, flip.candidate, [_seed(p) for p in flip.trajectories], flip.step]
        for flip in comparison.flips
        if flip.step is not None
    ]


def _arm(arm: ArmSummary, outcomes: Outcomes, number: int) -> dict[str, Any]:
    facts = outcomes.facts.get(arm.arm, ArmFacts(arm=arm.arm))
    settings = facts.model_dump(include={"config", "agent", "dataset", "fingerprint"})
    known = {
        **arm.versions,
        **{name.replace("_", " "): str(count) for name, count in arm.outcomes.items()},
        "retried": str(arm.retried or ""),
        "read from": facts.source,
        "configuration": facts.config_digest,
        "outcomes": outcome_digest(outcomes, arm.arm),
    }
    return {
        "name": arm.arm,
        "number": number,
        "facts": {name: value for name, value in known.items() if value},
        "settings": json.dumps(settings, indent=1, default=str) if any(settings.values()) else "",
    }


def _json(value: Any) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
