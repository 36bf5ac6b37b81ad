"""Two or more arms -> one `Comparison`: a pure function of the outcomes table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Literal

import pandas as pd

from aem_harness import __version__
from aem_harness.harness.compare import tools
from aem_harness.harness.compare.alarms import alarms, ran_apart
from aem_harness.harness.compare.arms import Sample, bands, best, pass_differences, passes, sample, summarise
from aem_harness.harness.compare.behaviour import Read, diversity, with_features
from aem_harness.harness.compare.contrast import judge
from aem_harness.harness.compare.curves import budget_curves, entropy_curve
from aem_harness.harness.compare.drift import warnings
from aem_harness.harness.compare.family import settle
from aem_harness.harness.compare.flips import flips, unique_solves
from aem_harness.harness.compare.grader import grader_noise
from aem_harness.harness.compare.groups import groups
from aem_harness.harness.compare.interactions import interactions
from aem_harness.harness.compare.metrics import METRICS, Metric, metric_row, metric_rows, with_holm
from aem_harness.harness.compare.outcomes import Outcomes
from aem_harness.harness.compare.records import (
    ArmSummary,
    Comparison,
    Curve,
    Flip,
    MetricRow,
)
from aem_harness.harness.errors import DataError, listed

Against = Literal["baseline", "previous", "all"]
DIVERSITY = Metric("behaviour", "diversity of seeds", "share", "", "1 - Jaccard similarity of the seeds' commands")


@dataclass(frozen=True)
class CompareOptions:
    """What to compute beside rates and differences.

    against: the baseline of every contrast, the arm before it (a series of checkpoints), or every pair of arms.
    common: tasks that not every arm has are left out on purpose, of the rates too, and are not missing.
    margin: adds non-inferiority and superiority by this fraction.
    trajectories: read them, for behaviour, entropy curves and the step at which rollouts diverge.
    calls: arms (free, without, and perhaps forced) for needless, harmful and missed tool calls.
    tax: arms (native, prompt, null tool, tool) for the tool-use tax.
    cutoff: date before and from which issues were opened, for a contrast of contamination.
    """

    level: float = 0.95
    against: Against = "baseline"
    common: bool = False
    margin: float | None = None
    trajectories: bool = True
    calls: tuple[str, ...] = ()
    tax: tuple[str, ...] = ()
    cutoff: str | None = None


def compare(
    outcomes: Outcomes,
    baseline: str | None = None,
    candidates: str | Sequence[str] = (),
    options: CompareOptions | None = None,
) -> Comparison:
    """Every candidate against the baseline (by default the first arm), with all metrics that the table allows.

    Raises DataError when an arm is unknown, has no verdicts, or shares fewer than two tasks with its baseline.
    """
    options = options or CompareOptions()
    baseline, names = _chosen(outcomes, baseline, [candidates] if isinstance(candidates, str) else candidates)
    table = outcomes.table
    read = Read()
    problems: list[str] = []
    if options.trajectories and table["trajectory"].notna().any():
        table, read, problems = with_features(table[table["arm"].isin(names)])
    if options.common:
        table = common_tasks(table[table["arm"].isin(names)])
    tables = {arm: table[table["arm"] == arm] for arm in names}
    samples = {arm: sample(arm, table) for arm, table in tables.items()}
    pairs = _pairs(baseline, names, options.against)
    judged = [
        judge(a, tables[a], b, tables[b], level=options.level, common=options.common, margin=options.margin)
        for a, b in pairs
    ]
    if options.tax:
        judged += tools.tool_tax(tables, *_arms_of(options.tax, 4, tables, "tax"), level=options.level)
    contrasts = tuple(settle(judged))
    facts = {arm: outcomes.facts[arm] for arm in names if arm in outcomes.facts}
    return Comparison(
        level=options.level,
        baseline=baseline,
        arms=tuple(_arm(arm, tables[arm], samples[arm], outcomes, options.level) for arm in names),
        contrasts=contrasts,
        grader=grader_noise(facts, contrasts, tables, options.level),
        passes=tuple(passes(samples, options.level)),
        pass_differences=tuple(pass_differences(samples, pairs, options.level)),
        bands=bands(samples, options.level) if options.against == "previous" else {},
        interactions=tuple(interactions(tables, baseline, level=options.level, cutoff=options.cutoff)),
        groups=tuple(groups(tables, baseline, level=options.level)),
        metrics=tuple(_metrics(tables, baseline, read, options)),
        curves=tuple(_curves(tables, read, options.level)),
        flips=tuple(_flips(tables, pairs, read)),
        unique=unique_solves(tables),
        apart=ran_apart(tables),
        best=best(samples, options.level) if len(names) > 2 else None,
        warnings=(
            *_unfinished(names, outcomes),
            *alarms(tables),
            *warnings(tables, facts),
            *_unread(problems),
        ),
        versions={"aem": __version__},
    )


def common_tasks(table: pd.DataFrame) -> pd.DataFrame:
    """The rollouts of the tasks that every arm has, with a verdict or not."""
    held = table.groupby("instance_id")["arm"].nunique()
    kept = held.index[held == table["arm"].nunique()]
    if len(kept) < 2:
        raise DataError(f"the {table['arm'].nunique()} arms have {len(kept)} tasks in common; 2 or more are needed")
    return table[table["instance_id"].isin(kept)]


def _pairs(baseline: str, names: Sequence[str], against: Against) -> list[tuple[str, str]]:
    if against == "all":
        return list(combinations(names, 2))
    return [(baseline if against == "baseline" else a, b) for a, b in pairwise(names)]


def _arm(arm: str, table: pd.DataFrame, scored: Sample, outcomes: Outcomes, level: float) -> ArmSummary:
    status = outcomes.facts[arm].status if arm in outcomes.facts else ""
    return summarise(arm, table, scored, level).model_copy(update={"status": status})


def _unfinished(arms: Sequence[str], outcomes: Outcomes) -> Iterator[str]:
    for arm in arms:
        status = outcomes.facts[arm].status if arm in outcomes.facts else ""
        if status == "running":
            yield f"{arm} is still running: rollouts without a verdict are pending, not lost; compare again later"
        if status == "stopped":
            yield f"{arm} was stopped because of its results: its rate and difference are biased"


def _chosen(outcomes: Outcomes, baseline: str | None, candidates: Sequence[str]) -> tuple[str, list[str]]:
    arms = outcomes.arms
    for arm in (*([baseline] if baseline else []), *candidates):
        if arm not in arms:
            raise DataError(f"no arm {arm!r}; the table has: {listed(arms)}")
    first = baseline or arms[0]
    others = list(candidates) or [arm for arm in arms if arm != first]
    if not others:
        raise DataError(f"only one arm ({first}); give a second run folder or file to compare it with")
    return first, [first, *others]


def _metrics(tables: Mapping[str, pd.DataFrame], baseline: str, read: Read, options: CompareOptions) -> list[MetricRow]:
    rows = metric_rows(tables, baseline, level=options.level, metrics=METRICS)
    spread = {arm: diversity(table, read) for arm, table in tables.items()}
    if all(len(values) > 1 for values in spread.values()):
        rows = with_holm([*rows, metric_row(DIVERSITY, spread, baseline, level=options.level)])
    if options.calls:
        free, without, *forced = _arms_of(options.calls, (2, 3), tables, "calls")
        rows += tools.necessity(tables, free, without, *forced, level=options.level)
    return rows


def _curves(tables: Mapping[str, pd.DataFrame], read: Read, level: float) -> list[Curve]:
    curves: list[Curve] = []
    for arm, table in tables.items():
        curves += budget_curves(arm, table, level=level)
        by_turn = entropy_curve(arm, table, read, level=level)
        curves += [by_turn] if by_turn else []
    return curves


def _flips(tables: Mapping[str, pd.DataFrame], pairs: Sequence[tuple[str, str]], read: Read) -> list[Flip]:
    return [flip for a, b in pairs for flip in flips(a, tables[a], b, tables[b], read)]


def _arms_of(
    names: tuple[str, ...], number: int | tuple[int, ...], tables: Mapping[str, pd.DataFrame], what: str
) -> tuple[str, ...]:
    numbers = (number,) if isinstance(number, int) else number
    if len(names) not in numbers:
        raise DataError(f"--{what} needs {' or '.join(map(str, numbers))} arms, not {len(names)}")
    for name in names:
        if name not in tables:
            raise DataError(f"--{what}: no arm {name!r}; the arms are: {listed(tables)}")
    return names


def _unread(problems: Sequence[str]) -> list[str]:
    return [f"{len(problems)} trajectories could not be read, first: {problems[0]}"] if problems else []
