"""How long a run waits for its last rollouts: the makespan of three orders over its lower bound, simulated.

    .venv/bin/python -m benchmarks.tail CALLS.csv [--workers 64] [--seeds 8]

CALLS.csv (.gz) has the columns submission, instance_id, api_calls: published model calls of runs of SWE-bench Verified.
Each submission with a call count for nearly every instance is one world. A rollout takes the calls of its instance,
times ten seconds, times a log-normal factor of its own (sigma 0.3); the scheduler never sees a length before its end.
The lower bound is the larger of all work over all workers and the longest rollout. "Whole seeds" is the best that an
order can do which starts no rollout before all of earlier seeds are begun: longest first by the true lengths.
"""

import argparse
from collections import deque
from heapq import heapify, heappop, heappush
from pathlib import Path

import numpy as np
import pandas as pd

from aem_harness.harness.run.schedule import Durations, Order, Pending, in_turn, longest_first

SECONDS_A_CALL, SIGMA, FEWEST = 10.0, 0.3, 450


def makespan(lengths: dict[Pending, float], order: Order, durations: Durations, workers: int) -> float:
    """Seconds until the last rollout is done, when each free worker takes the next by `order`."""
    waiting = deque(lengths)
    running: list[tuple[float, Pending | None]] = [(0.0, None)] * workers
    heapify(running)
    end = 0.0
    while running:
        clock, done = heappop(running)
        end = max(end, clock)
        if done:
            durations.add({"instance_id": done[0], "seconds": lengths[done]})
        if waiting:
            chosen = order(waiting)
            heappush(running, (clock + lengths[chosen], chosen))
    return end


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("calls", type=Path)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--draw", type=int, default=0, help="another number draws other lengths")
    options = parser.parse_args()
    table = pd.read_csv(options.calls).dropna(subset=["api_calls"])
    worlds = [group for _, group in table.groupby("submission") if len(group) >= FEWEST]
    whole = "whole seeds, all lengths known"
    ratios: dict[str, list[float]] = {"in turn": [], "longest first": [], whole: []}
    for number, world in enumerate(worlds):
        rng = np.random.default_rng(1000 * options.draw + number)
        calls = dict(zip(world["instance_id"], world["api_calls"].clip(lower=1) * SECONDS_A_CALL, strict=True))
        lengths = {
            (name, seed, 0): float(mean * rng.lognormal(-(SIGMA**2) / 2, SIGMA))
            for seed in range(options.seeds)
            for name, mean in calls.items()
        }
        bound = max(sum(lengths.values()) / options.workers, max(lengths.values()))
        for name in ratios:
            durations = Durations()
            order = longest_first(durations, options.workers) if name == "longest first" else in_turn
            if name == whole:
                lengths = dict(sorted(lengths.items(), key=lambda one: (one[0][1], -one[1])))
            ratios[name].append(makespan(lengths, order, durations, options.workers) / bound)
    print(f"{len(worlds)} submissions, {options.seeds} seeds, {options.workers} workers: makespan over lower bound")
    for name, found in ratios.items():
        print(f"{name:<32} median {np.median(found):.3f}  95 % {np.quantile(found, 0.95):.3f}  most {max(found):.3f}")


if __name__ == "__main__":
    main()
