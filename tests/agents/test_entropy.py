"""Entropy estimates from truncated log-probabilities against the whole distribution."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aem_harness.agents.entropy import entropy_bounds, method, token_entropy

DISTRIBUTION = st.lists(st.floats(1e-6, 1.0), min_size=3, max_size=40).map(
    lambda weights: sorted((weight / math.fsum(weights) for weight in weights), reverse=True)
)


def entropy(probabilities):
    return -math.fsum(p * math.log(p) for p in probabilities if p > 0)


@given(DISTRIBUTION, st.integers(1, 40))
def test_the_entropy_lies_between_its_bounds(probabilities, k):
    listed = [math.log(p) for p in probabilities[:k]]
    bounds = entropy_bounds(listed, cap=listed[-1], vocabulary=len(probabilities))
    assert bounds.lower - 1e-9 <= entropy(probabilities) <= bounds.upper + 1e-9


@given(DISTRIBUTION, st.integers(2, 12), st.data())
def test_the_bound_holds_however_the_sampled_token_is_listed(probabilities, k, data):
    """OpenAI adds nothing to the top k; vLLM puts the sampled token first, in the place of the k-th."""
    sampled = data.draw(st.sampled_from(probabilities))
    top = probabilities[:k]
    as_vllm = top if sampled in top else [sampled, *top[: k - 1]]
    for shown in (top, as_vllm):
        estimate = token_entropy(math.log(sampled), [math.log(p) for p in shown])
        assert estimate <= entropy(probabilities) + 1e-9


def test_a_distribution_that_is_listed_whole_has_its_exact_entropy():
    listed = [math.log(p) for p in (0.7, 0.2, 0.1)]
    assert token_entropy(listed[0], listed, vocabulary=3) == pytest.approx(entropy((0.7, 0.2, 0.1)))


def test_by_hand():
    # Listed 1/2 and 1/4, one token of 1/4 left of a vocabulary of 3: both bounds are exact.
    listed = [math.log(0.5), math.log(0.25)]
    assert entropy_bounds(listed, cap=listed[-1], vocabulary=3) == pytest.approx((1.5 * math.log(2),) * 2)
    # With four more tokens the rest is at most four tokens of 1/16.
    bounds = entropy_bounds(listed, cap=listed[-1], vocabulary=6)
    assert bounds.upper == pytest.approx(math.log(2) + 0.25 * math.log(16))
    # Without V there is no upper bound, and the estimate says so by being the lower one.
    assert token_entropy(listed[0], listed) == pytest.approx(bounds.lower)
    assert method(2) == "top-2, lower bound"
