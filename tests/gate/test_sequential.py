"""The mathematics of the gate, against enumeration, a plain second implementation, and known special cases."""

from itertools import combinations, permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from aem_harness.harness.gate.sequential import (
    betting_interval,
    largest_stake,
    log_capital,
    log_evidence,
    reach_probability,
)

rates = st.floats(0, 1)


def evidence(seen, weights, null, stake):
    return float(np.exp(log_evidence(np.array([seen]), np.array([weights]), np.array([null]), np.array([stake]))[0]))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(rates, rates), min_size=2, max_size=4),
    st.lists(st.tuples(rates, rates), min_size=1, max_size=3),
    st.integers(1, 4),
    st.integers(1, 3),
    st.floats(0.05, 1),
)
def test_evidence_is_at_most_one_in_expectation_when_the_hypothesis_holds(first, second, seen_1, seen_2, boldness):
    """Over every stratified sample of tasks and every outcome of a rollout, computed exactly.

    Each task has a resolve probability and a known baseline mean; the hypothesis is taken to be exactly true.
    """
    strata = [first, second]
    drawn = [min(seen_1, len(first)), min(seen_2, len(second))]
    size = len(first) + len(second)
    null = float(np.mean([p - b for stratum in strata for p, b in stratum]))
    weight = [len(stratum) / size / m for stratum, m in zip(strata, drawn, strict=True)]
    if null <= -0.99:
        return
    stake = boldness * float(largest_stake(np.array([[max(weight)]]), np.array([null]), 0.9)[0])
    samples = [list(combinations(stratum, m)) for stratum, m in zip(strata, drawn, strict=True)]
    expected = 0.0
    for sample in product(*samples):
        tasks = [(p, b, w) for chosen, w in zip(sample, weight, strict=True) for p, b in chosen]
        for outcome in product((0, 1), repeat=len(tasks)):
            chance = np.prod([p if y else 1 - p for y, (p, _, _) in zip(outcome, tasks, strict=True)])
            if chance:
                d = [y - b for y, (_, b, _) in zip(outcome, tasks, strict=True)]
                expected += chance * evidence(d, [w for _, _, w in tasks], null, stake)
    assert expected / (len(samples[0]) * len(samples[1])) <= 1 + 1e-9


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20), st.floats(-0.99, 0.99), st.floats(0.1, 0.9))
def test_the_largest_stake_loses_no_more_than_its_risk_on_each_task(differences, null, risk):
    weights = np.full((1, len(differences)), 1 / len(differences))
    stake = largest_stake(weights, np.array([null]), risk)
    lost = -log_evidence(np.array([differences]), weights, np.array([null]), stake)[0]
    assert lost <= -len(differences) * np.log(1 - risk) + 1e-9


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.3, 1.0]), min_size=3, max_size=6), st.floats(0.05, 0.5))
def test_capital_reaches_one_over_alpha_in_at_most_alpha_of_all_orders(population, alpha):
    orders = list(permutations(population))
    null = float(np.mean(population))
    reached, at_each_step = 0, np.zeros(len(population))
    for order in orders:
        capital = np.exp(log_capital(np.array(order), null, len(order), (-1.0, 1.0), guess=null + 0.3, weight=2.0)[0])
        reached += bool((capital >= 1 / alpha).any())
        at_each_step += capital
    assert reached / len(orders) <= alpha
    assert (at_each_step / len(orders) <= 1 + 1e-9).all()


def test_capital_equals_a_plain_loop_over_the_bets():
    rng = np.random.default_rng(3)
    values, population, null, guess, weight = rng.uniform(-1, 1, 30), 50, -0.1, 0.2, 10.0
    log, total, square = 0.0, 0.0, 0.0
    expected = []
    for t, x in enumerate(values):
        mean_left = (population * null - total) / (population - t)
        estimate = (weight * guess + total) / (weight + t)
        variance = (weight * 0.25 + square - total**2 / max(t, 1)) / (weight + t)
        gap = max(estimate - mean_left, 0.0)
        stake = min(gap / (variance + gap**2), 0.9 / (mean_left + 1))
        log += np.log(1 + stake * (x - mean_left))
        total, square = total + x, square + x**2
        expected.append(log)
    got = log_capital(values, null, population, (-1.0, 1.0), guess=guess, weight=weight)[0]
    np.testing.assert_allclose(got, expected, rtol=1e-10)


@pytest.mark.parametrize(("total", "refuted"), [(4, True), (3, False), (2, False)])
def test_with_everything_seen_the_sum_decides(total, refuted):
    values = np.array([1.0] * total + [0.0] * (10 - total))
    capital = log_capital(values[::-1].copy(), 0.3, 10, (0.0, 1.0), guess=0.3)[0]
    assert np.isinf(capital[-1]) == refuted


def test_a_hypothesis_that_can_no_longer_be_true_is_refuted_before_the_end():
    capital = log_capital(np.ones(6), 0.5, 10, (0.0, 1.0), guess=0.5)[0]
    assert np.isfinite(capital[4])
    assert np.isinf(capital[5])


def test_the_confidence_sequence_covers_and_shrinks_to_the_mean():
    rng = np.random.default_rng(0)
    population = (rng.random(300) < 0.4).astype(float)
    outside = 0
    for _ in range(200):
        values = rng.permutation(population)
        low, high = betting_interval(values, 300, (0.0, 1.0), alphas=(0.05, 0.05), guesses=(0.5, 0.5), points=201)
        missed = bool((low > population.mean() + 1e-9).any() or (high < population.mean() - 1e-9).any())
        outside += missed
        if not missed:
            assert high[-1] - low[-1] <= 2 / 200 + 1e-9
            assert low[-1] - 1e-9 <= population.mean() <= high[-1] + 1e-9
    assert outside <= 200 * 0.10


def test_reaching_a_height_without_drift_has_twice_the_tail_probability():
    heights = np.array([0.0, 0.5, 1.0, 2.0])
    np.testing.assert_allclose(reach_probability(heights, 0.0), np.minimum(2 * ndtr(-heights), 1.0))


def test_reaching_a_height_with_drift_agrees_with_random_walks():
    rng = np.random.default_rng(1)
    steps = 2000
    walks = np.cumsum(rng.normal(0.8 / steps, steps**-0.5, (4000, steps)), axis=1).max(axis=1)
    assert float(reach_probability(1.2, 0.8)) == pytest.approx((walks >= 1.2).mean(), abs=0.03)
