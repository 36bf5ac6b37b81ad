"""One candidate against one baseline: the paired difference, its tests and decisions, the effect of missing work."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aem_harness.harness.compare.bootstrap import bootstrap_differences
from aem_harness.harness.compare.decisions import (
    Claim,
    decide,
    difference_claim,
    equivalence_claim,
    noninferiority_claim,
    superiority_claim,
)
from aem_harness.harness.compare.family import settle
from aem_harness.harness.compare.intervals import agreeing, detectable, estimate_difference, p_value
from aem_harness.harness.compare.mcnemar import mcnemar, newcombe, tango
from aem_harness.harness.compare.permutation import Permutation, stratified_permutation
from aem_harness.harness.compare.records import (
    Bounds,
    Contrast,
    Discordance,
    Estimate,
    Interval,
    Question,
    Test,
)
from aem_harness.harness.compare.values import Trials, count_trials, rates
from aem_harness.harness.errors import DataError
from aem_harness.harness.schema import suspect, without_suspects


@dataclass(frozen=True)
class Evaluation:
    """The difference of two arms on tasks that both have, and all that can be claimed from it; the first leads."""

    difference: Estimate
    tests: tuple[Test, ...]
    discordance: Discordance | None
    claims: tuple[Claim, ...]
    rates: tuple[float, float]
    gained: int
    lost: int


@dataclass(frozen=True)
class Judged:
    """A contrast before its family is known: as scored and, where rollouts are missing, at both extremes of these.

    `low`: all that the baseline lacks had passed and all that the candidate lacks had failed; `high`: the reverse.
    """

    contrast: Contrast
    claims: tuple[Claim, ...]
    low: tuple[Claim, ...] = ()
    high: tuple[Claim, ...] = ()
    unmarked: "Judged | None" = None


def contrast(
    baseline: str,
    table_a: pd.DataFrame,
    candidate: str,
    table_b: pd.DataFrame,
    *,
    level: float = 0.95,
    common: bool = False,
    margin: float | None = None,
) -> Contrast:
    """Candidate minus baseline, one contrast by itself: `judge`, with its decisions."""
    (judged,) = settle([judge(baseline, table_a, candidate, table_b, level=level, common=common, margin=margin)])
    return judged


def judge(
    baseline: str,
    table_a: pd.DataFrame,
    candidate: str,
    table_b: pd.DataFrame,
    *,
    level: float = 0.95,
    common: bool = False,
    margin: float | None = None,
    label: str = "",
) -> Judged:
    """Candidate minus baseline. `table_a` and `table_b` hold the rollouts of one arm each.

    The difference is taken over tasks on which both have a verdict. Tasks that only one arm has count as missing in the
    other, unless `common` says that this was meant. `margin` adds claims of non-inferiority and superiority by it.
    Integrity marks do not touch the verdict; what it would be without the marked rollouts is `unmarked`.
    """
    tasks, repos = aligned_tasks(table_a, table_b, common=common)
    a, b = count_trials(table_a, tasks), count_trials(table_b, tasks)
    judged = judge_trials((baseline, candidate), a, b, repos, level=level, margin=margin, label=label)
    both = (a.rollouts > 0) & (b.rollouts > 0)
    bootstrap = _bootstrap(a.where(both), b.where(both), level)
    judged = replace(judged, contrast=judged.contrast.model_copy(update={"bootstrap": bootstrap}))
    if not (suspect(table_a).any() or suspect(table_b).any()):
        return judged
    clean_a, clean_b = without_suspects(table_a), without_suspects(table_b)
    unmarked = judge(baseline, clean_a, candidate, clean_b, level=level, common=common, margin=margin, label=label)
    return replace(judged, unmarked=unmarked)


def judge_trials(
    arms: tuple[str, str],
    a: Trials,
    b: Trials,
    repos: NDArray[np.str_],
    *,
    level: float = 0.95,
    margin: float | None = None,
    label: str = "",
) -> Judged:
    """The same from counts, aligned on N tasks that either arm has; `repos` (N,) are their clusters."""
    both = (a.rollouts > 0) & (b.rollouts > 0)
    if both.sum() < 2:
        counted = f"{arms[0]!r} and {arms[1]!r} both have verdicts on {both.sum()} tasks"
        raise DataError(f"{counted}; 2 or more are needed")
    scored = evaluate(a.where(both), b.where(both), repos[both], level=level, margin=margin)
    bounds, low, high = _extremes(a, b, repos, level=level, margin=margin)
    result = scored.difference
    found_contrast = Contrast(
        baseline=arms[0],
        candidate=arms[1],
        label=label,
        difference=result,
        tests=scored.tests,
        discordance=scored.discordance,
        rates=scored.rates,
        gained=scored.gained,
        lost=scored.lost,
        bounds=bounds,
        decision=decide(scored.claims[0]),
        decisions=tuple(map(decide, scored.claims[1:])),
        detectable={one.question: detectable(one) for one in (result.these, result.like) if one is not None},
    )
    return Judged(found_contrast, scored.claims, low, high)


def evaluate(
    a: Trials, b: Trials, repos: NDArray[np.str_], *, level: float = 0.95, margin: float | None = None
) -> Evaluation:
    """The difference of two arms aligned on N tasks with at least one rollout each; `repos` (N,) are their clusters."""
    names = ("",) * len(repos)  # the names of the tasks do not matter here
    table = discordance(a, b, level)
    before, after = rates(a, names, repos), rates(b, names, repos)
    result = estimate_difference(before, after, level)
    if table is not None:
        result = result.model_copy(update={"these": _by_tango(result, table)})
    exact = Permutation(table.p_exact, table.p_mid, exact=True) if table else stratified_permutation(a, b)
    tests = _tests(result, exact)
    result = _reconciled(result, tests)
    return Evaluation(
        difference=result,
        tests=tests,
        discordance=table,
        claims=tuple(_claims(result, tests, table, margin)),
        rates=(float(before.values.mean()), float(after.values.mean())),
        gained=int((after.values > before.values).sum()),
        lost=int((after.values < before.values).sum()),
    )


def _extremes(
    a: Trials, b: Trials, repos: NDArray[np.str_], *, level: float, margin: float | None
) -> tuple[Bounds | None, tuple[Claim, ...], tuple[Claim, ...]]:
    """How far the missing rollouts could move the difference, and the claims at either end; None if none is missing."""
    if not (a.missing.any() or b.missing.any()):
        return None, (), ()
    low = evaluate(a.filled(True), b.filled(False), repos, level=level, margin=margin)
    high = evaluate(a.filled(False), b.filled(True), repos, level=level, margin=margin)
    failed = a.filled(False), b.filled(False)
    as_failed = failed[1].solved / failed[1].rollouts - failed[0].solved / failed[0].rollouts
    seen = a.rollouts > 0
    excused = None
    if b.missing.any() and seen.sum() > 1:
        excused = evaluate(a.where(seen), b.filled(False).where(seen), repos[seen], level=level, margin=margin)
    bounds = Bounds(
        missing_baseline=int(a.missing.sum()),
        missing_candidate=int(b.missing.sum()),
        low=low.difference.value,
        high=high.difference.value,
        as_failed=float(as_failed.mean()),
        verdict_low=decide(low.claims[0]).verdict,
        verdict_high=decide(high.claims[0]).verdict,
        excused_failed=excused.difference.value if excused else None,
        verdict_excused=decide(excused.claims[0]).verdict if excused else None,
    )
    return bounds, low.claims, high.claims


def aligned_tasks(
    table_a: pd.DataFrame, table_b: pd.DataFrame, *, common: bool
) -> tuple[tuple[str, ...], NDArray[np.str_]]:
    """The tasks of either arm (of both, with `common`), sorted, and their repositories."""
    repos = {**_repos(table_b), **_repos(table_a)}
    chosen = set(_repos(table_a)) & set(_repos(table_b)) if common else set(repos)
    tasks = tuple(sorted(chosen))
    return tasks, np.array([repos[task] for task in tasks], dtype=str)


def discordance(a: Trials, b: Trials, level: float) -> Discordance | None:
    """The classical paired table, where every task has exactly one rollout in each arm; None otherwise."""
    if a.rollouts.max() > 1 or b.rollouts.max() > 1:
        return None
    both, gained = int((a.solved & b.solved).sum()), int((b.solved > a.solved).sum())
    lost, n = int((a.solved > b.solved).sum()), len(a.solved)
    test = mcnemar(gained, lost, n)
    return Discordance(
        both=both,
        gained=gained,
        lost=lost,
        neither=n - both - gained - lost,
        p_exact=test.p,
        p_mid=test.p_mid,
        tango=tango(gained, lost, n, level),
        newcombe=newcombe(both, gained, lost, n - both - gained - lost, level),
    )


def _tests(result: Estimate, permuted: Permutation) -> tuple[Test, ...]:
    permutation = Test(
        name="stratified permutation" + ("" if permuted.exact else " (Monte Carlo)"),
        hypothesis="on every task both arms resolve with the same probability",
        question="these tasks",
        p=permuted.p,
        p_mid=permuted.p_mid,
    )
    if result.like is None:
        return (permutation,)
    clustered = Test(
        name=f"t test, {result.like.method}",
        hypothesis="over tasks like these the mean difference is zero",
        question="tasks like these",
        p=p_value(result.value, result.like),
    )
    return permutation, clustered


def _claims(
    result: Estimate, tests: tuple[Test, ...], table: Discordance | None, margin: float | None
) -> Iterator[Claim]:
    yield difference_claim(result.value, result.these, tests[0].p)
    if result.like is not None:
        yield difference_claim(result.value, result.like, tests[1].p)
    if margin is not None:
        for question in [test.question for test in tests]:
            yield noninferiority_claim(result, margin, question, table)
            yield superiority_claim(result, margin, question, table)
            yield equivalence_claim(result, margin, question, table)


def _reconciled(result: Estimate, tests: tuple[Test, ...]) -> Estimate:
    """Intervals that reach zero where the test of their question does not reject it: the two must not contradict."""
    p = {test.question: test.p for test in tests}
    like = result.like and agreeing(result.like, p["tasks like these"])
    return result.model_copy(update={"these": agreeing(result.these, p["these tasks"]), "like": like})


def _bootstrap(a: Trials, b: Trials, level: float) -> dict[Question, tuple[float, float]]:
    tail = 100 * (1 - level) / 2
    out: dict[Question, tuple[float, float]] = {}
    questions: tuple[tuple[Question, float], ...] = (("these tasks", 1.0), ("tasks like these", 0.0))
    for question, fraction in questions:
        if fraction == 0 or min(a.rollouts.min(), b.rollouts.min()) > 1:
            low, high = np.percentile(bootstrap_differences(a, b, fraction=fraction), [tail, 100 - tail])
            out[question] = (float(low), float(high))
    return out


def _by_tango(result: Estimate, table: Discordance) -> Interval:
    """With one rollout per task Tango's interval replaces Student's: closer to nominal on few discordant tasks."""
    low, high = table.tango
    method = "Tango's score interval, one rollout per task"
    return result.these.model_copy(update={"low": low, "high": high, "method": method})


def _repos(table: pd.DataFrame) -> dict[str, str]:
    first = table.drop_duplicates("instance_id")
    return dict(zip(first["instance_id"], first["repo"], strict=True))
