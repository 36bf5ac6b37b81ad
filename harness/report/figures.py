"""The report's plots: which curves of a comparison are drawn, and what stands under them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aem_harness.harness.compare.records import Comparison, Curve
from aem_harness.harness.report import plots
from aem_harness.harness.report.forests import one_baseline

LINES = 6  # arms in one plot


@dataclass(frozen=True)
class Plot:
    """A figure: title, what it shows, SVG."""

    title: str
    caption: str
    svg: str


def figures(comparison: Comparison, number: dict[str, int]) -> Iterator[Plot]:
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
            by_turn = kind == "response entropy by turn"
            ticks = [(at, f"{at:.0f}") for at in sorted({point.x for one in curves for point in one.points})]
            svg = plots.lines(
                series,
                title=f"{title}: {_heard(series)}",
                x=x,
                percent=not by_turn,
                ticks=ticks if by_turn else None,
            )
            yield Plot(title, caption + note, svg)
    if len(comparison.arms) > 2 and (steps := _steps(comparison)):
        yield _series_plot(comparison, steps)


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
    return [] if one_baseline(comparison) else [float(i + 1) for i in range(len(comparison.arms))]


def _series_plot(comparison: Comparison, steps: Sequence[float]) -> Plot:
    ends = {arm.arm: (arm.resolved.these.low, arm.resolved.these.high) for arm in comparison.arms}
    ends.update(comparison.bands)
    points = sorted(
        (step, arm.resolved.value, *ends[arm.arm]) for step, arm in zip(steps, comparison.arms, strict=True)
    )
    all_at_once = ", which holds for all of them at once (Sidak)" if comparison.bands else ""
    svg = plots.lines([plots.Series("", 1, tuple(points))], title="Resolved by step", x="step", bars=True)
    return Plot("Series", f"Resolved, %, of every arm with its interval for these tasks{all_at_once}.", svg)


def _heard(series: Sequence[plots.Series]) -> str:
    """A plot in words, for who cannot see it: where each line ends."""
    return "; ".join(f"{one.label} ends at {one.points[-1][1]:.3g}" for one in series)
