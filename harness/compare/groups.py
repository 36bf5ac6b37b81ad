"""The same comparison on parts of the tasks: by repository, by difficulty, by the year of the issue."""

from collections.abc import Mapping
from typing import Literal

import pandas as pd

from aem_harness.harness.compare.arms import sample
from aem_harness.harness.compare.decisions import holm
from aem_harness.harness.compare.intervals import agreeing, estimate, estimate_difference
from aem_harness.harness.compare.permutation import stratified_permutation
from aem_harness.harness.compare.records import Estimate, Group
from aem_harness.harness.compare.values import count_trials, rates

By = Literal["repository", "difficulty", "issue year"]
WAYS: tuple[By, ...] = ("repository", "difficulty", "issue year")
DIFFICULTIES = ("<15 min fix", "15 min - 1 hour", "1-4 hours", ">4 hours")


def groups(tables: Mapping[str, pd.DataFrame], baseline: str, *, level: float = 0.95) -> list[Group]:
    """Every part of the tasks, for every grouping that the table knows; Holm within each grouping.

    Rates are over the tasks of the part on which an arm has a verdict; differences and the exact permutation test over
    those on which both have. A part that only one arm has is left out.
    """
    out: list[Group] = []
    needed = ["instance_id", "repo", "difficulty", "created_at", "resolved"]
    tables = {arm: table[needed] for arm, table in tables.items()}
    for by in WAYS:
        parts = {arm: labels_of(table, by) for arm, table in tables.items()}
        names = sorted(set().union(*(set(labels.dropna()) for labels in parts.values())), key=_place)
        found = [
            group
            for name in names
            if (group := _group(by, name, {arm: tables[arm][parts[arm] == name] for arm in tables}, baseline, level))
        ]
        out += _with_holm(found) if len(found) > 1 else []
    return out


def _group(by: By, name: str, tables: Mapping[str, pd.DataFrame], baseline: str, level: float) -> Group | None:
    scored = {arm: table[table["resolved"].notna()] for arm, table in tables.items()}
    if any(table.empty for table in scored.values()):
        return None
    differences: dict[str, Estimate] = {}
    ps: dict[str, float] = {}
    for arm in scored:
        if arm == baseline:
            continue
        tasks = tuple(sorted(set(scored[baseline]["instance_id"]) & set(scored[arm]["instance_id"])))
        if not tasks:
            return None
        a, b = count_trials(scored[baseline], tasks), count_trials(scored[arm], tasks)
        clusters = scored[arm].drop_duplicates("instance_id").set_index("instance_id")["repo"].reindex(list(tasks))
        labels = clusters.to_numpy(dtype=str)
        ps[arm] = stratified_permutation(a, b).p
        found = estimate_difference(rates(a, tasks, labels), rates(b, tasks, labels), level)
        differences[arm] = found.model_copy(update={"these": agreeing(found.these, ps[arm])})
    return Group(
        by=by,
        value=name,
        tasks=len(set().union(*(set(table["instance_id"]) for table in scored.values()))),
        rates={arm: estimate(sample(arm, table).values, level, rate=True) for arm, table in scored.items()},
        differences=differences,
        p=ps,
    )


def _place(name: str) -> tuple[int, str]:
    """SWE-bench's difficulties from the easiest on; other parts by name."""
    return (DIFFICULTIES.index(name) if name in DIFFICULTIES else 0), name


def labels_of(table: pd.DataFrame, by: By) -> pd.Series:
    """The part to which each rollout's task belongs."""
    if by == "repository":
        return table["repo"]
    if by == "difficulty":
        return table["difficulty"]
    return table["created_at"].str.slice(0, 4)


def _with_holm(groups: list[Group]) -> list[Group]:
    keys = [(i, arm) for i, group in enumerate(groups) for arm in group.p]
    for (index, arm), p in zip(keys, holm([groups[i].p[a] for i, a in keys]), strict=True):
        groups[index] = groups[index].model_copy(update={"p_holm": {**groups[index].p_holm, arm: p}})
    return groups
