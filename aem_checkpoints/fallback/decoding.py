"""Tokens from a causal language model of `transformers`: many requests in one batch, each with its own sampling.

Axes: B requests under way, V the vocabulary. Prompts are padded on the left; a request that ends leaves the batch.
Log-probabilities are those of the raw distribution, before temperature and cuts, as vLLM reports them by default.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ask:
    """One request. `ids` is the prompt; `top_k` 0, `top_p` 1 and `min_p` 0 cut nothing; temperature 0 is greedy.

    `listed` is how many top log-probabilities of each token are wanted; None for none at all.
    """

    ids: tuple[int, ...]
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    listed: int | None = None


@dataclass
class Decoded:
    """What came of it: sampled ids (an end token included), their log-probabilities (nats), and the top ones each."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top: list[list[tuple[int, float]]] = field(default_factory=list)
    finish_reason: str = "length"
    stop_reason: str | None = None  # the stop string that ended it, as vLLM names it; None for an end token
    text: str = ""
    queue_seconds: float = 0.0


@torch.inference_mode()
def answer(model: Any, tokenizer: Any, ends: frozenset[int], asks: Sequence[Ask]) -> list[Decoded]:
    """Decode all `asks` together until each has ended: by one of `ends`, a stop string, or its `max_tokens`.

    The same request with the same seed gives the same answer, up to what the batch around it does to floating-point
    sums.
    """
    answers = [Decoded() for _ in asks]
    draws = [random.Random(ask.seed) for ask in asks]
    live = list(range(len(asks)))
    width = max(len(ask.ids) for ask in asks)
    ids = torch.tensor([[0] * (width - len(ask.ids)) + list(ask.ids) for ask in asks], device=model.device)
    mask = torch.tensor(
        [[0] * (width - len(ask.ids)) + [1] * len(ask.ids) for ask in asks], dtype=torch.long, device=model.device
    )
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = None
    while True:
        out = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache, logits_B_V = out.past_key_values, out.logits[:, -1].float()
        running = [asks[row] for row in live]
        chosen_B = choose(logits_B_V, running, [draws[row].random() for row in live])
        _record(logits_B_V, chosen_B, running, [answers[row] for row in live])
        going = [place for place, row in enumerate(live) if not _ended(answers[row], asks[row], tokenizer, ends)]
        if not going:
            return answers
        if len(going) < len(live):
            kept = torch.tensor(going, device=model.device)
            cache.batch_select_indices(kept)
            chosen_B, mask, positions = chosen_B[kept], mask[kept], positions[kept]
            live = [live[place] for place in going]
        ids, positions = chosen_B[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=-1)


def choose(logits_B_V: Tensor, asks: Sequence[Ask], draws: Sequence[float]) -> Tensor:
    """(B,) ids by inverting each row's distribution function at its draw in [0, 1); the likeliest at temperature 0."""
    temperatures_B = logits_B_V.new_tensor([ask.temperature for ask in asks])
    scaled_B_V = logits_B_V / temperatures_B.clamp(min=1e-5)[:, None]
    for row, ask in enumerate(asks):
        if ask.top_k or ask.top_p < 1 or ask.min_p:
            scaled_B_V[row] = _cut(scaled_B_V[row], ask)
    sums_B_V = scaled_B_V.double().softmax(-1).cumsum(-1)
    points_B = torch.tensor(draws, dtype=torch.double, device=sums_B_V.device)[:, None] * sums_B_V[:, -1:]
    drawn_B = torch.searchsorted(sums_B_V, points_B, right=True)[:, 0].clamp(max=logits_B_V.shape[-1] - 1)
    return torch.where(temperatures_B == 0, logits_B_V.argmax(-1), drawn_B)


def _cut(logits_V: Tensor, ask: Ask) -> Tensor:
    """Minus infinity for what top-k, then min-p and top-p (the fewest tokens that reach it) leave out."""
    if ask.top_k:
        least = logits_V.topk(min(ask.top_k, len(logits_V))).values[-1]
        logits_V = logits_V.masked_fill(logits_V < least, -torch.inf)
    probabilities_V = logits_V.softmax(-1)
    if ask.min_p:
        logits_V = logits_V.masked_fill(probabilities_V < ask.min_p * probabilities_V.max(), -torch.inf)
    if ask.top_p < 1:
        ordered_V, order_V = logits_V.softmax(-1).sort(descending=True)
        beyond_V = ordered_V.cumsum(-1) - ordered_V >= ask.top_p
        beyond_V[0] = False
        logits_V = logits_V.index_fill(0, order_V[beyond_V], -torch.inf)
    return logits_V


def _record(logits_B_V: Tensor, chosen_B: Tensor, asks: Sequence[Ask], answers: Sequence[Decoded]) -> None:
    ids = chosen_B.tolist()
    for reply, token in zip(answers, ids, strict=True):
        reply.ids.append(token)
    if all(ask.listed is None for ask in asks):
        return
    logprobs_B_V = logits_B_V.log_softmax(-1)
    sampled = logprobs_B_V.gather(-1, chosen_B[:, None])[:, 0].tolist()
    most = min(max(ask.listed or 0 for ask in asks), logprobs_B_V.shape[-1])
    values, indices = (found.tolist() for found in logprobs_B_V.topk(most))
    for row, (ask, reply) in enumerate(zip(asks, answers, strict=True)):
        if ask.listed is not None:
            reply.logprobs.append(sampled[row])
            reply.top.append(list(zip(indices[row], values[row], strict=True))[: ask.listed])


def _ended(reply: Decoded, ask: Ask, tokenizer: Any, ends: frozenset[int]) -> bool:
    """Whether the reply has ended; its text and the reason are set then. A stop string is left out of the text."""
    ended, full = reply.ids[-1] in ends, len(reply.ids) >= ask.max_tokens
    if ended or full or ask.stop:
        reply.text = tokenizer.decode(reply.ids, skip_special_tokens=True)
        if found := [(at, stop) for stop in ask.stop if (at := reply.text.find(stop)) >= 0]:
            at, reply.stop_reason = min(found)
            reply.text, ended = reply.text[:at], True
    if ended:
        reply.finish_reason = "stop"
    return ended or full
