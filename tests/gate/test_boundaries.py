"""Boundaries of the group-sequential gate: textbook values, and the error rates that they are made for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from aem_harness.harness.gate.boundaries import boundaries, chances, inner, spent

EVEN = (1.0, 1.0)
FIVE = (0.2, 0.4, 0.6, 0.8, 1.0)


def test_boundaries_spend_what_a_multivariate_normal_says():
    """Against scipy's integral of the joint distribution of the standardised differences, one-sided."""
    found = boundaries(FIVE, (0.025, 1e-9), ((1.5, 2.0), EVEN))
    t = np.array(FIVE)
    together = np.sqrt(np.minimum.outer(t, t) / np.maximum.outer(t, t))
    for j in range(2, 6):
        inside = stats.multivariate_normal(np.zeros(j), together[:j, :j], abseps=1e-7).cdf(found.upper[:j])
        assert 1 - inside == pytest.approx(spent(t[j - 1 : j], 0.025, (1.5, 2.0))[0], abs=2e-4)


def test_one_look_is_the_ordinary_test():
    assert boundaries((1.0,), (0.05, 0.01), (EVEN, EVEN)).upper == pytest.approx([1.645], abs=2e-3)
    assert boundaries((1.0,), (0.05, 0.01), (EVEN, EVEN)).lower == pytest.approx([-2.326], abs=2e-3)


@given(
    st.lists(st.floats(0.03, 0.97), min_size=1, max_size=12, unique=True),
    st.floats(0.005, 0.1),
    st.tuples(st.floats(0.5, 4), st.floats(0.5, 4)),
    st.sampled_from([0.0, 0.2, 0.3]),
)
@settings(max_examples=25, deadline=None)
def test_the_error_rates_are_spent_and_not_overspent(fractions, alpha, shape, futility):
    looks = (*sorted({round(t, 2) for t in fractions}), 1.0)
    found = boundaries(looks, (alpha, alpha / 2), (shape, (2.0, 1.0)), (futility, futility))
    passed, blocked, stop = chances(found, 0.0)
    assert passed <= alpha * 1.01 + 1e-4
    assert blocked <= alpha / 2 * 1.01 + 1e-4
    assert stop.sum() == pytest.approx(1, abs=1e-3)
    if not futility:
        assert passed == pytest.approx(alpha, rel=0.02)


def test_the_chances_are_those_of_simulated_paths():
    rng = np.random.default_rng(0)
    found = boundaries(FIVE, (0.05, 0.05), (EVEN, (2.0, 1.0)), (0.25, 0.2))
    t = np.array(FIVE)
    for drift in (0.0, 1.0, 3.0):
        paths = np.cumsum(rng.normal(drift * 0.2, np.sqrt(0.2), (40_000, 5)), axis=1) / np.sqrt(t)
        up, down = paths >= found.upper, paths <= found.lower
        given_up = (paths > found.inner_low) & (paths < found.inner_high)
        over = up | down | given_up
        over[:, -1] = True
        first = over.argmax(axis=1)
        rows = np.arange(len(paths))
        passed, blocked, _ = chances(found, drift)
        assert up[rows, first].mean() == pytest.approx(passed, abs=0.008)
        assert down[rows, first].mean() == pytest.approx(blocked, abs=0.008)


def test_giving_up_begins_late_and_only_where_no_verdict_is_likely():
    low, high = inner(np.array([0.1, 0.3, 0.6, 1.0]), (0.05, 0.05), (0.25, 0.25))
    assert low[0] > high[0]  # never this early
    assert high[1] < high[2] < 1.645
    assert low[3] > high[3]  # the last look decides


def test_spending_is_even_for_shape_one():
    assert spent(np.array([0.25, 1.0]), 0.04, EVEN) == pytest.approx([0.01, 0.04])
    assert spent(np.array([0.25, 1.0]), 0.04, (2.0, 1.0))[0] < 0.01
