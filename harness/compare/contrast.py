"""One candidate against one baseline: the paired difference, its tests and decisions, what missing work could do."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aem_harness.harness.compare.bootstrap import bootstrap_differences
from aem_harness.harness.compare.decisions import difference_decision, noninferiority, superiority
from aem_harness.harness.compare.intervals import detectable, estimate_difference, p_value
from aem_harness.harness.compare.mcnemar import mcnemar, newcombe, tango
from aem_harness.harness.compare.permutation import Permutation, stratified_permutation
from aem_harness.harness.compare.records import (
    Bounds,
    Contrast,
    Decision,
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
    """The difference of two arms on tasks that both have, and everything that is decided from it; `first` leads."""

    difference: Estimate
    tests: tuple[Test, ...]
    discordance: Discordance | None
    first: Decision
    others: tuple[Decision, ...]
    gained: int
    lost: int


def contrast(
    baseline: str,
    table_a: pd.DataFrame,
    candidate: str,
    table_b: pd.DataFrame,
    *,
    level: float = 0.95,
    common: bool = False,
    margin: float | None = None,
    label: str = "",
) -> Contrast:
    """Candidate minus baseline. `table_a` and `table_b` hold the rollouts of one arm each.

    The difference is taken over tasks on which both have a verdict. Tasks that only one arm has count as missing in the
    other, unless `common` says that this was meant. `margin` adds decisions on non-inferiority and superiority by it.
    A decision that would be another one if the missing rollouts had failed in one arm and passed in the other becomes
    inconclusive. Integrity marks do not touch the verdict; what it would be without the marked rollouts is `unmarked`.
    """
    tasks, repos = aligned_tasks(table_a, table_b, common=common)
    a, b = count_trials(table_a, tasks), count_trials(table_b, tasks)
    both = (a.rollouts > 0) & (b.rollouts > 0)
    if both.sum() < 2:
        found = f"{baseline!r} and {candidate!r} both have verdicts on {both.sum()} tasks"
        raise DataError(f"{found}; 2 or more are needed")
    scored = evaluate(a.where(both), b.where(both), repos[both], level=level, margin=margin)
    unmarked: Contrast | None = None
    if suspect(table_a).any() or suspect(table_b).any():
        clean_a, clean_b = without_suspects(table_a), without_suspects(table_b)
        unmarked = contrast(baseline, clean_a, candidate, clean_b, level=level, common=common, margin=margin)
    bounds, first, others = bounded(scored, a, b, repos, level=level, margin=margin)
    result = scored.difference
    return Contrast(
        baseline=baseline,
        candidate=candidate,
        label=label,
        difference=result,
        bootstrap=_bootstrap(a.where(both), b.where(both), level),
        tests=scored.tests,
        discordance=scored.discordance,
        gained=scored.gained,
        lost=scored.lost,
        bounds=bounds,
        decision=first,
        decisions=others,
        detectable={one.question: detectable(one) for one in (result.these, result.like) if one is not None},
        unmarked=unmarked,
    )


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
    permuted = stratified_permutation(a, b)
    tests = _tests(result, permuted)
    return Evaluation(
        difference=result,
        tests=tests,
        discordance=table,
        first=difference_decision(result.value, result.these, permuted.p),
        others=_decisions(result, tests, table, margin),
        gained=int((after.values > before.values).sum()),
        lost=int((after.values < before.values).sum()),
    )


def bounded(
    scored: Evaluation, a: Trials, b: Trials, repos: NDArray[np.str_], *, level: float, margin: float | None = None
) -> tuple[Bounds | None, Decision, tuple[Decision, ...]]:
    """The extremes of the missing rollouts, and the decisions, inconclusive where they do not hold at both of them."""
    if not (a.missing.any() or b.missing.any()):
        return None, scored.first, scored.others
    low = evaluate(a.filled(True), b.filled(False), repos, level=level, margin=margin)
    high = evaluate(a.filled(False), b.filled(True), repos, level=level, margin=margin)
    failed = evaluate(a.filled(False), b.filled(False), repos, level=level)
    bounds = Bounds(
        missing_baseline=int(a.missing.sum()),
        missing_candidate=int(b.missing.sum()),
        low=low.difference.value,
        high=high.difference.value,
        as_failed=failed.difference.value,
        verdict_low=low.first.verdict,
        verdict_high=high.first.verdict,
    )
    triples = zip(scored.others, low.others, high.others, strict=True)
    return bounds, _held(bounds, scored.first, low.first, high.first), tuple(_held(bounds, *three) for three in triples)


def _held(bounds: Bounds, decision: Decision, low: Decision, high: Decision) -> Decision:
    if low.verdict == high.verdict == decision.verdict:
        return decision
    lost = bounds.missing_baseline + bounds.missing_candidate
    reason = (
        f"{lost} rollouts have no verdict; depending on them the difference lies between {100 * bounds.low:+z.1f} "
        f"({low.verdict}) and {100 * bounds.high:+z.1f} ({high.verdict}); without them: {decision.verdict}"
    )
    return decision.model_copy(update={"verdict": "inconclusive", "reason": reason})


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


def _decisions(
    result: Estimate, tests: tuple[Test, ...], table: Discordance | None, margin: float | None
) -> tuple[Decision, ...]:
    decisions = []
    if result.like is not None:
        decisions.append(difference_decision(result.value, result.like, tests[1].p))
    if margin is not None:
        for question in [test.question for test in tests]:
            decisions.append(noninferiority(result, margin, question, table))
            decisions.append(superiority(result, margin, question, table))
    return tuple(decisions)


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
    """With one rollout a task Tango's interval replaces Student's: closer to nominal on few discordant tasks."""
    low, high = table.tango
    method = "Tango's score interval, one rollout a task"
    return result.these.model_copy(update={"low": low, "high": high, "method": method})


def _repos(table: pd.DataFrame) -> dict[str, str]:
    first = table.drop_duplicates("instance_id")
    return dict(zip(first["instance_id"], first["repo"], strict=True))
