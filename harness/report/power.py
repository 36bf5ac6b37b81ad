"""Power against the true difference, a curve a number of seeds, as one SVG file."""

from collections.abc import Sequence
from importlib.resources import files

import numpy as np

from aem_harness.harness.compare.plan import curve
from aem_harness.harness.compare.records import Plan, Question
from aem_harness.harness.report import plots

SEEDS = (1, 2, 4, 8, 16)
POINTS = 25


def power_svg(plan: Plan, shares: Sequence[float] | None = None, question: Question = "these tasks") -> str:
    """What `plan` can show: chance of detecting each difference, from 0 to where most curves have risen."""
    most = 1.6 * min(1.0, sorted(row.detectable[question] or 1.0 for row in plan.rows)[len(plan.rows) // 2])
    grid = np.linspace(0.0, max(most, 1.2 * (plan.difference or 0.0)), POINTS)
    weights = None if shares is None else np.asarray(shares, dtype=float)
    series = []
    for number, seeds in enumerate(SEEDS):
        power = curve(plan.components, plan.tasks, seeds, question, plan.alpha, weights)
        found = [(float(100 * at), power(max(float(at), 1e-6))) for at in grid]
        label = f"{seeds} seed{'s' if seeds > 1 else ''}"
        series.append(plots.Series(label, number, tuple((x, y, y, y) for x, y in found)))
    title = f"Power, %, {question}, {plan.tasks} tasks, alpha {plan.alpha:g}"
    body = plots.lines(series, title=title, x=f"true difference, points: power in percent on {question}")
    css = (files("aem_harness.harness.report") / "page" / "page.css").read_text("utf-8")
    style = '<svg xmlns="http://www.w3.org/2000/svg" width="660" height="405" style="background: var(--paper)" '
    start, rest = body.split(">", 1)
    return f"{start.replace('<svg ', style, 1)}><style>{css}</style>{rest}\n"
