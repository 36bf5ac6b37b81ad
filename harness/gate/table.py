"""From the outcomes table to the two arms of a gate, under rules that are fixed before any outcome is seen.

One retry rule for both arms: a rollout lost to infrastructure may be repeated `retries` times, and nothing else may.
What is still missing then, what a later attempt brought, and what has no row enters as the worst case for PASS and the
best case for BLOCK. Arms that differ in more than their weights get no verdict.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from aem_harness.harness.compare.drift import differences
from aem_harness.harness.compare.outcomes import ArmFacts, Outcomes
from aem_harness.harness.errors import ConfigError, DataError, DriftFault, counted, listed
from aem_harness.harness.gate.design import Arm
from aem_harness.harness.schema import tampered, without_tampered

NAMED = 8  # differences between arms that a refusal names; of more, the number


def read_arm(outcomes: Outcomes, name: str, *, retries: int) -> Arm:
    """One arm as matrices. A rollout is planned if it has a row; one that was never planned is not lost."""
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

    allowed = table["resolved"].where(table["attempt"].fillna(0) <= retries)
    if allowed.isna().all():
        raise DataError(f"arm {name!r} has no verdict ({len(table)} rollouts without one)")
    planned = np.zeros((len(tasks), len(seeds)), bool)
    planned[rows, columns] = True
    tokens = table["prompt_tokens"] + table["completion_tokens"]
    gpu = table["gpu_seconds"]
    return Arm(
        name,
        tuple(tasks),
        tuple(int(seed) for seed in seeds),
        matrix(allowed, np.nan),
        matrix(tokens, 0.0) if tokens.notna().any() else None,
        matrix(gpu, 0.0) if gpu.notna().any() else None,
        None if planned.all() else planned,
    )


def audited(outcomes: Outcomes) -> Outcomes:
    """The outcomes with tampered rollouts counted as failures."""
    return Outcomes(without_tampered(outcomes.table), outcomes.facts)


def refuse_unaudited(outcomes: Outcomes, *, all_of_them: bool = False) -> None:
    """Raise DataError if canaries graded none (with `all_of_them`: not all) of an arm's resolved rollouts again."""
    table = outcomes.table
    resolved, looked = table["resolved"].fillna(False), table["canary"].notna()
    seen = table["canary"].isin(["clean", "marked"])
    for arm in outcomes.arms:
        mine = table["arm"] == arm
        if (mine & resolved).any() and not (mine & seen).any():
            raise DataError(f"arm {arm!r} was not audited; run `aem audit` on its folder first")
        left = int((mine & resolved & ~looked).sum())
        if all_of_them and left:
            raise DataError(
                f"{left} resolved rollouts of {arm!r} were not graded again with canaries; for a candidate that "
                "is run with --audited all must be: run `aem audit --canary 1` on its folder first"
            )


def audit_words(outcomes: Outcomes) -> str:
    """What was audited, and its effect."""
    table = outcomes.table
    resolved, seen = table["resolved"].fillna(False), table["canary"].isin(["clean", "marked"])
    counts = []
    for arm in outcomes.arms:
        mine = table["arm"] == arm
        bad, looked, all_ = (int((mine & each).sum()) for each in (tampered(table), resolved & seen, resolved))
        counts.append(f"{bad} of {arm} ({looked} of {all_} resolved were audited)")
    return f"audited: resolved rollouts that tamper with their tests count as failures, {', '.join(counts)}"


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
    """Raise DriftFault with all differences between the arms other than the weights; returns those that are `allowed`.

    `agent` allows `agent.source` and all other settings of the agent.
    """
    tables = {arm: outcomes.table[outcomes.table["arm"] == arm] for arm in arms}
    facts: dict[str, ArmFacts] = {arm: outcomes.facts[arm] for arm in arms if arm in outcomes.facts}
    found = differences(tables, facts)
    accepted = [line for line in found if any(f"{line.split()[0]}.".startswith(f"{name}.") for name in allowed)]
    refused = [line for line in found if line not in accepted]
    if refused:
        names = listed(sorted({line.split()[0] for line in refused}))
        more = f"; {counted(len(refused) - NAMED, 'more difference')}" if len(refused) > NAMED else ""
        told = "; ".join(refused[:NAMED]) + more
        raise DriftFault(f"{told}; remove the difference, or accept it with --allow ({names})")
    return accepted


def weights(outcomes: Outcomes, arm: str) -> str:
    """A digest of the weights that a run folder's arm was served with; empty if unknown."""
    facts = outcomes.facts.get(arm)
    return digest_of_weights((facts.fingerprint.get("weights") if facts else None) or {})


def digest_of_weights(digests: Mapping[str, Any]) -> str:
    """One digest for the digests of a checkpoint's files (or hub and revision); empty for none."""
    known = {name: value for name, value in digests.items() if value}
    return "sha256:" + hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest() if known else ""


def check_pin(baseline: Arm, pin: str | None) -> None:
    """Raise DataError if the baseline's outcomes do not have the digest `pin`, ConfigError for an empty one."""
    if pin is not None and not pin.removeprefix("sha256:").strip():
        raise ConfigError(
            f"--pin is empty: the variable with the digest is not set; this baseline's is {baseline.digest}"
        )
    if pin is not None and baseline.digest.removeprefix("sha256:") != pin.removeprefix("sha256:"):
        raise DataError(
            f"the outcomes of baseline {baseline.name!r} have the digest {baseline.digest}, not the pinned {pin}; "
            "restore the pinned outcomes, or pin the new ones"
        )
