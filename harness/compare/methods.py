"""Arms grouped into methods: which rollouts belong to which training run of which method."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np

from aem_harness.harness.compare.outcomes import Outcomes
from aem_harness.harness.errors import DataError, listed

RUN = "training_run"


def grouped(outcomes: Outcomes, groups: Sequence[str]) -> Outcomes:
    """Group arms into methods: `NAME=GLOB[,GLOB...]` each; an arm becomes a training run of its method."""
    method: dict[str, str] = {}
    for group in groups:
        name, separator, globs = group.partition("=")
        if not (name and separator and globs):
            raise DataError(f"{group!r} is no group: NAME=GLOB[,GLOB...], for example grpo='grpo-seed*'")
        matched = [arm for arm in outcomes.arms if any(fnmatchcase(arm, glob) for glob in globs.split(","))]
        if not matched:
            raise DataError(f"no arm matches {globs!r}; there are: {listed(outcomes.arms)}")
        for arm in matched:
            if method.setdefault(arm, name) != name:
                raise DataError(f"arm {arm!r} is in two groups, {method[arm]} and {name}")
    return assigned(outcomes, {arm: (name, arm) for arm, name in method.items()})


def assigned(outcomes: Outcomes, places: Mapping[str, tuple[str, str]]) -> Outcomes:
    """The arms in `places` as (method, training run); others are left out. Seeds are numbered anew in each method."""
    table = outcomes.table[outcomes.table["arm"].isin(places)].copy()
    names = table["arm"].astype("object")
    order = {arm: i for i, arm in enumerate(places)}
    table[RUN] = names.map({arm: run for arm, (_, run) in places.items()})
    table["arm"] = names.map({arm: method for arm, (method, _) in places.items()}).astype("str")
    table = table.iloc[np.lexsort((table["seed"].to_numpy(), names.map(order).to_numpy()))]
    table["seed"] = table.groupby(["arm", "instance_id"]).cumcount().astype("Int64")
    return Outcomes(table.reset_index(drop=True))


def by_column(outcomes: Outcomes, column: str) -> Outcomes:
    """Every arm is a method, and `column` names its training runs."""
    if column not in outcomes.table:
        raise DataError(f"no column {column!r}; there are: {listed(outcomes.table.columns, most=40)}")
    if outcomes.table[column].isna().any() or (outcomes.table[column] == "").any():
        raise DataError(f"column {column!r} is empty for some rollouts: each must name a training run")
    return Outcomes(outcomes.table.assign(**{RUN: outcomes.table[column].astype("str")}), outcomes.facts)
