"""Curves over seeds: what is averaged, paired and written."""

import csv
import json

import pytest

from aem_harness.harness.errors import DataError
from aem_harness.training.curves import collect, main, summarise, t_interval, table
from aem_harness.training.evaluate import by_arm


def write_run(runs, arm, seed, rewards, finished=True):
    folder = runs / f"{arm}-seed{seed}"
    folder.mkdir()
    with (folder / "metrics.jsonl").open("w") as file:
        for step, reward in enumerate(rewards, 1):
            line = {
                "step": step,
                "reward": reward,
                "response_entropy": 1 / step,
                "gated_share": 0.5,
                "negative_token_fraction": 0.5,
                "alpha_std": 0.1,
            }
            if step % 10 == 0:
                line |= {"test_greedy": reward, "test_sampled": reward}
            file.write(json.dumps(line) + "\n")
        file.write('{"step": 99, "rew')  # torn by a kill
    if finished:
        (folder / "checkpoint").mkdir()


@pytest.fixture
def runs(tmp_path):
    for seed, shift in enumerate((0.0, 0.1, 0.3)):
        write_run(tmp_path, "base", seed, [shift + 0.01 * step for step in range(20)])
        write_run(tmp_path, "aem", seed, [shift + 0.01 * step + 0.05 for step in range(20)])
    write_run(tmp_path, "aem", 3, [1.0] * 5, finished=False)
    return tmp_path


def test_a_t_interval_by_hand():
    interval = t_interval([1.0, 2.0, 3.0])
    assert (interval.mean, interval.n) == (2.0, 3)
    assert interval.high - interval.mean == pytest.approx(4.302653 / 3**0.5, rel=1e-6)


def test_one_seed_has_no_interval():
    assert t_interval([0.5]).high == float("inf")


def test_unfinished_runs_and_torn_lines_are_left_out(runs):
    curves = collect(runs, ["base", "aem"])
    assert sorted(curves["aem"]) == [0, 1, 2]
    assert len(curves["aem"][0]["reward"]) == 20
    with pytest.raises(DataError, match="no finished run of other"):
        collect(runs, ["other"])


def test_a_run_in_a_few_numbers(runs):
    summary = summarise(collect(runs, ["base"])["base"][0])
    assert summary["reward_mean"] == pytest.approx(0.095)
    assert summary["reward_late"] == pytest.approx(0.145)
    assert summary["test_greedy"] == pytest.approx(0.19)
    assert summary["response_entropy_early"] > summary["response_entropy_late"]


def test_differences_are_paired_by_seed(runs):
    """Seeds differ much, arms by a constant: only the paired difference is exact."""
    text = table(collect(runs, ["base", "aem"]), baseline="base")
    (line,) = [line for line in text.splitlines() if line.startswith("| reward_mean, minus base")]
    assert line.endswith("0.050 [0.050, 0.050] |")


def test_the_files_are_complete_and_do_not_change_from_run_to_run(runs, tmp_path):
    first, second = tmp_path / "one", tmp_path / "two"
    for out in (first, second):
        main([str(runs), str(out), "base", "aem"])
    for name in ("curves.csv", "curves.svg", "curves.md"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    with (first / "curves.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2 * 3 * 20


def test_final_successes_are_told_by_arm_and_paired_by_seed():
    runs = {"a-seed0": (0.5, 0.1), "a-seed1": (0.7, 0.3), "b-seed1": (0.8, 0.5), "b-seed0": (0.6, 0.3), "start": (0, 0)}
    greedy_a, greedy_b, _, sampled_b = by_arm(runs)
    assert greedy_a.startswith("a greedy: 0.600 [")
    assert "minus" not in greedy_a
    assert "minus a: 0.100 [0.100, 0.100], 2 pairs" in greedy_b
    assert "minus a: 0.200 [0.200, 0.200], 2 pairs" in sampled_b
