"""The grader's own noise, tasks it cannot grade here, and labels that may be wrong."""

import json
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.compare.compare import CompareOptions, compare
from aem_harness.harness.compare.grader import noise_of
from aem_harness.harness.compare.outcomes import Outcomes, write_csv
from aem_harness.harness.compare.records import GraderNoise
from aem_harness.harness.compare.sensitivity import task_list
from aem_harness.harness.compare.words import grader_words
from aem_harness.harness.config import RunConfig
from aem_harness.harness.grading.regrade import Regrade, digest_of
from aem_harness.harness.run.auditing import CANARY, Regrading, regrade_run
from aem_harness.harness.run.regrading import REGRADES, Again, StoredRun, read_regrades, regrade_patches
from aem_harness.harness.run.store import Progress
from aem_harness.harness.types import Outcome
from benchmarks.grader_noise import WORLDS, flip_rates
from tests.compare.test_compare import counts, table


def again(number: int, time: int, now: Outcome, *, moved: bool = False) -> Again:
    return Again(
        instance_id=f"x__y-{number}", seed=0, time=time, was=Outcome.RESOLVED, now=now, moved=moved, patch_sha256="a"
    )


def by_arm(outcomes: Outcomes) -> dict[str, pd.DataFrame]:
    return {arm: outcomes.table[outcomes.table["arm"] == arm] for arm in outcomes.arms}


def test_flips_are_counted_over_patches_and_failed_gradings_are_no_flips() -> None:
    found = [again(i, t, Outcome.UNRESOLVED if i < 2 else Outcome.RESOLVED) for i in range(20) for t in (1, 2)]
    found += [again(30, 1, Outcome.ERROR), again(31, 1, Outcome.UNRESOLVED, moved=True)]
    noise = noise_of({"base": found}, by_arm(table(base=counts([1] * 40, 1))))
    assert (noise.patches, noise.gradings, noise.errors, noise.flips) == (21, 41, 1, 5)
    assert (noise.moved_rate, noise.others_rate) == (1, pytest.approx(0.1))
    assert noise.by_repository == {"x/y": 5}


def test_the_flip_rate_is_that_of_all_patches_not_of_those_that_were_chosen() -> None:
    """10 of 100 tasks moved, and half of their verdicts flip; of the others 40 were drawn, and none does."""
    arms = by_arm(table(base=counts([1] * 100, 4)))
    moved = [
        Again(
            instance_id=f"x__y-{task}", seed=seed, time=1, was=Outcome.RESOLVED, moved=True, patch_sha256="a",
            now=Outcome.UNRESOLVED if seed % 2 else Outcome.RESOLVED,
        )
        for task in range(10)
        for seed in range(4)
    ]  # fmt: skip
    drawn = [again(task, 1, Outcome.RESOLVED) for task in range(10, 50)]
    noise = noise_of({"base": [*moved, *drawn]}, arms)
    assert noise.rate == pytest.approx(0.1 * 0.5 + 0.9 * 0)
    assert noise.low < noise.rate < noise.high
    assert noise_of({"base": drawn}, arms).rate == 0
    assert noise_of({"base": moved}, arms).rate == 0.5, "of the others nothing is known: they are taken to be alike"
    words = " ".join(grader_words(noise))
    assert "20 of 80 gradings of 80 patches flipped; of all patches 5.0 %" in words
    assert "(50.0 % of tasks that moved, 0.0 % of the others)" in words
    few = arms["base"][arms["base"]["instance_id"].str.slice(5).astype(int) >= 10]
    assert noise_of({"base": [*moved, *drawn]}, {"base": few}).rate == 0, "quarantined tasks are not in the arms"


def test_an_arm_with_more_patches_counts_for_more_in_the_rate_and_for_less_in_the_difference() -> None:
    outcomes = table(base=counts([0, 1] * 20, 1), new=counts([0, 4] * 20, 4))
    (one,) = compare(outcomes).contrasts
    flips = [again(i, 1, Outcome.UNRESOLVED) for i in range(40)]
    none = [again(i, 1, Outcome.RESOLVED) for i in range(40)]
    first, second = (
        noise_of(found, by_arm(outcomes), [one])
        for found in ({"base": flips, "new": none}, {"base": none, "new": flips})
    )
    assert (first.rate, second.rate) == (pytest.approx(0.2), pytest.approx(0.8))
    assert first.widened[0].flips == 0.5  # where flips do most: 0.8 of the variance rests on the arm of one rollout
    assert second.widened[0].flips < 0.4


@pytest.mark.parametrize("world", ["DeepSWE, K 4", "no run noise, K 4", "flaky tasks, K 4"])
def test_the_flip_rate_is_covered_and_right_on_average(world: str) -> None:
    """Flips move tasks, so that those that did not move alone show far fewer of them."""
    found = flip_rates(60, WORLDS[world], 0.02)
    assert found.covered.at_least()
    assert found.mean == pytest.approx(found.truth, rel=0.25)
    assert found.others < 0.75 * found.truth


def test_a_noisy_grader_widens_intervals_and_unsettles_a_narrow_verdict() -> None:
    outcomes = table(base=counts([0, 4] * 30, 4), new=counts([1, 4] * 30, 4))
    (one,) = compare(outcomes).contrasts
    assert one.decision.verdict == "better"
    arms = by_arm(outcomes)

    def noise(flips: int, of: int) -> GraderNoise:
        outcome = [Outcome.UNRESOLVED if i < flips else Outcome.RESOLVED for i in range(of)]
        return noise_of({"base": [again(i % 60, i, now) for i, now in enumerate(outcome)]}, arms, [one])

    sure, noisy = noise(0, 50), noise(30, 60)
    assert sure.widened[0].low < one.difference.these.low  # no flip among 50 patches does not say that there are none
    assert noisy.widened[0].low < sure.widened[0].low < sure.widened[0].high < noisy.widened[0].high
    assert "50.0 %" in " ".join(grader_words(noisy))
    assert f"at {100 * noisy.widened[0].flips:.1f} % flips, the upper end" in " ".join(grader_words(noisy))
    assert "not measured" in grader_words(None)[0]


def test_the_more_patches_do_not_flip_the_less_an_interval_is_widened() -> None:
    outcomes = table(base=counts([0, 4] * 1000, 4), new=counts([1, 4] * 1000, 4))
    (one,) = compare(outcomes, options=CompareOptions(trajectories=False)).contrasts
    few, many = (
        noise_of({"base": [again(i, 1, Outcome.RESOLVED) for i in range(n)]}, by_arm(outcomes), [one]).widened[0]
        for n in (50, 2000)
    )
    assert few.low < many.low < one.difference.these.low
    assert (many.low, many.high) == pytest.approx((one.difference.these.low, one.difference.these.high), abs=2e-4)


def test_the_widened_interval_covers_where_gradings_flip() -> None:
    """One rollout a task and the same true rates: gradings that flip at 5 % are in the widened interval."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        truth = rng.random(200) < 0.5
        arms = [(truth ^ (rng.random(200) < 0.05)).astype(int) for _ in range(2)]
        outcomes = table(base=counts(arms[0].tolist(), 1), new=counts(arms[1].tolist(), 1))
        from aem_harness.harness.compare.contrast import judge_trials

        a, b = counts(arms[0].tolist(), 1), counts(arms[1].tolist(), 1)
        one = judge_trials(("base", "new"), a, b, np.full(200, "x/y")).contrast
        seen = [again(i, 1, Outcome.RESOLVED if i % 20 else Outcome.UNRESOLVED) for i in range(100)]
        wide = noise_of({"base": seen}, by_arm(outcomes), [one]).widened[0]
        covered += wide.low <= 0 <= wide.high
        assert outcomes.arms == ["base", "new"]
    assert covered >= 60 * 0.95 - 3 * np.sqrt(60 * 0.95 * 0.05)


def test_no_widened_interval_reaches_beyond_all_tasks() -> None:
    outcomes = table(base=counts([2] * 5, 2), new=counts([0] * 5, 2))
    (one,) = compare(outcomes).contrasts
    seen = {"base": [again(i, 1, Outcome.RESOLVED) for i in range(5)]}
    wide = noise_of(seen, by_arm(outcomes), [one]).widened[0]
    assert wide.low == -1


@pytest.mark.parametrize(
    ("seeds", "reused", "gradings"),
    [((4, 4), 0, 4), ((1, 8), 0, 8 / (8 + 1) * 2), ((4, 4), 3, 1)],
)
def test_widening_counts_gradings_as_they_are(seeds: tuple[int, int], reused: int, gradings: float) -> None:
    """As wide as for `gradings` of every task in both arms: the harmonic mean of unequal numbers, and of verdicts that
    were reused only the one that they rest on."""
    outcomes = table(base=counts([0, 1] * 30, seeds[0]), new=counts([1, 1] * 30, seeds[1]))
    outcomes.table.loc[outcomes.table["seed"] < reused, "reuse"] = "reused"
    (one,) = compare(outcomes).contrasts
    found = noise_of({"base": [again(i, 1, Outcome.RESOLVED) for i in range(50)]}, by_arm(outcomes), [one])
    wide, these = found.widened[0], one.difference.these
    extra = 1.96 * np.sqrt(2 * wide.flips * (1 - wide.flips) / (60 * gradings))
    assert wide.high - one.difference.value == pytest.approx(np.hypot(these.high - one.difference.value, extra), 1e-3)


def test_regrades_survive_a_torn_last_line(tmp_path: Path) -> None:
    line = again(0, 1, Outcome.RESOLVED).model_dump_json()
    (tmp_path / REGRADES).write_text(line + "\n" + line[:20])
    assert read_regrades(tmp_path) == [again(0, 1, Outcome.RESOLVED)]
    assert read_regrades(tmp_path / "nowhere") == []


def test_after_a_kill_in_the_middle_of_a_line_more_can_be_graded_and_read(tmp_path):
    """The rest of a line is cut off before more is written: appended to, it would spoil every later reading."""
    patch = tmp_path / "rollouts" / "a__a-1" / "0" / "patch.diff"
    patch.parent.mkdir(parents=True)
    patch.write_text("diff")
    (tmp_path / REGRADES).write_text('{"instance_id": "a__a-1", "se')
    state = Progress(rollout={}, grade={"outcome": "resolved"})
    key, config = ("a__a-1", 0), RunConfig(arm="a", agent="bash", dataset="tiny")
    grade = lambda *_, **__: SimpleNamespace(outcome=Outcome.UNRESOLVED, cause="", versions={})  # noqa: E731
    regrade_patches(StoredRun(tmp_path, {"a__a-1": None}, {key: state}, config), {key: False}, grade=grade)
    (one,) = read_regrades(tmp_path)
    assert one.flipped


def a_run(folder: Path, tasks: int = 3) -> tuple[dict[tuple[str, int], Progress], RunConfig]:
    """Resolved rollouts whose patches are there."""
    keys = [(f"a__a-{n}", 0) for n in range(tasks)]
    for name, seed in keys:
        patch = folder / "rollouts" / name / str(seed) / "patch.diff"
        patch.parent.mkdir(parents=True)
        patch.write_text("diff")
    config = RunConfig(arm="a", agent="bash", dataset="tiny")
    return {key: Progress(rollout={}, grade={"outcome": "resolved"}) for key in keys}, config


def test_a_regrading_that_was_lost_to_infrastructure_is_repeated_by_the_same_command(tmp_path):
    """It stayed lost for ever, also after the engine was repaired."""
    progress, config = a_run(tmp_path)
    run = StoredRun(tmp_path, dict.fromkeys(name for name, _ in progress), progress, config)
    outcomes = iter([Outcome.RESOLVED, Outcome.ERROR, Outcome.RESOLVED, Outcome.RESOLVED])
    grade = lambda *_: SimpleNamespace(outcome=next(outcomes), cause="", versions={"grader": "swebench 5"})  # noqa: E731
    for _ in range(3):
        regrade_patches(run, dict.fromkeys(progress, False), workers=1, grade=grade)
    found = read_regrades(tmp_path)
    assert [one.now for one in found] == [Outcome.RESOLVED] * 3
    assert {one.grader for one in found} == {"swebench 5"}
    assert next(outcomes, None) is None, "what has a result is not repeated"
    assert not [one for one in found if one.now is Outcome.ERROR]


def test_an_interrupt_ends_the_regradings_under_way_and_keeps_nothing_of_them(tmp_path):
    """It waited for each of them, for half an hour at worst."""
    progress, config = a_run(tmp_path)
    closed = threading.Event()

    def grade(task, prediction, folder):
        if prediction.instance_id == "a__a-0":
            raise KeyboardInterrupt
        assert closed.wait(60)
        return SimpleNamespace(outcome=Outcome.ERROR, cause="environment: the container is closed", versions={})

    names = dict.fromkeys(name for name, _ in progress)
    keys = dict.fromkeys(progress, False)
    with pytest.raises(KeyboardInterrupt):
        regrade_patches(StoredRun(tmp_path, names, progress, config), keys, workers=3, grade=grade, end=closed.set)
    assert read_regrades(tmp_path) == []


def test_an_interrupted_audit_keeps_no_finding_of_what_it_ended(tmp_path):
    """A gate that continued took "unaudited" for a finding, and counted the rollout as resolved."""
    keys = list(a_run(tmp_path)[0])
    closed = threading.Event()

    def audit(task, folder, name):
        if folder.parent.name == "a__a-0":
            raise KeyboardInterrupt
        assert closed.wait(60)
        found = Regrade(state="unaudited", reason="the container is closed", patch_sha256=digest_of("diff"))
        (folder / name).write_text(found.model_dump_json())
        return found

    how = Regrading(workers=3, audit=audit, end=closed.set)
    with pytest.raises(KeyboardInterrupt):
        regrade_run(tmp_path, dict.fromkeys(name for name, _ in keys), keys, how)
    assert not list(tmp_path.rglob(CANARY))


def test_task_lists_come_in_lines_and_in_json(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x__y-1  # flaky\n\nx__y-2\n")
    (tmp_path / "b.json").write_text(json.dumps({"changes": [{"instance_id": "x__y-1"}, {"instance_id": "x__y-1"}]}))
    (tmp_path / "c.json").write_text(json.dumps(["x__y-3"]))
    lists = [task_list(str(tmp_path / name)) for name in ("a.txt", "b.json", "c.json")]
    assert lists == [("x__y-1", "x__y-2"), ("x__y-1",), ("x__y-3",)]


def test_quarantined_tasks_are_left_out_of_both_arms_and_the_line_says_what_they_change(tmp_path: Path) -> None:
    write_csv(table(base=counts([0] * 20, 4), new=counts([4] * 4 + [0] * 16, 4)).table, tmp_path / "two.csv")
    (tmp_path / "out.txt").write_text("".join(f"x__y-{i}\n" for i in range(4)))
    given = ["compare", str(tmp_path / "two.csv"), "--brief"]
    run = CliRunner()
    shown = run.invoke(app, [*given, "--quarantine", str(tmp_path / "out.txt")])
    assert shown.exit_code == 0, shown.output
    text = " ".join(shown.output.split())
    assert "(n = 16)" in text
    assert "with the 4 quarantined tasks, new - base: +20.0 points" in text
    assert "better, not no difference detected" in text
    shown = run.invoke(app, [*given, "--suspect", str(tmp_path / "out.txt")])
    assert "without the tasks of out.txt, new - base: +0.0 points" in " ".join(shown.output.split())


def test_listed_tasks_that_no_arm_has_are_not_counted_as_quarantined(tmp_path: Path) -> None:
    write_csv(table(base=counts([1, 2] * 10, 4), new=counts([2, 2] * 10, 4)).table, tmp_path / "arms.csv")
    run, given = CliRunner(), ["compare", str(tmp_path / "arms.csv"), "--brief"]
    (tmp_path / "one.txt").write_text("x__y-0\nof__another-1\n")
    (tmp_path / "none.txt").write_text("of__another-1\n")
    shown = run.invoke(app, [*given, "--quarantine", str(tmp_path / "one.txt")], env={"COLUMNS": "300"})
    assert "with the 1 quarantined task, new - base" in shown.output
    for option in ("--quarantine", "--suspect"):
        shown = run.invoke(app, [*given, option, str(tmp_path / "none.txt")], env={"COLUMNS": "300"})
        assert "none.txt is in these arms" in " ".join(shown.output.split())
