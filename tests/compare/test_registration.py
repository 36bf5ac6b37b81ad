"""A plan that was fixed before: a comparison keeps to it, or says in what it does not."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.compare.outcomes import write_csv
from aem_harness.harness.compare.registration import Registration, deviations, note_of, read_registration, register
from aem_harness.harness.errors import ConfigError, DataError
from tests.compare.test_compare import counts, table


def plan(**changes: object) -> Registration:
    values: dict[str, object] = {
        "tasks": [f"x__y-{i}" for i in range(6)], "seeds": 2, "level": 0.95, "aem": "0", "arms": ["base", "new"],
        "created_at": "2026-01-02T00:00:00+00:00",
    }  # fmt: skip
    return Registration.model_validate(values | changes)


def test_a_registration_is_written_once_and_a_changed_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    fixed = register(path, plan())
    assert read_registration(path) == fixed
    with pytest.raises(ConfigError, match="is never changed"):
        register(path, plan(seeds=4))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seeds": 4}))
    with pytest.raises(DataError, match="changed after it was registered"):
        read_registration(path)


def test_what_is_as_registered_says_so_and_every_deviation_is_named() -> None:
    kept = table(base=counts([1] * 6, 2), new=counts([2] * 6, 2))
    assert deviations(plan(), kept, arms=["base", "new"], level=0.95) == []
    assert note_of(plan(digest="0123456789abcdef"), []) == "as registered (0123456789ab, 2026-01-02)"
    broken = table(base=counts([1] * 7, 2), new=counts([2] * 5, 3))
    broken.table["at"] = "2026-01-01T12:00:00+00:00"
    found = "; ".join(
        deviations(plan(margin=0.02, excluded=["x__y-5"]), broken, arms=["base", "new"], level=0.9, margin=None)
    )
    for words in (
        "base has 2 tasks that were not registered", "new has 3 rollouts per task, not 2", "level is 0.9, not 0.95",
        "rollouts of new ended before the registration", "margin is 0, not 0.02",
    ):  # fmt: skip
        assert words in found


def test_compare_and_table_say_whether_all_is_as_registered(tmp_path: Path) -> None:
    write_csv(table(base=counts([1] * 6, 2), new=counts([2] * 6, 2)).table, tmp_path / "two.csv")
    register(tmp_path / "plan.json", plan())
    given = [str(tmp_path / "two.csv"), "--registered", str(tmp_path / "plan.json")]
    run = CliRunner()
    assert "as registered" in run.invoke(app, ["compare", *given, "--brief"]).output
    assert "not as registered" not in run.invoke(app, ["table", *given]).output
    shown = run.invoke(app, ["compare", *given, "--brief", "--level", "0.9"]).output
    assert "not as registered" in shown


def test_a_gate_says_first_whether_its_margin_and_order_are_as_registered(tmp_path: Path) -> None:
    fixed = plan(margin=0.03, order=7)
    assert deviations(fixed, None, margin=0.03, order=7) == []
    assert deviations(fixed, None, margin=0.05, order=0) == ["margin is 0.05, not 0.03", "order is 0, not 7"]
    write_csv(table(base=counts([1] * 6, 2), new=counts([1] * 6, 2)).table, tmp_path / "two.csv")
    register(tmp_path / "plan.json", fixed)
    kept = ["--ledger", str(tmp_path / "ledger.jsonl")]
    words = [
        "gate",
        "--from",
        str(tmp_path / "two.csv"),
        "--baseline",
        "base",
        "--candidate",
        "new",
        "--no-calibration",
    ]
    shown = CliRunner().invoke(app, [*words, "--margin", "5", "--registered", str(tmp_path / "plan.json"), *kept])
    assert "not as registered" in shown.output
    assert "margin is 0.05, not 0.03" in shown.output


def test_a_gate_of_two_files_names_the_tasks_and_the_error_rates_that_were_not_registered(tmp_path: Path) -> None:
    """Arms that are files of their own, not of --from, are checked as well."""
    for name, tasks in (("base", 5), ("new", 6)):
        write_csv(table(**{name: counts([1] * tasks, 2)}).table, tmp_path / f"{name}.csv")
    register(tmp_path / "plan.json", plan(margin=0.03, order=0))
    words = ["gate", "--baseline", str(tmp_path / "base.csv"), "--candidate", str(tmp_path / "new.csv"), "--common"]
    words += ["--no-calibration", "--ledger", str(tmp_path / "ledger.jsonl"), "--margin", "3"]
    words += ["--registered", str(tmp_path / "plan.json")]
    shown = CliRunner().invoke(app, [*words, "--alpha", "0.2", "--orders", "3", "--block-margin", "0"]).output
    shown = " ".join(shown.split())
    for told in ("base lacks 1 registered tasks", "alpha is 0.2, not 0.05", "orders is 3, not 1"):
        assert told in shown
    assert "block margin is 0, not 0.03" in shown
    assert "margin is 0.03" not in shown


def test_other_pairs_of_arms_and_another_dataset_are_deviations(tmp_path: Path) -> None:
    outcomes = table(base=counts([1] * 6, 2), new=counts([2] * 6, 2), last=counts([2] * 6, 2))
    outcomes.table["dataset"] = "tiny 0123456789ab"
    write_csv(outcomes.table, tmp_path / "three.csv")
    fixed = register(tmp_path / "plan.json", plan(arms=["base", "new", "last"], dataset="tiny 0123456789ab"))
    assert deviations(fixed, outcomes, arms=["base", "new", "last"]) == []
    outcomes.table["dataset"] = "tiny ffffffffffff"
    (found,) = deviations(fixed, outcomes, arms=["base", "new"])[:1]
    assert found == "the dataset of base is tiny ffffffffffff, not tiny 0123456789ab"
    given = [str(tmp_path / "three.csv"), "--registered", str(tmp_path / "plan.json")]
    for words in (["compare", "--brief", "--series"], ["table", "--all-pairs"]):
        shown = " ".join(CliRunner().invoke(app, [words[0], *given, *words[1:]]).output.split())
        assert "not each arm with the baseline" in shown


def test_the_command_freezes_tasks_and_seeds(tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    words = [
        "plan",
        "--register",
        str(out),
        "--set",
        "tiny",
        "--seeds",
        "3",
        "--margin",
        "5",
        "--arm",
        "a",
        "--arm",
        "b",
    ]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0, shown.output
    fixed = read_registration(out)
    assert (len(fixed.tasks), fixed.seeds, fixed.margin, fixed.arms) == (40, 3, 0.05, ("a", "b"))
    assert np.isclose(fixed.level, 0.95)
