"""Episodes played by a policy, many at once, and as the tensors that training reads.

Axes: B rollouts, T positions. Position t of the tensors is the prediction of id t + 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from aem_harness.agents.templates import Prompts
from aem_harness.training.environment import Episode
from aem_harness.training.model import Cache, Model, continue_rows
from aem_harness.training.tasks import BugFix
from aem_harness.training.tokenizer import Chat


@dataclass
class Rollout:
    """The conversation as ids; `sampled` is 1 where the policy chose the id (its end tokens included)."""

    episode: Episode
    ids: list[int] = field(default_factory=list)
    sampled: list[int] = field(default_factory=list)

    def add(self, ids: Sequence[int], *, sampled: bool) -> None:
        self.ids += ids
        self.sampled += [int(sampled)] * len(ids)


@dataclass(frozen=True)
class EpisodeLimits:
    """Of one rollout: replies, ids in one reply, ids in the whole conversation."""

    steps: int = 8
    reply: int = 40
    context: int = 384


@torch.no_grad()
def play(
    model: Model,
    chat: Chat,
    tasks: Sequence[BugFix],
    prompts: Prompts,
    *,
    limits: EpisodeLimits,
    temperature: float,
    generator: torch.Generator | None = None,
) -> list[Rollout]:
    """One rollout per task (repeat a task for a group), all turns batched over the rollouts still going."""
    rollouts = [Rollout(Episode(task, prompts, limits.steps)) for task in tasks]
    cache = Cache(model.config, len(rollouts))
    live = list(range(len(rollouts)))
    unread = [chat.prompt(rollouts[row].episode.messages) for row in live]
    for row, ids in zip(live, unread, strict=True):
        rollouts[row].add(ids, sampled=False)
    while live:
        room = [min(limits.reply, limits.context - len(rollouts[row].ids)) for row in live]
        replies = continue_rows(
            model, cache, unread, end=chat.end, room_B=room, temperature=temperature, generator=generator
        )
        kept, unread = [], []
        for place, (row, reply) in enumerate(zip(live, replies, strict=True)):
            rollout = rollouts[row]
            rollout.add(reply, sampled=True)
            observation = rollout.episode.reply(chat.reply(reply))
            if observation is None:
                continue
            closing = [] if reply[-1] == chat.end else [chat.end]  # a reply that ran out of room
            next_ids = closing + chat.answer(observation)
            if len(rollout.ids) + len(next_ids) >= limits.context:
                rollout.episode.cut("no room for the observation")
                continue
            rollout.add(next_ids, sampled=False)
            kept.append(place)
            unread.append([reply[-1], *next_ids])
        live = [live[place] for place in kept]
        if live:
            cache.keep(torch.tensor(kept))
    return rollouts


def demonstrated(episode: Episode, chat: Chat) -> Rollout:
    """A finished episode as a rollout whose replies count as the policy's own."""
    rollout = Rollout(episode)
    for message in episode.messages:
        ids = chat.message(message["role"], message["content"])
        if message["role"] == "assistant":
            rollout.add(ids[:1], sampled=False)
            rollout.add(ids[1:], sampled=True)
        else:
            rollout.add(ids, sampled=False)
    return rollout


def tensors(rollouts: Sequence[Rollout], pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, T) ids to read, (B, T) ids to predict, (B, T) loss mask: 1 where the predicted id was the policy's choice."""
    width = max(len(rollout.ids) for rollout in rollouts)
    ids = torch.tensor([rollout.ids + [pad] * (width - len(rollout.ids)) for rollout in rollouts])
    mask = torch.tensor([rollout.sampled + [0] * (width - len(rollout.sampled)) for rollout in rollouts])
    return ids[:, :-1], ids[:, 1:], mask[:, 1:]
