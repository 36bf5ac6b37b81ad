"""What a training step should show about entropy modulation, and the drift that theory predicts.

Under a natural-gradient step the entropy of the policy in a state s moves, per sampled response a, by

    A(a, s) * (S(a|s) - H(s)),    S = -log pi(a|s),   H(s) = E_a[S(a|s)]        (arXiv 2605.00425, drift theorem)

S - H is the relative surprisal. Modulation adds A * (alpha - 1) * (S - H). As alpha falls with entropy, alpha - 1 and
S - H have opposite signs on average, so the added drift has the sign of -A: negative samples push entropy up, positive
ones down. The correlation of alpha - 1 with S - H is therefore *negative* by the stated formula. Readers of the paper
report a correlation of +0.63 between them; that has the other sign, so it must be for H - S, 1 - alpha or an absolute
value. The code follows the formula.

H(s) cannot be computed for open-ended responses. It can be estimated where several responses were sampled in the
*same state*: after the same conversation, to the last id. Only such responses are counted here (`per_state`), each
against the others of its state. A mean over a group's other states is no stand-in: states differ in entropy, so it
finds a strong correlation even where S - H(s) is 0 everywhere.

Axes: N responses.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from aem_harness.training.aem import Spans


MIN_SAMPLES = 2  # of one state, without which nothing can be said of its entropy


def relative_surprisal(surprisals_N: Tensor, states_N: Tensor) -> Tensor:
    """(N,) S minus the mean of the other samples of the same state: without bias for S - H(s); 0 for a sample alone.

    `states_N` labels states, not prompts: responses of one label were given to the same conversation.
    """
    size_N, mean_N = _of_state(surprisals_N, states_N)
    return (surprisals_N - mean_N) * size_N / (size_N - 1).clamp_min(1)


def state_correlation(left_N: Tensor, surprisals_N: Tensor, states_N: Tensor) -> Tensor:
    """() correlation of `left_N` with S - H(s), from states with several samples; 0 where either does not vary.

    Covariance and variance of S - H(s) come from deviations within a state, times n / (n - 1), which makes them
    unbiased for any number of samples. `left_N` (alpha - 1) varies between states too, which counts in its variance.
    """
    size_N, mean_N = _of_state(surprisals_N, states_N)
    several_N = size_N >= MIN_SAMPLES
    if not several_N.any():
        return surprisals_N.new_zeros(())
    left_N, deviation_N = left_N[several_N], (surprisals_N - mean_N)[several_N]
    unbiased_N = (size_N / (size_N - 1).clamp_min(1))[several_N]
    covariance = (left_N * deviation_N * unbiased_N).mean()
    variance, spread = (deviation_N**2 * unbiased_N).mean(), left_N.var(correction=0)
    rounding = 1e-6 * surprisals_N.abs().max()
    if variance.sqrt() <= rounding or spread.sqrt() <= 1e-6:
        return surprisals_N.new_zeros(())
    return (covariance / (variance * spread).sqrt()).clamp(-1.0, 1.0)


def shared_states(ids_B_T: Tensor, spans: "Spans", *, before: int = 0) -> Tensor:
    """(N,) one label for all responses that were given to the same conversation.

    `ids_B_T` are the ids of the rollouts, and a response at position t was given to `ids[:t + before]`: 0 where ids and
    loss mask are aligned, 1 where position t holds the id that is read to predict the next.
    """
    inside_B_T = spans.ids_B_T >= 0
    starts_B_T = inside_B_T.clone()
    starts_B_T[:, 1:] &= spans.ids_B_T[:, 1:] != spans.ids_B_T[:, :-1]
    rows = ids_B_T.cpu().numpy()
    known: dict[bytes, int] = {}
    labels = [
        known.setdefault(rows[row, : start + before].tobytes(), len(known))
        for row, start in starts_B_T.nonzero().tolist()
    ]
    return torch.tensor(labels, dtype=torch.long, device=spans.rows_N.device)


def per_state(
    *, alphas_N: Tensor, surprisals_N: Tensor, advantages_N: Tensor, states_N: Tensor, out_of: int
) -> dict[str, float]:
    """What theory speaks of, from the responses whose state has several samples; empty where there are none.

    `surprisals_N` are those of whole responses, in nats. `state_samples`: the share of `out_of` responses that count.
    """
    if not alphas_N.numel():
        return {}
    several_N = _of_state(surprisals_N, states_N)[0] >= MIN_SAMPLES
    if not several_N.any():
        return {}
    relative_N = relative_surprisal(surprisals_N, states_N)[several_N]
    stats = {
        "state_samples": several_N.sum() / out_of,
        "corr_alpha_relative_surprisal": state_correlation(alphas_N - 1, surprisals_N, states_N),
        "drift_base": entropy_drift(advantages_N[several_N], relative_N),
        "drift_added": entropy_drift(advantages_N[several_N], relative_N, alphas_N[several_N] - 1),
    }
    values = torch.stack([value.to(torch.float64) for value in stats.values()]).tolist()
    return dict(zip(stats, values, strict=True))


def _of_state(values_N: Tensor, states_N: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) how many samples the state of each has, and their mean."""
    labels_N, counts = torch.unique(states_N, return_inverse=True, return_counts=True)[1:]
    sums = values_N.new_zeros(len(counts)).index_add(0, labels_N, values_N)
    size_N = counts[labels_N].to(values_N.dtype)
    return size_N, sums[labels_N] / size_N


def entropy_drift(advantages_N: Tensor, relative_N: Tensor, alphas_N: Tensor | None = None) -> Tensor:
    """() mean of alpha * A * (S - H): the predicted first-order change of entropy per unit of natural-gradient step."""
    weights_N = advantages_N if alphas_N is None else advantages_N * alphas_N
    return (weights_N * relative_N).mean() if relative_N.numel() else relative_N.new_zeros(())


def correlation(left_N: Tensor, right_N: Tensor) -> Tensor:
    """() Pearson's r, 0 where either side does not vary (all gates closed: alpha is 1 everywhere)."""
    left_N, right_N = left_N - left_N.mean(), right_N - right_N.mean()
    scale = left_N.norm() * right_N.norm()
    return torch.where(scale > 0, (left_N * right_N).sum() / scale.clamp_min(1e-30), torch.zeros_like(scale))


def describe(
    *,
    alphas_N: Tensor,
    signal_N: Tensor,
    sets_N: Tensor,
    advantages_N: Tensor,
    lengths_N: Tensor,
    min_range: float,
) -> dict[str, float]:
    """The step's statistics as plain numbers, fetched from the device in one transfer. Empty without responses.

    `gated_share`: normalisation sets whose gate is closed. `negative_token_fraction`: share of tokens with A < 0.
    `advantage_scale`: sum |alpha A| / sum |A| over tokens. What needs several samples of a state is in `per_state`.
    """
    if alphas_N.numel() == 0:
        return {}
    labels_N = torch.unique(sets_N, return_inverse=True)[1]
    zeros = signal_N.new_zeros(int(labels_N.max()) + 1)
    low = zeros.scatter_reduce(0, labels_N, signal_N, "amin", include_self=False)
    spread = zeros.scatter_reduce(0, labels_N, signal_N, "amax", include_self=False) - low
    tokens_N = lengths_N.to(signal_N.dtype)
    magnitude_N = advantages_N.abs().to(signal_N.dtype) * tokens_N
    positive_N, negative_N = advantages_N > 0, advantages_N < 0
    stats = {
        "responses": tokens_N.new_tensor(float(tokens_N.numel())),
        "gated_share": ((spread < min_range) | (spread <= 0)).to(signal_N.dtype).mean(),
        "alpha_min": alphas_N.min(),
        "alpha_max": alphas_N.max(),
        "alpha_std": alphas_N.std(correction=0),
        "response_entropy": signal_N.mean(),
        "response_entropy_range": spread.mean(),
        "response_entropy_positive": _mean_where(signal_N, positive_N),
        "response_entropy_negative": _mean_where(signal_N, negative_N),
        "negative_token_fraction": (tokens_N * negative_N).sum() / tokens_N.sum(),
        "advantage_scale": (magnitude_N * alphas_N).sum() / magnitude_N.sum().clamp_min(1e-30),
    }
    values = torch.stack([value.to(torch.float64) for value in stats.values()]).tolist()
    return dict(zip(stats, values, strict=True))


def _mean_where(values_N: Tensor, chosen_N: Tensor) -> Tensor:
    return (values_N * chosen_N).sum() / chosen_N.sum().clamp_min(1)
