"""How many held-out tasks a policy solves, in memory, greedily and sampled, with 95 % Wilson intervals.

python -m training.evaluate 300 aem_checkpoints/tiny-*
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from agents.templates import Prompts
from harness.compare.mcnemar import wilson
from training import tasks
from training.checkpoint import load_policy
from training.environment import PROMPTS
from training.rollouts import Limits, play
from training.tokenizer import Chat


def solved(folder: Path, held_out: Sequence[tasks.Task], temperature: float, *, seed: int = 0) -> int:
    """How many of the tasks one rollout each solves."""
    model, tokenizer = load_policy(folder)
    rollouts = play(
        model,
        Chat(tokenizer),
        held_out,
        Prompts.load(PROMPTS),
        limits=Limits(context=model.config.max_position_embeddings),
        temperature=temperature,
        generator=torch.Generator().manual_seed(seed),
    )
    return int(sum(rollout.episode.reward for rollout in rollouts))


def main(arguments: Sequence[str]) -> None:
    count = int(arguments[0])
    held_out = list(tasks.tasks("test", seed=tasks.TEST_SEED, count=count))
    for folder in arguments[1:]:
        for name, temperature in (("greedy", 0.0), ("sampled", 1.0)):
            successes = solved(Path(folder), held_out, temperature)
            low, high = wilson(successes / count, count)
            print(f"{folder} {name}: {successes}/{count} = {successes / count:.1%} [{low:.1%}, {high:.1%}]")


if __name__ == "__main__":
    main(sys.argv[1:])
