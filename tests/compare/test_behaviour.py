"""What is read from trajectories, what is computed from it, and what differs between arms besides the weights."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.compare.behaviour import diversity, first_divergence, with_features
from aem_harness.harness.compare.compare import CompareOptions, compare
from aem_harness.harness.compare.drift import warnings
from aem_harness.harness.compare.intervals import these_tasks
from aem_harness.harness.compare.metrics import (
    METRICS,
    metric_row,
    metric_rows,
    metric_values,
    per_resolved,
    with_derived,
)
from aem_harness.harness.compare.outcomes import ArmFacts, Outcomes, load
from aem_harness.harness.facts.features import TESTING, Sketch, edited_lines, sketch
from aem_harness.harness.interop.trajectories import read_trajectory
from aem_harness.harness.run.trajectory import TrajectoryWriter
from aem_harness.harness.schema import normalise
from aem_harness.harness.types import ExitStatus

PATCH = "diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n@@ -1 +1,2 @@\n-old\n+new\n+newer\n"


def turn(command: str, entropy: float, tokens: int = 10) -> dict:
    """What an agent of ours records of one response."""
    extra = {"actions": [{"command": command}], "mean_entropy": entropy, "surprisal": 5 * entropy, "malformed": False}
    return {
        "role": "assistant",
        "content": command,
        "extra": {**extra, "prompt_tokens": 100, "completion_tokens": tokens},
    }


def refusal(text: str) -> dict:
    extra = {"interrupt_type": "FormatError", "model_response": text, "malformed": True, "mean_entropy": 2.0}
    return {"role": "user", "content": "Expected one action.", "extra": {**extra, "completion_tokens": 4}}


def write_rollout(folder: Path, instance: str, seed: int, messages: list[dict], **info: object) -> Path:
    """A trajectory as the runner writes it, through its own recorder."""
    target = folder / "rollouts" / instance / str(seed)
    target.mkdir(parents=True)
    writer = TrajectoryWriter(target, instance)
    for message in messages:
        writer.message(message)
    writer.info(**info)
    writer.finish(ExitStatus.SUBMITTED, PATCH)
    return target / f"{instance}.traj.json"


@pytest.fixture
def rollout(tmp_path: Path) -> Path:
    messages = [
        turn("ls", 0.9),
        refusal("let me think"),
        turn("cat x.py", 0.6),
        turn("cat  x.py", 0.3),
        turn("python -m pytest tests/test_x.py", 0.1),
        turn("submit", 0.1),
    ]
    return write_rollout(tmp_path, "x__y-1", 0, messages, stated_success=0.8)


def table_of(paths: dict[tuple[str, str, int], Path], resolved: dict[tuple[str, str, int], int]) -> pd.DataFrame:
    rows = [
        {"arm": arm, "instance_id": task, "seed": seed, "resolved": resolved[arm, task, seed], "trajectory": str(path)}
        for (arm, task, seed), path in paths.items()
    ]
    return normalise(pd.DataFrame(rows), "made up")


def test_features_of_a_trajectory_of_our_own(rollout: Path) -> None:
    key = ("a", "x__y-1", 0)
    table, read, problems = with_features(table_of({key: rollout}, {key: 1}))
    row = table.iloc[0]
    assert not problems
    assert len(read) == 1
    assert row["entropy_early"] == pytest.approx((0.9 + 2.0) / 2)
    assert row["entropy_late"] == pytest.approx(0.1)
    assert row["commands"] == 5
    assert row["repeated_commands"] == pytest.approx(1 / 5)
    assert row["test_runs"] == 1
    assert row["edited_lines"] == 3
    assert row["malformed_share"] == pytest.approx(1 / 6)
    assert row["stated_success"] == 0.8


def test_a_trajectory_that_cannot_be_read_is_named_and_costs_nothing_else(tmp_path: Path, rollout: Path) -> None:
    broken = tmp_path / "broken.traj.json"
    broken.write_text("{")
    paths = {("a", "x__y-1", 0): rollout, ("a", "x__y-2", 0): broken}
    table, read, problems = with_features(table_of(paths, dict.fromkeys(paths, 1)))
    assert len(read) == 1
    assert "broken.traj.json" in problems[0]
    assert np.isnan(table["commands"].tolist()[1])


def test_edited_lines_leave_headers_out() -> None:
    assert edited_lines(PATCH) == 3


def sketch_of(path: Path) -> Sketch:
    return sketch(read_trajectory(path))


def test_rollouts_part_where_their_commands_first_differ(tmp_path: Path) -> None:
    one = sketch_of(write_rollout(tmp_path / "1", "x__y-1", 0, [turn("ls", 0.1), turn("a", 0.1)]))
    other = sketch_of(write_rollout(tmp_path / "2", "x__y-1", 0, [turn("ls", 0.7), turn("b", 0.1)]))
    longer = sketch_of(write_rollout(tmp_path / "3", "x__y-1", 0, [turn("ls", 0.7), turn("a", 0.1), turn("c", 0.1)]))
    assert first_divergence(one, other) == 1
    assert first_divergence(one, longer) == 2
    assert first_divergence(one, one) is None


def test_seeds_that_all_do_the_same_have_no_diversity(tmp_path: Path) -> None:
    paths = {}
    for seed, command in enumerate(("a", "a", "b")):
        paths["arm", "x__y-1", seed] = write_rollout(tmp_path, "x__y-1", seed, [turn("ls", 0.1), turn(command, 0.1)])
        paths["arm", "x__y-2", seed] = write_rollout(tmp_path, "x__y-2", seed, [turn("ls", 0.1)])
    table, read, _ = with_features(table_of(paths, dict.fromkeys(paths, 1)))
    found = diversity(table, read)
    assert dict(zip(found.tasks, found.values, strict=True)) == pytest.approx(
        {"x__y-1": np.mean([0, 2 / 3, 2 / 3]), "x__y-2": 0.0}
    )


def made_up(seed: int = 0, n: int = 60, seeds: int = 4, shift: float = 0.0) -> pd.DataFrame:
    """Two arms with token counts; arm b needs `shift` fewer tokens."""
    rng = np.random.default_rng(seed)
    rows = []
    for task in range(n):
        p, size = rng.beta(0.5, 0.5), rng.lognormal(8, 0.5)
        for arm, factor in (("a", 1.0), ("b", 1.0 - shift)):
            for s in range(seeds):
                tokens = int(size * factor * rng.lognormal(0, 0.3))
                rows.append((arm, f"x__y-{task}", s, int(rng.random() < p), tokens, tokens * 2, 3, "submitted"))
    names = ["arm", "instance_id", "seed", "resolved", "completion_tokens", "prompt_tokens", "steps", "exit_status"]
    return normalise(pd.DataFrame(rows, columns=names), "made up")


def test_tokens_per_resolved_is_all_tokens_over_all_solves() -> None:
    table = made_up()
    one = table[table["arm"] == "a"]
    found = per_resolved(one, "completion_tokens")
    total = float(one["completion_tokens"].sum()) / float(one["resolved"].sum())
    assert float(found.values.mean()) == pytest.approx(total)


def test_gpu_seconds_per_resolved_are_all_of_them_over_all_solves() -> None:
    table = made_up()
    table["gpu_seconds"] = table["completion_tokens"].astype("float64") / 50
    arms = {arm: table[table["arm"] == arm] for arm in "ab"}
    rows = {row.name: row for row in metric_rows(arms, "a")}
    for arm, one in arms.items():
        spent, solved = float(one["gpu_seconds"].sum()), float(one["resolved"].sum())
        assert rows["GPU time per resolved"].arms[arm].value == pytest.approx(spent / solved)
        assert rows["GPU time"].arms[arm].value == pytest.approx(spent / len(one))
    assert "b" in rows["GPU time per resolved"].differences
    unknown = {arm: one.assign(gpu_seconds=np.nan) for arm, one in arms.items()}
    assert "GPU time" not in {row.name for row in metric_rows(unknown, "a")}


def test_the_interval_of_a_ratio_covers_it() -> None:
    """Re-run the same tasks many times; the true ratio is that of the expectations."""
    rng = np.random.default_rng(0)
    p, size = rng.beta(0.5, 0.5, 80), rng.lognormal(8, 0.5, 80)
    truth = float((size * np.exp(0.045)).mean() / p.mean())
    hits = 0
    for _ in range(300):
        spent = size[:, None] * rng.lognormal(0, 0.3, (80, 4))
        solved = rng.random((80, 4)) < p[:, None]
        frame = pd.DataFrame(
            {
                "instance_id": np.repeat([f"x__y-{i}" for i in range(80)], 4),
                "repo": "x/y",
                "resolved": pd.array(solved.ravel(), dtype="boolean"),
                "tokens": spent.ravel(),
            }
        )
        interval = these_tasks(per_resolved(frame, "tokens"))
        hits += interval.low <= truth <= interval.high
    assert hits / 300 == pytest.approx(0.95, abs=0.04)


def test_a_cheaper_arm_is_found_cheaper_and_an_equal_one_is_not() -> None:
    cheaper = compare(Outcomes(made_up(shift=0.3)))
    row = next(row for row in cheaper.metrics if row.name == "completion tokens")
    assert row.differences["b"].value < 0
    assert row.p_holm["b"] < 0.01
    equal = compare(Outcomes(made_up()))
    row = next(row for row in equal.metrics if row.name == "completion tokens")
    assert row.p_holm["b"] > 0.05


def test_metrics_of_identical_arms_are_called_different_as_often_as_stated() -> None:
    rejected = []
    for seed in range(150):
        table = with_derived(made_up(seed, n=30, seeds=3))
        metric = next(metric for metric in METRICS if metric.name == "tokens per resolved")
        rows = {arm: metric_values(table[table["arm"] == arm], metric) for arm in "ab"}
        rejected.append(metric_row(metric, rows, "a").p["b"] <= 0.05)
    assert np.mean(rejected) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)


def test_a_metric_that_never_varied_claims_nothing_from_two_seeds() -> None:
    """Replayed policies repeat themselves exactly; one task that differs is one task, not certainty."""
    rows = [(arm, f"x__y-{i}", s, 1, 5 + (arm == "b" and i == 0)) for arm in "ab" for i in range(20) for s in range(2)]
    table = normalise(pd.DataFrame(rows, columns=["arm", "instance_id", "seed", "resolved", "steps"]), "made up")
    row = next(row for row in compare(Outcomes(table)).metrics if row.name == "steps")
    assert row.p["b"] > 0.2
    assert row.differences["b"].these.bound


def test_calibration_of_stated_success_is_measured() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for task in range(200):
        p = rng.random()
        for seed in range(3):
            for arm, said in (("honest", p), ("boastful", min(1.0, p + 0.3))):
                rows.append((arm, f"x__y-{task}", seed, int(rng.random() < p), said))
    table = normalise(
        pd.DataFrame(rows, columns=["arm", "instance_id", "seed", "resolved", "stated_success"]), "made up"
    )
    rows_by_name = {row.name: row for row in compare(Outcomes(table), "honest").metrics}
    assert (
        rows_by_name["overconfidence"].arms["honest"].these.low
        < 0
        < rows_by_name["overconfidence"].arms["honest"].these.high
    )
    assert rows_by_name["overconfidence"].differences["boastful"].these.low > 0
    assert rows_by_name["Brier score"].arms["honest"].value == pytest.approx(1 / 6, abs=0.02)


def test_needless_harmful_and_missed_calls_are_counted_from_paired_arms() -> None:
    """Hand-made: task 1 is solvable without the tool, task 2 only with it."""
    rows = []
    for seed in range(4):
        rows += [("free", "x__y-1", seed, 1, 1), ("free", "x__y-2", seed, 0, 0)]
        rows += [("without", "x__y-1", seed, 1, 0), ("without", "x__y-2", seed, 0, 0)]
        rows += [("forced", "x__y-1", seed, 1, 1), ("forced", "x__y-2", seed, 1, 1)]
    table = normalise(pd.DataFrame(rows, columns=["arm", "instance_id", "seed", "resolved", "tool_calls"]), "made up")
    found = compare(Outcomes(table), "free", options=CompareOptions(calls=("free", "without", "forced")))
    shares = {row.name: row.arms["free"].value for row in found.metrics if row.section == "tools"}
    assert shares == {"calls": 0.5, "needless calls": 0.5, "harmful calls": 0.0, "missed calls": 0.5}


def test_the_tool_use_tax_is_four_paired_differences() -> None:
    rng = np.random.default_rng(0)
    levels = {"native": 0.5, "prompt": 0.45, "null": 0.3, "tool": 0.7}
    rows = [
        (arm, f"x__y-{i}", s, int(rng.random() < p)) for arm, p in levels.items() for i in range(100) for s in range(4)
    ]
    table = normalise(pd.DataFrame(rows, columns=["arm", "instance_id", "seed", "resolved"]), "made up")
    found = compare(Outcomes(table), "native", ["prompt", "null", "tool"], CompareOptions(tax=tuple(levels)))
    parts = {one.label: one.difference.value for one in found.contrasts if one.label}
    assert list(parts) == ["format cost", "protocol tax", "execution gain", "net effect of tools"]
    assert parts["format cost"] + parts["protocol tax"] + parts["execution gain"] == pytest.approx(
        parts["net effect of tools"]
    )


def facts(arm: str, **changes: object) -> ArmFacts:
    base = {
        "config": {"arm": arm, "sampling": {"temperature": 1.0}, "checkpoint": arm},
        "fingerprint": {"model": arm, "server": {"version": "0.11.0"}, "canary": {"def": [-0.1, -0.2]}},
    }
    return ArmFacts(arm=arm, **{**base, **changes})


def test_a_default_temperature_that_differs_is_a_loud_warning_and_the_weights_are_not() -> None:
    table = made_up()
    tables = {arm: table[table["arm"] == arm] for arm in "ab"}
    other = facts("b", config={"arm": "b", "sampling": {"temperature": 0.6}, "checkpoint": "b"})
    found = warnings(tables, {"a": facts("a"), "b": other})
    assert any(line.startswith("config.sampling.temperature differs: a: 1.0; b: 0.6") for line in found)
    assert not any("checkpoint" in line or "model" in line for line in found)


def test_settings_that_change_no_outcome_are_no_difference() -> None:
    table = made_up()
    tables = {arm: table[table["arm"] == arm] for arm in "ab"}
    patient = facts("b", config=facts("b").config | {"stop_alike": 0, "outage_seconds": 7200})
    found = warnings(tables, {"a": facts("a", config=facts("a").config | {"stop_alike": 12}), "b": patient})
    assert not any("stop_alike" in line or "outage_seconds" in line for line in found)


def test_what_holds_of_agents_is_compared_and_not_what_was_asked_for() -> None:
    table = made_up()
    tables = {arm: table[table["arm"] == arm] for arm in "ab"}

    def run(arm: str, config: dict, thoughts: dict, steps: int = 250, heat: float = 1.0) -> ArmFacts:
        policy = {"kind": "endpoint", "sampling": {"temperature": heat, "top_k": None}}
        agent = {"kind": "bash", "prompts": {"name": "bash-1", "digest": "d"}, "budget": {"steps": steps}, **thoughts}
        return facts(arm, config={"arm": arm, **config}, agent={**agent, "policy": policy})

    asked = {"agent_options": {"thoughts": "drop", "steps": 250, "prompts": "a.yaml"}, "sampling": {"temperature": 1}}
    before = run("a", {"agent_options": {}, "sampling": {}}, {})  # an earlier release, which never sent any
    assert not any(
        "config" in line or "agent" in line for line in warnings(tables, {"a": before, "b": run("b", asked, {})})
    )
    other = {"agent_options": {"thoughts": "send", "steps": 9}, "sampling": {"temperature": 0.6}}
    found = warnings(tables, {"a": before, "b": run("b", other, {"thoughts": "send"}, steps=9, heat=0.6)})
    assert [line for line in found if "config" in line or "agent" in line] == [
        "agent.budget.steps differs: a: 250; b: 9",
        "agent.policy.sampling.temperature differs: a: 1.0; b: 0.6",
        "agent.thoughts differs: a: drop; b: send",
    ]
    own = {
        arm: facts(arm, config={"agent_options": {"thoughts": said}}, agent={"kind": "own"})
        for arm, said in (("a", "send"), ("b", "drop"))
    }  # an agent that does not say what holds
    assert "config.agent_options.thoughts differs: a: send; b: drop" in warnings(tables, own)


def test_log_probabilities_before_and_after_temperature_are_a_difference_where_both_are_known() -> None:
    """Entropies of such arms are of different distributions (findings/vllm-gives-logprobs-before-temperature-*.sh)."""
    table = made_up()
    tables = {arm: table[table["arm"] == arm] for arm in "ab"}
    raw, heated, unknown = (
        {"server": {"version": "1"}, "logprobs": said} for said in ("before temperature", "after temperature", "")
    )
    found = warnings(tables, {"a": facts("a", fingerprint=raw), "b": facts("b", fingerprint=heated)})
    assert "fingerprint.logprobs differs: a: before temperature; b: after temperature" in found
    found = warnings(tables, {"a": facts("a", fingerprint=raw), "b": facts("b", fingerprint=unknown)})
    assert not any("logprobs" in line for line in found)


def test_two_checkpoints_that_answer_the_canaries_alike_are_suspected_of_being_one() -> None:
    table = made_up()
    tables = {arm: table[table["arm"] == arm] for arm in "ab"}
    assert any("the same weights" in line for line in warnings(tables, {"a": facts("a"), "b": facts("b")}))


def test_a_whole_comparison_of_run_folders_shows_behaviour_flips_and_curves(tmp_path: Path) -> None:
    """Two run folders written by hand in the runner's layout, through the command line."""
    for arm, entropy, solved in (("base", 0.8, 0), ("aem", 0.4, 1)):
        folder = tmp_path / arm
        tasks = [f"x__y-{i}" for i in range(6)]
        events = []
        for task in tasks:
            for seed in range(2):
                write_rollout(folder, task, seed, [turn("ls", entropy), turn(f"edit {arm} {seed}", entropy / 2)])
                key = {"instance_id": task, "seed": seed, "attempt": 0}
                events.append(
                    {"event": "rollout", **key, "exit_status": "submitted", "reason": "", "steps": 2, "seconds": 1.0}
                    | {"prompt_tokens": 200, "completion_tokens": 20, "mean_entropy": entropy * 0.75, "malformed": 0}
                    | {"patch_bytes": len(PATCH), "image_digest": "sha256:0", "fault": None, "at": ""}
                )
                outcome = "resolved" if solved or task == "x__y-0" else "unresolved"
                events.append(
                    {"event": "grade", **key, "outcome": outcome, "cause": "", "seconds": 1.0, "versions": {}}
                )
        run = {"run_id": arm, "arm": arm, "config": {}, "plan": {"instances": tasks, "seeds": 2}}
        (folder / "run.json").write_text(json.dumps(run))
        (folder / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    shown = CliRunner().invoke(
        app, ["compare", str(tmp_path / "base"), str(tmp_path / "aem"), "--out", str(tmp_path / "c")]
    )
    assert shown.exit_code == 0, shown.output
    written = {path.name for path in (tmp_path / "c").iterdir()}
    assert written == {f"comparison.{kind}" for kind in ("json", "csv", "txt")} | {
        f"{name}.csv" for name in ("flips", "metrics", "groups")
    }
    assert "rollouts/x__y-1/0/x__y-1.traj.json" in (tmp_path / "c/flips.csv").read_text()
    found = compare(load([tmp_path / "base", tmp_path / "aem"]))
    rows = {row.name: row for row in found.metrics}
    assert rows["entropy, early"].differences["aem"].value == pytest.approx(-0.4)
    assert len(found.flips) == 5
    assert found.flips[0].step == 1
    assert found.flips[0].actions == ("edit base 0", "edit aem 0")
    assert Path(found.flips[0].trajectories[0]).is_file()
    kinds = {curve.kind for curve in found.curves}
    assert kinds == {"resolved within steps", "resolved within generated tokens", "response entropy by turn"}
    by_turn = next(c for c in found.curves if c.arm == "base" and c.kind == "response entropy by turn")
    assert [point.x for point in by_turn.points] == [1, 2]
    assert [point.value for point in by_turn.points] == pytest.approx([0.8, 0.4])
    assert found.unique["aem"] == tuple(f"x__y-{i}" for i in range(1, 6))


@pytest.mark.parametrize(
    ("command", "runs_tests"),
    [
        ("python -m pytest -q tests", True),
        ("cd /testbed && python -X dev t.py", True),
        ("python3 /tmp/test_fix.py", True),
        ("python reproduce.py", False),
        ("python setup.py build", False),
        ("cat tests/test_a.py", False),
    ],
)
def test_a_test_script_of_the_agents_own_is_a_test_run_and_reading_one_is_not(command: str, runs_tests: bool) -> None:
    assert bool(TESTING.search(command)) is runs_tests


def test_no_interval_leaves_the_scale_of_its_metric_and_none_seen_is_not_none() -> None:
    """A share of -2 %, a price below nothing, and "no rollout reaches a limit, for certain" were all printed."""
    table = made_up(n=6, seeds=2)
    few = table.assign(exit_status="submitted", resolved=table["seed"].eq(0) & table["instance_id"].eq("x__y-1"))
    few["completion_tokens"] = np.where(few["instance_id"] == "x__y-2", 1_000_000, 10)
    few.loc[(few["arm"] == "b") & (few.index % 12 == 1), "outcome"] = "empty_patch"
    rows = {row.name: row for row in compare(Outcomes(few)).metrics}
    limits, empty = (rows[name] for name in ("limits reached", "empty patches"))
    assert (limits.arms["a"].value, limits.arms["a"].these.low) == pytest.approx((0, 0))
    assert limits.arms["a"].these.high > 0.1
    assert limits.differences["b"].these.low < 0 < limits.differences["b"].these.high
    for row in rows.values():
        assert all(one.these.low >= 0 for one in row.arms.values()), row.name
    for one in (*limits.arms.values(), *empty.arms.values()):
        assert one.like is not None
        assert 0 <= one.like.low <= one.value <= one.like.high <= 1


def test_shares_of_tool_calls_have_the_intervals_of_the_level_that_was_asked_for() -> None:
    rng = np.random.default_rng(0)
    rows = [
        (arm, f"x__y-{task}", seed, int(rng.random() < 0.5), int(rng.random() < 0.8))
        for arm in ("free", "without")
        for task in range(30)
        for seed in range(4)
    ]
    table = normalise(pd.DataFrame(rows, columns=["arm", "instance_id", "seed", "resolved", "tool_calls"]), "made up")
    wide, narrow = (
        [
            row.arms["free"].these
            for row in compare(Outcomes(table), options=CompareOptions(level=level, calls=("free", "without"))).metrics
            if row.section == "tools"
        ]
        for level in (0.99, 0.8)
    )
    assert [one.level for one in wide] == [0.99] * 3
    for one, other in zip(wide, narrow, strict=True):
        assert one.low < other.low < other.high < one.high
