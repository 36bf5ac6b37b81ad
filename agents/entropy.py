"""Entropy of a next-token distribution of which a server reveals only the most likely tokens. Nats throughout."""

import math
from collections.abc import Sequence
from typing import NamedTuple


class EntropyBounds(NamedTuple):
    """The entropy lies between `lower` and `upper`; `upper` is infinite where the vocabulary's size is unknown."""

    lower: float
    upper: float


def entropy_bounds(listed: Sequence[float], *, cap: float, vocabulary: int = 0) -> EntropyBounds:
    """Bounds on H = -sum p ln p from the log-probabilities `listed` of some distinct tokens.

    With r = 1 - sum p over the listed tokens, H_listed = -sum p ln p over them, and `cap` a log-probability that no
    unlisted token exceeds:

    - lower: every unlisted token has q <= m = min(exp(cap), r), so its share of the entropy, -q ln q, is at least
      -q ln m: H >= H_listed - r ln m;
    - upper: the entropy of the rest is largest where it is spread evenly over the V - k unlisted tokens:
      H <= H_listed + r ln((V - k) / r).

    `vocabulary` is V, 0 for unknown. Log-probabilities of servers are rounded; r is taken as 0 where it is negative.
    """
    probabilities = [math.exp(value) for value in listed]
    seen = -sum(p * value for p, value in zip(probabilities, listed, strict=True) if p > 0)
    rest = max(0.0, 1.0 - math.fsum(probabilities))
    unlisted = vocabulary - len(listed)
    if rest == 0 or (vocabulary and unlisted <= 0):
        return EntropyBounds(seen, seen)
    lower = seen - rest * min(cap, math.log(rest))
    upper = seen + rest * math.log(unlisted / rest) if vocabulary else math.inf
    return EntropyBounds(lower, max(lower, upper))


def token_entropy(sampled: float, top: Sequence[float], *, vocabulary: int = 0) -> float:
    """One number for a token: the midpoint of the bounds where V is known, the lower bound where it is not.

    `top` are the log-probabilities that a server lists (vLLM and OpenAI: `top_logprobs`), with or without the
    sampled token. vLLM lists the sampled token first, in the place of the last of the top k when it is not among
    them, so the smallest entry need not bound the unlisted ones: if it is the sampled one, the next smallest does.
    """
    among = sampled in top or any(math.isclose(value, sampled) for value in top)
    listed = sorted(top if among else [*top, sampled], reverse=True)
    if not listed:
        return 0.0
    sampled_is_last = len(listed) > 1 and math.isclose(listed[-1], sampled)
    bounds = entropy_bounds(listed, cap=listed[-2] if sampled_is_last else listed[-1], vocabulary=vocabulary)
    return bounds.lower if math.isinf(bounds.upper) else (bounds.lower + bounds.upper) / 2


def method(top: int, vocabulary: int = 0) -> str:
    """The name under which these estimates are recorded."""
    tail = f"tail midpoint between -r ln p_min and r ln((V-{top})/r), V={vocabulary}" if vocabulary else "lower bound"
    return f"top-{top}, {tail}"
