"""EMPG and REPO-R against loops over their formulas."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aem_harness.training.baselines import empg, repo_r

MASK = torch.tensor([[1, 1, 0, 1], [1, 0, 1, 1]])
ENTROPIES = torch.tensor([[0.2, 0.4, 9.0, 1.5], [0.1, 9.0, 0.5, 0.7]], dtype=torch.float64)
ADVANTAGES = torch.tensor([1.0, -1.0], dtype=torch.float64)


def test_empg_equals_its_formula():
    entropy = [0.3, 1.5, 0.1, 0.6]  # of the four responses
    relative = [(value - 0.1) / 1.4 for value in entropy]
    weights = [math.exp(-value) for value in relative]
    future = [math.exp(-relative[1]), 0.0, math.exp(-relative[3]), 0.0]
    signs = (1, 1, -1, -1)
    terms = [sign * w / (sum(weights) / 4) + 0.1 * f for sign, w, f in zip(signs, weights, future, strict=True)]
    a, b, c, d = (term - sum(terms) / 4 for term in terms)
    expected = torch.tensor([[a, a, 0, b], [c, 0, d, d]], dtype=torch.float64)
    torch.testing.assert_close(empg(ADVANTAGES, ENTROPIES, MASK), expected)


def test_empg_without_any_difference_in_entropy_or_future_is_the_centred_base():
    found = empg(ADVANTAGES, torch.ones_like(ENTROPIES), MASK, zeta=0.0)
    torch.testing.assert_close(found, torch.tensor([[1.0, 1, 0, 1], [-1, 0, -1, -1]], dtype=torch.float64))
    assert not empg(ADVANTAGES, ENTROPIES, torch.zeros_like(MASK)).any()


@given(st.floats(-3, 3), st.floats(-20, 0), st.floats(0, 2))
@settings(deadline=None)
def test_repo_r_equals_its_formula_and_never_changes_a_sign(advantage, logprob, zeta):
    found = float(repo_r(torch.tensor([advantage]), torch.tensor([[logprob]]), torch.ones(1, 1), zeta=zeta))
    if advantage > 0:
        expected = max(0.0, advantage * (1 - zeta * logprob))
    else:
        expected = min(0.0, advantage * (1 + zeta * logprob))
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert found * advantage >= 0


def test_repo_r_reinforces_rare_tokens_more_and_punishes_them_less():
    logprobs = torch.tensor([[-0.1, -3.0], [-0.1, -3.0]])
    up, down = repo_r(torch.tensor([1.0, -1.0]), logprobs, torch.ones(2, 2))
    assert up[1] > up[0] > 1
    assert -1 < down[0] < down[1] < 0
