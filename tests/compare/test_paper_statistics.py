"""Equivalence, pass@k differences, interactions, simultaneous bands: what a paper asks beside the difference."""

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.compare.compare import CompareOptions, compare
from aem_harness.harness.compare.export import to_text
from aem_harness.harness.compare.interactions import apart, heterogeneity
from aem_harness.harness.compare.outcomes import Outcomes, write_csv
from aem_harness.harness.compare.registration import Registration, now, register
from aem_harness.harness.compare.terminal import show
from aem_harness.harness.compare.values import Trials, difference
from aem_harness.harness.errors import ConfigError
from aem_harness.harness.report.again import TableOptions, make_table
from aem_harness.harness.report.paper import paper_table
from benchmarks.paper_statistics import interaction_rejects
from benchmarks.worlds import draw_world, observed, roll
from tests.compare.test_compare import counts, rows, table


def test_two_arms_alike_are_equivalent_and_two_apart_are_not() -> None:
    same, better = counts([0, 2, 4] * 60, 4), counts([1, 3, 4] * 60, 4)
    verdicts = {}
    for name, new in (("same", same), ("better", better)):
        found = compare(table(base=same, new=new), options=CompareOptions(margin=0.05)).contrasts[0]
        verdicts[name] = [one.verdict for one in found.decisions if one.question == "these tasks"]
    assert verdicts["same"] == ["non-inferior", "not superior", "equivalent"]
    assert verdicts["better"] == ["non-inferior", "superior", "equivalence not shown"]


@pytest.mark.parametrize("seeds", [1, 4])
def test_arms_apart_by_the_margin_are_called_equivalent_no_more_than_allowed(seeds: int) -> None:
    from aem_harness.harness.compare.contrast import discordance
    from aem_harness.harness.compare.decisions import decide, equivalence_claim
    from aem_harness.harness.compare.intervals import estimate_difference

    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        w = draw_world(rng, shift=-0.05)
        a, b = roll(w.baseline, seeds, rng), roll(w.candidate, seeds, rng)
        found = estimate_difference(observed(a, w.repos), observed(b, w.repos))
        claim = equivalence_claim(found, -w.difference, "these tasks", discordance(a, b, 0.95))
        hits += decide(claim).verdict == "equivalent"
    assert hits <= 400 * 0.025 + 3 * np.sqrt(400 * 0.025 * 0.975)


def test_the_difference_of_pass_at_k_is_paired_and_covers() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(120):
        w = draw_world(rng, {"a/a": 100}, task_spread=0.2)
        arms = {"base": roll(w.baseline, 6, rng), "new": roll(w.candidate, 6, rng)}
        from aem_harness.harness.compare.arms import Sample, pass_differences
        from aem_harness.harness.compare.values import rates

        names = tuple(map(str, range(100)))
        samples = {arm: Sample(names, trials, rates(trials, names, w.repos)) for arm, trials in arms.items()}
        found = pass_differences(samples, [("base", "new")], 0.95)
        one = next(one for one in found if (one.kind, one.k) == ("pass@k", 4))
        truth = float(((1 - w.baseline) ** 4 - (1 - w.candidate) ** 4).mean())
        covered += one.estimate.these.low <= truth <= one.estimate.these.high
    assert covered >= 120 * 0.95 - 3 * np.sqrt(120 * 0.95 * 0.05)


def test_the_verdict_gives_each_interval_once_and_the_margin_by_name() -> None:
    same = counts([0, 2, 4] * 60, 4)
    found = compare(table(base=same, new=same), options=CompareOptions(margin=0.05))
    panel = to_text(found, width=200).split("\n\n")[0]
    assert len(re.findall(r"these tasks, 95 % \[", panel)) == 1
    assert len(re.findall(r"tasks like these, 95 % \[", panel)) == 1
    assert len(re.findall("these tasks, by the margin: ", panel)) == 3


def test_a_gain_on_one_part_only_is_an_interaction_and_an_even_one_is_not() -> None:
    base = counts([1, 2, 1, 2] * 40, 4)
    even = counts([2, 3, 2, 3] * 40, 4)
    uneven = Trials(np.where(np.arange(160) % 2 == 0, 4, base.solved), base.rollouts, base.missing)
    outcomes = table(base=base, even=even, uneven=uneven)
    number = outcomes.table["instance_id"].str.extract(r"(\d+)$")[0].astype(int)
    outcomes.table["difficulty"] = np.where(number % 2 == 0, "<15 min fix", "1-4 hours")
    outcomes.table["created_at"] = np.where(number % 2 == 0, "2023-05-01", "2024-05-01")
    found = compare(outcomes, options=CompareOptions(cutoff="2024-01-01"))
    p = {(one.candidate, one.by): one.p_holm for one in found.interactions}
    assert p["even", "difficulty"] > 0.5
    assert p["uneven", "difficulty"] < 1e-4
    change = next(one for one in found.interactions if one.candidate == "uneven" and one.change is not None)
    assert change.change == pytest.approx(-0.75)
    assert change.these is not None
    assert change.these.high < -0.5
    assert "issues before and from 2024-01-01: -75.0 points" in to_text(found)
    text = io.StringIO()
    show(found, Console(file=text, width=160), brief=True)
    assert "issues before and from 2024-01-01: -75.0 points" in text.getvalue(), "what was asked for"
    assert "by difficulty" not in text.getvalue()


def test_interaction_tests_reject_as_often_as_stated() -> None:
    rng = np.random.default_rng(2)
    rejected = covered = 0
    for _ in range(400):
        w = draw_world(rng, {"a/a": 120, "b/b": 60, "c/c": 60})
        delta = difference(*(observed(roll(p, 4, rng), w.repos) for p in (w.baseline, w.baseline)))
        parts = [delta.where(w.repos == repo) for repo in ("a/a", "b/b", "c/c")]
        rejected += heterogeneity(parts) <= 0.05
        _, these, _ = apart(parts[0], parts[1])
        covered += these.low <= 0 <= these.high
    error = 3 * np.sqrt(400 * 0.05 * 0.95)
    assert rejected <= 20 + error
    assert covered >= 380 - error


def test_small_repositories_with_noise_that_is_low_by_chance_do_not_make_an_interaction() -> None:
    """Two rollouts a task, the repositories of Verified: some have two to ten tasks."""
    assert interaction_rejects(600, 2, 0).at_most()


def test_a_series_has_bands_that_hold_for_all_steps_at_once() -> None:
    rng = np.random.default_rng(3)
    held = 0
    p = rng.beta(0.5, 0.5, 100)
    from aem_harness.harness.compare.arms import Sample, bands
    from aem_harness.harness.compare.values import rates

    names, repos = tuple(map(str, range(100))), np.full(100, "a/a")
    for _ in range(200):
        trials = [roll(p, 4, rng) for _ in range(6)]
        found = bands({str(i): Sample(names, one, rates(one, names, repos)) for i, one in enumerate(trials)}, 0.95)
        held += all(low <= p.mean() <= high for low, high in found.values())
    assert held >= 190 - 3 * np.sqrt(200 * 0.05 * 0.95)
    arms = {f"step{i}": counts([1, 2] * 20, 4) for i in range(3)}
    assert set(compare(table(**arms), options=CompareOptions(against="previous")).bands) == set(arms)
    assert not compare(table(**arms)).bands


def test_pass_at_k_differences_are_columns_of_a_table(tmp_path: object) -> None:
    path = f"{tmp_path}/two.csv"
    both = [rows("base", counts([0, 2, 4] * 10, 4)), rows("new", counts([1, 2, 4] * 10, 4))]
    write_csv(Outcomes(pd.concat(both, ignore_index=True)).table, path)  # type: ignore[arg-type]
    shown = CliRunner().invoke(app, ["table", path, "--columns", "pass@2,pass@2:diff,pass^4:diff"])
    assert shown.exit_code == 0
    assert "pass@2: difference, points" in shown.output


def test_a_table_says_over_how_many_tasks_pass_at_k_is_where_some_have_fewer_rollouts() -> None:
    few = Trials(np.array([1, 2] * 20), np.array([1, 4] * 20), np.zeros(40, dtype=int))
    both = [rows("base", counts([2] * 40, 4)), rows("new", few)]
    outcomes = Outcomes(pd.concat(both, ignore_index=True))
    text = "\n".join(paper_table(compare(outcomes), ("pass@2", "pass@2:diff")).notes)
    assert "pass@2 of new over 20, pass@2:diff of new over 20 tasks" in text
    assert "over the tasks" not in "\n".join(paper_table(compare(outcomes), ("resolved",)).notes).lower()


@pytest.mark.parametrize("cutoff", ["yesterday", "2024", "2024-13-01"])
def test_a_cutoff_that_is_no_date_is_refused(cutoff: str) -> None:
    outcomes = table(base=counts([1, 2] * 10, 4), new=counts([2, 2] * 10, 4))
    outcomes.table["created_at"] = "2023-05-01"
    with pytest.raises(ConfigError, match="is no date: write YYYY-MM-DD"):
        compare(outcomes, options=CompareOptions(cutoff=cutoff))


def test_a_table_can_be_as_registered_with_a_margin_and_says_what_is_decided_by_it(tmp_path: Path) -> None:
    outcomes = table(base=counts([1, 3] * 40, 4), new=counts([1, 3] * 40, 4)).table
    write_csv(outcomes, tmp_path / "arms.csv")
    plan = {"tasks": tuple(sorted(outcomes["instance_id"].unique())), "seeds": 4, "level": 0.95, "margin": 0.2}
    register(tmp_path / "plan.json", Registration(**plan, aem="0", created_at=now()))
    options = TableOptions(registered=str(tmp_path / "plan.json"))
    text = make_table([str(tmp_path / "arms.csv")], options).text
    assert "not as registered" in text
    assert "margin is 0, not 0.2" in text
    text = make_table([str(tmp_path / "arms.csv")], options.model_copy(update={"margin": 0.2})).text
    assert "- as registered (" in text
    assert "By a margin of 20 points, for these tasks" in text
    assert "new \N{MINUS SIGN} base non-inferior, not superior, equivalent" in text
