"""Rewards of the rollouts of a prompt -> one advantage per rollout.

Rewards may be whole numbers or truth values; they are read as floats of at least single precision. A group whose
rewards are all equal gets exactly 0: the rounding of its mean must not be divided by an almost vanishing deviation.

Axes: B rollouts; `group_ids_B` says which prompt a rollout belongs to (any order, any labels).
"""

import torch
from torch import Tensor

from aem_harness.training.aem import group_reduce


def group_normalised(rewards_B: Tensor, group_ids_B: Tensor, *, eps: float = 1e-6) -> Tensor:
    """GRPO (arXiv 2402.03300): (r - mean_g r) / (std_g r + eps), unbiased std, as in verl 0.9.1 and TRL 1.16.0.

    A group of one has nothing to compare with and gets 0 (verl hands it its raw reward).
    """
    rewards_B = as_floats(rewards_B)
    deviation_B = _deviation(rewards_B, group_ids_B)
    size_B = group_sizes(group_ids_B).to(rewards_B.dtype)
    variance_B = group_reduce(deviation_B**2, group_ids_B, "sum") / (size_B - 1).clamp_min(1)
    return deviation_B / (variance_B.sqrt() + eps)


def leave_one_out(rewards_B: Tensor, group_ids_B: Tensor) -> Tensor:
    """RLOO's baseline, GRPO++'s advantage: r_i - mean of the others = G / (G - 1) * (r_i - mean_g r); alone: 0."""
    rewards_B = as_floats(rewards_B)
    size_B = group_sizes(group_ids_B).to(rewards_B.dtype)
    deviation_B = _deviation(rewards_B, group_ids_B)
    return deviation_B * size_B / (size_B - 1).clamp_min(1)


def informative(rewards_B: Tensor, group_ids_B: Tensor) -> Tensor:
    """(B,) bool, DAPO's dynamic sampling: False where all rewards of the group are equal, so no gradient can come."""
    rewards_B = as_floats(rewards_B)
    low_B, high_B = (group_reduce(rewards_B, group_ids_B, how) for how in ("amin", "amax"))
    rounding_B = 4 * torch.finfo(rewards_B.dtype).eps * torch.maximum(low_B.abs(), high_B.abs())
    return high_B - low_B > rounding_B


def overlong_penalty(lengths_B: Tensor, *, max_length: int, cache: int) -> Tensor:
    """DAPO's soft punishment (arXiv 2503.14476, eq. 13), added to the reward.

    0 up to `max_length - cache` tokens, then linearly down to -1 at `max_length`, -1 beyond. Lengths in tokens;
    `max_length` is a setting of the run (the context, say), never a property of the batch, so that the same rollout is
    punished the same in every batch.
    """
    return ((max_length - cache - lengths_B) / cache).clamp(-1.0, 0.0)


def as_floats(values: Tensor) -> Tensor:
    """The values in at least single precision; integers and truth values would be cut or refused in a mean."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _deviation(rewards_B: Tensor, group_ids_B: Tensor) -> Tensor:
    """r - mean_g r; exactly 0 in a group without any difference."""
    deviation_B = rewards_B - group_reduce(rewards_B, group_ids_B, "mean")
    return torch.where(informative(rewards_B, group_ids_B), deviation_B, torch.zeros_like(deviation_B))


def group_sizes(group_ids_B: Tensor) -> Tensor:
    labels_B, counts = torch.unique(group_ids_B, return_inverse=True, return_counts=True)[1:]
    return counts[labels_B]
