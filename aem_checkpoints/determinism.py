"""How far a server's tokens diverge from themselves: the same requests again, alone and among others.

Greedy decoding is not deterministic under load: batch sizes change the order of floating-point sums, a near tie then
falls the other way, and everything after it differs. That is measured here, not promised away. The reference is each
prompt asked alone, once; every replay is compared with it token by token.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aem_harness.aem_checkpoints import client
from aem_harness.harness.errors import DataError, PolicyFault
from aem_harness.harness.run.trajectory import read_document

Prompt = Sequence[Mapping[str, Any]]
BUILT_IN: tuple[Prompt, ...] = tuple(
    [{"role": "user", "content": text}]
    for text in (
        "Write a Python function that merges two sorted lists.",
        "What does `git bisect` do? Answer in three sentences.",
        "List the files that a Python package needs, one a line.",
        "def median(values):\n    return sorted(values)[len(values) // 2]\n\nWhat is wrong with this function?",
        "Explain the difference between a thread and a process.",
        "Write a bash command that counts the lines of all .py files.",
        "Reply with the numbers from one to thirty.",
        "A test fails only when the whole suite runs. Name likely causes.",
    )
)


@dataclass(frozen=True)
class Generation:
    """One reply: its tokens and their log-probabilities (nats)."""

    tokens: tuple[str, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True)
class Divergence:
    """Replays at one concurrency against the reference.

    `tokens_diverging` counts every position from the first difference on, over `tokens` positions in all;
    `first` are the positions of first difference of the sequences that have one; `logprob_shift` is the largest
    change of a token's log-probability before it, in nats.
    """

    concurrency: int
    sequences: int
    sequences_diverging: int
    tokens: int
    tokens_diverging: int
    first: tuple[int, ...]
    logprob_shift: float


def measure(
    url: str,
    model: str,
    prompts: Sequence[Prompt],
    concurrencies: Sequence[int],
    *,
    max_tokens: int = 128,
    temperature: float = 0.0,
    say: Callable[[str], None] = lambda line: None,
) -> list[Divergence]:
    """Ask all prompts one at a time, then at each concurrency. Prompts repeat until that many are in flight.

    With a temperature every prompt has a seed of its own, the same each time. PolicyFault when the server fails or
    returns no log-probabilities (they carry the tokens).
    """

    def answer(index: int) -> Generation:
        return answer_to(url, model, prompts[index], max_tokens, temperature, seed=index)

    say(f"reference: {len(prompts)} prompts, one after the other")
    reference = [answer(index) for index in range(len(prompts))]
    found = []
    for concurrency in concurrencies:
        say(f"{concurrency} in parallel")
        asked = [index for _ in range(math.ceil(concurrency / len(prompts))) for index in range(len(prompts))]
        with ThreadPoolExecutor(concurrency, "determinism") as threads:
            again = list(threads.map(answer, asked))
        found.append(compare(concurrency, [reference[index] for index in asked], again))
    return found


def compare(concurrency: int, references: Sequence[Generation], replays: Sequence[Generation]) -> Divergence:
    """Where each replay first differs from its reference; one that is a prefix of the other differs at its end."""
    first: list[int] = []
    tokens = diverging = 0
    shift = 0.0
    for ours, theirs in zip(references, replays, strict=True):
        length = max(len(ours.tokens), len(theirs.tokens))
        pairs = enumerate(zip(ours.tokens, theirs.tokens, strict=False))
        at = next((place for place, (a, b) in pairs if a != b), min(len(ours.tokens), len(theirs.tokens)))
        tokens += length
        diverging += length - at
        if at < length:
            first.append(at)
        before = zip(ours.logprobs[:at], theirs.logprobs[:at], strict=True)
        shift = max([shift, *(abs(a - b) for a, b in before)])
    return Divergence(concurrency, len(replays), len(first), tokens, diverging, tuple(sorted(first)), shift)


def recorded_prefixes(run: Path, most: int) -> list[Prompt]:
    """Conversations of a run as the policy saw them before one of its replies: the middle one of every trajectory."""
    prompts: list[Prompt] = []
    for path in sorted(run.glob("rollouts/*/*/*.traj.json")):
        if not path.parent.name.isdigit():
            continue  # an attempt that was repeated
        messages = [
            {key: value for key, value in message.items() if key != "extra"}
            for message in read_document(path)["messages"]
        ]
        replies = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
        end = replies[len(replies) // 2] if replies else 2
        if prompt := [message for message in messages[:end] if message["role"] != "exit"]:  # none: lost at its start
            prompts.append(prompt)
    if not prompts:
        raise DataError(f"{run} holds no trajectory (rollouts/*/*/*.traj.json)")
    return prompts[:most]


def answer_to(url: str, model: str, prompt: Prompt, max_tokens: int, temperature: float, seed: int) -> Generation:
    """What a server says to one prompt; PolicyFault when it fails or returns no log-probabilities."""
    body = {
        "model": model,
        "messages": list(prompt),
        "max_tokens": max_tokens,
        "temperature": temperature,
        "seed": seed,
        "logprobs": True,
        "top_logprobs": 1,
    }
    answer = client.post(f"{client.root(url)}/v1/chat/completions", body)
    try:
        content = answer["choices"][0]["logprobs"]["content"] or ()
        return Generation(
            tuple(str(token["token"]) for token in content), tuple(float(token["logprob"]) for token in content)
        )
    except (KeyError, IndexError, TypeError, ValueError):
        raise PolicyFault(f"{url} returns no log-probabilities, which carry the tokens: {str(answer)[:300]}") from None
