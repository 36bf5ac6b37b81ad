"""Verdicts: clear cases, order of completion, missing rollouts, budgets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aem_harness.harness.errors import DataError
from aem_harness.harness.gate.calibrate import lowered
from aem_harness.harness.gate.config import Budget, configure
from aem_harness.harness.gate.design import design
from aem_harness.harness.gate.gate import BASELINE, CANDIDATE, Gate, GateVerdict, decide
from aem_harness.harness.gate.looks import Cells
from aem_harness.harness.gate.report import details, report, to_text
from aem_harness.harness.gate.stored import replay
from tests.gate.worlds import arm, counted, drawn, names, surface

BOTH = pytest.mark.parametrize("question", ["rates", "outcomes"])
Q = surface(500)
BASE = drawn("base", Q)


def replayed(config, baseline, candidate, *, history=(), fresh=False) -> Gate:
    plan = design(
        candidate.tasks,
        len(candidate.seeds),
        baseline=None if fresh else baseline,
        history=history,
        stratified=config.question == "rates",
        seed=config.seed,
    )
    gate = Gate(config, plan)
    replay(gate, {CANDIDATE: candidate, **({BASELINE: baseline} if fresh else {})})
    return gate


def judged(config, baseline, candidate, **rest) -> Gate:
    gate = replayed(config, baseline, candidate, **rest)
    gate.finish("no more")
    return gate


# --- clear cases ------------------------------------------------------------------------------------------------------


@BOTH
def test_identical_outcomes_pass_early(question):
    gate = judged(configure(question=question, seed=1), BASE, BASE)
    assert gate.verdict is GateVerdict.PASS
    assert gate.consumed < 1000


@BOTH
@pytest.mark.parametrize("tasks", [5, 20, 100, 500])
def test_four_of_four_to_one_of_four_on_every_task_is_blocked(question, tasks):
    baseline, candidate = counted("a", [4] * tasks, 4), counted("b", [1] * tasks, 4)
    assert judged(configure(question=question), baseline, candidate).verdict is GateVerdict.BLOCK


@BOTH
def test_an_improved_candidate_passes_early(question):
    gate = judged(configure(question=question), BASE, drawn("better", 1 - (1 - Q) * 0.8))
    assert gate.verdict is GateVerdict.PASS
    assert gate.consumed < 400


@BOTH
def test_a_candidate_that_solves_nothing_is_blocked_within_a_tenth_of_the_tasks(question):
    gate = judged(configure(question=question), BASE, counted("broken", np.zeros(500), 4))
    assert gate.verdict is GateVerdict.BLOCK
    assert gate.consumed <= 50


@pytest.mark.parametrize("tasks", [20, 100, 500])
def test_identical_outcomes_always_pass_when_the_question_is_the_table(tasks):
    outcomes = drawn("a", Q[:tasks])
    assert judged(configure(question="outcomes"), outcomes, outcomes).verdict is GateVerdict.PASS


def test_too_few_tasks_for_the_margin_are_inconclusive_and_the_plan_says_so():
    outcomes = drawn("a", Q[:20])
    gate = judged(configure(), outcomes, outcomes)
    assert gate.verdict is GateVerdict.INCONCLUSIVE
    assert gate.chance < 0.2


@pytest.mark.parametrize(("lost", "verdict"), [(2, GateVerdict.PASS), (3, GateVerdict.PASS), (4, GateVerdict.BLOCK)])
def test_when_the_whole_table_is_seen_it_is_compared_with_the_margin_exactly(lost, verdict):
    """A margin of 3 points on 100 tasks: three tasks lost are within it, four are not."""
    solved = np.r_[np.ones(60), np.zeros(40)]
    candidate = solved.copy()
    candidate[:lost] = 0
    config = configure(question="outcomes", sequential=False)
    gate = judged(config, counted("a", solved, 1), counted("b", candidate, 1))
    assert (gate.verdict, gate.consumed) == (verdict, 100)


def test_a_single_look_uses_all_rollouts_and_an_ordinary_test():
    gate = judged(configure("release"), BASE, BASE)
    assert (gate.verdict, gate.consumed) == (GateVerdict.PASS, 2000)
    assert judged(configure("release"), BASE, drawn("c", lowered(Q, 0.08), seed=2)).verdict is GateVerdict.BLOCK


def test_blocking_at_zero_finds_a_drop_within_the_margin():
    worse = drawn("c", lowered(Q, 0.05), seed=2)
    assert judged(configure(block_margin=0.0, futility=0.0), BASE, worse).verdict is GateVerdict.BLOCK


@BOTH
def test_a_fresh_baseline_is_compared_seed_by_seed(question):
    again = drawn("again", Q, seed=8)
    assert judged(configure(question=question, margin=0.05), BASE, again, fresh=True).verdict is GateVerdict.PASS
    worse = drawn("worse", lowered(Q, 0.2), seed=8)
    assert judged(configure(question=question), BASE, worse, fresh=True).verdict is GateVerdict.BLOCK


# --- order ------------------------------------------------------------------------------------------------------------

SMALL_Q = surface(40, seed=3)
SMALL_BASE = drawn("base", SMALL_Q, 2)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["rates", "outcomes"]), st.floats(0, 0.4))
def test_the_order_of_completion_changes_nothing(seed, question, drop):
    """Every rollout may finish at any time: the gate consumes them in its own order and stops at the same one."""
    config = configure(question=question, margin=0.1)
    candidate = drawn("c", lowered(SMALL_Q, drop), 2, seed=seed)
    plan = design(names(40), 2, baseline=SMALL_BASE, stratified=question == "rates")
    in_order, shuffled = Gate(config, plan), Gate(config, plan)
    for gate, keys in (
        (in_order, plan.keys),
        (shuffled, np.random.default_rng(seed).permutation(len(plan.keys)).tolist()),
    ):
        for key in keys:
            task, k = key if isinstance(key, tuple) else plan.keys[key]
            gate.feed(task, k, bool(candidate.select([task]).resolved[0, k]))
    assert (in_order.verdict, in_order.consumed, in_order.path()) == (
        shuffled.verdict,
        shuffled.consumed,
        shuffled.path(),
    )


def test_stored_seeds_that_are_not_alike_do_not_mislead():
    """In every task exactly the first seed is solved: visiting seed 0 first everywhere would look like no loss."""
    gate = judged(configure(), counted("a", [4] * 500, 4), counted("b", [1] * 500, 4))
    visits = [seed for _, seed in gate.order[:200]]
    assert {visits.count(seed) for seed in range(4)} <= set(range(25, 76))
    assert gate.verdict is GateVerdict.BLOCK


@BOTH
def test_a_gate_that_is_fed_again_from_the_start_comes_to_the_same(question):
    config, candidate = configure(question=question), drawn("c", lowered(Q, 0.1), seed=2)
    first = judged(config, BASE, candidate)
    again = Gate(config, first.design)
    values = candidate.select(again.design.tasks).resolved
    for task, k in reversed(first.order[: first.consumed]):
        again.feed(task, k, bool(values[again.design.tasks.index(task), k]))
    assert (again.verdict, again.consumed) == (first.verdict, first.consumed)


@BOTH
def test_deciding_at_once_agrees_with_deciding_on_the_way(question):
    for seed, drop in ((2, 0.0), (3, 0.05), (4, 0.1)):
        config, candidate = configure(question=question), drawn("c", lowered(Q, drop), seed=seed)
        gate = judged(config, BASE, candidate)
        means = BASE.select(gate.design.tasks).means
        by_seed = candidate.select(gate.design.tasks).resolved
        values = np.take_along_axis(by_seed, gate.design.seed_of, axis=1)
        assert decide(config, gate.design, Cells(values, values, means, means)) == (gate.verdict, gate.consumed)


def test_what_comes_in_after_the_verdict_is_counted_and_changes_nothing():
    gate = judged(configure(), BASE, counted("broken", np.zeros(500), 4))
    verdict, consumed, spent = gate.verdict, gate.consumed, gate.spent.rollouts
    for task, k in gate.order[consumed : consumed + 100]:
        gate.feed(task, k, True)
    assert (gate.verdict, gate.consumed, gate.spent.rollouts) == (verdict, consumed, spent + 100)


def test_a_rollout_that_was_not_ordered_or_has_two_outcomes_is_refused():
    gate = Gate(configure(), design(names(40), 2, baseline=SMALL_BASE))
    with pytest.raises(DataError, match="rollout nobody__knows-1, seed 0, of the candidate is not in the order"):
        gate.feed("nobody__knows-1", 0, True)
    with pytest.raises(DataError, match="seed 2"):
        gate.feed(names(40)[0], 2, True)
    gate.feed(names(40)[0], 1, True)
    gate.feed(names(40)[0], 1, True)
    with pytest.raises(DataError, match="two outcomes"):
        gate.feed(names(40)[0], 1, False)


# --- missing rollouts -------------------------------------------------------------------------------------------------


@BOTH
def test_missing_rollouts_enter_at_worst_for_pass_and_at_best_for_block(question):
    config = configure(question=question, futility=0.0)
    rng = np.random.default_rng(5)
    holes = rng.random((500, 4)) < 0.10
    for candidate, verdict in ((BASE, GateVerdict.PASS), (counted("broken", np.zeros(500), 4), GateVerdict.BLOCK)):
        whole = judged(config, BASE, candidate)
        values = candidate.resolved.copy()
        values[holes] = np.nan
        holed = judged(config, BASE, arm("holed", values))
        assert whole.verdict is verdict
        assert holed.verdict in (verdict, GateVerdict.INCONCLUSIVE)
        assert holed.consumed >= whole.consumed
        assert holed.missing() > 0


def test_a_candidate_of_which_nothing_is_known_gets_no_verdict():
    gate = judged(configure(futility=0.0), BASE, arm("lost", np.full((500, 4), np.nan)))
    assert gate.verdict is GateVerdict.INCONCLUSIVE
    assert gate.missing() == 2000


def lost(candidate, every: int):
    """The candidate without a verdict wherever the task's number is a multiple of `every`."""
    values = candidate.resolved.copy()
    values[::every] = np.nan
    return arm("lost", values)


def test_a_candidate_that_lost_nothing_has_no_other_verdict():
    gate = judged(configure(), BASE, BASE)
    assert (gate.missing(), gate.verdict_excused()) == (0, None)


def test_a_candidate_that_lost_a_fifth_would_be_blocked_if_that_counted_as_failed():
    gate = judged(configure(futility=0.0), BASE, lost(BASE, 5))
    assert gate.verdict is GateVerdict.INCONCLUSIVE
    assert gate.verdict_excused() is GateVerdict.BLOCK
    found = dict(details(report(gate, BASE, "lost")))
    assert found["excused"] == "if those of the candidate had failed: BLOCK, a different verdict"


def test_a_verdict_stands_with_what_was_lost_counted_as_failed():
    """PASS took the losses at worst already, and a candidate that is blocked with them at best is blocked."""
    few = judged(configure(margin=0.05), BASE, lost(BASE, 250))
    assert (few.verdict, few.missing() > 0, few.verdict_excused()) == (GateVerdict.PASS, True, GateVerdict.PASS)
    bad = judged(configure(), BASE, lost(drawn("bad", lowered(Q, 0.2), seed=3), 20))
    assert (bad.verdict, bad.missing() > 0, bad.verdict_excused()) == (GateVerdict.BLOCK, True, GateVerdict.BLOCK)


def test_missing_rollouts_of_the_baseline_count_against_the_candidate_too():
    values = BASE.resolved.copy()
    values[:, 3] = np.nan
    holed = arm("base", values)
    assert judged(configure(question="outcomes"), holed, BASE).verdict is GateVerdict.INCONCLUSIVE
    assert judged(configure(), holed, BASE).verdict is GateVerdict.INCONCLUSIVE


# --- budgets ----------------------------------------------------------------------------------------------------------


def test_a_budget_of_rollouts_ends_the_gate():
    config = configure(budget=Budget.parse("150"), futility=0.0)
    gate = judged(config, BASE, drawn("c", lowered(Q, 0.03), seed=4))
    assert (gate.verdict, gate.consumed, len(gate.order)) == (GateVerdict.INCONCLUSIVE, 150, 150)
    assert gate.reason == "all planned rollouts are used"


def test_a_budget_of_tokens_ends_the_gate():
    config = configure(budget=Budget.parse("1Mtok"))
    gate = Gate(config, design(names(500), 4, baseline=BASE))
    values = BASE.select(gate.design.tasks).resolved
    for (task, k), (row, column) in zip(gate.design.keys, gate.design.order, strict=True):
        gate.feed(task, k, bool(values[row, column]), tokens=40_000)
        if gate.decided:
            break
    assert (gate.verdict, gate.consumed) == (GateVerdict.INCONCLUSIVE, 25)
    assert gate.reason == "the budget of 1,000,000 tokens is spent"


def test_a_gate_without_any_rollout_is_inconclusive():
    gate = Gate(configure(), design(names(40), 2, baseline=SMALL_BASE))
    assert gate.finish("the server is gone") is GateVerdict.INCONCLUSIVE
    assert (gate.reason, gate.path()) == ("the server is gone", [])


def test_a_budget_that_is_spent_before_the_first_in_order_is_in_is_reported_all_the_same():
    gate = Gate(configure(budget=Budget.parse("10tok")), design(names(40), 2, baseline=SMALL_BASE))
    assert gate.feed(*gate.order[3], True, tokens=20) is GateVerdict.INCONCLUSIVE
    found = report(gate, SMALL_BASE, "candidate")
    assert (found.rollouts, found.lower, found.upper, found.tokens) == (0, -1.0, 1.0, 20)
    assert "after 0 of 80 rollouts" in to_text(found)


# --- what is reported -------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("drop", [0.0, 0.1])
def test_the_interval_clears_the_margin_exactly_when_there_is_a_verdict(question, drop):
    gate = judged(configure(question=question), BASE, drawn("c", lowered(Q, drop), seed=2))
    last = gate.path()[-1]
    grid = 0.004 if question == "outcomes" else 1e-4
    if gate.verdict is GateVerdict.PASS:
        assert last.lower >= -0.03 - grid
    else:
        assert gate.verdict is GateVerdict.BLOCK
        assert last.upper <= -0.03 + grid
    assert last.lower <= last.difference <= last.upper


def test_outcomes_that_were_not_consumed_are_not_reported():
    gate = judged(configure(), BASE, BASE)
    assert (~np.isnan(gate.consumed_outcomes(CANDIDATE))).sum() == gate.consumed
    with pytest.raises(KeyError):
        gate.consumed_outcomes(BASELINE)
