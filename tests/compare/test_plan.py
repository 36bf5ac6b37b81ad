"""Plans: the numbers that a simulation of the planned comparison finds, and allocations that are really optimal."""

import json
import re
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.compare.intervals import like_these, these_tasks
from aem_harness.harness.compare.plan import allocate, costs, plan, power_of, standard_error
from aem_harness.harness.compare.surface import PUBLIC, from_history, task_variances
from aem_harness.harness.errors import DataError
from aem_harness.harness.schema import normalise
from benchmarks.worlds import draw_world, roll
from tests.compare import scenarios as sim

DEEPSWE = PUBLIC["deepswe"]


def test_seeds_that_the_public_surface_asks_for() -> None:
    """Found 80 % of the time on 500 tasks: a little more than 2.8 standard errors of equal arms (5.3, 3.8, 2.7, 1.9,
    1.3 points), because a gain makes sure failures noisy."""
    found = {row.seeds: 100 * row.detectable["these tasks"] for row in plan(DEEPSWE, seeds=16).rows}
    assert [found[k] for k in (1, 2, 4, 8, 16)] == pytest.approx([6.05, 4.02, 2.79, 1.95, 1.36], abs=0.03)


def test_one_point_four_points_need_more_than_eight_seeds() -> None:
    assert plan(DEEPSWE, difference=0.014).needed["difference, these tasks"] == 16
    shown = CliRunner().invoke(app, ["plan", "--difference", "1.4"])
    assert shown.exit_code == 0, shown.output
    assert "16 seeds per arm, 16,000 rollouts" in shown.output


def test_what_no_number_of_seeds_can_show_is_said() -> None:
    assert plan(DEEPSWE, difference=0.014).needed["difference, tasks like these"] is None
    assert "no number of seeds" in CliRunner().invoke(app, ["plan", "--difference", "1.4"]).output


@pytest.mark.parametrize(("seeds", "shift"), [(1, 0.05), (4, 0.03), (8, 0.02)])
def test_the_power_of_the_exact_test_is_what_was_planned(seeds: int, shift: float) -> None:
    found = sim.permutation_rejects(600, (seeds, seeds), alpha=0.05, shift=shift)
    row = next(row for row in plan(DEEPSWE, difference=shift).rows if row.seeds == seeds)
    assert found.share == pytest.approx(row.power["these tasks"], abs=3 * found.error)


def test_the_power_to_clear_an_equal_candidate_is_what_was_planned() -> None:
    found = sim.noninferiority_clears(400, (4, 4), 0.02)
    row = next(row for row in plan(DEEPSWE, margin=0.02, seeds=4).rows if row.seeds == 4)
    assert found.share == pytest.approx(row.passes["these tasks"], abs=0.06)


def test_planned_standard_errors_are_those_that_come_out() -> None:
    rng = np.random.default_rng(0)
    these, like = [], []
    for _ in range(150):
        world = draw_world(rng, rate=DEEPSWE.rate, task_spread=0.2, repo_spread=0.05)
        delta = sim.delta(world, *sim.roll_pair(world, (4, 4), rng))
        these.append(these_tasks(delta).se ** 2)
        interval = like_these(delta)
        assert interval is not None
        like.append(float(delta.values.mean()) ** 2)
    assert np.sqrt(np.mean(these)) == pytest.approx(standard_error(DEEPSWE, 500, 4, "these tasks"), rel=0.03)
    spread = DEEPSWE.rate * (1 - DEEPSWE.rate)
    worlds = [draw_world(rng, rate=DEEPSWE.rate, task_spread=0.2, repo_spread=0.0) for _ in range(40)]
    change = np.mean([(w.candidate - w.baseline).var() for w in worlds])
    worlds = [draw_world(rng, rate=DEEPSWE.rate, repo_spread=0.05) for _ in range(40)]
    repository = np.mean([[(w.candidate - w.baseline)[w.repos == r].mean() ** 2 for r in set(w.repos)] for w in worlds])
    parts = DEEPSWE.model_copy(update={"change": change / spread, "repository": repository / spread})
    assert np.sqrt(np.mean(like)) == pytest.approx(standard_error(parts, 500, 4, "tasks like these"), rel=0.2)


def test_power_is_alpha_without_a_difference_and_four_fifths_at_two_and_four_fifths_standard_errors() -> None:
    assert power_of(0.0, 0.01, 5.0) == pytest.approx(0.05)
    assert power_of(0.0280158, 0.01, np.inf) == pytest.approx(0.8, abs=1e-5)


def test_the_allocation_is_the_best_of_all() -> None:
    variances = np.array([0.25, 0.09, 0.01, 0.0])
    found = allocate(variances, 12)
    best = min(
        (float((variances / np.array(seeds)).sum()), seeds)
        for seeds in product(range(1, 10), repeat=4)
        if sum(seeds) == 12
    )
    assert float((variances / np.array(found.seeds)).sum()) == pytest.approx(best[0])
    assert min(found.seeds) == 1
    assert found.rollouts == 12


def test_an_allocation_saves_what_it_says_and_stays_unbiased() -> None:
    rng = np.random.default_rng(0)
    p = rng.beta(0.25, 0.34, 300)
    history = roll(p, 4, rng)
    table = pd.DataFrame(
        [("a", f"x__y-{i}", s, int(s < c)) for i, c in enumerate(history.solved) for s in range(4)],
        columns=["arm", "instance_id", "seed", "resolved"],
    )
    tasks = [f"x__y-{i}" for i in range(300)]
    found = allocate(task_variances(normalise(table, "history"), tasks), 1200)
    seeds = np.array(found.seeds)
    means = np.array([(rng.binomial(seeds, p) / seeds).mean() for _ in range(4000)])
    assert means.mean() == pytest.approx(p.mean(), abs=4 * means.std() / np.sqrt(4000))
    equal = (p * (1 - p)).sum() / 300**2
    assert equal / means.var() * 300 == pytest.approx(found.equal_rollouts, rel=0.12)
    assert found.saving > 0.05


def test_history_gives_back_the_components_it_was_drawn_with() -> None:
    rng = np.random.default_rng(0)
    world = draw_world(rng, rate=0.5, noise=0.3, task_spread=0.3)
    rows = []
    for arm, p in (("a", world.baseline), ("b", world.candidate)):
        drawn = roll(p, 8, rng)
        for i, (repo, solved) in enumerate(zip(world.repos, drawn.solved, strict=True)):
            rows += [(arm, f"{repo.replace('/', '__')}-{i}", s, int(s < solved), 100.0) for s in range(8)]
    table = normalise(pd.DataFrame(rows, columns=["arm", "instance_id", "seed", "resolved", "seconds"]), "made up")
    found = from_history(table, DEEPSWE)
    change = float((world.candidate - world.baseline).var()) / 0.25
    assert found.noise == pytest.approx(0.3, abs=0.05)
    assert found.rate == pytest.approx(0.5, abs=0.06)
    assert found.change == pytest.approx(change, abs=0.03)
    assert found.seconds == 100


def test_costs_add_up() -> None:
    found = costs(DEEPSWE, 1000, workers=10, gpus=8, tasks=500)
    assert found["wall hours"] == pytest.approx(1000 * 2676 / 10 / 3600 * 1.07)
    assert found["GPU hours"] == pytest.approx(8 * found["wall hours"])


def test_measured_gpu_seconds_are_planned_with() -> None:
    measured = DEEPSWE.model_copy(update={"gpu_seconds": 36.0})
    assert costs(measured, 1000, workers=10, gpus=8, tasks=500)["GPU hours"] == pytest.approx(10)


@pytest.mark.parametrize("tasks", [2, 5])
def test_on_very_few_tasks_one_rollout_finds_no_difference(tasks: int) -> None:
    """Six tasks that all go one way are the fewest that the exact test rejects at 5 %."""
    words = ["plan", "--tasks", str(tasks), "--difference", "3"]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0, shown.exception
    assert re.search(r"\n +1 +\d+ +[\d.]+ +none ", shown.output)
    assert "suffices" in shown.output
    row = json.loads(CliRunner().invoke(app, [*words, "--json"]).output)["rows"][0]
    assert row["detectable"] == {"these tasks": None, "tasks like these": None}


@pytest.mark.parametrize(("resolved", "said"), [(1, "every task"), (0, "no task")])
def test_a_history_without_variation_asks_for_a_rate(tmp_path: Path, resolved: int, said: str) -> None:
    rows = [("a", f"x__y-{task}", seed, resolved) for task in range(6) for seed in range(2)]
    history = tmp_path / "history.csv"
    pd.DataFrame(rows, columns=["arm", "instance_id", "seed", "resolved"]).to_csv(history, index=False)
    words = ["plan", "--history", str(history), "--difference", "3"]
    refused = CliRunner().invoke(app, words)
    assert isinstance(refused.exception, DataError)
    assert f"the history resolves {said}" in str(refused.exception)
    assert CliRunner().invoke(app, [*words, "--rate", "40"]).exit_code == 0


def test_the_allocation_is_written_for_every_task_of_the_history(tmp_path: Path) -> None:
    rows = [("a", f"x__y-{i}", s, (i + s) % 2) for i in range(10) for s in range(3)]
    history = tmp_path / "history.csv"
    pd.DataFrame(rows, columns=["arm", "instance_id", "seed", "resolved"]).to_csv(history, index=False)
    out = tmp_path / "seeds.csv"
    shown = CliRunner().invoke(app, ["plan", "--history", str(history), "--allocate", str(out), "--budget", "50"])
    assert shown.exit_code == 0, shown.output
    assert pd.read_csv(out)["seeds"].sum() == 50


def test_a_difference_that_many_seeds_would_show_is_not_called_impossible() -> None:
    """More than 512 seeds was reported as "no number of seeds suffices", because "repositories differ"."""
    found = plan(DEEPSWE, difference=0.001)
    assert found.needed["difference, these tasks"] is None
    assert found.never == ("difference, tasks like these",)
    shown = CliRunner().invoke(app, ["plan", "--difference", "0.1"])
    assert shown.exit_code == 0, shown.output
    assert "+0.1 points (these tasks): more than 512 seeds per arm on these 500 tasks" in shown.output
    assert "+0.1 points (tasks like these): no number of seeds" in shown.output


def test_no_power_is_written_as_certainty() -> None:
    shown = CliRunner().invoke(app, ["plan", "--difference", "20"])
    assert "> 99 %" in shown.output
    assert "100 %" not in shown.output


def test_nobody_can_gain_more_than_is_left() -> None:
    shown = CliRunner().invoke(app, ["plan", "--difference", "20", "--rate", "95"])
    assert shown.exit_code != 0
    assert "more than the 5.0 that a baseline at 95.0 % leaves to gain" in str(shown.exception)
    found = plan(DEEPSWE.model_copy(update={"rate": 0.98}), tasks=40, seeds=1).rows[0].detectable
    assert found == {"these tasks": None, "tasks like these": None}
