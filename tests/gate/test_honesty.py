"""What a gate refuses, and what it says about itself."""

import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from aem_harness.api.gating import gate as run_gate
from aem_harness.harness.errors import ConfigError, EnvironmentFault
from aem_harness.harness.gate import stages
from aem_harness.harness.gate.calibrate import Calibration, Scenario, Share, lowered
from aem_harness.harness.gate.config import configure
from aem_harness.harness.gate.design import design
from aem_harness.harness.gate.driver import GateOptions
from aem_harness.harness.gate.looks import Cells
from aem_harness.harness.gate.report import measured
from aem_harness.harness.gate.sequence import open_sequence
from tests.gate.test_command import aem, write
from tests.gate.worlds import counted, drawn, surface

Q = surface(120)
BASE, SAME = drawn("base", Q, 4, seed=1), drawn("same", Q, 4, seed=2)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    for name in ("CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name))
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"):
        monkeypatch.delenv(name, raising=False)


def judge(tmp_path, baseline, candidate, **settings):
    table = write(tmp_path / "o.csv", {"base": baseline, "cand": candidate})
    options = settings.pop("options", GateOptions(calibrated=False))
    return run_gate("base", "cand", sources=[table], options=options, **settings)


# --- gates that could not say one of their verdicts -------------------------------------------------------------------


def test_a_baseline_that_solves_nothing_is_infrastructure_not_a_pass(tmp_path):
    nothing = counted("base", [0] * 120, 4)
    with pytest.raises(EnvironmentFault, match="resolves nothing"):
        judge(tmp_path, nothing, nothing, margin=0.05)


@pytest.mark.parametrize("solved", [2, 3, 4])
def test_a_baseline_at_or_below_the_margin_is_refused_with_a_margin_that_makes_sense(tmp_path, solved):
    weak = counted("base", [4] * solved + [0] * (120 - solved), 4)
    with pytest.raises(ConfigError, match=r"cannot BLOCK.*choose --margin (0\.5|1|2)\b"):
        judge(tmp_path, weak, SAME, margin=0.05)


def test_a_block_margin_beyond_the_baseline_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot BLOCK"):
        judge(tmp_path, BASE, SAME, margin=0.05, block_margin=0.6)


def test_a_gate_that_cannot_pass_is_refused(tmp_path):
    few = counted("base", [1] * 9 + [0], 1)
    with pytest.raises(ConfigError, match="cannot PASS"):
        judge(tmp_path, few, few, margin=0.01)


@pytest.mark.parametrize(("margin", "cannot"), [(0.6, "BLOCK"), (0.05, "PASS")])
def test_the_margin_that_is_advised_allows_both_verdicts(tmp_path, margin, cannot):
    few = counted("base", [2, 2, 2, 1], 2)
    with pytest.raises(ConfigError, match=rf"cannot {cannot}.*choose --margin \d+$") as refused:
        judge(tmp_path, few, few, margin=margin)
    advised = float(str(refused.value).split()[-1]) / 100
    assert judge(tmp_path, few, few, margin=advised).verdict in ("PASS", "INCONCLUSIVE")


def test_a_margin_that_a_weak_baseline_allows_is_gated(tmp_path):
    weak = drawn("base", np.where(np.arange(400) < 40, 0.9, 0.0), 4, seed=1)
    assert judge(tmp_path, weak, counted("cand", [0] * 400, 4), margin=0.03).verdict == "BLOCK"


def test_calibration_of_a_margin_that_the_surface_does_not_reach_is_refused(tmp_path):
    weak = counted("base", [1] * 3 + [0] * 57, 4)
    table = write(tmp_path / "o.csv", {"base": weak})
    assert aem("calibrate", "--from", table, "--baseline", "base", "--margin", 5, "--trials", 2) == 4


# --- what is said -----------------------------------------------------------------------------------------------------


def calibration(false_passes: int) -> Calibration:
    scenarios = [
        Scenario(drop=drop, passed=Share.of(count, 200), blocked=Share.of(0, 200), used=0.3)
        for drop, count in ((0.0, 150), (0.03, false_passes))
    ]
    return Calibration(source="s", tasks=9, seeds=4, baseline_seeds=4, margin=0.03, scenarios=tuple(scenarios))


@pytest.mark.parametrize(
    ("false_passes", "words"),
    [(8, ""), (13, "within the error of the simulation"), (40, "MORE false PASS THAN STATED")],
)
def test_a_measured_error_rate_above_alpha_is_named(false_passes, words):
    text = measured(calibration(false_passes), configure())
    assert words in text
    assert bool(words) == ("stated" in text.lower())


def test_intervals_carry_their_level_and_the_verdict_is_about_this_checkpoint(tmp_path, capsys):
    table = write(tmp_path / "o.csv", {"base": BASE, "cand": SAME})
    aem("gate", "--from", table, "--baseline", "base", "--candidate", "cand", "--margin", 10, "--no-calibration")
    out, err = capsys.readouterr()
    assert re.search(r"points, 90 % \[", out)
    assert "this checkpoint" in out
    assert re.search(r"an equal checkpoint passes with a chance of \d+ %", err)


def test_a_gate_with_too_little_power_is_refused_before_it_begins(tmp_path):
    with pytest.raises(ConfigError, match="passes with a chance of"):
        judge(tmp_path, BASE, SAME, margin=0.03, options=GateOptions(least_chance=0.9, calibrated=False))


def test_junit_has_the_time_it_took(tmp_path):
    table = write(tmp_path / "o.csv", {"base": BASE, "cand": SAME})
    words = ("--from", table, "--baseline", "base", "--candidate", "cand", "--margin", 10, "--no-calibration")
    aem("gate", *words, "--junit", tmp_path / "g.xml")
    root = ET.parse(tmp_path / "g.xml").getroot()
    assert all(float(one.get("time") or 0) > 0 for one in [root, *root.iter("testsuite"), *root.iter("testcase")])


def test_stored_outcomes_are_used_to_the_end(tmp_path):
    """They cost nothing: an undecided gate has seen them all."""
    found = judge(tmp_path, BASE, drawn("c", lowered(Q, 0.05), 4, seed=6), margin=0.05)
    assert found.verdict != "INCONCLUSIVE" or found.rollouts == found.planned


def test_a_known_difference_between_launches_is_in_the_standard_error():
    plan = design(BASE.tasks, 4, baseline=BASE)
    values = np.take_along_axis(SAME.resolved, plan.seed_of, axis=1)
    cells, at = Cells(values, values, *BASE.extremes), np.array([100, 480])
    plain, wide = (stages.score(plan, configure(launch_sd=sd), cells, at).error[0] for sd in (0.0, 0.02))
    assert wide**2 == pytest.approx(plain**2 + 2 * 0.02**2)


# --- seeds that were never planned ------------------------------------------------------------------------------------


def test_seeds_that_were_never_planned_are_not_lost(tmp_path):
    rng = np.random.default_rng(0)
    lines = ["arm,instance_id,seed,resolved"]
    for name in ("base", "cand"):
        for i, q in enumerate(Q):
            lines += [f"{name},t{i:03d},{seed},{int(rng.random() < q)}" for seed in range(rng.integers(1, 6))]
    (tmp_path / "u.csv").write_text("\n".join(lines) + "\n")
    found = run_gate("base", "cand", sources=[tmp_path / "u.csv"], margin=0.1, options=GateOptions(calibrated=False))
    assert (found.missing, found.missing_baseline) == (0, 0)
    assert found.planned == sum(line.startswith("cand") for line in lines)
    with pytest.raises(Exception, match="the same number of seeds"):
        run_gate("base", "cand", sources=[tmp_path / "u.csv"], margin=0.1, question="outcomes")


# --- orders and sequences ---------------------------------------------------------------------------------------------


def test_a_second_order_is_refused_and_the_first_may_be_repeated(tmp_path):
    first = judge(tmp_path, BASE, SAME, margin=0.05)
    assert judge(tmp_path, BASE, SAME, margin=0.05).path == first.path
    with pytest.raises(ConfigError, match="in another order"):
        judge(tmp_path, BASE, SAME, margin=0.05, seed=1)
    with pytest.raises(ConfigError, match="in another order"):
        judge(tmp_path, BASE, SAME, margin=0.05, seed=1, alpha=0.049)
    with pytest.raises(ConfigError, match="with --orders 1, not 2"):
        judge(tmp_path, BASE, SAME, margin=0.05, seed=1, orders=2)


def test_orders_that_are_planned_share_alpha(tmp_path):
    found = [judge(tmp_path, BASE, SAME, margin=0.05, seed=seed, orders=2) for seed in range(2)]
    assert [one.config.alphas for one in found] == [(0.025, 0.025)] * 2
    with pytest.raises(ConfigError, match="in another order"):
        judge(tmp_path, BASE, SAME, margin=0.05, seed=2, orders=2)


def test_every_gate_is_written_down(tmp_path):
    ledger = tmp_path / "gates.jsonl"
    options = GateOptions(ledger=ledger, calibrated=False)
    for candidate in (SAME, drawn("c", Q, 4, seed=9)):
        judge(tmp_path, BASE, candidate, margin=0.05, options=options)
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert len({line["attempt"]["candidate"] for line in lines}) == 2
    assert {line["verdict"] for line in lines} <= {"PASS", "BLOCK", "INCONCLUSIVE"}


def test_the_error_budget_of_a_sequence_lasts(tmp_path):
    sequence = open_sequence(tmp_path / "s.json", "sha256:x", 0.05)
    assert {sequence.block_alpha(night) for night in (1, 7, 30, 90)} == {0.05 / 7}


def test_an_older_sequence_keeps_its_rule(tmp_path):
    (tmp_path / "s.json").write_text(json.dumps({"baseline_digest": "sha256:x", "alpha": 0.05, "gates": []}))
    assert open_sequence(tmp_path / "s.json", "sha256:x", 0.05).block_alpha(2) == pytest.approx(0.05 / 6)


def test_an_empty_pin_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--pin is empty"):
        judge(tmp_path, BASE, SAME, margin=0.05, options=GateOptions(pin="", calibrated=False))


def test_a_gate_called_from_python_prints_nothing(tmp_path, capfd):
    assert judge(tmp_path, BASE, SAME, margin=0.2).passed
    assert capfd.readouterr() == ("", "")
