"""Equal methods whose training runs differ: coverage over runs, and of the same rollouts pooled as if they were seeds;
and of the standard deviation between runs, whose interval must not end at zero where runs agree by chance.

python -m benchmarks.training_runs [REPETITIONS]        (1000: about a minute on one core)
"""

import sys

import numpy as np

from tests.compare import scenarios as sim

POINTS_PER_LOGIT = 9.0  # of a resolve rate of 42 % with DeepSWE's spread of tasks


def main() -> None:
    reps = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print("| training runs differ by | runs a method | rollouts a task and run | t over runs covers | pooled covers |")
    print("|---|---|---|---|---|")
    for sd in (0.0, 0.1, 0.2, 0.3):
        for runs, seeds in ((3, 4), (5, 2)):
            unit, pooled = sim.method_difference(reps, sd, runs=runs, seeds=seeds)
            shares = f"{100 * unit.share:.1f} % | {100 * pooled.share:.1f} %"
            print(f"| {POINTS_PER_LOGIT * sd:.1f} points | {runs} | {seeds} | {shares} |", flush=True)
    print("\n| training runs differ by | runs | rollouts a task and run | covers | least upper end | median |")
    print("|---|---|---|---|---|---|")
    for sd in (0.0, 0.1, 0.3):
        for runs, seeds in ((2, 4), (3, 4), (5, 2), (5, 1)):
            covered, highs = sim.run_spread(reps, sd, runs=runs, seeds=seeds)
            ends = f"{100 * min(highs):.1f} | {100 * float(np.median(highs)):.1f}"
            found = f"{100 * covered.share:.1f} % | {ends}"
            print(f"| {POINTS_PER_LOGIT * sd:.1f} points | {runs} | {seeds} | {found} |", flush=True)


if __name__ == "__main__":
    main()
