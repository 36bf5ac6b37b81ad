"""The flip rate of a grader as it is estimated, and coverage of the interval for these tasks without and with it.

python -m benchmarks.grader_noise [REPETITIONS]        (250: about five minutes on one core)

500 tasks of Verified's repositories, equal candidates. Every grading is wrong with probability e, so that two gradings
of a patch disagree with probability f = 2 e (1 - e): the flip rate of the table. As `aem regrade --times 3` does, 40
random patches of each arm and all those of the tasks that moved are graded three times more, and their flips go through
the product's own `noise_of`. Its rate has to be right on average, and its interval to cover the mean of f over these
tasks. The interval of the difference has to cover what new rollouts and new gradings of all of them would give on
average: no difference. Arms:

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
from aem_harness.harness.compare.values import Floats, Trials
from aem_harness.harness.gate.sequential import Truths
from aem_harness.harness.run.regrading import Again
from aem_harness.harness.types import Outcome
from benchmarks.worlds import draw_world
from tests.compare import scenarios as sim

FLIPS = (0.0, 0.005, 0.01, 0.02)
SAMPLE, TIMES = 40, 3


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


@dataclass(frozen=True)
class FlipRates:
    """Of the flip rate: how often its interval covers `truth`, its mean, and the mean of tasks that did not move."""

    covered: sim.Share
    truth: float
    mean: float
    others: float


@dataclass(frozen=True)
class Seen:
    """One comparison: its tasks' repositories, what is wrong, both arms as graded, and what was graded again."""

    repos: np.ndarray
    wrong: Floats
    graded: list[Truths]
    again: dict[str, list[Again]]
    tables: dict[str, pd.DataFrame]


def draw(world: World, flips: float, rng: np.random.Generator) -> Seen:
    w = draw_world(rng)
    p = w.baseline if world.noisy else (rng.random(len(w.baseline)) < w.baseline).astype(float)
    wrong = world.wrong(flips, len(p), rng)
    truths = [rng.random((len(p), k)) < p[:, None] for k in world.seeds]
    graded = [y ^ world.errors(wrong, y.shape[1], rng) for y in truths]
    moved = graded[0].mean(axis=1) != graded[1].mean(axis=1)
    arms = list(zip("ab", truths, graded, strict=True))
    again = {name: list(regraded(truth, y, moved, wrong, rng)) for name, truth, y in arms}
    return Seen(w.repos, wrong, graded, again, {name: table(y, world.once_a_task) for name, _, y in arms})


def flip_rates(reps: int, world: World, flips: float) -> FlipRates:
    """The flip rate over all patches, against what it is in truth."""
    means: list[tuple[float, float, float]] = []

    def once(rng: np.random.Generator) -> bool:
        seen = draw(world, flips, rng)
        found = noise_of(seen.again, seen.tables)
        truth = float((2 * seen.wrong * (1 - seen.wrong)).mean())
        means.append((truth, found.rate, found.others_rate or 0.0))
        return found.low <= truth <= found.high

    covered = sim.repeat(reps, 0.95, once)
    return FlipRates(covered, *np.mean(means, axis=0).tolist())


def widths(reps: int, world: World, flips: float) -> tuple[sim.Share, sim.Share, float, float]:
    """Coverage of the difference without and with widening, and the mean half-widths."""
    plain: list[bool] = []
    halves: list[tuple[float, float]] = []

    def once(rng: np.random.Generator) -> bool:
        seen = draw(world, flips, rng)
        a, b = (
            Trials(y.sum(axis=1), np.full(len(y), y.shape[1]), np.zeros(len(y), dtype=np.int64)) for y in seen.graded
        )
        (one,) = settle([judge_trials(("a", "b"), a, b, seen.repos)])
        (wide,) = noise_of(seen.again, seen.tables, [one]).widened
        these = one.difference.these
        plain.append(these.low <= 0 <= these.high)
        halves.append(((these.high - these.low) / 2, (wide.high - wide.low) / 2))
        return wide.low <= 0 <= wide.high

    widened = sim.repeat(reps, 0.95, once)
    before, after = np.mean(halves, axis=0).tolist()
    return sim.Share(sum(plain), reps, 0.95), widened, before, after


def regraded(truth: Truths, graded: Truths, moved: Truths, wrong: Floats, rng: np.random.Generator) -> Iterator[Again]:
    """The gradings, after the first, of all patches of an arm's moved tasks, and of a random sample of the others."""
    k = graded.shape[1]
    others = np.flatnonzero(np.repeat(~moved, k))
    drawn = rng.permutation(others)[:SAMPLE]
    for place in [*np.flatnonzero(np.repeat(moved, k)).tolist(), *drawn.tolist()]:
        i, seed = divmod(place, k)
        for time, error in enumerate(rng.random(TIMES) < wrong[i], start=1):
            yield Again.model_construct(
                instance_id=f"r__r-{i}",
                seed=seed,
                time=time,
                was=_outcome(graded[i, seed]),
                now=_outcome(truth[i, seed] ^ error),
                moved=bool(moved[i]),
                patch_sha256="",
            )


def _outcome(resolved: bool) -> Outcome:
    return Outcome.RESOLVED if resolved else Outcome.UNRESOLVED


def table(graded: Truths, once_a_task: bool) -> pd.DataFrame:
    """The columns of the outcomes table that say how many gradings there were."""
    n, k = graded.shape
    reuse = np.tile(["", *["reused" if once_a_task else ""] * (k - 1)], n)
    names = np.repeat([f"r__r-{i}" for i in range(n)], k)
    seeds, outcomes = np.tile(np.arange(k), n), [_outcome(one).value for one in graded.ravel()]
    return pd.DataFrame(
        {"instance_id": names, "seed": seeds, "resolved": graded.ravel(), "outcome": outcomes, "reuse": reuse}
    )


def main() -> None:
    reps = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print("| arms | flip rate | estimated, mean | covers | tasks that did not move |\n|---|---|---|---|---|")
    for name, world in WORLDS.items():
        for flips in FLIPS:
            found = flip_rates(reps, world, flips)
            means = f"{100 * found.mean:.2f} % | {100 * found.covered.share:.1f} % | {100 * found.others:.2f} %"
            print(f"| {name} | {100 * found.truth:.2f} % | {means} |", flush=True)
    print("\n| arms | flip rate | covers | half-width | widened covers | half-width |\n|---|---|---|---|---|---|")
    for name, world in WORLDS.items():
        for flips in FLIPS:
            plain, wide, before, after = widths(reps, world, flips)
            shares = f"{100 * plain.share:.1f} % | {100 * before:.2f} | {100 * wide.share:.1f} % | {100 * after:.2f}"
            print(f"| {name} | {100 * flips:g} % | {shares} |", flush=True)


if __name__ == "__main__":
    main()
