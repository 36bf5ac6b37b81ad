"""One candidate against one baseline: the paired difference, its tests and decisions, what missing work could do."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.compare.bootstrap import bootstrap_differences
from harness.compare.decisions import difference_decision, noninferiority, superiority
from harness.compare.intervals import detectable, estimate, p_value, these_tasks
from harness.compare.mcnemar import mcnemar, newcombe, tango
from harness.compare.permutation import stratified_permutation
from harness.compare.records import Bounds, Contrast, Decision, Discordance, Estimate, Interval, Question, Test
from harness.compare.values import TaskValues, Trials, count_trials, difference, rates
from harness.errors import DataError


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
    """
    tasks, clusters = aligned_tasks(table_a, table_b, common=common)
    a, b = count_trials(table_a, tasks), count_trials(table_b, tasks)
    both = (a.rollouts > 0) & (b.rollouts > 0)
    if both.sum() < 2:
        raise DataError(
            f"{baseline!r} and {candidate!r} both have verdicts on {both.sum()} tasks; at least 2 are needed"
        )
    kept = tuple(task for task, keep in zip(tasks, both, strict=True) if keep)
    scored_a, scored_b, repos = a.where(both), b.where(both), clusters[both]
    delta = difference(rates(scored_a, kept, repos), rates(scored_b, kept, repos))
    table = discordance(scored_a, scored_b, level)
    result = estimate(delta, level, within=(-1, 1))
    if table is not None:
        result = result.model_copy(update={"these": _by_tango(result, table)})
    permuted = stratified_permutation(scored_a, scored_b)
    tests = _tests(result, permuted.p, permuted.p_mid, exact=permuted.exact)
    bounds, decision = bounded(difference_decision(result.value, result.these, permuted.p), a, b, level)
    decisions = _decisions(result, tests, table, margin)
    questions: tuple[Question, ...] = ("these tasks", "tasks like these") if result.like else ("these tasks",)
    return Contrast(
        baseline=baseline,
        candidate=candidate,
        label=label,
        difference=result,
        bootstrap=_bootstrap(scored_a, scored_b, level),
        tests=tests,
        discordance=table,
        gained=int((delta.values > 0).sum()),
        lost=int((delta.values < 0).sum()),
        bounds=bounds,
        decision=decision,
        decisions=decisions,
        detectable={
            question: detectable(interval)
            for question, interval in zip(questions, (result.these, result.like), strict=False)
            if interval is not None
        },
    )


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


def bounded(decision: Decision, a: Trials, b: Trials, level: float) -> tuple[Bounds | None, Decision]:
    """The extremes of the missing rollouts, and the decision: inconclusive when it does not hold at both of them."""
    if not (a.missing.any() or b.missing.any()):
        return None, decision

    def at(a_resolved: bool, b_resolved: bool) -> tuple[float, Decision]:
        filled_a, filled_b = a.filled(a_resolved), b.filled(b_resolved)
        n = len(filled_a.solved)
        delta = difference(_anonymous(filled_a, n), _anonymous(filled_b, n))
        value = float(delta.values.mean())
        p = stratified_permutation(filled_a, filled_b).p
        return value, difference_decision(value, these_tasks(delta, level), p)

    (low, at_low), (high, at_high), (failed, _) = at(True, False), at(False, True), at(False, False)
    bounds = Bounds(
        missing_baseline=int(a.missing.sum()),
        missing_candidate=int(b.missing.sum()),
        low=low,
        high=high,
        as_failed=failed,
        verdict_low=at_low.verdict,
        verdict_high=at_high.verdict,
    )
    if at_low.verdict == at_high.verdict == decision.verdict:
        return bounds, decision
    lost = bounds.missing_baseline + bounds.missing_candidate
    reason = (
        f"{lost} rollouts have no verdict; depending on them the difference lies between {100 * low:+.1f} "
        f"({at_low.verdict}) and {100 * high:+.1f} ({at_high.verdict}); without them: {decision.verdict}"
    )
    return bounds, decision.model_copy(update={"verdict": "inconclusive", "reason": reason})


def _tests(result: Estimate, p: float, p_mid: float, *, exact: bool) -> tuple[Test, ...]:
    permutation = Test(
        name="stratified permutation" + ("" if exact else " (Monte Carlo)"),
        hypothesis="on every task both arms resolve with the same probability",
        question="these tasks",
        p=p,
        p_mid=p_mid,
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


def _anonymous(trials: Trials, n: int) -> TaskValues:
    return rates(trials, ("",) * n, np.full(n, "", dtype=str))


def _repos(table: pd.DataFrame) -> dict[str, str]:
    first = table.drop_duplicates("instance_id")
    return dict(zip(first["instance_id"], first["repo"], strict=True))
