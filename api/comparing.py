"""Stored outcomes: as one table, side by side, and what it would take to tell arms apart."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from aem_harness.harness.compare.compare import CompareOptions
    from aem_harness.harness.compare.outcomes import Outcomes
    from aem_harness.harness.compare.records import Comparison, Components, Plan
    from aem_harness.harness.ends import Ends

    OwnEnds = Ends | str | Path | Mapping[str, str] | None

Sources = str | Path | Sequence[str | Path]


def outcomes(sources: Sources, *, instances: str = "", ends: "OwnEnds" = None) -> "pd.DataFrame":
    """One row per rollout, with the columns of `harness/schema.py`: run folders, CSV files, or what `aem import` reads.

    `FILE:ARM` picks an arm, `NAME=FILE` renames one. `instances` is a dataset that knows difficulty and issue date.
    `ends` overrides whose fault an end is, in all arms: a YAML file, or a mapping such as `{"exit_api": "model"}`.
    """
    return read(sources, instances=instances, ends=ends).table


def read(sources: Sources, *, instances: str = "", ends: "OwnEnds" = None) -> "Outcomes":
    """The outcomes with what is known of their arms and data."""
    from aem_harness.harness.compare.outcomes import describe_tasks, load
    from aem_harness.harness.ends import read_ends

    found = load([sources] if isinstance(sources, str | Path) else sources, read_ends(ends))
    return describe_tasks(found, instances) if instances else found


def compare(
    sources: "Sources | Outcomes",
    baseline: str | None = None,
    *,
    instances: str = "",
    options: "CompareOptions | None" = None,
    ends: "OwnEnds" = None,
) -> "Comparison":
    """Every arm against the baseline (by default the first): rates, paired differences, costs, behaviour, flips.

    `sources` and `ends` as for `outcomes`, or the outcomes themselves (read with the same `ends`). Rates and
    differences are fractions.
    """
    from aem_harness.harness.compare.compare import compare as make
    from aem_harness.harness.compare.ledger import ledger
    from aem_harness.harness.compare.outcomes import Outcomes
    from aem_harness.harness.ends import read_ends

    ends = read_ends(ends)
    table = sources if isinstance(sources, Outcomes) else read(sources, instances=instances, ends=ends)
    said = {"ledger": tuple(ledger(table.table, ends)), "ends": ends.overrides}
    return make(table, baseline, options=options).model_copy(update=said)


def compare_checked(
    outcomes: "Outcomes",
    baseline: str | None = None,
    *,
    options: "CompareOptions",
    ends: "OwnEnds" = None,
    quarantine: str | None = None,
    suspect: Sequence[str] = (),
) -> "tuple[Comparison, Outcomes]":
    """`compare` without the tasks of `quarantine`, and the differences with other tasks (`sensitivity`).

    `quarantine` and `suspect` are files of task ids, or run folders of the gold agent. The differences are those with
    the quarantined tasks, and those without the tasks of each of `suspect`. Returns also the outcomes compared.
    """
    from aem_harness.harness.compare.sensitivity import other_tasks, task_list, without
    from aem_harness.harness.errors import counted

    known = set(outcomes.table["instance_id"])
    listed = task_list(quarantine) if quarantine else ()
    left_out = tuple(task for task in listed if task in known)
    compared = without(outcomes, left_out) if left_out else outcomes
    comparison = compare(compared, baseline, options=options, ends=ends)
    lines: list[str] = []
    if left_out:
        name = f"with the {counted(len(left_out), 'quarantined task')}"
        lines += other_tasks(outcomes, comparison.contrasts, name, options.level)
    elif listed:
        lines.append(f"no task of {quarantine} is in these arms: nothing was left out")
    for source in suspect:
        doubted = task_list(source)
        if not known & set(doubted):
            lines.append(f"no task of {source} is in these arms")
            continue
        fewer, name = without(compared, doubted), f"without the tasks of {Path(source).name}"
        lines += other_tasks(fewer, comparison.contrasts, name, options.level)
    return comparison.model_copy(update={"sensitivity": tuple(lines)}), compared


def plan(
    difference: float | None = None,
    *,
    margin: float | None = None,
    tasks: int | None = None,
    seeds: int | None = None,
    alpha: float = 0.05,
    power: float = 0.8,
    components: "Components | None" = None,
    history: Sources = (),
    known: Mapping[str, float] = MappingProxyType({}),
) -> "Plan":
    """Seeds needed to detect a difference or to show non-inferiority by a margin (fractions).

    How much outcomes vary is learnt from `history`, else taken from `components`, else from public results of DeepSWE;
    `known` replaces single values of them (`rate` and `noise` as fractions, `seconds`). `tasks` are those of the
    history, else 500.
    """
    from aem_harness.harness.compare.plan import plan as make
    from aem_harness.harness.compare.plan import shares_of
    from aem_harness.harness.compare.surface import PUBLIC, from_history

    components, repos = components or PUBLIC["deepswe"], []
    if history:
        table = outcomes(history)
        components, repos = from_history(table, components), table.drop_duplicates("instance_id")["repo"].tolist()
    return make(
        components.model_copy(update=dict(known)),
        tasks=tasks or len(repos) or 500,
        difference=difference,
        margin=margin,
        seeds=seeds,
        alpha=alpha,
        power=power,
        shares=shares_of(repos) if repos else None,
    )
