"""How often what a paper needs is right: pass@k differences, bands, equivalence, interactions, families, alarms.

python -m benchmarks.paper_statistics [REPETITIONS]        (1000: about ten minutes on one core)

Worlds are those of `benchmarks.coverage`: 500 tasks of Verified's repositories with DeepSWE's mean and run noise.
"""

import heapq
import sys
from collections.abc import Iterator

import numpy as np
import pandas as pd

from aem_harness.harness.compare.alarms import ALARM, alarms
from aem_harness.harness.compare.arms import Sample, bands, pass_differences
from aem_harness.harness.compare.contrast import judge_trials
from aem_harness.harness.compare.family import settle
from aem_harness.harness.compare.interactions import apart, heterogeneity
from aem_harness.harness.compare.intervals import estimate, p_value
from aem_harness.harness.compare.values import Floats, TaskValues, difference
from aem_harness.harness.schema import normalise
from benchmarks.worlds import World, draw_world, observed, roll
from tests.compare import scenarios as sim

Generator = np.random.Generator
ARMS = 10  # candidates of a family, steps of a series


def arm(p: Floats, world: World, seeds: int, rng: Generator) -> Sample:
    trials = roll(p, seeds, rng)
    values = observed(trials, world.repos)
    return Sample(values.tasks, trials, values)


def delta(world: World, seeds: int, rng: Generator) -> TaskValues:
    return difference(*(arm(p, world, seeds, rng).values for p in (world.baseline, world.candidate)))


def pass_difference_covers(reps: int, seeds: int, k: int, kind: str) -> sim.Share:
    """The paired difference of pass@k or pass^k, for these tasks; the candidate gains 5 points."""

    def truth(p: Floats) -> float:
        return float((1 - (1 - p) ** k if kind == "pass@k" else p**k).mean())

    def once(rng: Generator) -> bool:
        w = draw_world(rng, shift=0.05, task_spread=0.1)
        samples = {name: arm(p, w, seeds, rng) for name, p in (("a", w.baseline), ("b", w.candidate))}
        found = pass_differences(samples, [("a", "b")], 0.95)
        (one,) = [each.estimate.these for each in found if (each.kind, each.k) == (kind, k)]
        return one.low <= truth(w.candidate) - truth(w.baseline) <= one.high

    return sim.repeat(reps, 0.95, once)


def bands_cover(reps: int, seeds: int) -> sim.Share:
    """The bands of a series hold the rates of all its steps at once."""

    def once(rng: Generator) -> bool:
        w = draw_world(rng)
        truths = {str(i): np.clip(w.baseline + s, 0, 1) for i, s in enumerate(rng.normal(0, 0.03, ARMS))}
        found = bands({name: arm(p, w, seeds, rng) for name, p in truths.items()}, 0.95)
        return all(low <= truths[name].mean() <= high for name, (low, high) in found.items())

    return sim.repeat(reps, 0.95, once)


def equivalent_at_the_margin(reps: int, seeds: int, side: int) -> sim.Share:
    """Called equivalent although the true difference is exactly the margin."""

    def once(rng: Generator) -> bool:
        w = draw_world(rng, shift=0.04 * side)
        a, b = roll(w.baseline, seeds, rng), roll(w.candidate, seeds, rng)
        judged = judge_trials(("a", "b"), a, b, w.repos, margin=abs(w.difference))
        (found,) = settle([judged])
        return any(one.verdict == "equivalent" and one.question == "these tasks" for one in found.decisions)

    return sim.repeat(reps, 0.025, once)


def interaction_rejects(reps: int, seeds: int, parts: int) -> sim.Share:
    """Parts with the same gain are called different: `parts` random ones, or the 12 repositories (0)."""

    def once(rng: Generator) -> bool:
        w = draw_world(rng)
        gained = delta(w, seeds, rng)
        of = w.repos if not parts else rng.integers(parts, size=len(w.repos)).astype(str)
        names = [name for name in np.unique(of) if (of == name).sum() >= 2]
        return heterogeneity([gained.where(of == name) for name in names]) <= 0.05

    return sim.repeat(reps, 0.05, once)


def contrast_covers(reps: int, seeds: int, newer: int, question: str) -> sim.Share:
    """Contamination: the difference on `newer` of the tasks less that on the others; gains differ from task to task."""

    def once(rng: Generator) -> bool:
        w = draw_world(rng, task_spread=0.2)
        after = rng.permutation(len(w.repos)) < newer
        gained = delta(w, seeds, rng)
        _, these, like = apart(gained.where(~after), gained.where(after))
        change = w.candidate - w.baseline
        truth = float(change[after].mean() - change[~after].mean())
        return these.low <= truth <= these.high if question == "these tasks" else like.low <= 0 <= like.high

    return sim.repeat(reps, 0.95, once)


def two_way_rejects(reps: int, seeds: int, tasks: int) -> sim.Share:
    """Gains that are the same under two scaffolds are called different."""

    def once(rng: Generator) -> bool:
        w = draw_world(rng, {"a/a": tasks})
        up = np.clip(w.baseline + 0.1 * 4 * w.baseline * (1 - w.baseline), 0, 1)
        gains = [difference(arm(w.baseline, w, seeds, rng).values, arm(up, w, seeds, rng).values) for _ in range(2)]
        change = estimate(difference(*gains), within=(-2, 2))
        return p_value(change.value, change.these) <= 0.05

    return sim.repeat(reps, 0.05, once)


def family_errs(
    reps: int, seeds: int, verdicts: tuple[str, ...], *, margin: float = 0.0, lost: float = 0.0
) -> sim.Share:
    """Any of ten candidates gets a wrong verdict: equal ones a difference, those at the margin non-inferiority."""

    def once(rng: Generator) -> bool:
        w = draw_world(rng, shift=-margin)
        a = sim.lose(roll(w.baseline, seeds, rng), lost, rng)
        arms = [sim.lose(roll(w.candidate, seeds, rng), lost, rng) for _ in range(ARMS)]
        at = -w.difference if margin else None
        found = settle([judge_trials(("a", str(i)), a, b, w.repos, margin=at) for i, b in enumerate(arms)])
        given = [one for each in found for one in (each.decision, *each.decisions) if one.question == "these tasks"]
        return any(one.verdict in verdicts for one in given)

    return sim.repeat(reps, 0.025 if margin else 0.05, once)


def schedule(p: Floats, workers: int, rng: Generator, *, slower: bool = False) -> pd.DataFrame:
    """Rollouts with probabilities p (tasks, seeds), seed after seed, at most `workers` at a time, a failure takes three
    times as long as a success; `slower`: the server loses 10 points of every rate from the first to the last."""
    tasks, seeds = p.shape
    place = np.arange(p.size).reshape(seeds, tasks).T / p.size
    y = (rng.random(p.shape) < (np.clip(p - 0.1 * (place - 0.5), 0, 1) if slower else p)).T.ravel()
    took = rng.gamma(4, 75, p.size) * np.where(y, 1, 3)
    free, ended = [0.0] * workers, np.zeros(p.size)
    for i, seconds in enumerate(took):
        ended[i] = heapq.heappop(free) + seconds
        heapq.heappush(free, ended[i])
    at = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(ended.round(3), unit="s")
    rows = {"arm": "a", "instance_id": np.tile([f"r__r-{i}" for i in range(tasks)], seeds)}
    rows |= {"seed": np.repeat(range(seeds), tasks), "resolved": y.astype(int), "at": at.astype(str), "seconds": took}
    return normalise(pd.DataFrame(rows), "simulated")


def alarm_rings(reps: int, words: str, workers: int, *, launches: float = 0.0, slower: bool = False) -> sim.Share:
    """An arm of 500 tasks x 4 seeds is spoken of with these words; the launch of each seed shifts its rates by a draw
    of Normal(0, `launches`), the same on all tasks that are neither sure nor hopeless."""

    def once(rng: Generator) -> bool:
        q = draw_world(rng).baseline[:, None]
        p = np.clip(q + rng.normal(0, launches, 4) * 4 * q * (1 - q), 0, 1)
        table = schedule(p, workers, rng, slower=slower)
        return any(words in line for line in alarms({"a": table}))

    return sim.repeat(reps, ALARM, once)


def intervals(reps: int) -> Iterator[tuple[str, sim.Share]]:
    for seeds, k in ((2, 2), (4, 2), (4, 4), (8, 4)):
        for kind in ("pass@k", "pass^k"):
            yield f"difference of {kind}, k {k} of {seeds}, these tasks", pass_difference_covers(reps, seeds, k, kind)
    for seeds in (1, 4):
        yield f"bands of {ARMS} checkpoints, all at once, K {seeds}", bands_cover(reps // 4, seeds)
    for seeds in (1, 4):
        for newer in (10, 100):
            for question in ("these tasks", "tasks like these"):
                share = contrast_covers(reps, seeds, newer, question)
                yield f"contamination contrast, {newer} of 500 tasks newer, {question}, K {seeds}", share


def rejections(reps: int) -> Iterator[tuple[str, sim.Share]]:
    for seeds in (1, 4):
        for side in (-1, 1):
            share = equivalent_at_the_margin(reps, seeds, side)
            yield f"equivalence, {4 * side:+d} points, the margin, K {seeds}", share
    for seeds in (1, 2, 4):
        for parts in (0, 2, 4):
            named = f"{parts} parts" if parts else "12 repositories"
            yield f"interaction, {named} with equal gains, K {seeds}", interaction_rejects(reps, seeds, parts)
    for seeds, tasks in ((1, 100), (4, 100), (4, 20)):
        yield f"two-way interaction, equal gains, {tasks} tasks, K {seeds}", two_way_rejects(reps, seeds, tasks)
    for seeds in (1, 4):
        few, wrong = reps // 4, ("better", "worse")
        yield f"Holm, any of {ARMS} equal candidates, K {seeds}", family_errs(few, seeds, wrong)
        found = family_errs(few, seeds, wrong, lost=0.01)
        yield f"Holm, any of {ARMS} equal candidates, 1 % lost, K {seeds}", found
        found = family_errs(few, seeds, ("non-inferior",), margin=0.03)
        yield f"non-inferior, any of {ARMS} at the margin of 3, K {seeds}", found
    for workers in (32, 2000):
        yield f"alarm: seeds spread, {workers} workers", alarm_rings(reps, "spread more", workers)
        yield f"alarm: drift in time, {workers} workers", alarm_rings(reps, "while it ran", workers)


def powers(reps: int) -> Iterator[tuple[str, sim.Share]]:
    """How often an alarm speaks of what it is for; nothing is nominal here."""
    for sd in (0.02, 0.04, 0.08):
        told = f"alarm: launches that differ by {100 * sd:g} points at p = 1/2 (sd)"
        yield told, alarm_rings(reps, "spread more", 32, launches=sd)
    yield "alarm: a server that loses 10 points while it runs", alarm_rings(reps, "while it ran", 32, slower=True)


def main() -> None:
    reps = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    for title, rows in (("covers", intervals(reps)), ("rejects", rejections(reps))):
        print(f"\n| scenario | {title} | nominal | repetitions | Monte-Carlo errors off |\n|---|---|---|---|---|")
        for name, found in rows:
            off = (found.share - found.nominal) / found.error
            shares = f"{100 * found.share:.1f} % | {100 * found.nominal:.1f} %"
            print(f"| {name} | {shares} | {found.trials} | {off:+.1f} |", flush=True)
    print("\n| scenario | speaks | repetitions |\n|---|---|---|")
    for name, found in powers(reps // 4):
        print(f"| {name} | {100 * found.share:.0f} % | {found.trials} |", flush=True)


if __name__ == "__main__":
    main()
