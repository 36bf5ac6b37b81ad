"""What differs between arms besides the weights: the usual cause of a gain that nobody can reproduce."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from aem_harness.harness.compare.outcomes import ArmFacts
from aem_harness.harness.config import UNCOUNTED
from aem_harness.harness.errors import listed
from aem_harness.harness.run.thoughts import done_with

STAMPS = ("grader", "dataset", "scaffold")
# Where arms of a comparison are meant to differ: names, addresses and the weights themselves.
WEIGHTS = {
    "arm", "checkpoint", "model", "name", "endpoint", "endpoints", "base_url", "url", "weights", "weights_digest",
    "weight_digest", "revision", "path", "card", "started_at", "created_at", "canary", "canaries",
}  # fmt: skip

LATER = {"fingerprint.server.dtype", "fingerprint.logprobs"}


def warnings(tables: Mapping[str, pd.DataFrame], facts: Mapping[str, ArmFacts]) -> list[str]:
    """One line for everything but the weights in which arms differ, and for differing sets of tasks."""
    return [*_same_weights(facts), *_tasks(tables), *_stamps(tables), *_settings(facts)]


def differences(tables: Mapping[str, pd.DataFrame], facts: Mapping[str, ArmFacts]) -> list[str]:
    """All differences between arms but those of weights and tasks, one line each; they void a verdict on weights."""
    return [*_stamps(tables), *_settings(facts)]


def _stamps(tables: Mapping[str, pd.DataFrame]) -> Iterator[str]:
    for name in STAMPS:
        by_arm = {arm: listed(sorted(table[name].dropna().unique()), most=3) for arm, table in tables.items()}
        if len(set(by_arm.values())) > 1:
            yield f"{name} differs: " + "; ".join(f"{arm}: {value or 'unknown'}" for arm, value in by_arm.items())
        for arm, table in tables.items():
            if table[name].nunique() > 1:
                yield f"{arm} mixes several values of {name}: {by_arm[arm]}"
    digests = {arm: _images(table) for arm, table in tables.items()}
    first, *rest = digests
    for arm in rest:
        differing = [task for task, digest in digests[arm].items() if digests[first].get(task, digest) != digest]
        if differing:
            yield f"images differ between {first} and {arm} on {len(differing)} tasks: {listed(differing, most=3)}"


def _images(table: pd.DataFrame) -> dict[str, str]:
    known = table.dropna(subset=["image_digest"])
    return dict(zip(known["instance_id"], known["image_digest"], strict=True))


def _same_weights(facts: Mapping[str, ArmFacts]) -> Iterator[str]:
    """Servers that answer the canary prompts with equal log-probabilities."""
    seen: dict[str, str] = {}
    for arm, one in facts.items():
        canary = one.fingerprint.get("canary")
        if not isinstance(canary, Mapping) or not any(canary.values()):
            continue
        if (other := seen.setdefault(str(canary), arm)) != arm:
            yield f"{other} and {arm} gave equal log-probabilities on the canary prompts: probably the same weights"


def _settings(facts: Mapping[str, ArmFacts]) -> Iterator[str]:
    flat = {arm: _flat(one) for arm, one in facts.items()}
    for key in dict.fromkeys(key for settings in flat.values() for key in settings if key not in _NO_OUTCOME):
        if any(all(told in settings for settings in flat.values()) for told in _described(key)):
            continue  # what was asked for; what holds is compared
        by_arm = {arm: settings.get(key, "not set") for arm, settings in flat.items()}
        if key in LATER and not all(by_arm[arm] not in ("", "not set") for arm in by_arm):
            continue  # older runs did not record it: unknown is no difference
        if len({str(value) for value in by_arm.values()}) > 1:
            yield f"{key} differs: " + "; ".join(f"{arm}: {value}" for arm, value in by_arm.items())


_COMPARED = {"config", "agent", "dataset", "versions", "fingerprint"}
_NO_OUTCOME = {f"config.{name}" for name in UNCOUNTED}


def _flat(one: ArmFacts) -> dict[str, Any]:
    flat = dict(_flatten(one.model_dump(include=_COMPARED)))
    does = done_with(one.agent)
    return flat | {"agent.thoughts": does} if does else flat


def _described(key: str) -> list[str]:
    """Where an agent may say what holds of a setting that was asked for; a default need not be asked for."""
    group, _, name = key.removeprefix("config.").partition(".")
    if group == "sampling":
        return [f"agent.policy.sampling.{name}"]
    named = "prompts.digest" if name == "prompts" else name
    return [f"agent.{named}", f"agent.budget.{named}"] if group == "agent_options" else []


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`{"a": {"b": 1}}` -> `("a.b", 1)`, without what is meant to differ."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if str(key).lower() not in WEIGHTS:
                yield from _flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _tasks(tables: Mapping[str, pd.DataFrame]) -> Iterator[str]:
    ids = {arm: set(table["instance_id"]) for arm, table in tables.items()}
    first, *rest = ids
    for arm in rest:
        if ids[arm] != ids[first]:
            shared, ours, theirs = ids[first] & ids[arm], ids[first] - ids[arm], ids[arm] - ids[first]
            yield (
                f"tasks differ: {len(shared)} in common, {len(ours)} only in {first}, {len(theirs)} only in {arm} "
                "(counted as missing; --common leaves them out)"
            )
