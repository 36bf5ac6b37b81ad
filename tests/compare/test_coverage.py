"""Intervals cover and tests reject as often as they say: simulated through the estimators themselves.

Seeds are fixed, so these results do not vary. `benchmarks/coverage.py` has the same scenarios with more repetitions;
its figures are in docs/statistics.md.
"""

from dataclasses import replace

import numpy as np
import pytest

from aem_harness.harness.compare.intervals import cr2, estimate_difference
from aem_harness.harness.compare.values import TaskValues, Trials
from benchmarks.worlds import observed, roll
from tests.compare import scenarios as sim

REPS = 600
TWO = np.array([2, 2, 2])
FEW = {"a/a": 10, "b/b": 6, "c/c": 4}  # 20 tasks of 3 repositories
UNEQUAL = ((1, 2, 3, 4), (2, 4, 8))


@pytest.mark.parametrize("seeds", [(1, 1), (4, 4), (2, 2), (1, 4), ((3, 4), (3, 4)), UNEQUAL], ids=str)
def test_difference_on_these_tasks_is_covered_as_stated(seeds: tuple) -> None:
    assert sim.difference_these(REPS, seeds, task_spread=0.1).within()


@pytest.mark.parametrize("seeds", [(1, 1), (2, 2), (4, 4), UNEQUAL], ids=str)
def test_difference_on_twenty_tasks_is_covered_at_least_as_stated(seeds: tuple) -> None:
    assert sim.difference_these(REPS, seeds, repos=FEW, task_spread=0.1).at_least()


@pytest.mark.parametrize("seeds", [(1, 1), (4, 4), UNEQUAL], ids=str)
@pytest.mark.parametrize("repo_spread", [0.0, 0.05, 0.1])
def test_difference_on_tasks_like_these_is_covered_with_few_unequal_clusters(seeds: tuple, repo_spread: float) -> None:
    covered = sim.difference_like(REPS, seeds, repo_spread=repo_spread, task_spread=0.1)
    assert covered.at_least()
    assert covered.share <= 0.995  # without any effect of repositories it errs to the wide side, as documented


@pytest.mark.parametrize("one_repo", [False, True])
@pytest.mark.parametrize(
    ("tasks", "seeds", "gained", "rate"), [(100, 4, 0.01, 0.0), (120, 4, 0.015, 0.95), (500, 16, 0.004, 0.0)]
)
def test_new_tasks_are_covered_where_hardly_a_task_moves(
    tasks: int, seeds: int, gained: float, rate: float, one_repo: bool
) -> None:
    """Weak and saturated checkpoints: a spread of two or three tasks says nothing about those that did not move."""
    assert sim.difference_few_moved(300, tasks, seeds, gained=gained, rate=rate, one_repo=one_repo).at_least()


def test_three_clusters_are_still_covered() -> None:
    assert sim.difference_like(REPS, (4, 4), repos=FEW, repo_spread=0.1).at_least()


@pytest.mark.parametrize("sizes", [(60, 60), (100, 20), (200, 4, 2), (24,) * 5], ids=str)
@pytest.mark.parametrize("spread", [0.0, 0.1])
def test_few_repositories_are_covered_even_if_one_has_nearly_all(sizes: tuple[int, ...], spread: float) -> None:
    repos = {f"r{number}/r": size for number, size in enumerate(sizes)}
    assert sim.difference_like(REPS, (4, 4), repos=repos, repo_spread=spread, task_spread=0.1).at_least()


@pytest.mark.parametrize("rollouts", [1, 4])
def test_repositories_that_agree_by_chance_are_no_surer_than_one(rollouts: int) -> None:
    """Two repositories with the same mean difference have no variance: the interval was as narrow as a rerun's."""
    rng = np.random.default_rng(0)
    half = [roll(np.full(100, p), rollouts, rng).solved for p in (0.4, 0.5)]
    a, b = (Trials(np.tile(solved, 2), np.full(200, rollouts), np.zeros(200, dtype=np.int64)) for solved in half)
    two, one = np.repeat(["a/a", "b/b"], 100), np.repeat("a/a", 200)
    assert cr2((b.solved - a.solved) / rollouts, two)[0] < 1e-20
    agreed, alone = (estimate_difference(observed(a, repos), observed(b, repos)).like for repos in (two, one))
    assert agreed is not None
    assert alone is not None
    assert (agreed.low, agreed.high) == pytest.approx((alone.low, alone.high))
    assert agreed.df == pytest.approx(1)
    assert "2 repositories, of 1.0 degrees of freedom: little evidence on others" in agreed.note


@pytest.mark.parametrize("tasks", [500, 50])
def test_tangos_interval_covers_as_stated(tasks: int) -> None:
    assert sim.difference_tango(REPS, repos={"a/a": tasks}, task_spread=0.3).within()


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_the_hierarchical_bootstrap_counts_each_noise_once(fraction: float) -> None:
    assert sim.difference_bootstrap(REPS, (4, 4), fraction, task_spread=0.2).within()


@pytest.mark.parametrize("rate", [0.42, 0.03, 0.98])
@pytest.mark.parametrize("seeds", [1, 4])
def test_rates_are_covered_even_near_zero_and_one(rate: float, seeds: int) -> None:
    assert sim.rate_like(REPS, seeds, rate).at_least()
    assert sim.rate_these(REPS, seeds, rate=rate).at_least()


@pytest.mark.parametrize("tasks", [3, 7, 20])
@pytest.mark.parametrize("seeds", [(1, 1), (2, 2), (4, 4), (1, 4)], ids=str)
def test_parts_of_a_few_tasks_are_covered_and_not_by_saying_nothing(tasks: int, seeds: tuple[int, int]) -> None:
    """Student's interval alone is [-100, 100] points for three tasks of two rollouts."""
    few = {"a/a": tasks}
    assert sim.difference_these(REPS, seeds, repos=few, task_spread=0.2).at_least()
    assert sim.difference_these(REPS, seeds, repos=few, task_spread=0.2, shift=0.3).at_least()
    assert sim.rate_these(REPS, seeds[0], repos=few, rate=0.9).at_least()
    zeros = TaskValues(("",) * 3, np.zeros(3), np.zeros(3), np.zeros(3), np.full(3, 0.5), np.array(["a"] * 3), (TWO,))
    delta = estimate_difference(zeros, replace(zeros, values=np.ones(3))).these
    assert 0.1 < delta.low < delta.high == 1


@pytest.mark.parametrize(("n", "k"), [(4, 2), (8, 4), (8, 8)])
def test_pass_at_k_is_covered_at_least_as_stated(n: int, k: int) -> None:
    assert sim.pass_k_these(REPS, n, k).at_least()


@pytest.mark.parametrize(("n", "k"), [(5, 4), (8, 4)])
def test_pass_at_k_of_ten_tasks_is_covered(n: int, k: int) -> None:
    """Its noise is zero for most tasks: of ten it was covered in 85 to 89 %."""
    assert sim.pass_k_these(REPS, n, k, repos={"a/a": 10}).at_least()


@pytest.mark.parametrize("seeds", [(1, 1), (4, 4), ((3, 4), (3, 4)), UNEQUAL], ids=str)
def test_identical_arms_are_called_different_as_often_as_stated(seeds: tuple) -> None:
    assert sim.permutation_rejects(REPS, seeds, mid=True).within()
    assert sim.permutation_rejects(REPS, seeds).at_most()


@pytest.mark.parametrize("seeds", [(1, 1), (4, 4), UNEQUAL], ids=str)
def test_the_clustered_test_rejects_at_most_as_often_as_stated(seeds: tuple) -> None:
    assert sim.clustered_rejects(REPS, seeds, repo_spread=0.05, task_spread=0.1).at_most()


def test_two_repositories_are_no_proof_at_the_small_error_rates_of_holm() -> None:
    """Two repositories may agree by chance: at the interval for these tasks, t must keep their degrees of freedom."""
    repos = {"a/a": 100, "b/b": 20}
    share = sim.clustered_rejects(2000, (4, 4), alpha=0.005, repos=repos, repo_spread=0.1, task_spread=0.2)
    assert share.at_most()


@pytest.mark.parametrize("seeds", [(1, 1), (4, 4)], ids=str)
def test_a_drop_of_just_the_margin_passes_as_often_as_stated(seeds: tuple[int, int]) -> None:
    assert sim.noninferiority_passes(REPS, seeds, -0.03).within()


def test_holm_keeps_the_error_of_a_whole_table() -> None:
    assert sim.holm_rejects(300, 5, 4).at_most()


def test_lost_rollouts_never_leave_the_bounds_and_never_make_a_difference() -> None:
    held, differs = sim.bounds_turn(300, 4, 0.02)
    assert held.share == 1
    assert differs.share < 0.02  # 5 % without the bounds


@pytest.mark.parametrize(("arms", "spread"), [(10, 0.0), (10, 0.05)])
def test_the_best_of_a_series_is_corrected_for_having_been_picked(arms: int, spread: float) -> None:
    covered, bias = sim.best_interval(150, arms, 4, spread)
    assert covered.at_least()
    assert bias["observed"] > 0.002
    assert abs(bias["shrunken"]) < bias["observed"] / 2
    assert abs(bias["held_out"]) < 0.8 * bias["observed"]
