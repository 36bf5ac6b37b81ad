"""How many held-out tasks policies solve, in memory: greedily once, and sampled at temperature 1 a few times a task.

    python -m aem_harness.training.evaluate [--tasks 200] [--samples 4] [--seed 1] [--csv FILE] aem_checkpoints/tiny-*

Every policy gets the same tasks and the same random streams. Intervals are 95 %: Wilson for the greedy share, over
tasks for the sampled one (the samples of a task are not independent). The trainers evaluate on the tasks of seed 1; a
figure that nobody can have tuned on takes another seed.
"""

import argparse
import csv
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from aem_harness.agents.templates import Prompts
from aem_harness.harness.compare.mcnemar import wilson
from aem_harness.training import tasks
from aem_harness.training.checkpoint import load_policy
from aem_harness.training.curves import MeanInterval, t_interval
from aem_harness.training.environment import PROMPTS
from aem_harness.training.rollouts import EpisodeLimits, play
from aem_harness.training.tokenizer import Chat


def rewards(
    folder: Path, held_out: Sequence[tasks.BugFix], temperature: float, *, samples: int = 1, seed: int = 0
) -> list[float]:
    """Each task's mean reward over `samples` rollouts."""
    model, tokenizer = load_policy(folder)
    rollouts = play(
        model,
        Chat(tokenizer),
        [task for task in held_out for _ in range(samples)],
        Prompts.load(PROMPTS),
        limits=EpisodeLimits(context=model.config.max_position_embeddings),
        temperature=temperature,
        generator=torch.Generator().manual_seed(seed),
    )
    found = [rollout.episode.reward for rollout in rollouts]
    return [sum(found[start : start + samples]) / samples for start in range(0, len(found), samples)]


def measure(folder: Path, held_out: Sequence[tasks.BugFix], samples: int) -> tuple[MeanInterval, MeanInterval]:
    """Greedy and sampled success."""
    greedy = rewards(folder, held_out, 0.0)
    share = sum(greedy) / len(greedy)
    return MeanInterval(share, *wilson(share, len(greedy)), n=len(greedy)), t_interval(
        rewards(folder, held_out, 1.0, samples=samples)
    )


def by_arm(successes: Mapping[str, tuple[float, float]]) -> list[str]:
    """Runs named `<arm>-seed<k>`: greedy and sampled success of each arm over its seeds, and its differences to the
    first arm, paired by seed."""
    arms: dict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
    for name, pair in successes.items():
        if found := re.fullmatch(r"(.+)-seed(\d+)", name):
            arms[found[1]][found[2]] = pair
    lines = []
    for place, label in enumerate(("greedy", "sampled")):
        for arm, runs in arms.items():
            line = f"{arm} {label}: {t_interval(pair[place] for pair in runs.values())}, {len(runs)} seeds"
            first = next(iter(arms))
            shared = sorted(set(runs) & set(arms[first]))
            if arm != first and shared:
                difference = t_interval(runs[seed][place] - arms[first][seed][place] for seed in shared)
                line += f"; minus {first}: {difference}, {len(shared)} pairs"
            lines.append(line)
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m aem_harness.training.evaluate")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--seed", type=int, default=tasks.TEST_SEED)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    held_out = list(tasks.tasks("test", seed=options.seed, count=options.tasks))
    lines = []
    for folder in options.folders:
        greedy, sampled = measure(folder, held_out, options.samples)
        name = folder.parent.name if folder.name == "checkpoint" else folder.name
        lines.append([name, options.seed, options.tasks, f"{greedy.mean:.4f}", options.samples, f"{sampled.mean:.4f}"])
        print(f"{name}: greedy {greedy}, sampled {sampled}", flush=True)
    for line in by_arm({str(line[0]): (float(line[3]), float(line[5])) for line in lines}):
        print(line)
    if options.csv:
        with options.csv.open("w", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["policy", "task_seed", "tasks", "greedy", "samples", "sampled"])
            writer.writerows(lines)


if __name__ == "__main__":
    main()
