"""The method against hand-worked numbers, its identities, and a plain-loop second computation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aem_harness.harness.errors import DataError
from aem_harness.training.aem import AemConfig, modulate, response_alphas, response_spans, shuffle_within, span_means

WORKED = [0.2, 0.8, 1.5, 0.4]
WORKED_ALPHAS = [1.4008, 0.8829, 0.5153, 1.2010]

groups_of_entropies = st.lists(
    st.tuples(st.integers(0, 4), st.floats(0.0, 5.0, allow_nan=False)), min_size=1, max_size=40
).map(lambda pairs: ([value for _, value in pairs], [group for group, _ in pairs]))


def by_loops(entropies, groups, lam, min_range):
    """The formula as one would write it on paper."""
    alphas = []
    for value, group in zip(entropies, groups, strict=True):
        members = [v for v, g in zip(entropies, groups, strict=True) if g == group]
        low, high = min(members), max(members)
        if high - low < min_range or high == low:
            alphas.append(1.0)
            continue
        weights = [math.exp(-lam * (v - low) / (high - low)) for v in members]
        alphas.append(math.exp(-lam * (value - low) / (high - low)) / (sum(weights) / len(weights)))
    return alphas


def test_the_worked_vector():
    assert response_alphas(WORKED, [0] * 4).tolist() == pytest.approx(WORKED_ALPHAS, abs=5e-5)


@given(groups_of_entropies, st.floats(0.0, 3.0), st.sampled_from([0.0, 0.1, 0.5]))
def test_alphas_equal_a_plain_loop_over_the_formula(data, lam, min_range):
    entropies, groups = data
    expected = by_loops(entropies, groups, lam, min_range)
    assert response_alphas(entropies, groups, lam, min_range).tolist() == pytest.approx(expected, rel=1e-9)


@given(groups_of_entropies, st.floats(-3.0, 3.0))
def test_alphas_average_to_one_in_every_group_and_are_positive(data, lam):
    entropies, groups = data
    alphas = response_alphas(entropies, groups, lam).numpy()
    assert (alphas > 0).all()
    for group in set(groups):
        assert alphas[np.asarray(groups) == group].mean() == pytest.approx(1.0)


@given(st.lists(st.floats(0.0, 5.0), min_size=2, max_size=30), st.floats(0.1, 3.0))
def test_largest_over_smallest_alpha_is_e_to_lambda_while_the_gate_is_open(entropies, lam):
    alphas = response_alphas(entropies, [7] * len(entropies), lam)
    if max(entropies) - min(entropies) >= 0.1:
        assert float(alphas.max() / alphas.min()) == pytest.approx(math.exp(lam))
    else:
        assert alphas.tolist() == [1.0] * len(entropies)


@given(st.lists(st.floats(0.0, 5.0), min_size=2, max_size=30), st.floats(0.2, 9.0), st.floats(-4.0, 4.0))
def test_positive_affine_changes_of_entropy_above_the_gate_change_nothing(entropies, scale, shift):
    if min(scale, 1.0) * (max(entropies) - min(entropies)) < 0.11:
        return
    groups = [0] * len(entropies)
    changed = [scale * value + shift for value in entropies]
    assert response_alphas(changed, groups).tolist() == pytest.approx(
        response_alphas(entropies, groups).tolist(), rel=1e-9
    )


@given(groups_of_entropies, st.randoms(use_true_random=False))
def test_permuting_the_responses_permutes_the_alphas(data, random):
    entropies, groups = data
    order = list(range(len(entropies)))
    random.shuffle(order)
    alphas = response_alphas(entropies, groups)
    permuted = response_alphas([entropies[k] for k in order], [groups[k] for k in order])
    assert permuted.tolist() == pytest.approx(alphas[order].tolist(), rel=1e-9)


def test_the_gate_closes_strictly_below_the_range():
    assert response_alphas([0.0, 0.1], [0, 0]).tolist() != [1.0, 1.0]
    assert response_alphas([0.0, 0.0999], [0, 0]).tolist() == [1.0, 1.0]
    assert response_alphas(torch.tensor([0.0, 0.1]), torch.tensor([0, 0])).tolist() != [1.0, 1.0]


def test_each_group_has_its_own_gate():
    alphas = response_alphas([*WORKED, 0.50, 0.51], ["a"] * 4 + ["b"] * 2)
    assert alphas.tolist() == pytest.approx([*WORKED_ALPHAS, 1.0, 1.0], abs=5e-5)


@pytest.mark.parametrize("entropies", [[], [1.0], [1.0, 1.0]])
def test_groups_without_spread_get_ones_even_without_a_gate(entropies):
    assert response_alphas(entropies, [0] * len(entropies), min_range=0.0).tolist() == [1.0] * len(entropies)


@pytest.mark.parametrize("lam", [-1e4, 1e4])
def test_extreme_lambdas_stay_finite(lam):
    alphas = response_alphas(torch.tensor(WORKED), torch.zeros(4), lam)
    assert torch.isfinite(alphas).all()
    assert float(alphas.mean()) == pytest.approx(1.0)


def test_no_gradient_flows_through_alpha():
    entropies = torch.tensor(WORKED, requires_grad=True)
    assert not response_alphas(entropies, torch.zeros(4)).requires_grad


def test_half_precision_entropies_are_computed_in_single():
    alphas = response_alphas(torch.tensor(WORKED, dtype=torch.bfloat16), torch.zeros(4))
    assert alphas.dtype is torch.float32
    assert alphas.tolist() == pytest.approx(WORKED_ALPHAS, abs=0.01)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_entropy_that_is_not_finite_is_named(bad):
    with pytest.raises(DataError, match="entropy of response 2"):
        response_alphas([0.1, 0.2, bad], [0, 0, 0])


def test_lengths_that_differ_are_named():
    with pytest.raises(DataError, match="one group id per response"):
        response_alphas([0.1, 0.2], [0])


# --- spans ------------------------------------------------------------------------------------------------------------


def test_responses_are_the_maximal_runs_of_the_loss_mask():
    mask = torch.tensor([[0, 1, 1, 0, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [1, 0, 1, 0, 1]])
    spans = response_spans(mask)
    assert spans.ids_B_T.tolist() == [
        [-1, 0, 0, -1, 1],
        [2, 2, -1, -1, -1],
        [-1, -1, -1, -1, -1],
        [3, -1, 4, -1, 5],
    ]
    assert spans.rows_N.tolist() == [0, 0, 1, 3, 3, 3]
    assert spans.lengths_N.tolist() == [2, 1, 2, 1, 1, 1]


def test_a_run_that_touches_both_row_ends_does_not_leak_into_the_next_row():
    assert response_spans(torch.ones(2, 3)).rows_N.tolist() == [0, 1]


@given(st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=1, max_size=6))
def test_spans_cover_the_mask_and_nothing_else(mask):
    mask_B_T = torch.tensor(mask)
    spans = response_spans(mask_B_T)
    assert ((spans.ids_B_T >= 0) == mask_B_T).all()
    assert int(spans.lengths_N.sum()) == int(mask_B_T.sum())
    runs = sum("".join("x" if m else " " for m in row).split().__len__() for row in mask)
    assert spans.count == runs


def test_span_means_do_not_read_padding():
    values = torch.tensor([[math.nan, 1.0, 3.0, math.inf], [5.0, math.nan, 7.0, 9.0]])
    mask = torch.tensor([[0, 1, 1, 0], [1, 0, 1, 1]])
    assert span_means(values, response_spans(mask)).tolist() == [2.0, 5.0, 8.0]


# --- modulation of a batch --------------------------------------------------------------------------------------------


def batch(entropies_of_spans, groups, length=3):
    """One span per row of `length` tokens behind an observation token, padded by one; token entropies average out."""
    rows = len(entropies_of_spans)
    mask = torch.zeros(rows, length + 2)
    mask[:, 1 : length + 1] = 1
    entropies = torch.full((rows, length + 2), math.nan, dtype=torch.float64)
    wave = torch.linspace(-0.05, 0.05, length, dtype=torch.float64)
    entropies[:, 1 : length + 1] = torch.tensor(entropies_of_spans, dtype=torch.float64)[:, None] + wave
    return entropies, mask, torch.tensor(groups)


def test_every_token_of_a_response_gets_its_alpha_and_observations_get_zero():
    entropies, mask, groups = batch(WORKED, [0] * 4)
    result = modulate(torch.tensor([1.0, -1.0, 2.0, 0.0]), entropies, mask, groups)
    assert result.alphas_N.tolist() == pytest.approx(WORKED_ALPHAS, abs=5e-5)
    inside = result.advantages_B_T[:, 1:4]
    assert inside[:, 0].tolist() == pytest.approx([1.4008, -0.8829, 1.0306, 0.0], abs=1e-4)
    assert (inside == inside[:, :1]).all()
    assert (result.advantages_B_T[:, [0, 4]] == 0).all()


def test_responses_of_one_rollout_are_modulated_apart():
    mask = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 1, 1, 0]])
    entropies = torch.tensor([[0.1, 0.3, 9.9, 0.8, 9.9], [1.5, 9.9, 0.5, 0.3, 9.9]])
    result = modulate(torch.tensor([1.0, -1.0]), entropies, mask, ["p", "p"])
    a, b, c, d = WORKED_ALPHAS
    assert result.advantages_B_T.flatten().tolist() == pytest.approx([a, a, 0, b, 0, -c, 0, -d, -d, 0], abs=5e-5)


@settings(max_examples=50)
@given(st.integers(0, 10_000))
def test_modulation_keeps_sign_and_zero_of_every_advantage(seed):
    random = torch.Generator().manual_seed(seed)
    mask = (torch.rand(6, 12, generator=random) < 0.6).int()
    advantages = torch.randn(6, 12, generator=random).round()
    entropies = 3 * torch.rand(6, 12, generator=random)
    result = modulate(advantages, entropies, mask, torch.arange(6) // 3)
    assert (torch.sign(result.advantages_B_T) == torch.sign(advantages) * mask).all()


def test_lambda_zero_equals_the_base():
    entropies, mask, groups = batch(WORKED, [0] * 4)
    advantages = torch.tensor([1.0, -1.0, 2.0, 0.5])
    result = modulate(advantages, entropies, mask, groups, AemConfig(lam=0.0))
    assert torch.equal(result.advantages_B_T, advantages[:, None] * mask)


def test_rollouts_left_out_of_the_loss_stay_out_of_the_statistics():
    entropies, mask, groups = batch([*WORKED, 50.0], [0] * 5)
    kept = torch.tensor([True] * 4 + [False])
    result = modulate(torch.ones(5), entropies, mask, groups, kept_B=kept)
    assert result.alphas_N.tolist() == pytest.approx([*WORKED_ALPHAS, 1.0], abs=5e-5)
    assert result.stats["responses"] == 4


def test_reversed_turns_the_order_round():
    entropies, mask, groups = batch(WORKED, [0] * 4)
    result = modulate(torch.ones(4), entropies, mask, groups, AemConfig(direction="reversed"))
    assert result.alphas_N.tolist() == pytest.approx(by_loops(WORKED, [0] * 4, -1.0, 0.1))


def test_shuffled_keeps_each_groups_alphas_and_repeats_with_its_seed():
    entropies, mask, groups = batch([*WORKED, 0.0, 1.0, 2.0], [0] * 4 + [1] * 3)
    plain = modulate(torch.ones(7), entropies, mask, groups).alphas_N
    dealt = [
        modulate(torch.ones(7), entropies, mask, groups, AemConfig(shuffle_seed=seed)).alphas_N for seed in (0, 0, 1, 2)
    ]
    for alphas in dealt:
        assert sorted(alphas[:4].tolist()) == pytest.approx(sorted(plain[:4].tolist()))
        assert sorted(alphas[4:].tolist()) == pytest.approx(sorted(plain[4:].tolist()))
    assert torch.equal(dealt[0], dealt[1])
    assert any(not torch.equal(alphas, plain) for alphas in dealt)


def test_shuffling_stays_within_interleaved_groups():
    groups = torch.tensor([0, 1, 0, 1, 0, 1])
    dealt = shuffle_within(torch.tensor([1.0, 10.0, 2.0, 20.0, 3.0, 30.0]), groups, seed=3)
    assert sorted(dealt[groups == 0].tolist()) == [1.0, 2.0, 3.0]
    assert sorted(dealt[groups == 1].tolist()) == [10.0, 20.0, 30.0]


def test_scope_says_over_which_set_entropies_are_compared():
    mask = torch.tensor([[1, 0, 1], [1, 0, 1], [1, 0, 1]])
    entropies = torch.tensor([[0.0, 0, 1.0], [1.0, 0, 2.0], [3.0, 0, 6.0]])
    spans = [0.0, 1.0, 1.0, 2.0, 3.0, 6.0]
    sets = {"group": [0, 0, 0, 0, 1, 1], "trajectory": [0, 0, 1, 1, 2, 2], "batch": [0] * 6}
    for scope, labels in sets.items():
        result = modulate(torch.ones(3), entropies, mask, torch.tensor([4, 4, 9]), AemConfig(scope=scope))
        assert result.alphas_N.tolist() == pytest.approx(by_loops(spans, labels, 1.0, 0.1)), scope


def test_surprisal_takes_the_place_of_entropy():
    entropies, mask, groups = batch([0.0] * 4, [0] * 4)
    logprobs = -batch(WORKED, [0] * 4)[0]
    result = modulate(torch.ones(4), entropies, mask, groups, AemConfig(signal="surprisal"), logprobs_B_T=logprobs)
    assert result.alphas_N.tolist() == pytest.approx(WORKED_ALPHAS, abs=5e-5)
    with pytest.raises(DataError, match="log-probabilities"):
        modulate(torch.ones(4), entropies, mask, groups, AemConfig(signal="surprisal"))


def test_disagreeing_shapes_are_named():
    entropies, mask, groups = batch(WORKED, [0] * 4)
    with pytest.raises(DataError, match=r"advantages \(3,\)"):
        modulate(torch.ones(3), entropies, mask, groups)
    with pytest.raises(DataError, match="4 rollouts, 3 group ids"):
        modulate(torch.ones(4), entropies, mask, groups[:3])


def test_a_batch_without_responses_passes_through():
    result = modulate(torch.ones(2), torch.zeros(2, 3), torch.zeros(2, 3), [0, 1])
    assert (result.advantages_B_T == 0).all()
    assert result.stats == {}


@pytest.mark.parametrize("kind", [torch.int64, torch.float16, torch.bfloat16])
def test_advantages_of_any_number_type_are_multiplied_by_the_whole_alpha(kind):
    mask = torch.tensor([[1, 0, 1], [1, 0, 1]])
    entropies = torch.tensor([[0.2, 0, 0.8], [1.5, 0, 0.4]])
    advantages = torch.tensor([1, -1])
    exact = modulate(advantages.double(), entropies, mask, [0, 0]).advantages_B_T
    torch.testing.assert_close(modulate(advantages.to(kind), entropies, mask, [0, 0]).advantages_B_T, exact.float())
