"""Simulated evaluations through the real estimators: how often an interval covers, how often a test rejects."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy import special

from aem_harness.harness.compare.bootstrap import bootstrap_differences
from aem_harness.harness.compare.contrast import discordance, judge_trials
from aem_harness.harness.compare.decisions import decide, holm, noninferiority_claim
from aem_harness.harness.compare.family import settle
from aem_harness.harness.compare.intervals import (
    estimate,
    estimate_difference,
    like_these,
    p_value,
    these_tasks,
)
from aem_harness.harness.compare.mcnemar import tango
from aem_harness.harness.compare.passk import pass_values
from aem_harness.harness.compare.permutation import stratified_permutation
from aem_harness.harness.compare.plan import VERIFIED_REPOS
from aem_harness.harness.compare.units import RunMeans, run_variance, spread_of
from aem_harness.harness.compare.values import Floats, Ints, TaskValues, Trials, difference
from aem_harness.harness.compare.winner import best_of
from benchmarks.worlds import World, draw_world, observed, roll

Seeds = int | Sequence[int]  # rollouts a task, or the numbers among which every task draws its own


@dataclass(frozen=True)
class Share:
    """`hits` of `trials`; `error` is the Monte-Carlo standard error at the nominal share."""

    hits: int
    trials: int
    nominal: float

    @property
    def share(self) -> float:
        return self.hits / self.trials

    @property
    def error(self) -> float:
        return sqrt(self.nominal * (1 - self.nominal) / self.trials)

    def within(self, errors: float = 3.0) -> bool:
        """Neither above nor below nominal by more than Monte-Carlo error."""
        return abs(self.share - self.nominal) <= errors * self.error

    def at_least(self, errors: float = 3.0) -> bool:
        return self.share >= self.nominal - errors * self.error

    def at_most(self, errors: float = 3.0) -> bool:
        return self.share <= self.nominal + errors * self.error


def repeat(reps: int, nominal: float, once: Callable[[np.random.Generator], bool], seed: int = 0) -> Share:
    """Run `once` `reps` times on one random stream."""
    rng = np.random.default_rng(seed)
    return Share(sum(bool(once(rng)) for _ in range(reps)), reps, nominal)


def seeds_of(seeds: Seeds, n: int, rng: np.random.Generator) -> Ints:
    """Rollouts of each of n tasks."""
    return np.full(n, seeds) if isinstance(seeds, int) else rng.choice(np.array(seeds), n)


def roll_pair(world: World, seeds: tuple[Seeds, Seeds], rng: np.random.Generator) -> tuple[Trials, Trials]:
    n = len(world.repos)
    return (
        roll(world.baseline, seeds_of(seeds[0], n, rng), rng),
        roll(world.candidate, seeds_of(seeds[1], n, rng), rng),
    )


def delta(world: World, a: Trials, b: Trials) -> TaskValues:
    return difference(observed(a, world.repos), observed(b, world.repos))


# --- coverage -------------------------------------------------------------------------------------------------------


def difference_these(reps: int, seeds: tuple[Seeds, Seeds], **world: object) -> Share:
    """Interval of the difference on these tasks; the world stays, the rollouts are new each time."""

    def once(rng: np.random.Generator) -> bool:
        w = draw_world(rng, **world)  # type: ignore[arg-type]
        interval = estimate_difference(*(observed(arm, w.repos) for arm in roll_pair(w, seeds, rng))).these
        return interval.low <= w.difference <= interval.high

    return repeat(reps, 0.95, once)


def difference_like(reps: int, seeds: tuple[Seeds, Seeds], shift: float = 0.0, **world: object) -> Share:
    """Interval of the difference on tasks like these; tasks, repositories' effects and rollouts are new each time."""

    def once(rng: np.random.Generator) -> bool:
        w = draw_world(rng, shift=shift, **world)  # type: ignore[arg-type]
        interval = estimate_difference(*(observed(arm, w.repos) for arm in roll_pair(w, seeds, rng))).like
        assert interval is not None
        return interval.low <= shift <= interval.high

    return repeat(reps, 0.95, once)


def difference_few_moved(
    reps: int,
    tasks: int,
    seeds: int,
    *,
    gained: float = 0.0,
    noise: float = 0.0,
    rate: float = 0.0,
    one_repo: bool = False,
) -> Share:
    """Interval for tasks like these where hardly a task moves: weak and saturated checkpoints.

    A share `gained` of new tasks is solved always instead of never. Of the others, in both arms alike, a share `rate`
    is always solved, and a share `noise` is solved in half of the rollouts.
    """
    names = np.repeat(list(VERIFIED_REPOS), list(VERIFIED_REPOS.values()))

    def once(rng: np.random.Generator) -> bool:
        repos = np.full(tasks, "a/a") if one_repo else names[np.sort(rng.choice(500, tasks, replace=False))]
        before = np.where(rng.random(tasks) < noise, 0.5, (rng.random(tasks) < rate).astype(float))
        moved = rng.random(tasks) < gained
        a = roll(np.where(moved, 0.0, before), seeds, rng)
        b = roll(np.where(moved, 1.0, before), seeds, rng)
        interval = estimate_difference(observed(a, repos), observed(b, repos)).like
        assert interval is not None
        return interval.low <= gained <= interval.high

    return repeat(reps, 0.95, once)


def difference_tango(reps: int, **world: object) -> Share:
    """Tango's interval at one rollout a task, on independent new tasks."""

    def once(rng: np.random.Generator) -> bool:
        w = draw_world(rng, **world)  # type: ignore[arg-type]
        a, b = roll_pair(w, (1, 1), rng)
        low, high = tango(int((b.solved > a.solved).sum()), int((a.solved > b.solved).sum()), len(w.repos))
        return low <= 0 <= high

    return repeat(reps, 0.95, once)


def difference_bootstrap(reps: int, seeds: tuple[Seeds, Seeds], fraction: float, **world: object) -> Share:
    """Percentile interval of the hierarchical bootstrap, tasks independent."""

    def once(rng: np.random.Generator) -> bool:
        w = draw_world(rng, **world)  # type: ignore[arg-type]
        a, b = roll_pair(w, seeds, rng)
        low, high = np.percentile(bootstrap_differences(a, b, fraction=fraction, draws=1000), [2.5, 97.5])
        return bool(low <= (w.difference if fraction == 1 else 0.0) <= high)

    return repeat(reps, 0.95, once)


def rate_these(reps: int, seeds: Seeds, **world: object) -> Share:
    def once(rng: np.random.Generator) -> bool:
        w = draw_world(rng, **world)  # type: ignore[arg-type]
        trials, _ = roll_pair(w, (seeds, 1), rng)
        values = observed(trials, w.repos)
        interval = estimate(values, rate=True).these
        return interval.low <= w.baseline.mean() <= interval.high

    return repeat(reps, 0.95, once)


def rate_like(reps: int, seeds: Seeds, rate: float, **world: object) -> Share:
    def once(rng: np.random.Generator) -> bool:
        w = draw_world(rng, rate=rate, **world)  # type: ignore[arg-type]
        trials, _ = roll_pair(w, (seeds, 1), rng)
        values = observed(trials, w.repos)
        interval = like_these(values, clustered=False, rate=True)
        assert interval is not None
        return interval.low <= rate <= interval.high

    return repeat(reps, 0.95, once)


def pass_k_these(reps: int, seeds: int, k: int, **world: object) -> Share:
    def once(rng: np.random.Generator) -> bool:
        w = draw_world(rng, **world)  # type: ignore[arg-type]
        trials, _ = roll_pair(w, (seeds, 1), rng)
        names = tuple(str(i) for i in range(len(w.repos)))
        values = pass_values(names, w.repos, trials.solved, trials.rollouts, k)
        interval = estimate(values, rate=True, each=k).these
        truth = float((1 - (1 - w.baseline) ** k).mean())
        return interval.low <= truth <= interval.high

    return repeat(reps, 0.95, once)


def best_interval(reps: int, arms: int, seeds: int, spread: float) -> tuple[Share, Mapping[str, float]]:
    """Interval of the rate of the picked arm, and the mean bias of the observed, shrunken and held-out rates."""
    biases: list[list[float]] = []

    def once(rng: np.random.Generator) -> bool:
        w = draw_world(rng)
        shifts = rng.normal(0, spread, arms)
        truths = [np.clip(w.baseline + s * 4 * w.baseline * (1 - w.baseline), 0, 1) for s in shifts]
        trials = [roll(truth, seeds, rng) for truth in truths]
        values = [observed(one, w.repos) for one in trials]
        means = np.array([value.values.mean() for value in values])
        errors = np.array([these_tasks(value).se for value in values])
        best = best_of([str(arm) for arm in range(arms)], means, errors, trials, splits=40)
        assert best.held_out is not None
        truth = float(truths[int(best.arm)].mean())
        biases.append([best.observed - truth, best.shrunken - truth, best.held_out - truth])
        return best.low <= truth <= best.high

    covered = repeat(reps, 0.95, once)
    return covered, dict(zip(("observed", "shrunken", "held_out"), np.mean(biases, axis=0).tolist(), strict=True))


def draw_runs(p: Floats, sd: float, runs: int, seeds: int, rng: np.random.Generator) -> list[Ints]:
    """Training runs of one method: each shifts the logits of `p` (N,) by a draw of Normal(0, sd); successes (N,)."""
    logits = np.log(np.clip(p, 1e-9, 1 - 1e-9)) - np.log1p(-np.clip(p, 1e-9, 1 - 1e-9))
    moved = [1 / (1 + np.exp(-(logits + shift))) for shift in rng.normal(0, sd, runs)]
    return [rng.binomial(seeds, one) for one in moved]


def method_difference(reps: int, sd: float, *, runs: int, seeds: int, tasks: int = 500) -> tuple[Share, Share]:
    """Equal methods whose training runs differ: t over run means, and the same rollouts pooled as seeds."""
    pooled: list[bool] = []

    def once(rng: np.random.Generator) -> bool:
        w = draw_world(rng) if tasks == 500 else draw_world(rng, {"a/a": tasks})
        solved = [np.array(draw_runs(w.baseline, sd, runs, seeds, rng)) for _ in range(2)]
        means = [one.mean(axis=1) / seeds for one in solved]
        variance, df, _ = run_variance(*means)
        half = special.stdtrit(df, 0.975) * np.sqrt(variance)
        each = np.full(tasks, runs * seeds)
        arms = [Trials(one.sum(axis=0), each, 0 * each) for one in solved]
        interval = these_tasks(difference(*(observed(arm, w.repos) for arm in arms)))
        pooled.append(interval.low <= 0 <= interval.high)
        return bool(abs(means[1].mean() - means[0].mean()) <= half)

    unit = repeat(reps, 0.95, once)
    return unit, Share(sum(pooled), reps, 0.95)


def run_spread(reps: int, sd: float, *, runs: int, seeds: int, tasks: int = 500) -> tuple[Share, list[float]]:
    """Interval of the standard deviation between training runs; and every upper end.

    With one rollout a task the rollouts' part cannot be taken out: then the sum of both is to be covered.
    """
    highs: list[float] = []
    nodes, weights = np.polynomial.hermite_e.hermegauss(21)

    def once(rng: np.random.Generator) -> bool:
        p = draw_world(rng).baseline if tasks == 500 else draw_world(rng, {"a/a": tasks}).baseline
        rates = np.array(draw_runs(p, sd, runs, seeds, rng)) / seeds
        noise = rates * (1 - rates) / (seeds - 1) if seeds > 1 else np.full(rates.shape, np.nan)
        count = np.full(tasks, seeds)
        own = [
            TaskValues(("",) * tasks, rate, own, own**2, np.full(tasks, 1 / seeds), np.full(tasks, "a"), (count,))
            for rate, own in zip(rates, noise, strict=True)
        ]
        at_most = float(np.mean([these_tasks(one).se ** 2 for one in own]))
        found = spread_of(RunMeans(tuple(map(str, range(runs))), rates, noise, at_most))
        assert found is not None
        clipped = np.clip(p, 1e-9, 1 - 1e-9)
        moved = [1 / (1 + (1 / clipped - 1) * np.exp(-sd * node)) for node in nodes]
        means = np.array([one.mean() for one in moved])
        centre = weights @ means / weights.sum()
        truth = weights @ (means - centre) ** 2 / weights.sum()
        if seeds == 1:
            truth += weights @ np.array([(one * (1 - one)).mean() for one in moved]) / weights.sum() / tasks
        highs.append(found[2])
        return bool(found[1] <= np.sqrt(truth) <= found[2])

    return repeat(reps, 0.95, once), highs


# --- false positives and power --------------------------------------------------------------------------------------


def permutation_rejects(
    reps: int, seeds: tuple[Seeds, Seeds], *, mid: bool = False, alpha: float = 0.05, **world: object
) -> Share:
    """How often the stratified permutation test rejects (with no `shift` and no spread: false positives)."""

    def once(rng: np.random.Generator) -> bool:
        w = draw_world(rng, **world)  # type: ignore[arg-type]
        found = stratified_permutation(*roll_pair(w, seeds, rng))
        return (found.p_mid if mid else found.p) <= alpha

    return repeat(reps, alpha, once)


def clustered_rejects(reps: int, seeds: tuple[Seeds, Seeds], *, alpha: float = 0.05, **world: object) -> Share:
    """How often the clustered t test rejects."""

    def once(rng: np.random.Generator) -> bool:
        w = draw_world(rng, **world)  # type: ignore[arg-type]
        found = estimate_difference(*(observed(arm, w.repos) for arm in roll_pair(w, seeds, rng)))
        assert found.like is not None
        return p_value(found.value, found.like) <= alpha

    return repeat(reps, alpha, once)


def noninferiority_passes(reps: int, seeds: tuple[int, int], shift: float) -> Share:
    """How often a candidate is called non-inferior by exactly the margin that it really loses on these tasks."""

    def once(rng: np.random.Generator) -> bool:
        w = draw_world(rng, shift=shift)
        a, b = roll_pair(w, seeds, rng)
        result = estimate_difference(observed(a, w.repos), observed(b, w.repos))
        found = decide(noninferiority_claim(result, -w.difference, "these tasks", discordance(a, b, 0.95)))
        return found.verdict == "non-inferior"

    return repeat(reps, 0.025, once)


def holm_rejects(reps: int, arms: int, seeds: int) -> Share:
    """How often at least one of several identical candidates is called different from the baseline, after Holm."""

    def once(rng: np.random.Generator) -> bool:
        w = draw_world(rng)
        baseline, *others = [roll(w.baseline, seeds, rng) for _ in range(arms + 1)]
        return min(holm([stratified_permutation(baseline, other).p_mid for other in others])) <= 0.05

    return repeat(reps, 0.05, once)


def bounds_turn(reps: int, seeds: int, lost: float) -> tuple[Share, Share]:
    """Rollouts lost at random: how often the bounds hold the full difference, and how often bounded A/A differs."""
    held: list[bool] = []

    def once(rng: np.random.Generator) -> bool:
        w = draw_world(rng)
        a, b = roll_pair(w, (seeds, seeds), rng)
        full = delta(w, a, b).values.mean()
        a, b = lose(a, lost, rng), lose(b, lost, rng)
        (found,) = settle([judge_trials(("a", "b"), a, b, w.repos)])
        held.append(found.bounds is None or found.bounds.low <= full <= found.bounds.high)
        return found.decision.verdict in ("better", "worse")

    differs = repeat(reps, 0.05, once)
    return Share(sum(held), len(held), 1.0), differs


def lose(trials: Trials, share: float, rng: np.random.Generator) -> Trials:
    """Lose each rollout's verdict with probability `share`, but leave every task one."""
    lost = np.minimum(rng.binomial(trials.rollouts, share), trials.rollouts - 1)
    solved_lost = rng.hypergeometric(trials.solved, trials.rollouts - trials.solved, lost)
    return Trials(trials.solved - solved_lost, trials.rollouts - lost, lost)


def noninferiority_clears(reps: int, seeds: tuple[int, int], margin: float) -> Share:
    """How often a candidate with the very probabilities of the baseline is called non-inferior."""

    def once(rng: np.random.Generator) -> bool:
        w = draw_world(rng)
        a, b = roll_pair(w, seeds, rng)
        result = estimate_difference(observed(a, w.repos), observed(b, w.repos))
        found = decide(noninferiority_claim(result, margin, "these tasks", discordance(a, b, 0.95)))
        return found.verdict == "non-inferior"

    return repeat(reps, 0.5, once)
