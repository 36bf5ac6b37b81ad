"""How many rollouts each instance of a run gets: the same number, or an allocation.

In `run.json` a plan is `{"instances": [...], "seeds": K}`, with `"allocation": {instance: k}` for instances that get
fewer than K.
"""

import csv
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from aem_harness.harness.errors import ConfigError, DataError
from aem_harness.harness.io import read_text

SeedPlan = dict[str, Any]


def plan_of(seeds: Mapping[str, int]) -> SeedPlan:
    """The plan that gives every instance its number of `seeds`."""
    most = max(seeds.values(), default=0)
    fewer = {instance_id: k for instance_id, k in seeds.items() if k < most}
    return {"instances": list(seeds), "seeds": most, **({"allocation": fewer} if fewer else {})}


def seeds_of(plan: Mapping[str, Any]) -> dict[str, int]:
    """The number of rollouts of every instance of a plan."""
    fewer: Mapping[str, int] = plan.get("allocation") or {}
    return {instance_id: fewer.get(instance_id, plan["seeds"]) for instance_id in plan["instances"]}


def widened(plan: Mapping[str, Any], other: Mapping[str, Any]) -> SeedPlan:
    """The union of two plans: every instance, with the larger number of seeds."""
    seeds = seeds_of(plan)
    for instance_id, k in seeds_of(other).items():
        seeds[instance_id] = max(k, seeds.get(instance_id, 0))
    return plan_of(seeds)


def read_allocation(path: Path) -> dict[str, int]:
    """Seeds by instance, from a CSV with the columns instance_id and seeds, as `aem plan --allocate` writes it."""
    rows = list(csv.DictReader(StringIO(read_text(path), newline="")))
    if not rows or not {"instance_id", "seeds"} <= set(rows[0]):
        raise DataError(f"{path} is no allocation: it needs columns instance_id and seeds, and one row per instance")
    found: dict[str, int] = {}
    for number, row in enumerate(rows, start=2):
        text = row["seeds"] or ""
        if not text.isdigit() or int(text) < 1:
            raise DataError(f"{path} row {number}: seeds is {text!r}; it must be a whole number from 1")
        if row["instance_id"] in found:
            raise DataError(f"{path} row {number}: {row['instance_id']} occurs twice")
        found[row["instance_id"]] = int(text)
    return found


def refuse_later_allocation(seeds: Mapping[str, int], known: Mapping[str, Any], run: Path) -> None:
    """An allocation must be set from the start of a run: ConfigError if the run was planned with other numbers.

    Adding rollouts where the first ones of a task were mixed biases the mean; in a fresh run it is unbiased.
    """
    before = seeds_of(known)
    other = [instance_id for instance_id, k in seeds.items() if before.get(instance_id, k) != k]
    if other:
        raise ConfigError(
            f"{run} was planned with another number of seeds ({other[0]}: {before[other[0]]}, not {seeds[other[0]]}); "
            "seeds that depend on a run's own results bias its rates: choose another --out for the allocation"
        )
