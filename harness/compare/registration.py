"""Preregistration: a comparison planned before there are outcomes, and every deviation from the plan."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from aem_harness.harness.compare.outcomes import Outcomes
from aem_harness.harness.errors import ConfigError, DataError, listed
from aem_harness.harness.io import read_json, write_json
from aem_harness.harness.types import Record

if TYPE_CHECKING:
    from aem_harness.harness.compare.compare import CompareOptions
    from aem_harness.harness.compare.records import Comparison

TESTS = {
    "these tasks": "stratified permutation, exact (McNemar's at one rollout a task); Holm over contrasts",
    "tasks like these": "t test, CR2 by repository, Bell-McCaffrey df; Holm over contrasts",
}


class Registration(Record):
    """A fixed plan. `order` is the order seed of a gate; `digest` covers everything else here."""

    tasks: tuple[str, ...]
    excluded: tuple[str, ...] = ()
    arms: tuple[str, ...] = ()
    seeds: int
    level: float
    margin: float | None = None
    difference: float | None = None
    order: int | None = None
    tests: dict[str, str] = TESTS
    dataset: str = ""
    note: str = ""
    aem: str
    created_at: str
    digest: str = ""


def register(path: Path, plan: Registration) -> Registration:
    """Write the plan with its digest; ConfigError if the file exists, because a registration is never changed."""
    if path.exists():
        raise ConfigError(f"{path} exists: a registration is never changed; name another file for another plan")
    unknown = sorted(set(plan.excluded) - set(plan.tasks))
    if unknown:
        raise ConfigError(f"excluded tasks are not among the registered ones: {listed(unknown)}")
    fixed = plan.model_copy(update={"digest": _digest(plan)})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, fixed.model_dump(mode="json"))
    return fixed


def read_registration(path: Path) -> Registration:
    """The plan in `path`; DataError if it is no registration, or was changed after it was written."""
    try:
        plan = Registration.model_validate(read_json(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no registration: {str(error).splitlines()[0]}") from None
    if plan.digest != _digest(plan):
        raise DataError(f"{path} was changed after it was registered: its digest does not match its content")
    return plan


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def deviations(
    plan: Registration,
    outcomes: Outcomes | None,
    *,
    arms: Sequence[str] = (),
    against: str = "baseline",
    **settings: float | None,
) -> list[str]:
    """Every deviation of these outcomes and settings from the registered ones, one line each; empty if none.

    Without outcomes, which a gate does not have yet, only the settings are checked: `level`, `margin`, and of a gate
    `alpha`, `block_margin`, `order`, `orders` and `seeds`; margins are fractions. None is not checked, unless a margin
    was registered and is not tested. `against`: which pairs of arms are compared.
    """
    found = list(_settings(plan, settings))
    if against != "baseline" and len(arms) > 2:
        pairs = {"previous": "each arm with the one before it", "all": "all pairs of arms"}[against]
        found.append(f"compared are {pairs}, not each arm with the baseline")
    if outcomes is None:
        return found
    table = outcomes.table[outcomes.table["arm"].isin(arms)] if arms else outcomes.table
    return [*_deviations(plan, table, list(arms) or outcomes.arms), *found]


def note_of(plan: Registration, found: Sequence[str]) -> str:
    """`as registered (3f2a..., 2026-01-02)`, or every deviation."""
    name = f"{plan.digest[:12]}, {plan.created_at[:10]}"
    return f"not as registered ({name}): {'; '.join(found)}" if found else f"as registered ({name})"


def as_registered(comparison: "Comparison", compared: Outcomes, file: Path, options: "CompareOptions") -> "Comparison":
    """The comparison with a note on every deviation from the registration in `file`."""
    plan, arms = read_registration(file), [arm.arm for arm in comparison.arms]
    found = deviations(plan, compared, arms=arms, against=options.against, level=options.level, margin=options.margin)
    return comparison.model_copy(update={"registration": note_of(plan, found)})


def _deviations(
    plan: Registration,
    table: pd.DataFrame,
    arms: Sequence[str],
) -> Iterator[str]:
    due = set(plan.tasks) - set(plan.excluded)
    for arm in arms:
        rows = table[table["arm"] == arm]
        have = set(rows["instance_id"])
        if missing := sorted(due - have):
            yield f"{arm} lacks {len(missing)} registered tasks ({listed(missing, most=3)})"
        if more := sorted(have - due):
            yield f"{arm} has {len(more)} tasks that were not registered ({listed(more, most=3)})"
        counts = rows[rows["instance_id"].isin(due)].groupby("instance_id").size()
        if len(counts) and (counts != plan.seeds).any():
            fewest, most = int(counts.min()), int(counts.max())
            yield f"{arm} has {fewest if fewest == most else f'{fewest} to {most}'} rollouts per task, not {plan.seeds}"
        named = rows["dataset"].dropna().unique()
        if plan.dataset and (other := [name for name in named if name != plan.dataset]):
            yield f"the dataset of {arm} is {listed(other, most=2)}, not {plan.dataset}"
        ended = pd.to_datetime(rows["at"].dropna(), errors="coerce", utc=True, format="ISO8601")
        early = int((ended < pd.Timestamp(plan.created_at)).sum())
        if early:
            yield f"{early} rollouts of {arm} ended before the registration"
    if plan.arms and list(plan.arms) != list(arms):
        yield f"the arms are {', '.join(arms)}, not {', '.join(plan.arms)}"


def _settings(plan: Registration, settings: Mapping[str, float | None]) -> Iterator[str]:
    planned = {
        "level": plan.level,
        "alpha": round(1 - plan.level, 10),
        "margin": plan.margin,
        "block_margin": plan.margin,
        "order": plan.order,
        "orders": 1,
        "seeds": plan.seeds,
    }
    for name, value in settings.items():
        used = 0.0 if name == "margin" and value is None and plan.margin is not None else value
        if used is not None and used != planned[name]:
            due = "registered" if planned[name] is None else f"{planned[name]:g}"
            yield f"{name.replace('_', ' ')} is {used:g}, not {due}"


def _digest(plan: Registration) -> str:
    text = json.dumps(plan.model_dump(mode="json", exclude={"digest"}), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
