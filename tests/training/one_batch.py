"""One batch that every engine gets, and what comes out: two prompts, two rollouts each, spans of known entropy.

The first group's responses have the mean entropies 0.2, 0.8, 1.5, 0.4, whose alphas are worked out by hand; the second
group's range is below the gate. Between responses stand tokens of the environment, whose entropies must not matter.
"""

import math
from dataclasses import dataclass

import torch

SPANS = (((0.2, 3), (0.8, 2)), ((1.5, 1), (0.4, 2)), ((0.50, 2), (0.55, 2)), ((0.52, 4),))
ALPHAS = (1.4008, 0.8829, 0.5153, 1.2010, 1.0, 1.0, 1.0)
WIDTH, GAP = 9, 2


@dataclass(frozen=True)
class SharedBatch:
    rewards_B: torch.Tensor
    advantages_B: torch.Tensor
    entropies_B_T: torch.Tensor
    logprobs_B_T: torch.Tensor
    mask_B_T: torch.Tensor
    groups: tuple[str, ...]
    lengths: tuple[int, ...]


def shared_batch() -> SharedBatch:
    entropies, mask, lengths = torch.full((len(SPANS), WIDTH), 7.0), torch.zeros(len(SPANS), WIDTH), []
    for row, spans in enumerate(SPANS):
        at = 0
        for mean, length in spans:
            wobble = torch.linspace(-0.1, 0.1, length) if length > 1 else torch.zeros(1)
            entropies[row, at : at + length] = mean + wobble
            mask[row, at : at + length] = 1
            at += length + GAP
        lengths.append(at - GAP)
    advantages = torch.tensor([1.0, -1.0, 0.5, -0.5])
    logprobs = -torch.rand(entropies.shape, generator=torch.Generator().manual_seed(1))
    rewards = torch.tensor([1.0, 0.0, 1.0, 0.0])
    return SharedBatch(rewards, advantages, entropies, logprobs, mask, ("a", "a", "b", "b"), tuple(lengths))


def alphas_of(advantages_B_T: torch.Tensor, batch: SharedBatch) -> list[float]:
    """The factor on every response's advantage; fails unless it is one number over all of a response's tokens."""
    found = []
    for row, spans in enumerate(SPANS):
        at = 0
        for _, length in spans:
            ratios = (advantages_B_T[row, at : at + length] / batch.advantages_B[row]).tolist()
            assert all(math.isclose(ratio, ratios[0], rel_tol=1e-6) for ratio in ratios)
            found.append(ratios[0])
            at += length + GAP
    return found
