"""Rollouts that are not independent draws of one policy are spoken of; those that are, are not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.contingency_tables import cochrans_q

from aem_harness.harness.compare.alarms import ALARM, alarms, drift_in_time, seeds_spread
from aem_harness.harness.compare.compare import compare
from aem_harness.harness.compare.export import to_text
from aem_harness.harness.compare.outcomes import load
from aem_harness.harness.compare.records import Comparison
from aem_harness.harness.report.formats import to_html
from aem_harness.harness.report.html import build_report
from aem_harness.harness.report.paper import paper_table
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


def test_failures_that_take_longer_are_no_drift() -> None:
    """All rollouts begin together and failures end last: by their ends the rate seems to fall while the arm runs."""
    rng = np.random.default_rng(4)
    table = arm(rng.beta(0.5, 0.5, 150)[:, None] * np.ones(4), rng)
    seconds = np.where(table["resolved"].astype(bool), 300.0, 900.0) + rng.uniform(0, 300, len(table))
    late = pd.to_timedelta(rng.uniform(0, 5, len(table)) + seconds, unit="s")
    ended = pd.Timestamp("2026-01-01T00:00:00+00:00") + late
    found = drift_in_time(table.assign(seconds=seconds, at=[time.isoformat() for time in ended]))
    assert found is not None
    assert found[1] > ALARM


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


def timed(tmp_path: Path, *, hours_later: float) -> Comparison:
    """Two arms of six tasks, the second slower throughout, begun so much later."""
    rows = []
    for arm_name, begin, slow in (("base", 0.0, 60.0), ("new", hours_later, 90.0)):
        for task in range(6):
            at = pd.Timestamp("2026-01-01T00:00:00+00:00") + pd.Timedelta(hours=begin, minutes=5 * (task + 1))
            rows.append((arm_name, f"a__a-{task}", 0, task % 2, slow + task, at.isoformat()))
    columns = ["arm", "instance_id", "seed", "resolved", "seconds", "at"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "arms.csv", index=False)
    return compare(load([tmp_path / "arms.csv"]))


@pytest.mark.parametrize(("later", "apart"), [(0.05, ""), (1.0, "new and base did not run at the same time")])
def test_times_of_arms_that_ran_one_after_the_other_do_not_count_as_found(tmp_path, later, apart):
    found = timed(tmp_path, hours_later=later)
    assert found.apart == apart
    (row,) = [row for row in found.metrics if row.name == "wall time"]
    assert row.p["new"] < 0.05
    said = f"Times also depend on the load of the machine, and {apart}"
    text = " ".join(to_text(found, width=200).split())
    assert (said in text) is bool(apart)
    page = build_report(found, load([tmp_path / "arms.csv"]), tmp_path / "r.html")
    assert ('class="number strong">+30.00' in page) is not bool(apart)
    assert (said in page) is bool(apart)
    table = to_html(paper_table(found, ["resolved", "wall-time:diff"]))
    assert ("<sup>*" in table) is not bool(apart)
    assert (said in table) is bool(apart)


def test_times_without_a_clock_are_not_compared_either(tmp_path):
    (tmp_path / "arms.csv").write_text(
        "arm,instance_id,seed,resolved,seconds\n" + "".join(f"{a},t-{i},0,1,{9 + i}\n" for a in "ab" for i in range(4))
    )
    assert compare(load([tmp_path / "arms.csv"])).apart == "it is not known when a, b ran"
