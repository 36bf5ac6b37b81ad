"""How much of a training step is entropy modulation? Measured inside one run, and side by side with the base.

    python benchmarks/aem_overhead.py [STEPS] [PAIRS]

Runs the reference trainer from a shipped checkpoint on this machine and reports the share of each step's wall time
that `aem.modulate` takes: cutting spans, span means, alphas, the multiplication and all statistics. The entropies it
reads come out of the old-policy pass that the trainer makes in any case; what they cost on top of the
log-probabilities is measured too, on the same kind of batch, for trainers that would not compute them otherwise.

Side by side: updates of one batch with AEM and without, in turn, in CPU seconds of this thread, which other programs
hardly move. The base calls `modulate` as well, with lambda 0, for its statistics; so the call is timed alone
on the same batch too.
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

import torch

from aem_harness.agents.templates import Prompts
from aem_harness.training import aem, reference, tasks
from aem_harness.training.checkpoint import load_policy
from aem_harness.training.config import RlConfig, find_config, load_config
from aem_harness.training.environment import PROMPTS
from aem_harness.training.folder import read_metrics
from aem_harness.training.loss import logprobs_and_entropies
from aem_harness.training.rollouts import EpisodeLimits
from aem_harness.training.run import train
from aem_harness.training.start import policy_folder
from aem_harness.training.tokenizer import Chat


def main(steps: int, pairs: int) -> None:
    overrides = [f"steps={steps}", "tasks=400", "evaluate_tasks=20", "evaluate_every=0"]
    config = load_config(find_config("tiny-aem"), overrides)
    assert isinstance(config, RlConfig)
    with tempfile.TemporaryDirectory() as folder:
        train(config, Path(folder))
        lines = read_metrics(Path(folder) / "metrics.jsonl")[1:]  # the first step warms up
    shares = torch.tensor([line["seconds_aem"] / line["seconds"] for line in lines])
    update = torch.tensor([line["seconds_aem"] / (line["seconds"] - line["seconds_rollout"]) for line in lines])
    print(f"{len(lines)} steps of {config.prompts} x {config.group} rollouts, {config.threads} threads")
    print(f"modulation, share of the step:            median {shares.median():.3%}, largest {shares.max():.3%}")
    print(f"modulation, share of the update alone:    median {update.median():.3%}, largest {update.max():.3%}")
    logits = torch.randn(config.prompts * config.group, 200, 640)
    targets = torch.randint(0, 640, logits.shape[:2])
    both = timed(lambda: logprobs_and_entropies(logits, targets))
    alone = timed(lambda: torch.log_softmax(logits, -1).gather(-1, targets[..., None]))
    step = torch.tensor([line["seconds"] for line in lines]).median()
    print(f"entropies beside the log-probabilities:   {(both - alone) / step:.3%} of the median step")
    side_by_side(config, pairs)


def side_by_side(config: RlConfig, pairs: int) -> None:
    """Updates of one batch with AEM and without, in turn; each order as often as the other."""
    torch.set_num_threads(1)
    model, tokenizer = load_policy(policy_folder(config.start))
    optimizer = torch.optim.AdamW(model.parameters(), 0.0)  # the weights stay: all updates are of one batch
    limits = EpisodeLimits(config.max_steps, config.max_reply, model.config.max_position_embeddings)
    pool = list(tasks.tasks("train", seed=tasks.TRAIN_SEED, count=config.tasks))
    chat = Chat(tokenizer)
    rollouts, groups, _ = reference.sample(model, chat, Prompts.load(PROMPTS), pool, limits, config, 1)
    batch = reference.make_batch(rollouts, groups, chat.pad, config, limits.context)
    arms = {
        "base": config.model_copy(update={"aem": None, "diagnose_every": 0}),
        "aem": config.model_copy(update={"diagnose_every": 0}),
    }
    spent: dict[str, list[float]] = {arm: [] for arm in arms}
    for pair in range(-1, pairs):  # one more warms up
        for arm in list(arms) if pair % 2 else list(arms)[::-1]:
            started = time.thread_time()
            reference.update(model, optimizer, batch, arms[arm], 1)
            if pair >= 0:
                spent[arm].append(time.thread_time() - started)
    ratios = [with_aem / base - 1 for base, with_aem in zip(spent["base"], spent["aem"], strict=True)]
    low, _, high = quantiles(ratios, n=4)
    entropies_B_T, advantages_B = torch.rand(batch.loss_mask_B_T.shape), torch.randn(len(batch.rewards_B))
    alone = timed(
        lambda: aem.modulate(advantages_B, entropies_B_T, batch.loss_mask_B_T, batch.groups_B, config.aem),
        repeats=25,
        clock=time.thread_time,
    )
    both = median(spent["base"]), median(spent["aem"])
    print(f"side by side, {pairs} pairs of updates:    base {both[0]:.3f} s, with AEM {both[1]:.3f} s of CPU")
    print(
        f"  difference of a pair:                   median {median(ratios):+.2%}, quartiles {low:+.2%} to {high:+.2%}"
    )
    print(f"  modulation alone, of the same batch:    {1000 * alone:.2f} ms, {alone / both[1]:.3%} of the update")


def timed(work, repeats: int = 9, clock=time.perf_counter) -> float:  # type: ignore[no-untyped-def]
    """Median seconds."""
    seconds = []
    for _ in range(repeats):
        started = clock()
        work()
        seconds.append(clock() - started)
    return sorted(seconds)[repeats // 2]


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    main(*[*numbers, *(12, 8)[len(numbers) :]])
