"""The measured error rates: small simulations with fixed seeds, and the cache."""

import numpy as np
import pytest
from scipy import stats

from aem_harness.harness.errors import ConfigError, DataError
from aem_harness.harness.gate.calibrate import (
    Share,
    able,
    cached,
    calibrate,
    lowered,
    own_surface,
    public_surface,
    to_text,
)
from aem_harness.harness.gate.config import configure
from aem_harness.harness.gate.design import design
from aem_harness.harness.gate.rates import few
from tests.gate.worlds import counted, drawn, surface

TRIALS = 200
MOST = stats.binom.ppf(0.999, TRIALS, 0.05)  # false verdicts that a rate of 5 % exceeds once in a thousand times


@pytest.fixture(scope="module")
def measured():
    """The nightly gate on the public surface of DeepSWE, 500 tasks x 4 seeds."""
    world, source = public_surface("deepswe", 500)
    return calibrate(configure(), world, source=source, seeds=4, baseline_seeds=4, trials=TRIALS, seed=1)


def at(measured, drop):
    return next(one for one in measured.scenarios if one.drop == drop)


def test_equal_checkpoints_are_cleared_with_a_third_of_the_rollouts(measured):
    assert at(measured, 0).blocked.count <= MOST
    assert at(measured, 0).passed.value > 0.7
    assert at(measured, 0).used < 0.38


def test_at_the_margin_each_verdict_is_as_rare_as_promised(measured):
    assert at(measured, 0.03).passed.count <= MOST
    assert at(measured, 0.03).blocked.count <= MOST


def test_a_drop_of_ten_points_is_caught_with_a_fifth_and_of_twenty_with_a_tenth(measured):
    assert at(measured, 0.10).blocked.value > 0.97
    assert at(measured, 0.10).used < 0.20
    assert at(measured, 0.20).blocked.value == 1
    assert at(measured, 0.20).used < 0.10


def test_with_a_single_task_the_drop_is_still_what_it_is_called():
    """Public surfaces draw hardly any solved task now and then, from which nothing can be lost."""
    world, source = public_surface("deepswe", 1)
    lost: list[float] = []

    def seen(rng):
        lost.append(float(world(rng).mean()))
        return np.array([lost[-1]])

    config = configure(margin=0.10, futility=0.0)
    found = calibrate(config, seen, source=source, seeds=8, baseline_seeds=8, drops=(), trials=50)
    assert min(lost) < 0.10  # such draws are not used for a drop of 10 points
    assert [one.passed.trials for one in found.scenarios] == [50, 50]
    assert able(world, 0.10, np.random.default_rng(1)).mean() >= 0.10
    with pytest.raises(ConfigError, match="of so few tasks"):
        able(lambda rng: np.zeros(1), 0.10, np.random.default_rng(1))


@pytest.mark.parametrize("world", ["high", "certain"])
def test_error_rates_hold_where_outcomes_are_lopsided(world):
    """Nearly everything solved, and no run noise in the baseline at all: rare failures decide."""
    surfaces = {
        "high": lambda rng: rng.beta(2, 0.1, 200),
        "certain": lambda rng: (rng.random(200) < 0.5).astype(float),
    }
    config = configure(margin=0.05, futility=0.0)
    found = calibrate(config, surfaces[world], source=world, seeds=2, baseline_seeds=2, drops=(), trials=TRIALS)
    assert at(found, 0.05).passed.count <= MOST
    assert at(found, 0.05).blocked.count <= MOST


def test_error_rates_hold_with_a_fresh_baseline_without_and_with_run_noise():
    for world in (lambda rng: (rng.random(150) < 0.5).astype(float), lambda rng: rng.beta(0.25, 0.34, 150)):
        config = configure(margin=0.06, futility=0.0)
        found = calibrate(config, world, source="", seeds=2, baseline_seeds=2, drops=(), trials=TRIALS, fresh=True)
        assert at(found, 0.06).passed.count <= MOST
        assert at(found, 0.06).blocked.count <= MOST


def test_with_few_tasks_t_tests_on_the_way_clear_what_bets_cannot():
    config = configure(margin=0.1)
    assert few(design(tuple("abcdefgh"), 8), config)
    found = calibrate(
        config, lambda rng: rng.beta(0.25, 0.34, 40), source="", seeds=8, baseline_seeds=8, drops=(), trials=TRIALS
    )
    assert at(found, 0).passed.value > 0.85
    assert at(found, 0).used < 0.7
    assert at(found, 0.1).passed.count <= MOST


def test_one_seed_stakes_for_what_one_seed_can_show():
    world, source = public_surface("deepswe", 500)
    found = calibrate(configure(), world, source=source, seeds=1, baseline_seeds=1, drops=(), trials=TRIALS)
    assert at(found, 0).passed.value > 0.19  # 18 % when staking for an equal candidate as with four seeds
    assert at(found, 0.03).passed.count <= MOST


def test_a_lowered_surface_has_exactly_that_mean():
    q = surface(300)
    assert lowered(q, 0.1).mean() == pytest.approx(q.mean() - 0.1)
    assert lowered(q, 0.9).max() == 0


def test_a_share_has_the_exact_interval():
    share = Share.of(0, 60)
    assert share.high == pytest.approx(1 - 0.025 ** (1 / 60))


def test_the_surface_of_stored_seeds_looks_like_them():
    q = surface(400)
    baseline = drawn("base", q, 8)
    world, words = own_surface(baseline)
    drawn_rates = np.mean([world(np.random.default_rng(seed)) for seed in range(20)], axis=0)
    assert drawn_rates.mean() == pytest.approx(baseline.means.mean(), abs=0.01)
    assert np.corrcoef(drawn_rates, q)[0, 1] > 0.95
    assert words.startswith("base, 400 tasks x 8 seeds; Beta(0.2")


def test_one_seed_a_task_is_not_enough_for_a_surface():
    with pytest.raises(DataError, match="--surface deepswe"):
        own_surface(counted("base", np.ones(50), 1))


def test_an_unknown_surface_is_named():
    with pytest.raises(ConfigError, match="no surface 'nowhere'; choose deepswe"):
        public_surface("nowhere", 10)


def test_a_calibration_is_computed_once_for_a_gate_and_a_baseline(tmp_path):
    baseline = drawn("base", surface(60), 4)
    first = cached(configure(), baseline, 4, folder=tmp_path, trials=10)
    (path,) = tmp_path.iterdir()
    path.write_text(path.read_text().replace(first.source, "from the cache"))
    assert cached(configure(seed=9), baseline, 4, folder=tmp_path, trials=10).source == "from the cache"
    assert cached(configure(margin=0.05), baseline, 4, folder=tmp_path, trials=10).source == first.source
    assert len(list(tmp_path.iterdir())) == 2


def test_a_baseline_with_one_seed_is_calibrated_on_the_public_surface(tmp_path):
    found = cached(configure(), counted("base", np.r_[np.ones(30), np.zeros(30)], 1), 1, folder=tmp_path, trials=5)
    assert found.source.startswith("DeepSWE")


def test_the_text_has_a_line_for_every_drop(measured):
    lines = to_text(measured).splitlines()
    assert sum(line.strip().endswith("%") for line in lines) == len(measured.scenarios)
