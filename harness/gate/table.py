"""From the outcomes table to the two arms of a gate, under rules that were fixed before any outcome was seen.

One law for both arms: a rollout lost to infrastructure may be repeated `retries` times, and nothing else may. What is
still missing then, what came from a later try, and what has no row at all enters as the worst case for PASS and the
best case for BLOCK. Arms that differ in more than the weights get no verdict.
"""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from aem_harness.harness.compare.drift import differences
from aem_harness.harness.compare.outcomes import ArmFacts, Outcomes
from aem_harness.harness.errors import ConfigError, DataError, DriftFault, listed
from aem_harness.harness.gate.design import Arm


def read_arm(outcomes: Outcomes, name: str, *, retries: int) -> Arm:
    """One arm as matrices. Every task is expected to have all the seeds that occur in the arm."""
    if name not in outcomes.arms:
        raise ConfigError(f"there is no arm {name!r}; the outcomes have {listed(outcomes.arms)}")
    table = outcomes.table[outcomes.table["arm"] == name]
    tasks = pd.Index(sorted(set(table["instance_id"])))
    seeds = pd.Index(sorted({int(seed) for seed in table["seed"]}))
    rows = tasks.get_indexer(pd.Index(table["instance_id"]))
    columns = seeds.get_indexer(pd.Index(table["seed"].astype(int)))

    def matrix(values: pd.Series, empty: float) -> np.ndarray:
        filled = np.full((len(tasks), len(seeds)), empty)
        filled[rows, columns] = values.astype("Float64").to_numpy(dtype=float, na_value=empty)
        return filled

    lawful = table["resolved"].where(table["attempt"].fillna(0) <= retries)
    if lawful.isna().all():
        raise DataError(f"arm {name!r} has no verdict at all ({len(table)} rollouts without one)")
    tokens = table["prompt_tokens"] + table["completion_tokens"]
    gpu = table["gpu_seconds"]
    return Arm(
        name,
        tuple(tasks),
        tuple(int(seed) for seed in seeds),
        matrix(lawful, np.nan),
        matrix(tokens, 0.0) if tokens.notna().any() else None,
        matrix(gpu, 0.0) if gpu.notna().any() else None,
    )


def same_tasks(baseline: Arm, candidate: Arm, *, common: bool = False) -> tuple[Arm, Arm]:
    """Both arms on the same tasks. Raises DataError naming the tasks that only one has, unless `common` drops them."""
    ours, theirs = set(baseline.tasks), set(candidate.tasks)
    if ours == theirs:
        return baseline, candidate.select(baseline.tasks)
    shared = sorted(ours & theirs)
    if not shared:
        raise DataError(f"{baseline.name!r} and {candidate.name!r} have no task in common")
    if not common:
        only = [
            f"{len(alone)} only in {arm.name!r} ({listed(sorted(alone), most=3)})"
            for arm, alone in ((baseline, ours - theirs), (candidate, theirs - ours))
            if alone
        ]
        raise DataError(f"the arms differ in tasks: {'; '.join(only)}; run them, or gate on the others with --common")
    return baseline.select(shared), candidate.select(shared)


def refuse_drift(outcomes: Outcomes, arms: Sequence[str], allowed: Collection[str] = ()) -> list[str]:
    """Raise DriftFault naming everything but the weights in which the arms differ; what is `allowed` is returned.

    `agent` allows `agent.source` and all else of the agent.
    """
    tables = {arm: outcomes.table[outcomes.table["arm"] == arm] for arm in arms}
    facts: dict[str, ArmFacts] = {arm: outcomes.facts[arm] for arm in arms if arm in outcomes.facts}
    found = differences(tables, facts)
    accepted = [line for line in found if any(f"{line.split()[0]}.".startswith(f"{name}.") for name in allowed)]
    refused = [line for line in found if line not in accepted]
    if refused:
        names = listed(sorted({line.split()[0] for line in refused}))
        raise DriftFault(f"{'; '.join(refused)}; mend that, or accept it with --allow ({names})")
    return accepted


def check_pin(baseline: Arm, pin: str | None) -> None:
    """Raise DataError when the baseline's outcomes are not those of the digest `pin`."""
    if pin and baseline.digest.removeprefix("sha256:") != pin.removeprefix("sha256:"):
        raise DataError(
            f"the outcomes of baseline {baseline.name!r} have the digest {baseline.digest}, not the pinned {pin}; "
            "restore the pinned outcomes, or pin the new ones"
        )
