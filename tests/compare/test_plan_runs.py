"""What was planned for training runs is what simulated methods show."""

from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.compare.plan_runs import plan_runs
from aem_harness.harness.compare.surface import PUBLIC
from aem_harness.harness.compare.units import run_variance
from aem_harness.harness.compare.values import Floats


def test_the_power_over_training_runs_is_what_was_planned() -> None:
    """Run means are drawn as the plan takes them to vary, through the test that compares them."""
    rng = np.random.default_rng(0)
    found = plan_runs(PUBLIC["deepswe"], tasks=500, difference=0.03, run_sd=0.015, training_hours=0, rollout_hours=0)
    one = next(design for design in found.designs if (design.runs, design.seeds) == (5, 4))
    sd = one.se * np.sqrt(5 / 2)

    def rejects(a: Floats, b: Floats) -> bool:
        variance, df, _ = run_variance(a, b)
        return bool(2 * stats.t.sf(abs(b.mean() - a.mean()) / np.sqrt(variance), df) <= 0.05)

    hits = sum(rejects(rng.normal(0, sd, 5), rng.normal(0.03, sd, 5)) for _ in range(1500))
    assert hits / 1500 == pytest.approx(one.power, abs=0.04)


def test_more_rollouts_do_not_replace_training_runs() -> None:
    found = plan_runs(PUBLIC["deepswe"], tasks=500, difference=0.014, run_sd=0.01, training_hours=1, rollout_hours=0)
    power = {(one.runs, one.seeds): one.power for one in found.designs}
    assert power[2, 16] < 0.2 < power[8, 2]
    assert found.best is not None
    assert found.best.runs >= 8


def test_dear_training_makes_fewer_runs_with_more_rollouts() -> None:
    def design(training: float, rollout: float) -> tuple[int, int]:
        found = plan_runs(
            PUBLIC["deepswe"], tasks=500, difference=0.03, run_sd=0.01, training_hours=training, rollout_hours=rollout
        ).best
        assert found is not None
        return found.runs, found.seeds

    dear, cheap = design(1000, 0.001), design(0.01, 1)
    assert dear[0] < cheap[0]
    assert dear[1] > cheap[1]


def test_power_is_drawn_for_every_number_of_seeds(tmp_path: Path) -> None:
    path = tmp_path / "power.svg"
    shown = CliRunner().invoke(app, ["plan", "--difference", "3", "--plot", str(path)])
    assert shown.exit_code == 0
    drawn = ElementTree.parse(path).getroot()
    words = "".join(drawn.itertext())
    assert all(label in words for label in ("1 seed", "4 seeds", "16 seeds"))
    lines = [one for one in drawn.iter() if one.tag.endswith("polyline")]
    heights = [[float(at.split(",")[1]) for at in one.attrib["points"].split()] for one in lines]
    assert len(heights) == 5
    assert all(one == sorted(one, reverse=True) for one in heights)  # power rises with the difference
    assert all(more[12] < fewer[12] for fewer, more in pairwise(heights))  # and with the seeds


def test_the_command_answers_in_a_sentence() -> None:
    shown = CliRunner().invoke(app, ["plan", "--difference", "3", "--run-sd", "1", "--training-hours", "400"])
    assert shown.exit_code == 0
    assert "training runs per method" in shown.output
    assert "GPU hours" in shown.output
    assert "--difference POINTS" in str(CliRunner().invoke(app, ["plan", "--seeds", "4", "--run-sd", "1"]).exception)
