"""Adaptive Entropy Modulation (arXiv 2605.00425): one coefficient per response, from the policy's own entropy.

The unit is the *response*: the span of model tokens between two reactions of the environment. Let g be all N
responses of all rollouts of one prompt. With the token entropies of the old policy (nats, at sampling temperature):

    Hbar_k   = mean of the token entropies of response k                       length-normalised entropy
    Htilde_k = (Hbar_k - min_g Hbar) / (max_g Hbar - min_g Hbar)               relative to the prompt's rollouts
    alpha_k  = exp(-lam * Htilde_k) / mean_g exp(-lam * Htilde)                self-calibrated: mean_g alpha = 1
    alpha_k  = 1 for the whole group when max_g Hbar - min_g Hbar < min_range  the gate, in nats
    A_k      <- alpha_k * A_k                                                  for every token of response k

Confident responses (low entropy) learn faster, uncertain ones slower. alpha is a constant of the update: no gradient
flows through it. It follows that alpha > 0, so no advantage changes its sign and zero stays zero (a group whose
rewards are all equal gains nothing); that max alpha / min alpha = e^|lam| exactly while the gate is open; and that the
group sum of the advantages is not preserved. alpha = N * softmax(-lam * Htilde) over the group.

Axes: B rollouts, T token positions, N responses of the batch in row-major order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from aem_harness.harness.errors import DataError
from aem_harness.harness.types import Record
from aem_harness.training import diagnostics


class AemConfig(Record):
    """The method's two numbers, and the variants that its ablations need.

    `direction` "reversed" uses -lam; `shuffle_seed` deals each set's alphas out at random within the set; `scope` is
    the set that minimum, maximum and mean run over (the method: "group", all responses of one prompt's rollouts);
    `signal` "surprisal" replaces token entropies by the sampled tokens' -log pi_old, for engines that return nothing
    else.
    """

    lam: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    min_range: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    direction: Literal["normal", "reversed"] = "normal"
    shuffle_seed: int | None = None
    scope: Literal["group", "trajectory", "batch"] = "group"
    signal: Literal["entropy", "surprisal"] = "entropy"


@dataclass(frozen=True)
class Spans:
    """The responses of a batch: `ids_B_T` numbers them from 0 in row-major order (-1 outside), `rows_N` says whose."""

    ids_B_T: Tensor
    rows_N: Tensor
    lengths_N: Tensor

    @property
    def count(self) -> int:
        return self.rows_N.numel()


@dataclass(frozen=True)
class Modulation:
    """`advantages_B_T` are zero outside the loss mask; `alphas_B_T` are one outside the responses that count."""

    advantages_B_T: Tensor
    alphas_B_T: Tensor
    alphas_N: Tensor
    spans: Spans
    stats: Mapping[str, float]


@torch.no_grad()
def response_alphas(
    entropies: Tensor | Sequence[float] | np.ndarray,
    group_ids: Tensor | Sequence[Any] | np.ndarray,
    lam: float = 1.0,
    min_range: float = 0.1,
) -> Tensor:
    """The coefficient of every response, from its mean entropy and the group it belongs to.

    Args:
        entropies: (N,) mean token entropy per response, nats. Sequences are read in double precision.
        group_ids: (N,) any labels, in any order; equal label = same rollout group.
        lam: strength; negative reverses the method, 0 gives ones.
        min_range: a group whose max - min is strictly below this (nats) gets ones; so do groups of one, and groups
            without any spread when it is 0.

    Returns:
        (N,) alphas on the device of `entropies`, without gradient, at least in single precision.

    Raises:
        DataError: lengths differ, or an entropy is not finite (a policy that gives NaN must not train on silently).
    """
    values_N, groups_N = _as_values(entropies), _as_groups(group_ids)
    if values_N.shape != groups_N.shape or values_N.dim() != 1:
        raise DataError(
            f"need one group id per response: {tuple(values_N.shape)} entropies, {tuple(groups_N.shape)} group ids"
        )
    if values_N.numel() == 0:
        return values_N
    finite_N = torch.isfinite(values_N)
    if not finite_N.all():
        first = int((~finite_N).nonzero()[0])
        raise DataError(f"entropy of response {first} is {float(values_N[first])}: the policy's logits are not finite")
    groups_N = groups_N.to(values_N.device)
    low_N = group_reduce(values_N, groups_N, "amin")
    spread_N = group_reduce(values_N, groups_N, "amax") - low_N
    open_N = (spread_N >= min_range) & (spread_N > 0)
    relative_N = (values_N - low_N) / torch.where(open_N, spread_N, torch.ones_like(spread_N))
    # The largest exponent of every open group is max(0, -lam); taking it out keeps exp finite for any lam.
    weights_N = torch.exp(-lam * relative_N - max(0.0, -lam))
    alphas_N = weights_N / group_reduce(weights_N, groups_N, "mean")
    return torch.where(open_N, alphas_N, torch.ones_like(alphas_N))


def response_spans(loss_mask_B_T: Tensor) -> Spans:
    """Cut the loss mask into responses: the maximal runs of non-zero positions within a row.

    Give the mask as the rollout made it, before any filter: a token masked out later would split its response in two.
    """
    mask_B_T = loss_mask_B_T.bool()
    before_B_T = torch.nn.functional.pad(mask_B_T[:, :-1], (1, 0), value=False)
    starts_B_T = mask_B_T & ~before_B_T
    ids_B_T = torch.where(mask_B_T, starts_B_T.flatten().cumsum(0).view_as(mask_B_T) - 1, -1)
    rows_N = starts_B_T.nonzero()[:, 0]
    return Spans(ids_B_T, rows_N, torch.bincount(ids_B_T[mask_B_T], minlength=rows_N.numel()))


def span_means(values_B_T: Tensor, spans: Spans) -> Tensor:
    """(N,) mean of `values_B_T` over the tokens of each response; what stands outside, NaN included, is not read."""
    inside_B_T = spans.ids_B_T >= 0
    values = values_B_T[inside_B_T].to(torch.promote_types(values_B_T.dtype, torch.float32))
    sums_N = values.new_zeros(spans.count).index_add(0, spans.ids_B_T[inside_B_T], values)
    return sums_N / spans.lengths_N


@torch.no_grad()
def modulate(
    advantages: Tensor,
    entropies_B_T: Tensor,
    loss_mask_B_T: Tensor,
    group_ids_B: Tensor | Sequence[Any] | np.ndarray,
    config: AemConfig | None = None,
    *,
    kept_B: Tensor | None = None,
    logprobs_B_T: Tensor | None = None,
) -> Modulation:
    """Multiply the advantages of every response by its alpha. Plugs in between advantage estimator and loss.

    Args:
        advantages: (B,) or (B, T), from any estimator.
        entropies_B_T: token entropies of the policy that sampled (or its recomputation), nats, sampling temperature.
        loss_mask_B_T: 1 on the model's tokens (end-of-turn included), 0 on prompt, observation and padding.
        group_ids_B: which prompt each rollout belongs to.
        config: the method's numbers and variant.
        kept_B: False for rollouts that the loss leaves out (overlong, filtered): their responses stay out of minimum,
            maximum and mean, and their alphas are 1.
        logprobs_B_T: log pi_old of the sampled tokens: needed for signal "surprisal", and for the surprisal statistics.

    Several updates on one batch use the same result: alpha belongs to the old policy.
    """
    config = config or AemConfig()
    rows, width = loss_mask_B_T.shape
    if entropies_B_T.shape != loss_mask_B_T.shape or advantages.shape not in ((rows,), (rows, width)):
        raise DataError(
            f"shapes disagree: advantages {tuple(advantages.shape)}, entropies {tuple(entropies_B_T.shape)}, "
            f"loss mask {tuple(loss_mask_B_T.shape)}"
        )
    groups_B = _as_groups(group_ids_B).to(loss_mask_B_T.device)
    if groups_B.shape != (rows,):
        raise DataError(f"need one group id per rollout: {rows} rollouts, {groups_B.numel()} group ids")
    if config.signal == "surprisal" and logprobs_B_T is None:
        raise DataError("signal 'surprisal' needs the log-probabilities of the sampled tokens")

    spans = response_spans(loss_mask_B_T)
    signal_B_T = entropies_B_T if config.signal == "entropy" or logprobs_B_T is None else -logprobs_B_T
    signal_N = span_means(signal_B_T, spans)
    counted_N = torch.ones_like(spans.rows_N, dtype=torch.bool) if kept_B is None else kept_B.bool()[spans.rows_N]
    sets_N = _normalisation_sets(config.scope, spans.rows_N, groups_B)

    lam = -config.lam if config.direction == "reversed" else config.lam
    counted_alphas = response_alphas(signal_N[counted_N], sets_N[counted_N], lam, config.min_range)
    if config.shuffle_seed is not None:
        counted_alphas = shuffle_within(counted_alphas, sets_N[counted_N], config.shuffle_seed)
    alphas_N = torch.ones_like(signal_N)
    alphas_N[counted_N] = counted_alphas.to(alphas_N.dtype)

    inside_B_T = spans.ids_B_T >= 0
    alphas_B_T = torch.ones_like(entropies_B_T, dtype=alphas_N.dtype)
    alphas_B_T[inside_B_T] = alphas_N[spans.ids_B_T[inside_B_T]]
    advantages = advantages.to(torch.promote_types(advantages.dtype, torch.float32))  # whole numbers would cut alphas
    base_B_T = advantages[:, None].expand(rows, width) if advantages.dim() == 1 else advantages
    base_B_T = torch.where(inside_B_T, base_B_T, torch.zeros_like(base_B_T))
    result = Modulation(
        advantages_B_T=base_B_T * alphas_B_T.to(base_B_T.dtype),
        alphas_B_T=alphas_B_T,
        alphas_N=alphas_N,
        spans=spans,
        stats=diagnostics.describe(
            alphas_N=alphas_N[counted_N],
            signal_N=signal_N[counted_N],
            sets_N=sets_N[counted_N],
            advantages_N=span_means(base_B_T, spans)[counted_N],
            lengths_N=spans.lengths_N[counted_N],
            min_range=config.min_range,
        ),
    )
    if logprobs_B_T is None:
        return result
    chosen_N = counted_N & opening_responses(spans)
    known = of_states(result, logprobs_B_T, base_B_T, groups_B[spans.rows_N], chosen_N)
    return replace(result, stats={**result.stats, **known})


def of_states(
    modulation: Modulation,
    logprobs_B_T: Tensor,
    advantages_B: Tensor,
    states_N: Tensor,
    counted_N: Tensor | None = None,
) -> dict[str, float]:
    """`diagnostics.per_state` for responses whose states are known: `states_N` labels them, `advantages_B` are (B,) or
    (B, T) before modulation, and responses outside `counted_N` stay out."""
    spans = modulation.spans
    counted_N = torch.ones_like(spans.rows_N, dtype=torch.bool) if counted_N is None else counted_N
    advantages_N = (advantages_B[spans.rows_N] if advantages_B.dim() == 1 else span_means(advantages_B, spans)).to(
        modulation.alphas_N.dtype
    )
    return diagnostics.per_state(
        alphas_N=modulation.alphas_N[counted_N],
        surprisals_N=(span_means(-logprobs_B_T, spans) * spans.lengths_N)[counted_N],
        advantages_N=advantages_N[counted_N],
        states_N=states_N[counted_N],
        out_of=spans.count,
    )


def opening_responses(spans: Spans) -> Tensor:
    """(N,) which responses are the first of their rollout: those of a group answer one prompt, so share a state."""
    first_N = torch.ones_like(spans.rows_N, dtype=torch.bool)
    first_N[1:] = spans.rows_N[1:] != spans.rows_N[:-1]
    return first_N


def shuffle_within(values_N: Tensor, groups_N: Tensor, seed: int) -> Tensor:
    """The values dealt out at random among the members of each group (the "shuffled" ablation)."""
    keys_N = torch.rand(values_N.numel(), generator=torch.Generator().manual_seed(seed)).to(values_N.device)
    by_group_N = torch.argsort(groups_N, stable=True)
    random_order_N = torch.argsort(keys_N)
    by_group_shuffled_N = random_order_N[torch.argsort(groups_N[random_order_N], stable=True)]
    shuffled_N = torch.empty_like(values_N)
    shuffled_N[by_group_N] = values_N[by_group_shuffled_N]
    return shuffled_N


def group_reduce(values_N: Tensor, groups_N: Tensor, how: Literal["amin", "amax", "mean", "sum"]) -> Tensor:
    """(N,) the reduction over each element's group, handed back to every element of it."""
    labels_N = torch.unique(groups_N, return_inverse=True)[1]
    count = int(labels_N.max()) + 1 if labels_N.numel() else 0
    reduced = values_N.new_zeros(count).scatter_reduce(0, labels_N, values_N, how, include_self=False)
    return reduced[labels_N]


def _normalisation_sets(scope: str, rows_N: Tensor, groups_B: Tensor) -> Tensor:
    if scope == "trajectory":
        return rows_N
    return groups_B[rows_N] if scope == "group" else torch.zeros_like(rows_N)


def _as_values(values: Tensor | Sequence[float] | np.ndarray) -> Tensor:
    if not isinstance(values, Tensor):
        return torch.as_tensor(np.asarray(values, dtype=np.float64))
    return values.detach().to(torch.promote_types(values.dtype, torch.float32))


def _as_groups(group_ids: Tensor | Sequence[Any] | np.ndarray) -> Tensor:
    if isinstance(group_ids, Tensor):
        return group_ids
    return torch.as_tensor(np.unique(np.asarray(group_ids), return_inverse=True)[1])
