"""Were the tools worth it? Needless, harmful and missed calls, and the tool-use tax, from arms run on the same tasks.

Necessity of calls: wording after "To Call or Not to Call" (arXiv 2605.00737). Tax: the four-arm intervention of "Are
Tools All We Need?" (arXiv 2605.00136).
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from aem_harness.harness.compare.contrast import Judged, judge
from aem_harness.harness.compare.intervals import estimate
from aem_harness.harness.compare.records import Estimate, MetricRow
from aem_harness.harness.compare.values import TaskValues, common, task_values
from aem_harness.harness.errors import DataError


def necessity(
    tables: Mapping[str, pd.DataFrame], free: str, without: str, forced: str = "", *, level: float = 0.95
) -> list[MetricRow]:
    """Shares of rollouts of the arm `free` (may call the tool), judged by the same tasks run `without` it.

    Needs the column `commands` or `tool_calls` in `free`. With the chance p that a task is solved without the tool,
    estimated from `without`, a rollout counts as: needless, called x p; harmful, called x failed x p; and, given an arm
    `forced` to use the tool, missed, not called x failed x chance that `forced` solves. Rates of independent rollouts
    are multiplied task by task, so the shares are unbiased at any number of seeds.
    """
    table = tables[free]
    column = next((name for name in ("tool_calls", "commands") if name in table), None)
    if column is None:
        raise DataError(f"arm {free!r} lacks the number of tool calls (column tool_calls or commands)")
    scored = table[table["resolved"].notna() & pd.to_numeric(table[column], errors="coerce").notna()]
    called = (pd.to_numeric(scored[column]) > 0).astype("boolean")
    failed = ~scored["resolved"].astype("boolean")
    parts = {"called": called, "called_failed": called & failed, "not_called_failed": ~called & failed}
    marked = scored.assign(**parts)
    alone = task_values(tables[without], "resolved")
    shares = [
        ("needless calls", "called although solvable without", _product(marked, "called", alone)),
        ("harmful calls", "called and failed although solvable", _product(marked, "called_failed", alone)),
    ]
    if forced:
        missed = _product(marked, "not_called_failed", task_values(tables[forced], "resolved"))
        shares.append(("missed calls", "not called and failed although the tool would have solved it", missed))
    calls = estimate(task_values(marked, "called"), level, rate=True)
    return [
        _row("calls", "rollouts that call the tool", {free: calls}),
        *(_row(name, meaning, {free: estimate(one, level, within=(0, 1))}) for name, meaning, one in shares),
    ]


def tool_tax(
    tables: Mapping[str, pd.DataFrame], native: str, prompt: str, null: str, tool: str, *, level: float = 0.95
) -> list[Judged]:
    """Four arms on the same tasks: no tools; tool-style prompt without calls; a tool that does nothing; the real tool.

    format cost = prompt - native, protocol tax = null - prompt, execution gain = tool - null, net = tool - native.
    """
    steps = (
        ("format cost", native, prompt),
        ("protocol tax", prompt, null),
        ("execution gain", null, tool),
        ("net effect of tools", native, tool),
    )
    return [judge(a, tables[a], b, tables[b], level=level, label=label) for label, a, b in steps]


def _product(marked: pd.DataFrame, column: str, other: TaskValues) -> TaskValues:
    """Task by task the product of two independent means; its noise by the product formula for independent factors."""
    mine = task_values(marked, column)
    shared = set(mine.tasks) & set(other.tasks)
    a, b = common(*(one.where(np.array([task in shared for task in one.tasks], dtype=bool)) for one in (mine, other)))
    noise = a.values**2 * b.noise + b.values**2 * a.noise - a.noise * b.noise  # unbiased, given unbiased a, b noises
    noise = np.maximum(noise, 0)
    spread = a.values**4 * b.noise_spread + b.values**4 * a.noise_spread
    return TaskValues(a.tasks, a.values * b.values, noise, spread, a.grain * b.grain, a.clusters, a.counts + b.counts)


def _row(name: str, meaning: str, arms: Mapping[str, Estimate]) -> MetricRow:
    return MetricRow(section="tools", name=name, unit="share", meaning=meaning, arms=arms)
