"""Rollouts that are not independent draws of one policy are spoken of; those that are, are not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.contingency_tables import cochrans_q

from aem_harness.harness.compare.alarms import ALARM, alarms, drift_in_time, seeds_spread
from aem_harness.harness.compare.compare import compare
from aem_harness.harness.compare.outcomes import load
from aem_harness.harness.schema import normalise


def arm(p: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """Rollouts with resolve probabilities p (tasks, seeds), seed after seed, a minute each."""
    tasks, seeds = p.shape
    y = (rng.random(p.shape) < p).astype(int)
    start = pd.Timestamp("2026-01-01T00:00:00+00:00")
    rows = [
        ("a", f"a__a-{task}", seed, y[task, seed], (start + pd.Timedelta(minutes=seed * tasks + task)).isoformat())
        for seed in range(seeds)
        for task in range(tasks)
    ]
    return normalise(pd.DataFrame(rows, columns=["arm", "instance_id", "seed", "resolved", "at"]), "made")


def test_the_spread_of_seeds_is_cochrans_q() -> None:
    table = arm(np.full((60, 4), 0.4), np.random.default_rng(0))
    found = seeds_spread(table)
    wide = table.assign(y=table["resolved"].astype(int)).pivot(index="instance_id", columns="seed", values="y")
    assert found is not None
    assert found[2] == pytest.approx(cochrans_q(wide.to_numpy()).pvalue)


def test_sound_arms_are_spoken_of_once_in_a_hundred() -> None:
    rng = np.random.default_rng(1)
    p = rng.beta(0.5, 0.5, 150)[:, None] * np.ones(4)
    tables = [arm(p, rng) for _ in range(150)]
    for found in ([seeds_spread(one) for one in tables], [drift_in_time(one) for one in tables]):
        told = sum(one is not None and one[-1] < 0.05 for one in found)
        assert 0 <= told <= 17  # 7.5 of 150 at 5 %, and at most three Monte-Carlo errors more


def test_launches_that_differ_and_a_server_that_degrades_are_spoken_of() -> None:
    rng = np.random.default_rng(2)
    p = np.clip(rng.beta(0.5, 0.5, 300), 0.1, 0.8)[:, None] * np.ones(6)
    launches = arm(np.clip(p + 0.12 * (np.arange(6) % 2), 0, 1), rng)
    degrading = arm(np.clip(p - 0.05 * np.arange(6), 0, 1), rng)
    lines = list(alarms({"launches": launches, "degrading": degrading}))
    assert any("seeds of launches spread more" in line for line in lines)
    assert any("degrading fell while it ran" in line for line in lines)
    change, p_value = drift_in_time(degrading) or (0.0, 1.0)
    assert -0.35 < change < -0.15  # it lost 25 points from the first seed to the last
    assert p_value < ALARM


def test_pooled_checkpoints_are_named() -> None:
    table = arm(np.full((20, 2), 0.5), np.random.default_rng(3))
    table["model"] = np.where(table["seed"] == 0, "grpo-seed0", "grpo-seed1")
    assert "pools 2 checkpoints (grpo-seed0, grpo-seed1)" in next(alarms({"grpo": table}))


def test_training_runs_pooled_as_seeds_raise_the_alarm(shared: Path) -> None:
    found = compare(load([str(shared / "cases/stats/trainseeds_pooled.csv.gz")]))
    assert any("seeds of grpo spread more" in line for line in found.warnings)
