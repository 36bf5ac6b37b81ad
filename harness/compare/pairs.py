"""Every pair of many arms, one line each: the numbers and verdicts of `compare`, with Holm over all pairs."""

from itertools import combinations

import numpy as np
import pandas as pd

from aem_harness.harness.compare.compare import common_tasks
from aem_harness.harness.compare.contrast import judge_trials
from aem_harness.harness.compare.family import settle
from aem_harness.harness.compare.records import QUESTIONS, Contrast
from aem_harness.harness.compare.values import count_trials
from aem_harness.harness.errors import DataError


def all_pairs(table: pd.DataFrame, level: float = 0.95, *, common: bool = False) -> pd.DataFrame:
    """One row per pair of arms, in the order in which the arms were read; fractions, not percent.

    As in `compare`, a pair is compared on the tasks on which both have a verdict. Rollouts without one are counted
    (`missing_baseline`, `missing_candidate`) with their possible effect on the difference, and a verdict that they
    could change is inconclusive. The p-values ending in `_holm`, and the verdicts, are those of all pairs together.
    """
    if common:
        table = common_tasks(table)
    names = list(dict.fromkeys(table["arm"]))
    if len(names) < 2:
        raise DataError(f"pairs need two arms or more; there is {len(names)}")
    tasks = tuple(sorted(set(table["instance_id"])))
    repos = table.drop_duplicates("instance_id").set_index("instance_id")["repo"].reindex(list(tasks))
    labels = repos.to_numpy(dtype=str)
    parts = [table[table["arm"] == name] for name in names]
    arms = [count_trials(part, tasks) for part in parts]
    held = [np.isin(tasks, part["instance_id"].to_numpy(dtype=object)) for part in parts]
    judged = []
    for i, j in combinations(range(len(names)), 2):
        keep = held[i] | held[j]
        pair = (names[i], names[j])
        judged.append(judge_trials(pair, arms[i].where(keep), arms[j].where(keep), labels[keep], level=level))
    return pd.DataFrame([_row(one) for one in settle(judged)])


def _row(one: Contrast) -> dict[str, object]:
    delta = one.difference
    row: dict[str, object] = {"baseline": one.baseline, "candidate": one.candidate}
    row |= {"tasks": delta.tasks, "rollouts": delta.rollouts, "difference": delta.value}
    for prefix, interval in (("these", delta.these), ("like", delta.like)):
        row |= {f"{prefix}_{name}": getattr(interval, name, np.nan) for name in ("se", "low", "high")}
    tests = {test.question: test for test in one.tests}
    for prefix, question in zip(("these", "like"), QUESTIONS, strict=True):
        row |= {f"p_{prefix}": getattr(tests.get(question), "p", np.nan)}
        row |= {f"p_{prefix}_holm": getattr(tests.get(question), "p_holm", np.nan)}
    row |= {"gained": one.gained, "lost": one.lost, "verdict": one.decision.verdict}
    lost = one.bounds
    row |= {"missing_baseline": lost.missing_baseline if lost else 0}
    row |= {"missing_candidate": lost.missing_candidate if lost else 0}
    return row | {"low_if_missing": lost.low if lost else np.nan, "high_if_missing": lost.high if lost else np.nan}
