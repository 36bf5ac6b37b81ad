"""A small world in which exploration decides the outcome, for many independent training runs at once.

A task is a corridor of doors; the reward is 1 if all are open after the last turn, and nothing is said before. At each
door the policy answers with a *response* of several tokens: first a plan, then the words of that plan. Three plans:

    habit    preferred and fluent at the start; its word is nearly certain, but it opens a door only half of the time
    careful  less preferred, with words that the policy does not know yet; the right ones open the door every time
    dud      never opens anything

Within one state responses thus differ in entropy (a fluent habit, a groping careful plan), which is what modulation
acts on. Whoever settles on the habit early stays below what is possible: that is the part exploration plays. The policy
is a table, so that the entropy of a state, the surprisal of a response and the chance of success are exact, not
estimated.

Axes: W independent worlds (training runs), P tasks, G rollouts a task, R turns, L tokens of a response, D doors,
M plans, K words; S = W * P * D states.
"""

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from aem_harness.harness.types import Record

HABIT, CAREFUL, DUD = range(3)


class WorldConfig(Record):
    """Sizes and difficulty. `opens` is the chance that a plan's right words open the door, `preferred` the plans'
    probability at the start, `known` the logit by which the right word stands out at the start; one value a plan."""

    tasks: int = Field(default=4, gt=0)
    doors: int = Field(default=6, gt=0)
    turns: int = Field(default=10, gt=0)
    group: int = Field(default=8, gt=1)
    words: int = Field(default=4, gt=1)
    lengths: tuple[int, int, int] = (2, 3, 3)
    opens: tuple[float, float, float] = (0.5, 1.0, 0.0)
    preferred: tuple[float, float, float] = (0.6, 0.25, 0.15)
    known: tuple[float, float, float] = (3.0, 1.25, 0.0)
    noise: float = Field(default=0.5, ge=0)

    @property
    def longest(self) -> int:
        return max(self.lengths)


@dataclass
class Tables:
    """The policy: logits of plans (S, M) and of words (S, M, L - 1, K), both trained."""

    plans_S_M: Tensor
    words_S_M_L_K: Tensor

    @property
    def parameters(self) -> list[Tensor]:
        return [self.plans_S_M, self.words_S_M_L_K]


@dataclass(frozen=True)
class Played:
    """What was sampled, B = W * P * G rollouts in that order: the state, plan and words of every turn, and whether it
    was still played (the corridor not yet open)."""

    states_B_R: Tensor
    plans_B_R: Tensor
    words_B_R_L: Tensor
    live_B_R: Tensor
    rewards_B: Tensor


class Worlds:
    """`count` worlds, each with its own right words and warm start, drawn from `seed`."""

    def __init__(self, config: WorldConfig, count: int, seed: int) -> None:
        self.config, self.count = config, count
        random = torch.Generator().manual_seed(seed)
        plans, length = len(config.lengths), config.longest - 1
        states = count * config.tasks * config.doors
        self.right_S_M_L = torch.randint(config.words, (states, plans, length), generator=random)
        noise_S_M = config.noise * torch.randn(states, plans, generator=random)
        self.start_plans = torch.log(torch.tensor(config.preferred)) + noise_S_M
        words = config.noise / 2 * torch.randn(states, plans, length, config.words, generator=random)
        known = torch.tensor(config.known)[None, :, None, None].expand(states, plans, length, 1)
        self.start_words = words.scatter_add(3, self.right_S_M_L[..., None], known)
        self.spoken_M_L = torch.arange(length)[None, :] < torch.tensor(config.lengths)[:, None] - 1
        self.opens_M = torch.tensor(config.opens)

    def start(self) -> Tables:
        """The warm start, a fresh copy."""
        return Tables(self.start_plans.clone().requires_grad_(), self.start_words.clone().requires_grad_())

    @torch.no_grad()
    def play(self, tables: Tables, generator: torch.Generator) -> Played:
        """One batch: every task of every world, `group` times."""
        config = self.config
        rows = self.count * config.tasks * config.group
        first_B = torch.arange(self.count * config.tasks).repeat_interleave(config.group) * config.doors
        plan_cdf = tables.plans_S_M.softmax(-1).cumsum(-1)
        word_cdf = tables.words_S_M_L_K.softmax(-1).cumsum(-1)
        door_B = torch.zeros(rows, dtype=torch.long)
        turns = []
        for _ in range(config.turns):
            live_B = door_B < config.doors
            state_B = first_B + door_B.clamp_max(config.doors - 1)
            draws = torch.rand(rows, config.longest + 1, generator=generator)
            plan_B = _draw(plan_cdf[state_B], draws[:, 0])
            words_B_L = _draw(word_cdf[state_B, plan_B], draws[:, 1:-1])
            right_B = ((words_B_L == self.right_S_M_L[state_B, plan_B]) | ~self.spoken_M_L[plan_B]).all(-1)
            door_B = door_B + (live_B & right_B & (draws[:, -1] < self.opens_M[plan_B]))
            turns.append((state_B, plan_B, words_B_L, live_B))
        states, plans, words, live = (torch.stack(values, dim=1) for values in zip(*turns, strict=True))
        return Played(states, plans, words, live, (door_B >= config.doors).float())

    def score(self, tables: Tables, played: Played) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T) log-probabilities, entropies and loss mask of the batch, T = R * (L + 1): a turn is its response and
        one position of the environment's, which keeps responses apart."""
        log_plans, log_words = tables.plans_S_M.log_softmax(-1), tables.words_S_M_L_K.log_softmax(-1)
        states, plans = played.states_B_R, played.plans_B_R
        spoken = log_words[states, plans].gather(-1, played.words_B_R_L[..., None]).squeeze(-1)
        logprobs = torch.cat([log_plans[states, plans][..., None], spoken], dim=-1)
        plan_entropy, word_entropy = entropy(log_plans), entropy(log_words)
        entropies = torch.cat([plan_entropy[states][..., None], word_entropy[states, plans]], dim=-1)
        said = torch.cat([torch.ones_like(plans, dtype=torch.bool)[..., None], self.spoken_M_L[plans]], dim=-1)
        mask = said & played.live_B_R[..., None]
        return tuple(torch.nn.functional.pad(values, (0, 1)).flatten(1) for values in (logprobs, entropies, mask))  # type: ignore[return-value]

    @torch.no_grad()
    def state_entropy(self, tables: Tables) -> Tensor:
        """(S,) H(s), the exact expected surprisal of a whole response, nats."""
        log_plans, log_words = tables.plans_S_M.log_softmax(-1), tables.words_S_M_L_K.log_softmax(-1)
        after_S_M = (entropy(log_words) * self.spoken_M_L).sum(-1)
        return entropy(log_plans) + (log_plans.exp() * after_S_M).sum(-1)

    @torch.no_grad()
    def success(self, tables: Tables) -> Tensor:
        """(W,) the exact chance that a rollout opens all doors in time, mean over tasks."""
        right_S_M_L = tables.words_S_M_L_K.softmax(-1).gather(-1, self.right_S_M_L[..., None]).squeeze(-1)
        right_S_M = torch.where(self.spoken_M_L, right_S_M_L, torch.ones_like(right_S_M_L)).prod(-1)
        opens_S = (tables.plans_S_M.softmax(-1) * right_S_M * self.opens_M).sum(-1)
        opens_X_D = opens_S.view(-1, self.config.doors)
        at_X_D = torch.zeros(len(opens_X_D), self.config.doors + 1)
        at_X_D[:, 0] = 1.0
        for _ in range(self.config.turns):
            moved_X_D = at_X_D[:, :-1] * opens_X_D
            at_X_D = at_X_D + torch.nn.functional.pad(moved_X_D, (1, 0)) - torch.nn.functional.pad(moved_X_D, (0, 1))
        return at_X_D[:, -1].view(self.count, self.config.tasks).mean(1)


def entropy(log_pi: Tensor) -> Tensor:
    """Entropy of the last axis, nats."""
    return -(log_pi.exp() * log_pi).sum(-1)


def _draw(cdf: Tensor, uniform: Tensor) -> Tensor:
    return (uniform[..., None] > cdf[..., :-1]).sum(-1)
