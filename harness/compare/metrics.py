"""Costs and behaviour: means per rollout and ratios per resolved task, paired between arms, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from aem_harness.harness.compare.decisions import holm
from aem_harness.harness.compare.intervals import estimate, p_value
from aem_harness.harness.compare.records import MetricRow
from aem_harness.harness.compare.values import (
    ByTask,
    Floats,
    TaskValues,
    by_task,
    common,
    difference,
    values_by_task,
)

Section = Literal["cost", "behaviour", "tools", "calibration"]


@dataclass(frozen=True)
class Metric:
    """A column of the outcomes table, as a mean over rollouts or, with `per_resolved`, per resolved rollout.

    `yes_or_no`: each rollout has 0 or 1, so that the mean is a rate. Costs of zero in every arm were not recorded, and
    are left out.
    """

    section: Section
    name: str
    unit: str
    column: str
    meaning: str
    per_resolved: bool = False
    yes_or_no: bool = False

    @property
    def scale(self) -> tuple[float, float]:
        """The least and the most that a mean can be."""
        if self.column == "overconfidence":
            return -1.0, 1.0
        return 0.0, 1.0 if self.unit == "share" or self.column == "brier" else float("inf")


METRICS = (
    Metric("cost", "steps", "calls", "steps", "model calls of a rollout"),
    Metric("cost", "prompt tokens", "tokens", "prompt_tokens", "prompt tokens over all calls"),
    Metric("cost", "completion tokens", "tokens", "completion_tokens", "generated tokens over all calls"),
    Metric("cost", "wall time", "s", "seconds", "wall time of a rollout"),
    Metric("cost", "model time", "s", "model_seconds", "time waiting for the model"),
    Metric("cost", "tool time", "s", "tool_seconds", "time in the container"),
    Metric("cost", "GPU time", "s", "gpu_seconds", "GPU-seconds of the model server spent on a rollout"),
    Metric("cost", "tokens per resolved", "tokens", "tokens", "all tokens spent, per resolved rollout", True),
    Metric("cost", "generated per resolved", "tokens", "completion_tokens", "generated tokens, per resolved", True),
    Metric("cost", "steps per resolved", "calls", "steps", "model calls spent, per resolved rollout", True),
    Metric("cost", "wall time per resolved", "s", "seconds", "wall time spent, per resolved rollout", True),
    Metric("cost", "model time per resolved", "s", "model_seconds", "model time spent, per resolved rollout", True),
    Metric("cost", "GPU time per resolved", "s", "gpu_seconds", "GPU-seconds spent, per resolved rollout", True),
    Metric("cost", "price per resolved", "USD", "cost_usd", "US dollars spent, per resolved rollout", True),
    Metric("behaviour", "response entropy", "nats", "mean_entropy", "mean token entropy, mean over responses"),
    Metric("behaviour", "entropy, early", "nats", "entropy_early", "the same over the first third of the turns"),
    Metric("behaviour", "entropy, late", "nats", "entropy_late", "the same over the last third of the turns"),
    Metric("behaviour", "response surprisal", "nats", "surprisal", "-log pi(response), mean over responses"),
    Metric("behaviour", "response length", "tokens", "response_tokens", "generated tokens of a response"),
    Metric("behaviour", "malformed replies", "share", "malformed_share", "replies without a valid action"),
    Metric("behaviour", "commands", "count", "commands", "commands run in a rollout"),
    Metric("behaviour", "repeated commands", "share", "repeated_commands", "commands that were run before"),
    Metric("behaviour", "test runs", "count", "test_runs", "commands that run tests"),
    Metric("behaviour", "edited lines", "lines", "edited_lines", "lines added and removed by the patch"),
    Metric("behaviour", "patch size", "bytes", "patch_bytes", "size of the patch"),
    Metric("behaviour", "empty patches", "share", "gave_up", "rollouts that hand in nothing", yes_or_no=True),
    Metric("behaviour", "limits reached", "share", "cut_off", "rollouts ended by a limit or a crash", yes_or_no=True),
    Metric("calibration", "Brier score", "", "brier", "mean squared error of the stated probability of success"),
    Metric("calibration", "overconfidence", "", "overconfidence", "stated minus actual success"),
)


def with_derived(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the columns that METRICS derive from others."""
    stated = pd.to_numeric(table["stated_success"], errors="coerce") if "stated_success" in table else np.nan
    resolved = table["resolved"].astype("Float64").astype("float64")
    malformed = table["malformed"].astype("float64") / table["steps"].astype("float64").replace(0, np.nan)
    known = table.get("malformed_share", malformed)
    ended = table["exit_status"].str.lower()
    known_ends = table["exit_status"].notna() | table["patch_bytes"].notna()
    return table.assign(
        tokens=table["prompt_tokens"].astype("float64") + table["completion_tokens"].astype("float64"),
        malformed_share=pd.to_numeric(known, errors="coerce").fillna(malformed),
        gave_up=(table["outcome"] == "empty_patch").astype("float64").where(table["resolved"].notna() & known_ends),
        cut_off=(~ended.isin(["submitted"])).astype("float64").where(ended.notna() & (ended != "fault")),
        brier=(stated - resolved) ** 2,
        overconfidence=stated - resolved,
    )


def metric_rows(
    tables: Mapping[str, pd.DataFrame], baseline: str, *, level: float = 0.95, metrics: Sequence[Metric] = METRICS
) -> list[MetricRow]:
    """A row for every metric that all arms have, over the tasks that all of them have, Holm per section."""
    shared = set.intersection(*(set(table["instance_id"]) for table in tables.values()))
    derived = {arm: with_derived(table[table["instance_id"].isin(shared)]) for arm, table in tables.items()}
    tasks = {arm: by_task(table) for arm, table in derived.items()}
    found = []
    for metric in metrics:
        values = {arm: metric_values(table, metric, tasks[arm]) for arm, table in derived.items()}
        if metric.section == "cost" and not any(arm.values.any() for arm in values.values()):
            continue
        if all(len(arm) > 1 for arm in values.values()):
            found.append(metric_row(metric, values, baseline, level=level))
    return with_holm(found)


def metric_values(table: pd.DataFrame, metric: Metric, tasks: ByTask | None = None) -> TaskValues:
    """The metric of one arm on the tasks that have it; empty where the column is missing. `tasks`: of the rows."""
    tasks = tasks or by_task(table)
    if metric.column not in table:
        return _of_those_known(np.full(len(table), np.nan), tasks)
    if metric.per_resolved:
        return per_resolved(table, metric.column, tasks)
    return _of_those_known(_floats(table[metric.column]), tasks, whole=metric.yes_or_no)


def per_resolved(table: pd.DataFrame, column: str, tasks: ByTask | None = None) -> TaskValues:
    """Total spent over total resolved, R = mean(x) / mean(y), as values whose mean is R. `tasks`: of the rows.

    Linearised (Cochran, chapter 6): a rollout contributes R + (x - R y) / mean(y), which has the ratio's first-order
    variance. Empty when nothing was resolved.
    """
    tasks = tasks or by_task(table)
    x, y = _floats(table[column]), _floats(table["resolved"])
    x, y = np.where(np.isnan(y), np.nan, x), np.where(np.isnan(x), np.nan, y)
    spent, solved = _of_those_known(x, tasks), _of_those_known(y, tasks)
    if not len(spent) or not (total := float(solved.values.mean())):
        return _of_those_known(np.full(len(table), np.nan), tasks)
    ratio = float(spent.values.mean()) / total
    return _of_those_known(ratio + (x - ratio * y) / total, tasks)


def _floats(column: pd.Series) -> Floats:
    return column.to_numpy(dtype=float, na_value=np.nan)


def _of_those_known(numbers: Floats, tasks: ByTask, *, whole: bool = False) -> TaskValues:
    """`numbers`, nan for none, of the tasks that have any; `whole`: all are 0 or 1."""
    values = values_by_task(numbers, tasks, whole=whole)
    return values.where(values.counts[0] > 0)


def metric_row(metric: Metric, values: Mapping[str, TaskValues], baseline: str, *, level: float = 0.95) -> MetricRow:
    """One metric over arms: means, and differences on the tasks that both of a pair have; all within its scale."""
    differences, ps = {}, {}
    least, most = metric.scale
    for arm in values:
        if arm != baseline:
            a, b = common(*_aligned(values[baseline], values[arm]))
            if len(a) > 1:
                differences[arm] = estimate(difference(a, b), level, within=(least - most, most - least))
                ps[arm] = p_value(differences[arm].value, differences[arm].these)
    return MetricRow(
        section=metric.section,
        name=metric.name,
        unit=metric.unit,
        meaning=metric.meaning,
        arms={arm: estimate(value, level, rate=metric.yes_or_no, within=metric.scale) for arm, value in values.items()},
        differences=differences,
        p=ps,
    )


def with_holm(rows: Sequence[MetricRow]) -> list[MetricRow]:
    """Adjust the p-values of each section for the number of differences in it."""
    out = list(rows)
    for section in {row.section for row in rows}:
        keys = [(i, arm) for i, row in enumerate(out) if row.section == section for arm in row.p]
        for (index, arm), p in zip(keys, holm([out[i].p[a] for i, a in keys]), strict=True):
            out[index] = out[index].model_copy(update={"p_holm": {**out[index].p_holm, arm: p}})
    return out


def _aligned(a: TaskValues, b: TaskValues) -> tuple[TaskValues, TaskValues]:
    shared = set(a.tasks) & set(b.tasks)
    keep_a, keep_b = (np.array([task in shared for task in arm.tasks], dtype=bool) for arm in (a, b))
    return a.where(keep_a), b.where(keep_b)
