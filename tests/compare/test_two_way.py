"""Tables over two columns: the interaction of scaffold and checkpoint."""

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.compare.outcomes import Outcomes, write_csv
from aem_harness.harness.compare.two_way import two_way
from aem_harness.harness.errors import ConfigError, DataError
from aem_harness.harness.schema import normalise


def outcomes(gains: dict[tuple[str, str], float], tasks: int = 150, seeds: int = 4, seed: int = 0) -> Outcomes:
    """Every cell (scaffold, model) solves each task as often as the others, and by so much more."""
    rng = np.random.default_rng(seed)
    p = rng.beta(1, 1, tasks) * 0.6 + 0.1
    rows = [
        (f"{scaffold}-{model}", f"r{task % 5}__r-{task}", k, int(rng.random() < p[task] + gain), scaffold, model)
        for (scaffold, model), gain in gains.items()
        for task in range(tasks)
        for k in range(seeds)
    ]
    names = ["arm", "instance_id", "seed", "resolved", "scaffold", "model"]
    return Outcomes(normalise(pd.DataFrame(rows, columns=names), "made"))


UNEVEN = {("bash", "base"): 0.0, ("bash", "aem"): 0.05, ("deepswe", "base"): 0.0, ("deepswe", "aem"): 0.3}


def test_the_interaction_is_the_difference_of_the_gains_and_holds_the_truth() -> None:
    found = two_way(outcomes(UNEVEN).table, "scaffold,model")
    (one,) = found.interactions
    rate = {place: found.rates[place[0]][place[1]].value for place in UNEVEN}
    gains = [rate[scaffold, "aem"] - rate[scaffold, "base"] for scaffold in ("bash", "deepswe")]
    assert one.change.value == pytest.approx(gains[1] - gains[0])
    assert [found.gains[scaffold]["aem"].value for scaffold in ("bash", "deepswe")] == pytest.approx(gains)
    assert abs(one.change.value - 0.25) < 3.5 * one.change.these.se
    assert one.p < 1e-4


def test_equal_gains_are_told_apart_as_often_as_stated() -> None:
    even = {**dict.fromkeys(UNEVEN, 0.0), ("bash", "aem"): 0.1, ("deepswe", "aem"): 0.1}
    rejected = sum(
        two_way(outcomes(even, tasks=60, seed=seed).table, "scaffold,model").interactions[0].p <= 0.05
        for seed in range(60)
    )
    assert rejected <= 60 * 0.05 + 3 * np.sqrt(60 * 0.05 * 0.95)


def test_p_values_are_adjusted_over_the_whole_table() -> None:
    more = UNEVEN | {("other", "base"): 0.0, ("other", "aem"): 0.05}
    found = two_way(outcomes(more).table, "scaffold,model")
    assert [one.row for one in found.interactions] == ["deepswe", "other"]
    assert found.interactions[0].p_holm == pytest.approx(2 * found.interactions[0].p)


def test_what_is_no_two_way_table_is_refused() -> None:
    table = outcomes(UNEVEN).table
    with pytest.raises(ConfigError, match="two columns"):
        two_way(table, "scaffold")
    with pytest.raises(ConfigError, match="no column colour"):
        two_way(table, "scaffold,colour")
    with pytest.raises(DataError, match=r"at least two values in each column.*: .+"):
        two_way(table[table["model"] == "aem"], "scaffold,model")
    with pytest.raises(DataError, match="no verdict for scaffold deepswe with model base"):
        two_way(table[(table["model"] == "aem") | (table["scaffold"] == "bash")], "scaffold,model")


def test_the_command_prints_rates_gains_and_the_interaction(tmp_path) -> None:
    write_csv(outcomes(UNEVEN).table, tmp_path / "arms.csv")
    shown = CliRunner().invoke(app, ["compare", str(tmp_path / "arms.csv"), "--two-way", "scaffold,model"])
    assert shown.exit_code == 0, shown.output
    assert "points to base" in shown.output
    assert "the gain of aem with deepswe less that with bash: +" in " ".join(shown.output.split())


def test_a_star_and_a_small_p_are_in_words_and_names_in_brackets_are_shown(tmp_path) -> None:
    table = outcomes(UNEVEN, tasks=600, seeds=1).table
    table["scaffold"] = table["scaffold"].replace("bash", "bash [high]")
    table["model"] = table["model"].replace("base", "base [/x]")
    write_csv(table, tmp_path / "arms.csv")
    shown = CliRunner().invoke(app, ["compare", str(tmp_path / "arms.csv"), "--two-way", "scaffold,model"])
    assert shown.exit_code == 0, shown.output
    text = " ".join(shown.output.split())
    assert "]*" in text
    assert "* from an upper bound of the run noise" in text
    assert "p < 0.0001" in text
    assert all(name in text for name in ("bash [high]", "base [/x]"))


def test_missing_rollouts_are_counted_and_bound_the_interaction() -> None:
    """One whole task of a cell is lost: passed and failed, it moves the gain by one task over all."""
    table = outcomes(UNEVEN).table
    lost = (table["model"] == "aem") & (table["scaffold"] == "deepswe") & (table["instance_id"] == "r0__r-0")
    complete, tasks = two_way(table, "scaffold,model"), table["instance_id"].nunique()
    found = two_way(table.assign(resolved=table["resolved"].mask(lost)), "scaffold,model")
    low, high = found.interactions[0].bounds
    assert (found.missing, complete.missing, complete.interactions[0].bounds) == (lost.sum(), 0, None)
    assert high - low == pytest.approx(1 / tasks)
    assert low <= complete.interactions[0].change.value <= high


@pytest.mark.parametrize(
    "view", [["--two-way", "scaffold,model"], ["--pairs"], ["--unit", "run", "--run-column", "model"]]
)
def test_what_a_view_would_not_heed_is_refused_and_quarantine_is_heeded_by_all(tmp_path, view) -> None:
    write_csv(outcomes(UNEVEN).table, tmp_path / "arms.csv")
    (tmp_path / "all.txt").write_text("\n".join(outcomes(UNEVEN).table["instance_id"].unique()))
    command = ["compare", str(tmp_path / "arms.csv"), *view]
    with pytest.raises(ConfigError, match="--registered has no effect with"):
        CliRunner().invoke(app, [*command, "--registered", "plan.json"], catch_exceptions=False)
    for ignored in ("--series", "--all-pairs", "--cutoff=2024-01-01", "--brief"):
        with pytest.raises(ConfigError, match=f"{ignored.partition('=')[0]} has no effect with {view[0]}"):
            CliRunner().invoke(app, [*command, ignored], catch_exceptions=False)
    with pytest.raises(DataError, match="no task is left"):
        CliRunner().invoke(app, [*command, "--quarantine", str(tmp_path / "all.txt")], catch_exceptions=False)


@pytest.mark.parametrize("command", ["compare", "table", "report"])
def test_a_series_and_all_pairs_at_once_are_refused(tmp_path, command) -> None:
    write_csv(outcomes(UNEVEN).table, tmp_path / "arms.csv")
    with pytest.raises(ConfigError, match="ask for different comparisons"):
        CliRunner().invoke(
            app, [command, str(tmp_path / "arms.csv"), "--series", "--all-pairs"], catch_exceptions=False
        )
