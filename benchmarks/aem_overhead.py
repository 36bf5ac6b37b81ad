"""How much of a training step is entropy modulation? Measured inside one run, step by step.

    python benchmarks/aem_overhead.py [STEPS]

Runs the reference trainer from the shipped warm start on this machine and reports the share of each step's wall time
that `aem.modulate` takes: cutting spans, span means, alphas, the multiplication and all statistics. The entropies it
reads come out of the old-policy pass that the trainer makes in any case; what they cost on top of the
log-probabilities is measured too, on the same kind of batch, for trainers that would not compute them otherwise.
"""

import sys
import tempfile
import time
from pathlib import Path

import torch

from aem_harness.training.config import RlConfig, find_config, load_config
from aem_harness.training.folder import read_metrics
from aem_harness.training.loss import logprobs_and_entropies
from aem_harness.training.run import train


def main(steps: int) -> None:
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


def timed(work, repeats: int = 9) -> float:  # type: ignore[no-untyped-def]
    """Median seconds."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return sorted(seconds)[repeats // 2]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 12)
