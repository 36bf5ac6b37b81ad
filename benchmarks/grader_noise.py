"""Coverage of the interval for these tasks where the grader flips verdicts, with and without widening by its noise.

python -m benchmarks.grader_noise [REPETITIONS]        (1000: about five minutes on one core)

500 tasks of Verified's repositories, equal candidates. Every grading is wrong with probability e, so that two gradings
of a patch disagree with probability f = 2 e (1 - e): the flip rate of the table. As `aem regrade --times 3` does, 40
random patches of each arm and those of the tasks that moved (at most 200 of them here) are graded three times more, and
their flips go through the product's own `noise_of`. Covered has to be what new rollouts and new gradings of all of them
would give on average: no difference. Arms:

  DeepSWE, K 4         DeepSWE's run noise, every rollout graded
  DeepSWE, K 1         one rollout a task
  no run noise, K 4    each task always or never solved, every rollout graded
  one grading, K 4     the same, and the patch of a task is graded once for all four seeds (--reuse-verdicts)
  flaky tasks, K 4     the same, and only a share 2 f of the tasks flips, each time with probability 1/2
  K 1 against 8        DeepSWE's run noise, unequal numbers of rollouts
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from aem_harness.harness.compare.contrast import judge_trials
from aem_harness.harness.compare.family import settle
from aem_harness.harness.compare.grader import noise_of
from aem_harness.harness.compare.simulate import draw_world
from aem_harness.harness.compare.values import Floats, Trials
from aem_harness.harness.gate.sequential import Truths
from aem_harness.harness.run.regrading import Again
from aem_harness.harness.types import Outcome
from tests.compare import scenarios as sim

FLIPS = (0.0, 0.005, 0.01, 0.02)
SAMPLE, MOVED, TIMES = 40, 200, 3


@dataclass(frozen=True)
class World:
    """Seeds of both arms; whether there is run noise; one grading a task; flips in few tasks."""

    seeds: tuple[int, int] = (4, 4)
    noisy: bool = False
    once_a_task: bool = False
    flaky: bool = False

    def wrong(self, flips: float, tasks: int, rng: np.random.Generator) -> Floats:
        """The chance (N,) that a grading is wrong."""
        if self.flaky:
            return np.where(rng.random(tasks) < 2 * flips, 0.5, 0.0)
        return np.full(tasks, (1 - np.sqrt(1 - 2 * flips)) / 2)

    def errors(self, wrong: Floats, seeds: int, rng: np.random.Generator) -> Truths:
        """Which gradings (N, K) of an arm are wrong."""
        errors = rng.random((len(wrong), 1 if self.once_a_task else seeds)) < wrong[:, None]
        return np.broadcast_to(errors, (len(wrong), seeds))


WORLDS = {
    "DeepSWE, K 4": World(noisy=True),
    "DeepSWE, K 1": World(seeds=(1, 1), noisy=True),
    "no run noise, K 4": World(),
    "one grading, K 4": World(once_a_task=True),
    "flaky tasks, K 4": World(once_a_task=True, flaky=True),
    "K 1 against 8": World(seeds=(1, 8), noisy=True),
}


def widths(reps: int, world: World, flips: float) -> tuple[sim.Share, sim.Share, float, float]:
    """Coverage without and with widening, and the mean half-widths."""
    plain: list[bool] = []
    halves: list[tuple[float, float]] = []

    def once(rng: np.random.Generator) -> bool:
        w = draw_world(rng)
        p = w.baseline if world.noisy else (rng.random(len(w.baseline)) < w.baseline).astype(float)
        wrong = world.wrong(flips, len(p), rng)
        truths = [rng.random((len(p), k)) < p[:, None] for k in world.seeds]
        graded = [y ^ world.errors(wrong, y.shape[1], rng) for y in truths]
        a, b = (Trials(y.sum(axis=1), np.full(len(p), y.shape[1]), np.zeros(len(p), int)) for y in graded)
        (one,) = settle([judge_trials(("a", "b"), a, b, w.repos)])
        moved = graded[0].mean(axis=1) != graded[1].mean(axis=1)
        again = [
            line
            for name, truth, y in zip("ab", truths, graded, strict=True)
            for line in regraded(name, truth, y, moved, wrong, rng)
        ]
        tables = {name: table(y, world.once_a_task) for name, y in zip("ab", graded, strict=True)}
        (wide,) = noise_of(again, [one], tables).widened
        these = one.difference.these
        plain.append(these.low <= 0 <= these.high)
        halves.append(((these.high - these.low) / 2, (wide.high - wide.low) / 2))
        return wide.low <= 0 <= wide.high

    widened = sim.repeat(reps, 0.95, once)
    before, after = np.mean(halves, axis=0).tolist()
    return sim.Share(sum(plain), reps, 0.95), widened, before, after


def regraded(
    arm: str, truth: Truths, graded: Truths, moved: Truths, wrong: Floats, rng: np.random.Generator
) -> Iterator[Again]:
    """The gradings of a random sample of an arm's patches, and of those of tasks that moved, after the first."""
    left = {True: MOVED, False: SAMPLE}
    for place in rng.permutation(graded.size).tolist():
        i, k = divmod(place, graded.shape[1])
        kind = bool(moved[i])
        if not left[kind]:
            continue
        left[kind] -= 1
        for time, error in enumerate(rng.random(TIMES) < wrong[i], start=1):
            yield Again(
                instance_id=f"r__r-{i}",
                seed=k,
                time=time,
                was=_outcome(graded[i, k]),
                now=_outcome(truth[i, k] ^ error),
                moved=kind,
                patch_sha256=arm,
            )


def _outcome(resolved: bool) -> Outcome:
    return Outcome.RESOLVED if resolved else Outcome.UNRESOLVED


def table(graded: Truths, once_a_task: bool) -> pd.DataFrame:
    """The columns of the outcomes table that say how many gradings there were."""
    n, k = graded.shape
    reuse = np.tile(["", *["reused" if once_a_task else ""] * (k - 1)], n)
    names = np.repeat([f"r__r-{i}" for i in range(n)], k)
    return pd.DataFrame({"instance_id": names, "resolved": graded.ravel(), "reuse": reuse})


def main() -> None:
    reps = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print("| arms | flip rate | covers | half-width | widened covers | half-width |\n|---|---|---|---|---|---|")
    for name, world in WORLDS.items():
        for flips in FLIPS:
            plain, wide, before, after = widths(reps, world, flips)
            shares = f"{100 * plain.share:.1f} % | {100 * before:.2f} | {100 * wide.share:.1f} % | {100 * after:.2f}"
            print(f"| {name} | {100 * flips:g} % | {shares} |", flush=True)


if __name__ == "__main__":
    main()
