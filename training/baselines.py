"""Two published relatives of entropy modulation, as one function each: what readers expect AEM to be compared with.

Both change advantages between estimator and loss, as AEM does, with statistics of the policy that sampled and no
gradient through them. Axes: B rollouts, T token positions, N responses of the batch in row-major order.
"""

import torch
from torch import Tensor

from aem_harness.training.aem import response_spans, span_means


@torch.no_grad()
def empg(
    advantages_B: Tensor,
    entropies_B_T: Tensor,
    loss_mask_B_T: Tensor,
    *,
    k: float = 1.0,
    k_future: float = 1.0,
    zeta: float = 0.1,
) -> Tensor:
    """(B, T) advantages of EMPG (arXiv 2509.09265): A * g(H_t) + zeta * f(H_{t+1}), less their mean over responses.

    H is a response's mean token entropy, min-max normalised over the batch; g = exp(-k H) / mean exp(-k H) rescales,
    and f = exp(-k_future H) of the rollout's *next* response rewards actions that lead to clear states. The paper's
    text could not be read here: its abstract speaks of the rescaling and of a bonus for future clarity, and their form
    is taken from how the method is generally described. Inferred: means over responses rather than tokens, the
    normalisation and centring over the batch, no bonus after the last response, and the default numbers.
    """
    spans = response_spans(loss_mask_B_T)
    if not spans.count:
        return torch.zeros_like(entropies_B_T)
    entropy_N = span_means(entropies_B_T, spans)
    spread = entropy_N.max() - entropy_N.min()
    relative_N = (entropy_N - entropy_N.min()) / spread if spread > 0 else torch.zeros_like(entropy_N)
    weights_N = torch.exp(-k * relative_N)
    future_N = torch.zeros_like(relative_N)
    same_rollout_N = spans.rows_N[1:] == spans.rows_N[:-1]
    future_N[:-1] = torch.exp(-k_future * relative_N[1:]) * same_rollout_N
    modified_N = advantages_B[spans.rows_N] * weights_N / weights_N.mean() + zeta * future_N
    modified_N = modified_N - modified_N.mean()
    inside_B_T = spans.ids_B_T >= 0
    result_B_T = torch.zeros_like(entropies_B_T)
    result_B_T[inside_B_T] = modified_N.to(result_B_T.dtype)[spans.ids_B_T[inside_B_T]]
    return result_B_T


@torch.no_grad()
def repo_r(advantages_B: Tensor, logprobs_B_T: Tensor, loss_mask_B_T: Tensor, *, zeta: float = 0.1) -> Tensor:
    """(B, T) advantages of REPO-R (arXiv 2603.11682, appendix D.2): positive ones times 1 - zeta log pi, negative ones
    times 1 + zeta log pi, neither allowed to change its sign.

    Rare tokens (log pi far below 0) are reinforced more and punished less. Documented, in SkyRL's example of the
    method: both factors and the clamping of signs. Inferred: the default of zeta; its adaptive controller is left out.
    """
    advantages_B_1 = advantages_B[:, None]
    positive_B_T = (advantages_B_1 * (1 - zeta * logprobs_B_T)).clamp_min(0.0)
    negative_B_T = (advantages_B_1 * (1 + zeta * logprobs_B_T)).clamp_max(0.0)
    chosen_B_T = torch.where(advantages_B_1 > 0, positive_B_T, negative_B_T)
    return torch.where(loss_mask_B_T.bool(), chosen_B_T, torch.zeros_like(chosen_B_T))
