"""The estimate of the group-sequential gate and its standard error, on designs whose truth is known."""

import numpy as np
import pytest

from aem_harness.harness.gate import stages
from aem_harness.harness.gate.config import configure
from aem_harness.harness.gate.design import design
from aem_harness.harness.gate.gate import GateVerdict, decide
from aem_harness.harness.gate.looks import Cells
from benchmarks.gate_paths import verdict_of
from tests.gate.worlds import drawn, names, surface

N, K = 120, 4
Q = surface(N)
BASE = drawn("base", Q)
CONFIG = configure(margin=0.06)
AT = np.array([60, 150, 240, 400, N * K])


def cells(values):
    return Cells(values, values, *BASE.extremes)


def test_the_estimate_is_unbiased_at_every_look_whichever_tasks_are_seen_twice():
    """Over many orders of the same outcomes, the mean estimate is the difference of the two tables."""
    mine = drawn("cand", np.random.default_rng(5).permutation(Q), seed=3)  # as different from the baseline as can be
    found = []
    for seed in range(400):
        plan = design(BASE.tasks, K, baseline=BASE, seed=seed)
        values = np.take_along_axis(mine.resolved, plan.seed_of, axis=1)
        found.append(stages.score(plan, CONFIG, cells(values), AT).estimate[0])
    estimates = np.array(found)
    truth = mine.resolved.mean() - BASE.resolved.mean()
    error = estimates.std(axis=0) / np.sqrt(len(estimates))
    assert (abs(estimates.mean(axis=0) - truth) <= 3.5 * error + 1e-12).all()
    assert estimates[:, -1] == pytest.approx(truth)


def test_weights_are_shares_of_the_strata_and_go_by_precision():
    plan = design(BASE.tasks, K, baseline=BASE)
    seen = stages.visits(plan, AT)
    weight = stages.weights(plan, CONFIG, seen)
    assert weight.sum(axis=1) == pytest.approx(1)
    assert weight[-1] == pytest.approx(1 / N)
    middle = plan.strata == 1
    twice, once = (middle & (seen[2] == n) for n in (seen[2][middle].max(), seen[2][middle].min()))
    assert weight[2][twice].max() >= weight[2][once].max()


def test_where_tasks_have_unequal_numbers_of_seeds_all_tasks_count_alike():
    due = np.arange(K)[None, :] < np.random.default_rng(0).integers(1, K + 1, N)[:, None]
    plan = design(BASE.tasks, K, baseline=BASE, due=due)
    at = np.array([len(plan.order)])
    assert stages.weights(plan, CONFIG, stages.visits(plan, at))[0] == pytest.approx(1 / N)


def test_the_standard_error_is_that_of_repeated_evaluations():
    """New rollouts of both arms at the margin: the spread of the estimates is what the gate takes it to be."""
    rng = np.random.default_rng(2)
    estimates, errors = [], []
    for _ in range(300):
        q = rng.beta(0.25, 0.34, N)
        base, mine = drawn("base", q, seed=rng.integers(2**31)), drawn("cand", 0.86 * q, seed=rng.integers(2**31))
        plan = design(names(N), K, baseline=base, seed=int(rng.integers(2**31)))
        values = np.take_along_axis(mine.resolved, plan.seed_of, axis=1)
        scores = stages.score(plan, CONFIG, Cells(values, values, *base.extremes), AT)
        estimates.append(scores.estimate[0] + 0.14 * q.mean())
        errors.append(scores.error[0])
    z = np.array(estimates) / np.array(errors)
    assert z.std(axis=0) == pytest.approx(1, abs=0.12)


def test_more_variance_than_planned_is_believed_and_less_only_a_little():
    at = np.array([100, 100, 100, 100])
    found = stages.believed(np.ones(4), np.array([0.5, 1.0, 1.1, 2.0]), at)
    assert found[0] == stages.LEAST
    assert found[1] == found[2] == 1  # 10 % more than planned after 100 rollouts is within its own error
    assert found[3] > 2


def test_the_simulation_of_the_benchmarks_comes_to_the_same_verdicts():
    said = set()
    for seed in range(12):
        mine = drawn("cand", Q * (1 - 0.12 * (seed % 6)), seed=seed)
        plan = design(BASE.tasks, K, baseline=BASE, seed=seed)
        values = np.take_along_axis(mine.resolved, plan.seed_of, axis=1)
        verdict, rollouts = decide(CONFIG, plan, cells(values))
        assert verdict_of(CONFIG, plan, values, BASE.means) == (verdict.value, rollouts)
        said.add(verdict)
    assert {GateVerdict.PASS, GateVerdict.BLOCK} <= said
