"""Budgets, tiers, and the alpha of a sequence of gates."""

import pytest

from aem_harness.harness.errors import ConfigError, DataError
from aem_harness.harness.gate.config import TIERS, Budget, configure
from aem_harness.harness.gate.sequence import WINDOW, GateSequence, PastGate, open_sequence, record
from tests.gate.worlds import drawn, surface


@pytest.mark.parametrize(
    ("text", "amount", "unit", "words"),
    [
        ("800", 800, "rollouts", "800 rollouts"),
        ("800r", 800, "rollouts", "800 rollouts"),
        ("20Mtok", 20e6, "tokens", "20,000,000 tokens"),
        ("12gpuh", 12, "gpu_hours", "12 GPU-hours"),
        ("1.5 gpuh", 1.5, "gpu_hours", "1.5 GPU-hours"),
    ],
)
def test_a_budget_is_read_in_each_unit(text, amount, unit, words):
    found = Budget.parse(text)
    assert (found.amount, found.unit, str(found)) == (amount, unit, words)


@pytest.mark.parametrize("text", ["", "many", "800x", "-5", "0", "tok"])
def test_a_budget_that_is_not_understood_says_what_to_write(text):
    with pytest.raises(ConfigError, match="write 800"):
        Budget.parse(text)


def test_every_tier_is_a_valid_gate_and_what_is_given_wins():
    for tier in TIERS:
        assert configure(tier).margin > 0
    assert configure("smoke", margin=0.05).margin == 0.05
    assert configure("release").sequential is False
    with pytest.raises(ConfigError, match="no tier 'weekly'"):
        configure("weekly")


@pytest.mark.parametrize("values", [{"margin": 0.0}, {"margin": 1.5}, {"alpha": 0.7}, {"retries": -1}])
def test_a_setting_out_of_range_is_named(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        configure(**values)


def test_the_digest_of_a_gate_changes_with_its_settings():
    assert configure().digest == configure().digest
    assert configure().digest != configure(margin=0.04).digest


# --- sequences --------------------------------------------------------------------------------------------------------

BASE = drawn("base", surface(30))


def test_the_alphas_of_a_sequence_never_sum_to_more_than_alpha():
    sequence = GateSequence(baseline_digest="x", alpha=0.05)
    alphas = [sequence.block_alpha(number) for number in range(1, 2000)]
    assert alphas[0] == 0.025
    assert 0.0499 < sum(alphas) < 0.05


def ended(sequence: GateSequence, candidate) -> PastGate:
    number = sequence.number(candidate.digest)
    return PastGate(
        number=number,
        candidate=candidate.name,
        candidate_digest=candidate.digest,
        block_alpha=sequence.block_alpha(number),
        verdict="PASS",
        rollouts=10,
        difference=0.0,
        at="2026-01-01",
    )


def test_a_gate_is_recorded_once_and_a_repeated_one_spends_nothing(tmp_path):
    path = tmp_path / "gates.json"
    first, second = (drawn(name, surface(30), seed=seed) for name, seed in (("night-1", 5), ("night-2", 6)))
    for candidate in (first, second, first):
        sequence = open_sequence(path, BASE.digest, 0.05)
        record(path, sequence, ended(sequence, candidate))
    found = open_sequence(path, BASE.digest, 0.05)
    assert [(gate.number, gate.candidate, gate.block_alpha) for gate in found.gates] == [
        (1, "night-1", 0.05 / WINDOW),
        (2, "night-2", 0.05 / WINDOW),
    ]


def test_a_candidate_of_the_same_name_with_other_outcomes_is_a_new_gate(tmp_path):
    path = tmp_path / "gates.json"
    for seed in (5, 6):
        sequence = open_sequence(path, BASE.digest, 0.05)
        candidate = drawn("nightly", surface(30), seed=seed)
        record(path, sequence, ended(sequence, candidate))
    assert len(open_sequence(path, BASE.digest, 0.05).gates) == 2


def test_a_sequence_belongs_to_one_baseline_and_one_alpha(tmp_path):
    path = tmp_path / "gates.json"
    candidate = drawn("c", surface(30), seed=5)
    sequence = open_sequence(path, BASE.digest, 0.05)
    record(path, sequence, ended(sequence, candidate))
    with pytest.raises(ConfigError, match="belongs to baseline sha256"):
        open_sequence(path, candidate.digest, 0.05)
    with pytest.raises(ConfigError, match="belongs to alpha"):
        open_sequence(path, BASE.digest, 0.1)


def test_a_broken_state_file_is_named(tmp_path):
    path = tmp_path / "gates.json"
    for text, message in (("{", r"gates\.json is not JSON"), ("{}", r"gates\.json is not the state of a sequence")):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            open_sequence(path, BASE.digest, 0.05)


def test_a_run_that_is_not_begun_is_the_next_gate(tmp_path):
    assert GateSequence(baseline_digest="x", alpha=0.05).number(None) == 1
