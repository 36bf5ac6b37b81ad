"""The report: one HTML file that needs no server and no network, from a comparison and its rollouts."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from harness.compare.outcomes import ArmFacts, Outcomes
from harness.compare.records import ArmSummary, Comparison, Contrast, Curve, Group, MetricRow
from harness.compare.terminal import amount, percent, probability, seeds_of
from harness.report import plots, words
from harness.report.again import outcome_digest
from harness.report.rollouts import Pages, collect

EMBED = 16_000_000  # bytes of packed trajectories in a page, unless told otherwise
SHOWN_FLIPS = 15
LINES = 6  # arms in one plot
SECTIONS = {
    "cost": "Cost",
    "behaviour": "Behaviour",
    "tools": "Tool use",
    "calibration": "Calibration of stated success",
}


@dataclass(frozen=True)
class Plot:
    """A figure: title, what it shows, SVG."""

    title: str
    caption: str
    svg: str


@dataclass(frozen=True)
class ForestRow:
    """One line of a forest: name, what stands beside it, its picture, its numbers."""

    name: str
    aside: str
    svg: str
    value: str
    interval: str
    like: str = ""
    p: str = ""
    arm: int = 0


@dataclass(frozen=True)
class Forest:
    """Estimates below each other on one axis."""

    title: str
    caption: str
    rows: tuple[ForestRow, ...]
    axis: str
    heads: tuple[str, str]


def build_report(comparison: Comparison, outcomes: Outcomes, out: Path, *, embed: int = EMBED) -> str:
    """The page, as text. `out` is where it will lie: trajectories that do not fit in are linked relative to it."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    pages = collect(outcomes, comparison, out, embed)
    room = files("harness.report") / "page"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["svg"] = Markup
    template = environment.from_string((room / "page.html.j2").read_text())
    return template.render(
        **view(comparison, outcomes, pages),
        style=Markup((room / "page.css").read_text()),
        script=Markup((room / "page.js").read_text()),
        data=Markup(_json({**pages.facts, "flips": _flip_steps(comparison)})),
        blobs=pages.blobs,
    )


def view(comparison: Comparison, outcomes: Outcomes, pages: Pages) -> dict[str, Any]:
    """Everything the template shows, in the page's order."""
    arms = [arm.arm for arm in comparison.arms]
    number = {name: i for i, name in enumerate(arms)}
    return {
        "title": f"{arms[1]} against {arms[0]}" if len(arms) == 2 else f"{len(arms)} arms, baseline {arms[0]}",
        "headline": words.headline(comparison),
        "tone": words.TONES.get(comparison.contrasts[0].decision.verdict, "") if len(comparison.contrasts) == 1 else "",
        "verdicts": [_verdict(comparison, contrast) for contrast in comparison.contrasts],
        "best": words.best_words(comparison),
        "facts": list(_facts(comparison)),
        "warnings": comparison.warnings,
        "rates": _rates(comparison, number),
        "differences": _differences(comparison, number),
        "plots": list(_plots(comparison, number)),
        "parts": list(_parts(comparison, number)),
        "sections": list(_sections(comparison)),
        "flips": _flips(comparison),
        "one_baseline": _one_baseline(comparison),
        "parted": any(flip.step is not None for flip in comparison.flips),
        "hidden_flips": max(0, len(comparison.flips) - SHOWN_FLIPS),
        "unique": {arm: len(tasks) for arm, tasks in comparison.unique.items()},
        "arms": [_arm(arm, outcomes, number[arm.arm]) for arm in comparison.arms],
        "level": f"{100 * comparison.level:g} %",
        "pages": len(pages.blobs),
        "left_out": pages.left_out,
        "aem": comparison.versions.get("aem", ""),
        "bounded": any(arm.resolved.these.bound for arm in comparison.arms)
        or any(one.difference.these.bound for one in comparison.contrasts),
    }


def _verdict(comparison: Comparison, contrast: Contrast) -> dict[str, Any]:
    return {
        "name": _pair_name(comparison, contrast),
        "label": contrast.label,
        "sentence": words.sentence(comparison, contrast),
        "decisions": [words.decision_words(one) for one in (contrast.decision, *contrast.decisions)],
        "missing": words.about_missing(contrast),
        "tone": words.TONES.get(contrast.decision.verdict, ""),
    }


def _facts(comparison: Comparison) -> Iterator[str]:
    tasks = sorted({arm.tasks for arm in comparison.arms})
    seeds = sorted({seeds_of(arm.resolved) for arm in comparison.arms})
    yield f"{' / '.join(map(str, tasks))} tasks"
    yield f"{' / '.join(seeds)} rollout{'' if seeds == ['1'] else 's'} a task"
    yield f"{sum(arm.rollouts for arm in comparison.arms):,} rollouts"
    yield f"{sum(arm.missing for arm in comparison.arms)} without a verdict"
    yield from sorted({arm.versions["grader"] for arm in comparison.arms if arm.versions.get("grader")})


# --- forests --------------------------------------------------------------------------------------------------------


def _rates(comparison: Comparison, number: dict[str, int]) -> Forest:
    pairs = {arm.arm: words.pair(arm.resolved) for arm in comparison.arms}
    scale = plots.forest_scale(_ends(pairs.values()), zero=False, limit=(0, 1))
    rows = [
        ForestRow(
            name=arm.arm,
            aside=f"{arm.resolved.tasks} × {seeds_of(arm.resolved)}" + (f", {arm.missing} lost" if arm.missing else ""),
            svg=plots.interval(scale, arm.resolved.value, *pairs[arm.arm], number[arm.arm]),
            value=percent(arm.resolved.value),
            interval=words.rate_ends(arm.resolved.these),
            like=words.rate_ends(arm.resolved.like),
            arm=number[arm.arm],
        )
        for arm in comparison.arms
    ]
    caption = "Mean over tasks of the mean over their rollouts; rollouts without a verdict are left out."
    return Forest("Resolved, %", caption, tuple(rows), plots.axis(scale), ("arm", "tasks × seeds"))


def _differences(comparison: Comparison, number: dict[str, int]) -> Forest:
    pairs = [words.pair(one.difference) for one in comparison.contrasts]
    scale = plots.forest_scale(_ends(pairs))
    rows = []
    for contrast, (these, like) in zip(comparison.contrasts, pairs, strict=True):
        p = {test.question: test.p if test.p_holm is None else test.p_holm for test in contrast.tests}
        rows.append(
            ForestRow(
                name=_pair_name(comparison, contrast),
                aside=f"{contrast.gained} up, {contrast.lost} down",
                svg=plots.interval(scale, contrast.difference.value, these, like, number[contrast.candidate]),
                value=words.signed(contrast.difference.value),
                interval=words.ends(contrast.difference.these),
                like=words.ends(contrast.difference.like) if contrast.difference.like else "",
                p=" / ".join(probability(p[q]) for q in p),
                arm=number[contrast.candidate],
            )
        )
    caption = "Paired by task." + (" p adjusted over the differences (Holm)." if len(rows) > 1 else "")
    title = "Difference" + (f" to {comparison.baseline}" if _one_baseline(comparison) else "") + ", points"
    return Forest(title, caption, tuple(rows), plots.axis(scale, signed=True), ("candidate", "tasks moved"))


def _one_baseline(comparison: Comparison) -> bool:
    """Whether every difference is to the same arm, so that naming it once is enough."""
    return {one.baseline for one in comparison.contrasts} == {comparison.baseline}


def _pair_name(comparison: Comparison, contrast: Contrast) -> str:
    name = contrast.candidate if _one_baseline(comparison) else f"{contrast.candidate} − {contrast.baseline}"
    return f"{contrast.label}: {name}" if contrast.label else name


def _parts(comparison: Comparison, number: dict[str, int]) -> Iterator[Forest]:
    """A forest for every way of parting the tasks and every candidate."""
    for by in dict.fromkeys(group.by for group in comparison.groups):
        found = [group for group in comparison.groups if group.by == by]
        for arm in found[0].differences:
            yield _part(found, arm, comparison.baseline, number[arm])


def _part(found: Sequence[Group], arm: str, baseline: str, number: int) -> Forest:
    by = found[0].by
    ordered = sorted(found, key=lambda group: -group.tasks) if by == "repository" else list(found)
    scale = plots.forest_scale(
        _ends(((g.differences[arm].these.low, g.differences[arm].these.high), None) for g in found)
    )
    rows = []
    for group in ordered:
        delta = group.differences[arm]
        these = (delta.these.low, delta.these.high)
        rows.append(
            ForestRow(
                name=group.value,
                aside=f"{group.tasks}: {percent(group.rates[baseline])} → {percent(group.rates[arm])}",
                svg=plots.interval(scale, delta.value, these, None, number),
                value=words.signed(delta.value),
                interval=words.ends(delta.these),
                p=probability(group.p_holm.get(arm, group.p[arm])),
                arm=number,
            )
        )
    caption = f"Difference of {arm} to {baseline} in points, on these tasks; p adjusted over the parts (Holm)."
    title = f"By {by}, {arm} − {baseline}"
    return Forest(title, caption, tuple(rows), plots.axis(scale, signed=True), (by, "tasks: % before → after"))


def _ends(pairs: Any) -> list[float]:
    return [end for pair in pairs for ends in pair if ends for end in ends]


# --- plots ----------------------------------------------------------------------------------------------------------


def _plots(comparison: Comparison, number: dict[str, int]) -> Iterator[Plot]:
    shown = _shown(comparison)
    note = "" if len(shown) == len(comparison.arms) else f" {len(shown)} of {len(comparison.arms)} arms, the best ones."
    if comparison.passes:
        yield _pass_plot(comparison, {arm: number[arm] for arm in shown}, note)
    for kind, title, x, caption in (
        ("resolved within steps", "Resolved against steps", "model calls", WITHIN),
        ("resolved within generated tokens", "Resolved against tokens", "generated tokens", WITHIN),
        ("response entropy by turn", "Entropy by turn", "turn", "Nats, mean over the rollouts that reach the turn."),
    ):
        curves = [curve for curve in comparison.curves if curve.kind == kind and curve.arm in shown and _varies(curve)]
        if curves:
            series = [_curve(curve, number) for curve in curves]
            svg = plots.lines(series, title=f"{title}: {_heard(series)}", x=x, percent="entropy" not in kind)
            yield Plot(title, caption + note, svg)
    if len(comparison.arms) > 2 and (steps := _steps(comparison)):
        yield _series_plot(comparison.arms, steps)


WITHIN = "Share of rollouts, %, that resolved within the budget: a lower bound of a run limited to it."


def _shown(comparison: Comparison) -> list[str]:
    """The arms of which lines are drawn: as many as one can tell apart, the baseline and those that resolve most."""
    best = sorted(comparison.arms, key=lambda arm: (arm.arm != comparison.baseline, -arm.resolved.value))
    return [arm.arm for arm in best[:LINES]]


def _varies(curve: Curve) -> bool:
    return len({point.x for point in curve.points}) > 1


def _pass_plot(comparison: Comparison, number: dict[str, int], note: str) -> Plot:
    series = []
    for arm, i in number.items():
        for kind in ("pass@k", "pass^k"):
            points = tuple(
                (float(one.k), one.estimate.value, one.estimate.these.low, one.estimate.these.high)
                for one in comparison.passes
                if one.arm == arm and one.kind == kind
            )
            label = arm if kind == "pass@k" else ""
            series += [plots.Series(label, i, points, dashed=kind == "pass^k")] if points else []
    title = f"pass@k and pass^k: {_heard([one for one in series if one.label])}"
    svg = plots.lines(series, title=title, x="k, rollouts of a task", log2=True, bars=True)
    return Plot("pass@k and pass^k", "Solid: one of k resolves, %. Dashed: all k do." + note, svg)


def _curve(curve: Curve, number: dict[str, int]) -> plots.Series:
    points = tuple((one.x, one.value, one.low, one.high) for one in curve.points)
    return plots.Series(curve.arm, number[curve.arm], points)


def _steps(comparison: Comparison) -> list[float]:
    """Where the arms stand along a training: the number their names differ in; else, in a series, first to last."""
    names = [re.fullmatch(r"(.*?)(\d+)(\D*)", arm.arm) for arm in comparison.arms]
    alike = {(name[1], name[3]) for name in names if name}
    if all(names) and len(alike) == 1:
        return [float(name[2]) for name in names if name]
    return [] if _one_baseline(comparison) else [float(i + 1) for i in range(len(comparison.arms))]


def _series_plot(arms: Sequence[ArmSummary], steps: Sequence[float]) -> Plot:
    points = sorted(
        (step, arm.resolved.value, arm.resolved.these.low, arm.resolved.these.high)
        for step, arm in zip(steps, arms, strict=True)
    )
    svg = plots.lines([plots.Series("", 1, tuple(points))], title="Resolved by step", x="step", bars=True)
    return Plot("Series", "Resolved, %, of every arm with its interval for these tasks.", svg)


def _heard(series: Sequence[plots.Series]) -> str:
    """A plot in words, for who cannot see it: where each line ends."""
    return "; ".join(f"{one.label} ends at {one.points[-1][1]:.3g}" for one in series)


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
            "rows": [_metric(row, arms, candidates) for row in rows],
        }


def _metric(row: MetricRow, arms: Sequence[str], candidates: Sequence[str]) -> dict[str, Any]:
    changes = []
    for arm in candidates:
        delta = row.differences.get(arm)
        if delta is None:
            changes.append({"value": "", "interval": "", "p": "", "sure": False})
            continue
        low, high = (amount(end, signed=True) for end in (delta.these.low, delta.these.high))
        p = row.p_holm.get(arm, row.p[arm])
        changes.append(
            {
                "value": amount(delta.value, signed=True).replace("-", "−"),
                "interval": f"[{low}, {high}]".replace("-", "−"),
                "p": probability(p),
                "sure": p <= 0.05,
            }
        )
    unit = row.unit if row.unit and row.unit not in row.name else ""
    means = [amount(row.arms[arm].value) if arm in row.arms else "" for arm in arms]
    return {"name": row.name, "unit": unit, "meaning": row.meaning, "means": means, "changes": changes}


def _flips(comparison: Comparison) -> list[dict[str, Any]]:
    """The surest moves; the list below has them all."""
    surest = sorted(comparison.flips, key=lambda flip: -max(flip.p_worse, flip.p_better))
    return [
        {
            "flip": flip,
            "before": f"{flip.solved[0]}/{flip.rollouts[0]}",
            "after": f"{flip.solved[1]}/{flip.rollouts[1]}",
            "worse": flip.p_worse > flip.p_better,
            "sure": percent(max(flip.p_worse, flip.p_better), 0),
            "seeds": [_seed(path) for path in flip.trajectories],
        }
        for flip in surest[:SHOWN_FLIPS]
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
