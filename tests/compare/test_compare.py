"""Whole comparisons: the cases that other tools get wrong, real submissions, and lost work."""

import io
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.compare.compare import CompareOptions, compare
from aem_harness.harness.compare.contrast import contrast, judge_trials
from aem_harness.harness.compare.export import to_text
from aem_harness.harness.compare.outcomes import Outcomes, describe_tasks, load, write_csv
from aem_harness.harness.compare.pairs import all_pairs
from aem_harness.harness.compare.records import Comparison
from aem_harness.harness.compare.values import Trials
from aem_harness.harness.compare.words import distinct
from aem_harness.harness.errors import DataError
from aem_harness.harness.schema import normalise
from benchmarks.worlds import draw_world, roll


def rows(arm: str, trials: Trials, repos: np.ndarray | None = None) -> pd.DataFrame:
    """The rollouts behind counts, resolved ones first, as a table."""
    out = []
    for i, (solved, scored, missing) in enumerate(zip(trials.solved, trials.rollouts, trials.missing, strict=True)):
        repo = "x/y" if repos is None else repos[i]
        verdicts: list[object] = [1] * solved + [0] * (scored - solved) + [None] * missing
        out += [(arm, f"{repo.replace('/', '__')}-{i}", seed, v) for seed, v in enumerate(verdicts)]
    return normalise(pd.DataFrame(out, columns=["arm", "instance_id", "seed", "resolved"]), arm)


def counts(solved: list[int], rollouts: int, missing: list[int] | None = None) -> Trials:
    n = len(solved)
    return Trials(np.array(solved), np.full(n, rollouts), np.array(missing or [0] * n))


def table(**arms: Trials) -> Outcomes:
    return Outcomes(pd.concat([rows(arm, trials) for arm, trials in arms.items()], ignore_index=True))


def test_four_of_four_to_one_of_four_on_every_task_is_worse() -> None:
    """Any-pass flips see nothing here, because every task still has one success."""
    found = compare(
        table(base=counts([4] * 100, 4), new=counts([1] * 100, 4)), options=CompareOptions(margin=0.03)
    ).contrasts[0]
    assert found.difference.value == pytest.approx(-0.75)
    assert found.decision.verdict == "worse"
    assert "inferior" in [decision.verdict for decision in found.decisions]
    assert found.lost == 100


def test_an_arm_against_itself_is_no_difference_and_says_what_it_could_have_seen() -> None:
    same = counts([0, 1, 2, 3, 4] * 20, 4)
    found = compare(table(base=same, new=same)).contrasts[0]
    assert found.decision.verdict == "no difference detected"
    assert "could detect with 80 % power" in found.decision.reason
    assert found.tests[0].p == 1


@pytest.mark.parametrize("rollouts", [1, 4])
def test_which_arm_is_named_first_turns_the_numbers_and_nothing_else(rollouts: int) -> None:
    """Intervals of other libraries do not mirror (findings/arch-bca-depends-on-which-arm-is-first.sh)."""
    a = counts([0] * 5 + [rollouts] + [0, rollouts] * 22, rollouts)
    b = counts([rollouts] * 5 + [0] + [0, rollouts] * 22, rollouts)
    (forth,), (back,) = (compare(table(base=x, new=y)).contrasts for x, y in ((a, b), (b, a)))
    assert forth.difference.value == pytest.approx(-back.difference.value)
    for one, other in ((forth.difference.these, back.difference.these), (forth.difference.like, back.difference.like)):
        assert one
        assert other
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-9)
    assert [test.p for test in forth.tests] == pytest.approx([test.p for test in back.tests])
    turned = {"better": "worse", "worse": "better"}
    assert back.decision.verdict == turned.get(forth.decision.verdict, forth.decision.verdict)


def test_ten_rollouts_of_two_tasks_are_two_tasks() -> None:
    """Pooled, 20 against 0 successes would be overwhelming; two tasks are not, for tasks like these."""
    found = compare(table(base=counts([0, 0], 10), new=counts([10, 10], 10))).contrasts[0]
    like = found.difference.like
    assert like is not None
    assert like.df == 1


def test_lost_rollouts_that_could_turn_the_verdict_make_it_inconclusive() -> None:
    base = counts([4] * 30 + [0] * 30, 4)
    better = counts([4] * 36 + [0] * 24, 4)
    lost = Trials(better.solved, better.rollouts, np.array([4] * 6 + [0] * 30 + [4] * 6 + [0] * 18))
    assert compare(table(base=base, new=better)).contrasts[0].decision.verdict == "better"
    found = compare(table(base=base, new=Trials(np.zeros(60, int), np.full(60, 1), np.full(60, 3)))).contrasts[0]
    assert found.decision.verdict == "inconclusive"
    found = compare(table(base=base, new=lost)).contrasts[0]
    assert found.bounds is not None
    assert found.bounds.low < found.difference.value < found.bounds.high


def test_an_error_is_not_a_wrong_answer_and_stays_in_sight() -> None:
    clean, lossy = counts([2] * 50, 4), Trials(np.full(50, 2), np.full(50, 3), np.full(50, 1))
    found = compare(table(base=clean, new=lossy))
    arm = found.arms[1]
    assert arm.resolved.value == pytest.approx(2 / 3)
    assert arm.official == pytest.approx(0.5)
    assert arm.missing == 50
    assert found.contrasts[0].bounds is not None
    assert found.contrasts[0].bounds.as_failed == pytest.approx(0)


def test_tasks_of_one_arm_only_are_missing_in_the_other_unless_meant() -> None:
    part, whole = rows("part", counts([1] * 10, 1)), rows("whole", counts([1] * 40, 1))
    found = contrast("whole", whole, "part", part)
    assert found.bounds is not None
    assert found.bounds.missing_candidate == 30
    assert contrast("whole", whole, "part", part, common=True).bounds is None


def test_many_candidates_are_corrected_for_being_many() -> None:
    rng = np.random.default_rng(0)
    world = draw_world(rng)
    arms = {f"arm{i}": roll(world.baseline, 4, rng) for i in range(6)}
    found = compare(table(**arms))
    for one in found.contrasts:
        for test in one.tests:
            assert test.p_holm is not None
            assert test.p_holm >= test.p - 1e-12
    assert "Holm over 5" in found.contrasts[0].decision.reason


def test_one_arm_alone_is_refused() -> None:
    with pytest.raises(DataError, match="only one arm"):
        compare(table(base=counts([1], 1)))


def test_versions_that_differ_are_a_warning() -> None:
    outcomes = table(base=counts([1] * 5, 1), new=counts([1] * 5, 1))
    outcomes.table["grader"] = outcomes.table["arm"].map({"base": "swebench 4.1.0", "new": "swebench 5.0.2"})
    assert any("swebench 4.1.0" in warning and "5.0.2" in warning for warning in compare(outcomes).warnings)


def test_pairs_are_what_compare_says_of_the_same_file() -> None:
    rng = np.random.default_rng(3)
    world = draw_world(rng, {"a/a": 30, "b/b": 20}, task_spread=0.1)
    base, new = roll(world.baseline, 4, rng), roll(np.clip(world.candidate + 0.1, 0, 1), 3, rng)
    lossy = Trials(np.minimum(new.solved, 2), np.full(50, 2), np.ones(50, dtype=int))
    for arms in ({"base": base, "new": new}, {"base": base, "new": lossy, "other": new}):
        outcomes = table(**arms)
        pairs = all_pairs(outcomes.table)
        for one in compare(outcomes).contrasts:
            row = pairs[(pairs["baseline"] == one.baseline) & (pairs["candidate"] == one.candidate)].iloc[0]
            assert row["p_these"] == one.tests[0].p
            assert (row["these_low"], row["these_high"]) == (one.difference.these.low, one.difference.these.high)
            missing = one.bounds.missing_candidate if one.bounds else 0
            assert row["missing_candidate"] == missing
            if len(arms) == 2:
                assert row["verdict"] == one.decision.verdict


def test_pairs_of_real_submissions_agree_with_the_long_way(shared: Path) -> None:
    board = load([shared / "data/verified-leaderboard.csv.gz"]).table
    board = board[board["arm"].isin(sorted(set(board["arm"]))[::17])]
    pairs = all_pairs(board)
    for row in pairs.sample(5, random_state=1).itertuples():
        a, b = (board[board["arm"] == arm] for arm in (row.baseline, row.candidate))
        slow = contrast(row.baseline, a, row.candidate, b)
        assert slow.discordance is not None
        assert row.p_these == slow.discordance.p_exact
        assert slow.difference.like is not None
        assert (row.like_low, row.like_high) == (slow.difference.like.low, slow.difference.like.high)


def with_moved(up: int, down: int, missing: int = 0, n: int = 300) -> tuple[Trials, Trials]:
    """A baseline that solves every second task, and a candidate that moved and lost `missing` rollouts."""
    solved = np.arange(n) % 2
    moved = solved.copy()
    moved[np.flatnonzero(solved == 0)[:up]] = 1
    moved[np.flatnonzero(solved == 1)[:down]] = 0
    scored = np.ones(n, dtype=int)
    lost = np.zeros(n, dtype=int)
    lost[np.flatnonzero(solved == 1)[-missing:] if missing else []] = 1
    return Trials(solved, scored, 0 * lost), Trials(moved * (1 - lost), scored - lost, lost)


def test_a_gain_that_lost_rollouts_could_undo_after_holm_is_inconclusive() -> None:
    base, fragile = with_moved(up=16, down=1, missing=3)
    others = {f"same{i}": base for i in range(9)}
    alone = compare(table(base=base, new=fragile)).contrasts[0]
    among = compare(table(base=base, new=fragile, **others)).contrasts[0]
    assert alone.decision.verdict == "better"
    assert among.tests[0].p_holm is not None
    assert among.tests[0].p_holm <= 0.05
    assert among.decision.verdict == "inconclusive"
    assert among.bounds is not None
    assert among.bounds.verdict_low == "no difference detected"


def test_a_gain_that_others_lost_rollouts_could_undo_is_inconclusive_too() -> None:
    """Holm's step-down takes the others' p-values: whole itself, a contrast may hang on what they lack."""
    base, second = with_moved(up=8, down=1)
    _, first = with_moved(up=14, down=1, missing=6)
    alone, both = (compare(table(base=base, first=other, second=second)) for other in (with_moved(14, 1)[1], first))
    assert [one.decision.verdict for one in alone.contrasts] == ["better", "better"]
    assert both.contrasts[1].decision.verdict == "inconclusive"
    assert both.contrasts[1].bounds is None


def test_non_inferiority_of_many_candidates_is_corrected_for_being_many() -> None:
    base, new = with_moved(up=8, down=8)
    margin = 0.029
    alone = compare(table(base=base, new=new), options=CompareOptions(margin=margin)).contrasts[0]
    many = compare(
        table(base=base, **{f"new{i}": new for i in range(19)}), options=CompareOptions(margin=margin)
    ).contrasts
    verdicts = [next(one.verdict for one in found.decisions if one.margin) for found in (alone, *many)]
    assert verdicts == ["non-inferior"] + ["inconclusive"] * 19
    assert all("Holm over 19" in one.decisions[1].reason for one in many)


def test_an_interval_never_excludes_zero_where_its_test_does_not_reject_it() -> None:
    """Tango's interval of 14 against 5 discordant tasks excludes zero; the exact test does not."""
    held = 0
    for up in range(1, 25, 2):
        for down in range(0, up, 2):
            one = judge_trials(("base", "new"), *with_moved(up, down), np.full(300, "a/a")).contrast
            excludes = one.difference.these.low > 0
            assert excludes == (one.tests[0].p <= 0.05)
            held += "agree with its test" in one.difference.these.method
    assert held > 0


def test_where_only_holm_keeps_a_row_from_rejecting_the_row_says_so() -> None:
    base, new = with_moved(up=12, down=2)
    found = compare(table(base=base, new=new, **{f"same{i}": base for i in range(9)}))
    text = to_text(found)
    assert "(alone 0.013)" in text
    assert "alone: the p-value before Holm" in text


def test_identical_real_runs_are_not_called_different(shared: Path) -> None:
    """Five runs of one agent and model: ten A/A pairs, of which at most one in twenty should be significant at 5 %."""
    raw = pd.read_csv(shared / "data/multi-run-outcomes.csv")
    raw = raw[(raw["study"] == "reliability-study") & (raw["condition"] == "identical")]
    runs = normalise(raw.assign(arm="run " + raw["run"].astype(str), seed=0).drop(columns="run"), "study")
    pairs = all_pairs(runs)
    assert len(pairs) == 10
    assert (pairs["p_these"] <= 0.05).sum() == 0
    assert (pairs["p_like"] <= 0.05).sum() == 0
    for a, b in combinations(sorted(set(runs["arm"])), 2):
        found = contrast(a, runs[runs["arm"] == a], b, runs[runs["arm"] == b])
        assert found.decision.verdict in ("no difference detected", "inconclusive")


def test_comparing_is_reproducible_and_survives_json() -> None:
    rng = np.random.default_rng(0)
    world = draw_world(rng)
    outcomes = table(base=roll(world.baseline, 3, rng), new=roll(world.candidate, 2, rng))
    first, second = compare(outcomes), compare(outcomes)
    assert first == second
    assert type(first).model_validate_json(first.model_dump_json()) == first


def test_a_series_compares_each_checkpoint_with_the_one_before_and_corrects_its_best() -> None:
    rng = np.random.default_rng(0)
    p = rng.beta(0.5, 0.5, 200)
    arms = {f"step{i}": roll(np.clip(p + 0.04 * i, 0, 1), 4, rng) for i in range(4)}
    found = compare(table(**arms), options=CompareOptions(against="previous"))
    assert [(one.baseline, one.candidate) for one in found.contrasts] == [
        ("step0", "step1"), ("step1", "step2"), ("step2", "step3"),
    ]  # fmt: skip
    assert found.best is not None
    assert found.best.among == 4
    assert found.best.shrunken < found.best.observed


def test_parts_of_the_tasks_are_compared_and_corrected_for_being_many(shared: Path) -> None:
    board = f"{shared}/data/verified-leaderboard.csv.gz"
    outcomes = load(
        [f"a={board}:20251118_mini-v1.15.0_gemini-3-pro-preview-20251118", f"b={board}:20250206_agentscope"]
    )
    outcomes = describe_tasks(outcomes, str(shared / "data/swe-bench-verified.jsonl.gz"))
    found = compare(outcomes)
    sizes = {by: sum(group.tasks for group in found.groups if group.by == by) for by in ("repository", "difficulty")}
    assert sizes == {"repository": 500, "difficulty": 500}
    assert {group.value for group in found.groups if group.by == "issue year"} >= {"2019", "2022"}
    django = next(group for group in found.groups if group.value == "django/django")
    assert django.tasks == 231
    assert django.p_holm["b"] >= django.p["b"]
    weighted = sum(group.differences["b"].value * group.tasks for group in found.groups if group.by == "repository")
    assert weighted / 500 == pytest.approx(found.contrasts[0].difference.value)


def test_every_part_of_the_tasks_has_rates_with_intervals() -> None:
    outcomes = table(base=counts([1, 2] * 20, 4), new=counts([2, 3] * 20, 4))
    outcomes.table["difficulty"] = outcomes.table["instance_id"].map(
        lambda name: ">4 hours" if int(name[-1]) % 2 else "<15 min fix"
    )
    found = compare(outcomes)
    assert [group.value for group in found.groups if group.by == "difficulty"] == ["<15 min fix", ">4 hours"]
    hard = next(group for group in found.groups if group.value == ">4 hours").rates["base"]
    alone = compare(Outcomes(outcomes.table[outcomes.table["difficulty"] == ">4 hours"])).arms[0].resolved
    assert hard == alone
    assert hard.these.low < hard.value == 0.5 < hard.these.high


def test_nobody_is_surer_of_new_tasks_than_of_those_that_were_run() -> None:
    """Ten repositories whose sums agree by chance: the clustered interval alone would shrink to nothing."""
    repos = np.array([f"{name}/{name}" for name in "abcdefghij"] * 40)
    base, new = (rows(arm, counts([solved] * 400, 4), repos) for arm, solved in (("base", 1), ("new", 2)))
    found = compare(Outcomes(pd.concat([base, new], ignore_index=True))).contrasts[0]
    delta = found.difference
    assert delta.like is not None
    assert (delta.like.low, delta.like.high) == (delta.these.low, delta.these.high)
    assert delta.like.question == "tasks like these"


def test_the_first_line_is_the_answer() -> None:
    text = to_text(compare(table(base=counts([0, 4] * 50, 4), new=counts([1, 4] * 50, 4))))
    assert "new is better than base" in text.splitlines()[1]
    assert text.strip().splitlines()[-1].strip() == "new is better than base"


def test_numbers_come_out_of_the_command_line_as_json_and_csv(tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    write_csv(table(base=counts([0, 2, 4] * 10, 4), new=counts([1, 2, 4] * 10, 4)).table, path)
    run = CliRunner()
    as_json = run.invoke(app, ["compare", str(path), "--json"])
    assert Comparison.model_validate_json(as_json.output).contrasts[0].difference.value == pytest.approx(1 / 12)
    as_csv = run.invoke(app, ["compare", str(path), "--csv"])
    assert float(pd.read_csv(io.StringIO(as_csv.output))["difference"].iloc[0]) == pytest.approx(1 / 12)
    pairs = run.invoke(app, ["compare", str(path), "--pairs"])
    assert len(pd.read_csv(io.StringIO(pairs.output))) == 1
    assert run.invoke(app, ["compare", str(path), "--baseline", "nobody"]).exit_code != 0


def test_where_the_tasks_differ_together_and_none_alone_that_is_said() -> None:
    """Each probability is below one percent then, under a verdict of a difference."""
    alone = "of no single task is that likely"
    rates = [k % 8 for k in range(40)]
    assert alone in to_text(compare(table(base=counts(rates, 8), new=counts([k + 1 for k in rates], 8))))
    assert alone not in to_text(compare(table(base=counts([4, 0] * 20, 4), new=counts([4, 0] * 19 + [0, 4], 4))))


def test_arms_with_brackets_in_their_names_are_shown_by_their_names(tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    arms = {"GPT-5 [low]": counts([0, 2, 4] * 10, 4), "GPT-5 [/high]": counts([1, 2, 4] * 10, 4)}
    write_csv(table(**arms).table, path)
    done = CliRunner().invoke(app, ["compare", str(path)])
    assert done.exit_code == 0, done.output
    assert "Difference in points from GPT-5 [low], paired" in done.output
    assert done.output.count("GPT-5 [/high]") > 3


def test_an_unknown_tracker_is_refused_before_anything_is_compared(tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    write_csv(table(base=counts([0, 2, 4] * 10, 4), new=counts([1, 2, 4] * 10, 4)).table, path)
    done = CliRunner().invoke(app, ["compare", str(path), "--log", "nobody"])
    assert str(done.exception) == "unknown tracker 'nobody': choose tensorboard, wandb, mlflow"
    assert done.stdout == ""


def test_everything_that_is_shown_states_its_numbers_of_tasks_and_seeds_and_its_versions() -> None:
    outcomes = table(base=counts([1, 2] * 10, 4), new=counts([2, 2] * 10, 4))
    outcomes.table["grader"] = "swebench 5.0.2"
    text = to_text(compare(outcomes))
    for needed in (
        "tasks",
        "seeds",
        "95 % these tasks",
        "95 % like these",
        "swebench 5.0.2",
        "p these",
        "these tasks: would",
    ):
        assert needed in text


def test_non_inferiority_too_is_inconclusive_when_lost_rollouts_could_turn_it() -> None:
    base, equal = counts([0, 4] * 50, 4), counts([0, 4] * 50, 4)
    lossy = Trials(equal.solved, equal.rollouts, np.full(100, 1))
    clear = compare(table(base=base, new=equal), options=CompareOptions(margin=0.03)).contrasts[0].decisions
    unclear = compare(table(base=base, new=lossy), options=CompareOptions(margin=0.03)).contrasts[0].decisions
    assert next(one.verdict for one in clear if one.margin) == "non-inferior"
    assert next(one.verdict for one in unclear if one.margin) == "inconclusive"


@pytest.mark.parametrize(
    ("arms", "shown"),
    [
        (["base", "aem"], ["base", "aem"]),
        (["qwen3-8b-grpo-step-200", "qwen3-8b-aem-step-200"], ["grpo", "aem"]),
        (["qwen3-8b-step-200", "qwen3-8b-aem-step-200"], ["qwen3-…step-200", "aem"]),
        (["x" * 40, "x" * 41], ["xxxxx…xxxxxx 1", "xxxxx…xxxxxx 2"]),
    ],
)
def test_arms_whose_long_names_begin_and_end_alike_can_be_told_apart(arms, shown) -> None:
    assert list(distinct(arms, 15).values()) == shown
