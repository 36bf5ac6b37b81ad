"""What a training step should show about entropy modulation, and the drift that theory predicts.

Under a natural-gradient step the entropy of the policy in a state s moves, per sampled response a, by

    A(a, s) * (S(a|s) - H(s)),    S = -log pi(a|s),   H(s) = E_a[S(a|s)]        (arXiv 2605.00425, drift theorem)

S - H is the relative surprisal. Modulation adds A * (alpha - 1) * (S - H). As alpha falls with entropy, alpha - 1 and
S - H have opposite signs on average, so the added drift has the sign of -A: negative samples push entropy up, positive
ones down. The correlation of alpha - 1 with S - H is therefore *negative* by the stated formula. Readers of the paper
report a correlation of +0.63 between them; that has the other sign, so it must be for H - S, 1 - alpha or an absolute
value. The code follows the formula.

H(s) cannot be computed for open-ended responses. The statistics of a step use the group: the response's mean surprisal
per token, less its mean over the group's responses. Where many responses to the same state are at hand, give their mean
as H and the same functions give the Monte Carlo value.

Axes: N responses.
"""

import torch
from torch import Tensor


def relative_surprisal(surprisals_N: Tensor, groups_N: Tensor) -> Tensor:
    """(N,) S - mean of S over the group: an unbiased stand-in for S - H where a group shares its state."""
    labels_N = torch.unique(groups_N, return_inverse=True)[1]
    means = torch.zeros(
        int(labels_N.max()) + 1 if labels_N.numel() else 0, dtype=surprisals_N.dtype, device=surprisals_N.device
    ).scatter_reduce(0, labels_N, surprisals_N, "mean", include_self=False)
    return surprisals_N - means[labels_N]


def entropy_drift(advantages_N: Tensor, relative_N: Tensor, alphas_N: Tensor | None = None) -> Tensor:
    """() mean of alpha * A * (S - H): the predicted first-order change of entropy per unit of natural-gradient step."""
    weights_N = advantages_N if alphas_N is None else advantages_N * alphas_N
    return (weights_N * relative_N).mean() if relative_N.numel() else relative_N.new_zeros(())


def sign_cases(advantages_N: Tensor, relative_N: Tensor) -> dict[str, float]:
    """Share of responses in each of the four cases, named advantage then surprise then what entropy is predicted to do.

    Responses with A = 0 or S = H belong to none and count in the denominator.
    """
    positive, negative, surprising, expected = advantages_N > 0, advantages_N < 0, relative_N > 0, relative_N < 0
    cases = {
        "positive_surprising_up": positive & surprising,
        "positive_expected_down": positive & expected,
        "negative_surprising_down": negative & surprising,
        "negative_expected_up": negative & expected,
    }
    return {name: float(case.float().mean()) if case.numel() else 0.0 for name, case in cases.items()}


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
    surprisals_N: Tensor | None,
    min_range: float,
) -> dict[str, float]:
    """The step's statistics as plain numbers, fetched from the device in one transfer. Empty without responses.

    `gated_share`: normalisation sets whose gate is closed. `negative_token_fraction`: share of tokens with A < 0.
    `advantage_scale`: sum |alpha A| / sum |A| over tokens. `drift_*` and `corr_*` only with surprisals.
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
    if surprisals_N is not None:
        relative_N = relative_surprisal(surprisals_N, sets_N)
        stats["corr_alpha_relative_surprisal"] = correlation(alphas_N - 1, relative_N)
        stats["drift_base"] = entropy_drift(advantages_N, relative_N)
        stats["drift_added"] = entropy_drift(advantages_N, relative_N, alphas_N - 1)
    values = torch.stack([value.to(torch.float64) for value in stats.values()]).tolist()
    return dict(zip(stats, values, strict=True))


def _mean_where(values_N: Tensor, chosen_N: Tensor) -> Tensor:
    return (values_N * chosen_N).sum() / chosen_N.sum().clamp_min(1)
