"""The drift formula against a finite difference, and the statistics against hand-made batches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aem_harness.training.aem import modulate, response_alphas, response_spans
from aem_harness.training.diagnostics import (
    correlation,
    entropy_drift,
    per_state,
    relative_surprisal,
    shared_states,
    state_correlation,
)


def entropy(log_pi):
    return -(log_pi.exp() * log_pi).sum()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_predicted_drift_equals_the_finite_difference_along_the_natural_gradient(seed):
    """On a softmax over actions the Fisher-Rao flow is d log pi(a) / dt = A(a) - E[A]; its entropy must move by
    E[A (S - H)]. Here the expectation is exact: action a stands in pi(a) of the samples."""
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(50, generator=random, dtype=torch.float64)
    advantages = torch.randn(50, generator=random, dtype=torch.float64)
    log_pi = torch.log_softmax(logits, 0)
    pi = log_pi.exp()
    relative = -log_pi - entropy(log_pi)
    predicted = entropy_drift(advantages, relative, alphas_N=pi * 50)  # mean of 50 terms weighted by 50 pi
    step = 1e-5
    ahead, behind = (entropy(torch.log_softmax(logits + sign * step * advantages, 0)) for sign in (1, -1))
    assert float(predicted) == pytest.approx(float((ahead - behind) / (2 * step)), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_modulation_adds_drift_of_the_sign_opposite_to_the_advantage(sign):
    """Among the states of a group, alpha from response entropy: negatives push entropy up, positives down."""
    random = torch.Generator().manual_seed(0)
    surprisal = torch.rand(2000, generator=random, dtype=torch.float64) * 2
    groups = torch.arange(2000) // 50
    alphas = response_alphas(surprisal, groups)
    relative = relative_surprisal(surprisal, groups)
    advantages = torch.full_like(surprisal, sign)
    assert abs(float(entropy_drift(advantages, relative))) < 1e-9
    assert float(entropy_drift(advantages, relative, alphas)) * sign < -0.05


def test_alpha_minus_one_correlates_negatively_with_relative_surprisal():
    """Monte Carlo with known states: 64 softmax policies of different entropy, S sampled, H exact per state."""
    random = torch.Generator().manual_seed(1)
    temperatures = torch.linspace(0.2, 4.0, 64)[:, None]
    log_pi = torch.log_softmax(torch.randn(64, 30, generator=random) / temperatures, dim=1)
    actions = torch.multinomial(log_pi.exp(), 20, replacement=True, generator=random)
    surprisals = -log_pi.gather(1, actions)
    alphas = response_alphas(surprisals.flatten(), torch.arange(64).repeat_interleave(20))
    exact_entropy = -(log_pi.exp() * log_pi).sum(1, keepdim=True)
    assert float(correlation(alphas - 1, (surprisals - exact_entropy).flatten())) < -0.5


def test_states_of_different_entropy_alone_give_no_correlation():
    """Certain turns (H = S = 0) beside uniform ones (H = S = ln 4): S - H(s) is 0 everywhere, whatever alpha does."""
    random = torch.Generator().manual_seed(0)
    states = torch.arange(640) // 8
    surprisals = torch.where(states % 2 == 0, 0.0, 1.386)
    alphas = response_alphas(surprisals + 0.01 * torch.rand(640, generator=random), torch.arange(640) // 40)
    assert float(alphas.std()) > 0.2
    assert float(state_correlation(alphas - 1, surprisals, states)) == 0.0
    stats = per_state(
        alphas_N=alphas, surprisals_N=surprisals, advantages_N=torch.ones(640), states_N=states, out_of=640
    )
    assert stats["corr_alpha_relative_surprisal"] == 0.0
    assert stats["drift_base"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("samples", [2, 8, 64])
def test_the_estimate_per_state_is_the_correlation_with_the_exact_entropy(samples):
    """Monte Carlo: states of different entropy; alpha depends on the sampled action and on the state."""
    random = torch.Generator().manual_seed(2)
    count = 16384 // samples
    log_pi = torch.log_softmax(2 * torch.randn(count, 6, generator=random, dtype=torch.float64), dim=1)
    actions = torch.multinomial(log_pi.exp(), samples, replacement=True, generator=random)
    surprisals = -log_pi.gather(1, actions)
    exact = -(log_pi.exp() * log_pi).sum(1, keepdim=True)
    alphas = 1 - 0.3 * (surprisals - exact) + 0.5 * torch.randn(count, 1, generator=random, dtype=torch.float64)
    truth = float(correlation((alphas - 1).flatten(), (surprisals - exact).flatten()))
    states = torch.arange(count).repeat_interleave(samples)
    assert truth < -0.2
    estimate = state_correlation((alphas - 1).flatten(), surprisals.flatten(), states)
    assert float(estimate) == pytest.approx(truth, abs=0.04)
    drift = entropy_drift(alphas.flatten(), relative_surprisal(surprisals.flatten(), states))
    expected = entropy_drift(alphas.flatten(), (surprisals - exact).flatten())
    assert float(drift) == pytest.approx(float(expected), abs=0.03)


def test_responses_share_a_state_exactly_where_everything_read_before_is_equal():
    ids = torch.tensor([[1, 2, 3, 4, 5], [1, 2, 3, 4, 6], [1, 2, 9, 4, 5]])
    spans = response_spans(torch.tensor([[0, 0, 1, 0, 1]] * 3))
    labels = shared_states(ids, spans).tolist()
    assert labels[0] == labels[2] == labels[4]  # the first responses answer 1 2
    assert labels[1] == labels[3] != labels[5]  # the second ones 1 2 3 4, 1 2 3 4 and 1 2 9 4
    assert len(set(shared_states(ids, spans, before=1).tolist())) == 5


def test_nothing_is_claimed_where_no_state_was_sampled_twice():
    one = torch.rand(3)
    assert per_state(alphas_N=one, surprisals_N=one, advantages_N=one, states_N=torch.arange(3), out_of=3) == {}


def test_statistics_of_a_step():
    mask = torch.tensor([[1, 1, 0, 1], [1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0]])
    entropies = torch.tensor([[0.2, 0.2, 0, 0.8], [1.5, 1.5, 1.5, 0], [0.30, 0, 0.31, 0], [0.3, 0.3, 0, 0]])
    stats = modulate(torch.tensor([1.0, -1.0, 0.0, 0.0]), entropies, mask, [0, 0, 1, 1], logprobs_B_T=-entropies).stats
    assert stats["responses"] == 6
    assert stats["gated_share"] == 0.5
    assert stats["negative_token_fraction"] == pytest.approx(3 / 10)
    assert stats["response_entropy_positive"] == pytest.approx(0.5)
    assert stats["response_entropy_negative"] == pytest.approx(1.5)
    assert stats["response_entropy_range"] == pytest.approx((1.3 + 0.01) / 2)
    assert stats["alpha_max"] / stats["alpha_min"] == pytest.approx(2.71828, abs=1e-4)
    assert stats["corr_alpha_relative_surprisal"] < 0


def test_correlation_is_zero_where_nothing_varies():
    assert float(correlation(torch.ones(4), torch.randn(4))) == 0.0
