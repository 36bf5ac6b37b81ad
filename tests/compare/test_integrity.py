"""Rollouts with grave integrity marks: official verdicts stay, and what they rest on is in sight."""

import json
from pathlib import Path

import pandas as pd
import pytest

from aem_harness.harness.compare.compare import compare
from aem_harness.harness.compare.export import to_csv, to_text
from aem_harness.harness.compare.outcomes import Outcomes, load
from aem_harness.harness.report.formats import FORMATS
from aem_harness.harness.report.paper import paper_table
from tests.compare.test_compare import counts, table
from tests.compare.test_outcomes import grade, rollout, run_folder


def marked(n: int) -> Outcomes:
    """Forty tasks, two seeds; the candidate solves ten more than the baseline, by hooks on `n` of those tasks."""
    outcomes = table(base=counts([2] * 20 + [0] * 20, 2), new=counts([2] * 30 + [0] * 10, 2))
    hooked = (outcomes.table["arm"] == "new") & outcomes.table["instance_id"].isin([f"x__y-{20 + i}" for i in range(n)])
    outcomes.table["integrity"] = pd.Series("runner hook", index=outcomes.table.index).where(hooked)
    return outcomes


def test_marked_rollouts_leave_the_official_rate_and_fail_in_the_adjusted_one() -> None:
    found = compare(marked(10))
    new = found.arms[1]
    assert (new.resolved.value, new.unmarked.value, new.marked) == (0.75, 0.5, 20)
    assert found.arms[0].unmarked == found.arms[0].resolved
    (contrast,) = found.contrasts
    assert contrast.unmarked is not None
    assert (contrast.decision.verdict, contrast.unmarked.decision.verdict) == ("better", "no difference detected")
    assert contrast.unmarked.difference.value == 0
    assert "integrity_adjusted" in to_csv(found).splitlines()[0]


def test_a_verdict_that_rests_on_marked_rollouts_says_so_in_its_first_line() -> None:
    first = to_text(compare(marked(10))).splitlines()[1]
    assert "new is better than base (integrity-adjusted: no difference detected)" in first
    assert "integrity" not in to_text(compare(marked(1))).splitlines()[1]  # nine clean tasks carry it
    assert "less 2 marked" in to_text(compare(marked(1)))
    assert "marked" not in to_text(compare(marked(0)))


def test_tables_for_print_hold_both_columns() -> None:
    text = FORMATS["markdown"](paper_table(compare(marked(10)), ("resolved", "adjusted", "adjusted-difference")))
    cells = next(line.split("|") for line in text.splitlines() if line.startswith("| new"))
    assert [cell.split()[0] for cell in cells[2:5]] == ["75.0", "50.0", "+0.0"]


def test_many_candidates_are_corrected_for_being_many_without_their_marks_too() -> None:
    outcomes = marked(10)
    third = outcomes.table[outcomes.table["arm"] == "new"].assign(arm="third", integrity=None)
    both = Outcomes(pd.concat([outcomes.table, third], ignore_index=True))
    first, second = compare(both).contrasts
    assert first.unmarked is not None
    assert second.unmarked is None
    assert first.unmarked.tests[0].p_holm == 1
    assert second.tests[0].p_holm == pytest.approx(2 * second.tests[0].p)


def test_the_marks_of_a_run_are_read_from_its_audit(tmp_path: Path) -> None:
    events = [e for seed in range(2) for e in (rollout("x__y-1", seed), grade("x__y-1", seed, "resolved"))]
    folder = run_folder(tmp_path / "r", "base", events)
    marks = [{"name": "runner hook", "file": "a", "why": "b", "grave": True}]
    mild = [{"name": "binary", "file": "a", "why": "b", "grave": False}]
    entries = [
        {"instance_id": "x__y-1", "seed": s, "outcome": "resolved", "marks": m} for s, m in ((0, marks), (1, mild))
    ]
    (folder / "audit.json").write_text(json.dumps(entries))
    found = load([folder]).table.set_index(["instance_id", "seed"])["integrity"]
    assert found["x__y-1", 0] == "runner hook"
    assert found.notna().sum() == 1


def canaried(n: int) -> Outcomes:
    """As `marked(n)`, the marks being those of canaries, and ten other rollouts found clean."""
    outcomes = marked(n)
    hooked = outcomes.table["integrity"].notna()
    clean = (outcomes.table["arm"] == "new") & outcomes.table["instance_id"].isin([f"x__y-{i}" for i in range(5)])
    states = pd.Series("clean", index=hooked.index).where(clean)
    outcomes.table["canary"] = states.mask(hooked, "marked")
    return outcomes


def test_official_audited_and_adjusted_rates_stand_side_by_side() -> None:
    outcomes = canaried(10)
    more = (outcomes.table["arm"] == "new") & (outcomes.table["instance_id"] == "x__y-6")
    outcomes.table.loc[more, "integrity"] = "runner hook"  # marked by its wording, and not graded again
    found = compare(outcomes)
    new = found.arms[1]
    assert (new.regraded, new.tampered, new.marked) == (30, 20, 22)
    assert new.audited is not None
    assert (new.resolved.value, new.audited.value, new.unmarked.value) == (0.75, 0.5, 0.475)
    assert found.arms[0].audited is None
    text = to_text(found)
    assert "tampered: 20 of 30" in text
    assert "adjusted: less 22 marked" in text


def test_a_verdict_that_excused_rollouts_of_the_candidate_carry_is_said_to_turn() -> None:
    """The candidate is better on what it has verdicts for; counted as failures, its lost rollouts undo that."""
    outcomes = table(base=counts([2] * 20 + [0] * 20, 2), new=counts([2] * 32 + [0] * 8, 2))
    lost = (outcomes.table["arm"] == "new") & outcomes.table["instance_id"].isin([f"x__y-{i}" for i in range(12)])
    outcomes.table.loc[lost, "resolved"] = pd.NA
    outcomes.table.loc[lost, "outcome"] = "error"
    (contrast,) = compare(outcomes).contrasts
    assert contrast.bounds is not None
    assert contrast.difference.value > 0.2
    assert contrast.bounds.excused_failed == pytest.approx(0.0)
    text = " ".join(to_text(compare(outcomes)).split())
    assert "if only the candidate's 24 had failed: no difference detected" in text.replace("│ │ ", "")
