"""The clipped policy-gradient loss of GRPO and its descendants; which ratio, clip and mean is configuration.

    loss = - aggregate( min(rho * A, clip(rho, 1 - low, 1 + high) * A) ) + kl * aggregate(k3) - entropy * mean_token h

It does not know how the advantages came about: (B, T) advantages of any estimator, modulated or not.
Axes: B rollouts, T token positions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from aem_harness.harness.errors import ConfigError
from aem_harness.harness.types import Record


class LossConfig(Record):
    """`ratio` "token": rho_t = pi_t / pi_old_t. "sequence": GSPO's token form, s_i * pi_t / sg(pi_t) with
    s_i = exp(mean_t log rho_t), whose value is s_i and whose gradient keeps token-wise advantages apart.

    `mean` "rollout": mean over a rollout's tokens, then over rollouts (GRPO). "token": over all tokens of the batch
    (DAPO). "constant": token sum / `length_norm`, then over rollouts, those without any trained token included
    (Dr.GRPO, GRPO++). `entropy` is the coefficient of the bonus, a mean over tokens whatever `mean` says (TRL's
    convention); `kl` that of the k3 estimate of KL(pi || reference).
    """

    ratio: Literal["token", "sequence"] = "token"
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    clip_high: float = Field(default=0.2, gt=0)
    mean: Literal["rollout", "token", "constant"] = "rollout"
    length_norm: float | None = Field(default=None, gt=0)
    kl: float = Field(default=0.0, ge=0)
    entropy: float = Field(default=0.0, ge=0)


@dataclass(frozen=True)
class Loss:
    value: Tensor
    stats: Mapping[str, Tensor]


def policy_loss(
    logprobs_B_T: Tensor,
    old_logprobs_B_T: Tensor,
    advantages_B_T: Tensor,
    mask_B_T: Tensor,
    config: LossConfig,
    *,
    reference_logprobs_B_T: Tensor | None = None,
    entropies_B_T: Tensor | None = None,
) -> Loss:
    """The loss of one batch as a scalar with gradient.

    Args:
        logprobs_B_T: log pi of the sampled tokens under the weights being trained, with gradient.
        old_logprobs_B_T: the same under the weights that sampled.
        advantages_B_T: (B, T) or (B, 1).
        mask_B_T: 1 on the tokens that count.
        entropies_B_T: token entropies with gradient; needed for the bonus.

    Raises:
        ConfigError: a term's input is missing, or "constant" has no `length_norm`.
    """
    mask_B_T = mask_B_T.to(logprobs_B_T.dtype)
    log_ratio_B_T = (logprobs_B_T - old_logprobs_B_T) * mask_B_T
    if config.ratio == "sequence":
        sequence_B_1 = log_ratio_B_T.sum(1, keepdim=True) / mask_B_T.sum(1, keepdim=True).clamp_min(1)
        log_ratio_B_T = sequence_B_1.detach() + logprobs_B_T - logprobs_B_T.detach()
    ratio_B_T = log_ratio_B_T.exp()
    clipped_B_T = ratio_B_T.clamp(1 - config.clip_low, 1 + config.clip_high)
    objective_B_T = torch.minimum(ratio_B_T * advantages_B_T, clipped_B_T * advantages_B_T)
    loss = -aggregate(objective_B_T, mask_B_T, config)
    cut_B_T = (ratio_B_T * advantages_B_T > clipped_B_T * advantages_B_T).to(mask_B_T.dtype)
    stats = {"clip_fraction": token_mean(cut_B_T, mask_B_T)}
    if config.kl:
        if reference_logprobs_B_T is None:
            raise ConfigError("a KL term needs the reference policy's log-probabilities")
        away_B_T = (reference_logprobs_B_T - logprobs_B_T) * mask_B_T
        divergence = aggregate(away_B_T.exp() - away_B_T - 1, mask_B_T, config)
        loss = loss + config.kl * divergence
        stats["kl"] = divergence.detach()
    if config.entropy:
        if entropies_B_T is None:
            raise ConfigError("an entropy bonus needs the current token entropies")
        loss = loss - config.entropy * token_mean(entropies_B_T, mask_B_T)
    return Loss(loss, {name: value.detach() for name, value in stats.items()})


def aggregate(values_B_T: Tensor, mask_B_T: Tensor, config: LossConfig) -> Tensor:
    """The one number that `config.mean` makes of token values; see LossConfig."""
    if config.mean == "token":
        return token_mean(values_B_T, mask_B_T)
    sums_B = (values_B_T * mask_B_T).sum(1)
    if config.mean == "rollout":
        return (sums_B / mask_B_T.sum(1).clamp_min(1)).mean()
    if config.length_norm is None:
        raise ConfigError("mean 'constant' needs length_norm, the number of tokens that a rollout's sum is divided by")
    return (sums_B / config.length_norm).mean()


def token_mean(values_B_T: Tensor, mask_B_T: Tensor) -> Tensor:
    return (values_B_T * mask_B_T).sum() / mask_B_T.sum().clamp_min(1)


def logprobs_and_entropies(
    logits_B_T_V: Tensor, targets_B_T: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """(B, T) log pi(target) and (B, T) token entropy, nats, both of the distribution that sampling used.

    A token that is ruled out by a logit of minus infinity adds nothing to the entropy (0 log 0 = 0).
    """
    log_pi = torch.log_softmax(logits_B_T_V.float() / temperature, dim=-1)
    chosen_B_T = log_pi.gather(-1, targets_B_T[..., None]).squeeze(-1)
    finite = log_pi.masked_fill(log_pi == -torch.inf, 0.0)
    return chosen_B_T, -(log_pi.exp() * finite).sum(-1)
