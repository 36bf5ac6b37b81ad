"""The training run as the unit: what several checkpoints of a method can say about the method."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.compare.methods import by_column, grouped
from aem_harness.harness.compare.outcomes import Outcomes, load, write_csv
from aem_harness.harness.compare.units import compare_runs, permuted_runs, run_variance
from aem_harness.harness.errors import DataError
from aem_harness.harness.schema import normalise
from tests.compare import scenarios as sim


def checkpoints(sd: float, runs: tuple[int, int] = (3, 3), seeds: int = 2, tasks: int = 60, seed: int = 0) -> Outcomes:
    """Arms `grpo-0`, `grpo-1`, ... and `aem-0`, ...: equal methods whose training runs differ by `sd` (logit)."""
    rng = np.random.default_rng(seed)
    p = rng.beta(0.5, 0.5, tasks)
    rows = []
    for method, number in zip(("grpo", "aem"), runs, strict=True):
        for run, solved in enumerate(sim.draw_runs(p, sd, number, seeds, rng)):
            for task, count in enumerate(solved):
                rows += [(f"{method}-{run}", f"a__a-{task}", k, int(k < count)) for k in range(seeds)]
    return Outcomes(normalise(pd.DataFrame(rows, columns=["arm", "instance_id", "seed", "resolved"]), "made"))


GROUPS = ["grpo=grpo-*", "aem=aem-*"]


def test_the_interval_over_training_runs_is_students_over_their_means() -> None:
    found = compare_runs(grouped(checkpoints(0.5), GROUPS)).contrasts[0]
    a, b = ([run.rate for run in method.runs] for method in compare_runs(grouped(checkpoints(0.5), GROUPS)).methods)
    expected = stats.ttest_ind(b, a)
    ends = expected.confidence_interval()
    assert found.runs == (3, 3)
    assert (found.p, found.these.low, found.these.high) == pytest.approx((expected.pvalue, ends.low, ends.high))


def test_unequal_numbers_of_runs_are_compared_by_welch() -> None:
    a, b = np.array([0.4, 0.45, 0.41, 0.5]), np.array([0.5, 0.52])
    variance, df, _ = run_variance(a, b)
    expected = stats.ttest_ind(b, a, equal_var=False)
    assert (df, (b.mean() - a.mean()) / np.sqrt(variance)) == pytest.approx((expected.df, expected.statistic))


def test_dealing_the_runs_is_scipys_permutation_test_and_says_how_small_it_can_be() -> None:
    a, b = np.array([0.4, 0.45, 0.41, 0.47]), np.array([0.5, 0.52, 0.46])
    p, least = permuted_runs(a, b)
    expected = stats.permutation_test(
        (a, b), lambda x, y, axis: abs(np.mean(y, axis=axis) - np.mean(x, axis=axis)), vectorized=True,
        alternative="greater", n_resamples=np.inf,
    )  # fmt: skip
    assert p == pytest.approx(expected.pvalue)
    assert least == pytest.approx(1 / 35)
    assert permuted_runs(a[:3], b)[1] == pytest.approx(0.1)


@pytest.mark.parametrize("sd", [0.0, 0.1, 0.3])
def test_other_training_runs_are_covered_as_stated_where_pooled_rollouts_are_not(sd: float) -> None:
    unit, pooled = sim.method_difference(300, sd, runs=3, seeds=4)
    assert unit.at_least()
    if sd >= 0.3:
        assert pooled.share < 0.6


def test_the_spread_of_training_runs_is_told_from_that_of_rollouts() -> None:
    same, apart = (compare_runs(grouped(checkpoints(sd, runs=(8, 8), tasks=300), GROUPS)) for sd in (0.0, 0.8))
    for low, high in zip(same.methods, apart.methods, strict=True):
        assert low.sd_run is not None
        assert high.sd_run is not None
        assert low.sd_run < low.sd_rerun < high.sd_run
        assert high.sd_run_ends is not None
        assert high.sd_run_ends[0] < high.sd_run < high.sd_run_ends[1]


def test_missing_rollouts_bound_the_difference_of_methods_and_unsettle_it_where_they_could_turn_it() -> None:
    outcomes = grouped(checkpoints(0.0, runs=(3, 3), seed=4), GROUPS)
    table = outcomes.table.copy()
    better = (table["arm"] == "aem") & (table["instance_id"].str.slice(5).astype(int) < 30)
    table["resolved"] = table["resolved"].where(~better, True)
    assert compare_runs(Outcomes(table)).contrasts[0].bounds is None
    assert compare_runs(Outcomes(table)).contrasts[0].decision.verdict == "better"

    chosen = np.random.default_rng(0).permutation(np.flatnonzero(table["arm"] == "aem"))
    for lost, verdict in ((2, "better"), (200, "inconclusive")):
        holes = table.copy()
        holes.iloc[chosen[:lost], holes.columns.get_loc("resolved")] = pd.NA
        one = compare_runs(Outcomes(holes)).contrasts[0]
        assert one.bounds is not None
        low, high = (holes["resolved"].fillna(value)[holes["arm"] == "aem"].mean() for value in (False, True))
        base = holes["resolved"][holes["arm"] == "grpo"].mean()
        assert (one.bounds.low, one.bounds.high) == pytest.approx((low - base, high - base))
        assert one.decision.verdict == verdict
    assert "depending on the rollouts without a verdict" in one.decision.reason


def test_runs_come_from_groups_of_arms_or_from_a_column() -> None:
    arms = checkpoints(0.3)
    table = arms.table.assign(step=arms.table["arm"].str.partition("-")[2], arm=arms.table["arm"].str.partition("-")[0])
    table["seed"] = table.groupby(["arm", "instance_id"]).cumcount()
    by_step = compare_runs(by_column(Outcomes(table), "step"))
    assert by_step.contrasts[0].these == compare_runs(grouped(arms, GROUPS)).contrasts[0].these
    with pytest.raises(DataError, match="no arm matches"):
        grouped(arms, ["grpo=nobody*"])
    with pytest.raises(DataError, match="two groups"):
        grouped(arms, ["grpo=*", "aem=aem-*"])


def test_one_training_run_of_each_method_says_nothing_of_methods() -> None:
    with pytest.raises(DataError, match="train at least one more"):
        compare_runs(grouped(checkpoints(0.3, runs=(1, 1)), GROUPS))


def test_three_real_looking_runs_a_method_are_shown_beside_the_pooled_answer(shared: Path) -> None:
    path = str(shared / "cases/stats/trainseeds_arms.csv.gz")
    groups = [word for name in ("grpo", "aem") for word in ("--group", f"{name}={name}-t*")]
    shown = CliRunner().invoke(app, ["compare", path, "--unit", "run", *groups])
    assert shown.exit_code == 0
    for words in ("3 + 3 training runs", "never less than 0.1", "sd between runs", "pooled"):
        assert words in shown.output


def test_without_cards_or_groups_the_command_says_what_to_give(tmp_path: Path) -> None:
    write_csv(checkpoints(0.1).table, tmp_path / "arms.csv")
    shown = CliRunner().invoke(app, ["compare", str(tmp_path / "arms.csv"), "--unit", "run"])
    assert shown.exit_code != 0
    assert "--group METHOD=GLOB" in str(shown.exception)
    assert load([tmp_path / "arms.csv"]).arms[0] == "grpo-0"


def test_a_cards_method_and_training_run_place_a_checkpoint() -> None:
    from aem_harness.aem_checkpoints.registry import Registry
    from aem_harness.commands.methods import method_of

    cards = {entry.card.name: entry.card for entry in Registry().entries()}
    assert method_of(cards["tiny-grpo"]) == ("grpo", "tiny-grpo-seed0")
    assert method_of(cards["tiny-aem"])[0] == "aem over grpo"


def test_a_control_or_another_method_over_a_base_is_not_that_base() -> None:
    from aem_harness.aem_checkpoints.card import Card, Method, Training
    from aem_harness.commands.methods import method_of

    def named(kind: str, **parameters: object) -> str:
        method = Method.model_validate({"kind": kind, "base": "grpo", "parameters": parameters})
        return method_of(Card(name="x", path=".", method=method, training=Training(run="x-seed1")))[0]

    assert named("baseline", lr=1e-3) == "grpo"
    assert named("aem", direction="normal", shuffle_seed=None) == "aem over grpo"
    assert named("other", control="step_matched", direction="normal") == "step_matched over grpo"
    assert named("baseline", baseline="empg") == "empg over grpo"
    assert named("aem", direction="reversed") == "aem reversed over grpo"
    assert named("aem", direction="normal", shuffle_seed=0) == "aem shuffled over grpo"


def test_training_runs_of_one_method_with_different_settings_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from aem_harness.aem_checkpoints.adding import add
    from aem_harness.aem_checkpoints.card import Card, Method, Training
    from aem_harness.commands.methods import as_methods
    from aem_harness.harness.compare.outcomes import ArmFacts

    table, facts = checkpoints(0.1).table, {}
    for number, arm in enumerate(sorted(set(table["arm"]))):
        method = Method(kind="aem" if "aem" in arm else "baseline", base="grpo", parameters={"lr": 1 + number % 2})
        add(Card(name=arm, path=".", method=method, training=Training(run=arm, step=24)), tmp_path)
        facts[arm] = ArmFacts(arm=arm, config={"checkpoint": arm})
    methods = as_methods(Outcomes(table, facts), (), None, tmp_path)
    assert set(methods.arms) == {"grpo", "aem over grpo"}
    assert "\ngrpo: its training runs have different settings (lr: 1, 2)\n" in "\n" + capsys.readouterr().err


def test_runs_that_agree_by_chance_are_known_no_better_than_their_rollouts() -> None:
    """Two runs with exactly the same mean have no spread; that is luck, and no certainty about a third run."""
    values = {"grpo-0": (0, 1, 1, 0), "grpo-1": (1, 0, 0, 1), "aem-0": (1, 1, 1, 0), "aem-1": (1, 0, 1, 1)}
    rows = [
        (arm, f"a__a-{task}", seed, (found + seed * (task % 3 == 0)) % 2)
        for arm, solved in values.items()
        for task in range(24)
        for seed in (0, 1)
        for found in (solved[task % 4],)
    ]
    table = normalise(pd.DataFrame(rows, columns=["arm", "instance_id", "seed", "resolved"]), "made")
    found = compare_runs(grouped(Outcomes(table), GROUPS))
    (one,) = found.contrasts
    means = [[run.rate for run in method.runs] for method in found.methods]
    assert all(first == second for first, second in means)
    assert one.difference != 0
    assert one.these.se == pytest.approx(np.sqrt(sum(method.sd_rerun**2 / 2 for method in found.methods)))
    assert one.these.low < one.difference < one.these.high
    assert 0 < one.p < 1


@pytest.mark.parametrize("runs", [(2, 2), (1, 2)])
@pytest.mark.parametrize("rollouts", [1, 2])
def test_runs_of_one_rollout_that_agree_by_chance_are_no_proof(runs: tuple[int, int], rollouts: int) -> None:
    """With one rollout per task, or where all agree, run noise is unknown; it is not none."""
    rows = [
        (f"{method}-{run}", f"a__a-{task}", seed, int((task * (3 + 2 * run)) % 40 < solved))
        for method, number, solved in zip(("grpo", "aem"), runs, (12, 13), strict=True)
        for run in range(number)
        for task in range(40)
        for seed in range(rollouts)
    ]
    table = normalise(pd.DataFrame(rows, columns=["arm", "instance_id", "seed", "resolved"]), "made")
    found = compare_runs(grouped(Outcomes(table), GROUPS))
    (one,) = found.contrasts
    assert one.decision.verdict == "no difference detected"
    assert one.these.low < 0 < one.these.high
    assert one.p > 0.1
    assert (found.methods[0].sd_rerun is None) == (rollouts == 1), "one rollout shows no run noise, not none"


@pytest.mark.parametrize("resolved", [0, 1])
def test_runs_that_solve_everything_or_nothing_are_compared(resolved: int) -> None:
    rows = [
        (f"{method}-{run}", f"r{task % 2}__a-{task}", seed, resolved)
        for method in ("grpo", "aem")
        for run in (0, 1)
        for task in range(20)
        for seed in (0, 1)
    ]
    table = normalise(pd.DataFrame(rows, columns=["arm", "instance_id", "seed", "resolved"]), "made")
    table["repo"] = table["instance_id"].str.partition("__")[0]
    (one,) = compare_runs(grouped(Outcomes(table), GROUPS)).contrasts
    assert (one.difference, one.p) == (0, 1)
    assert one.these.low < 0 < one.these.high


@pytest.mark.parametrize("rollouts", [1, 2])
def test_runs_that_agree_by_chance_leave_their_spread_open(rollouts: int) -> None:
    """Three runs with the same mean were said to differ by 0.00 [0.00, 0.00] points."""
    rows = [
        (f"{method}-{run}", f"a__a-{task}", seed, int((task + 7 * run + 3 * seed) % 20 < 8))
        for method in ("grpo", "aem")
        for run in range(3)
        for task in range(40)
        for seed in range(rollouts)
    ]
    table = normalise(pd.DataFrame(rows, columns=["arm", "instance_id", "seed", "resolved"]), "made")
    for method in compare_runs(grouped(Outcomes(table), GROUPS)).methods:
        assert len({run.rate for run in method.runs}) == 1
        assert method.sd_run == pytest.approx(0)
        assert method.sd_run_ends is not None
        assert method.sd_run_ends[0] == pytest.approx(0)
        assert 0.05 < method.sd_run_ends[1] <= 0.5


@pytest.mark.parametrize(("sd", "runs", "seeds"), [(0.0, 3, 4), (0.1, 3, 4), (0.3, 5, 2), (0.1, 2, 4), (0.3, 5, 1)])
def test_the_spread_of_training_runs_is_covered(sd: float, runs: int, seeds: int) -> None:
    covered, highs = sim.run_spread(300, sd, runs=runs, seeds=seeds)
    assert covered.at_least()
    assert min(highs) > 0.005
