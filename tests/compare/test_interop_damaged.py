"""One bad record of another tool's file costs one verdict; it is counted and named, in one line."""

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.compare.behaviour import with_features
from aem_harness.harness.compare.outcomes import Outcomes, import_outcomes, load
from aem_harness.harness.errors import DataError
from aem_harness.harness.interop.official import arm_of
from aem_harness.harness.interop.trajectories import read_trajectory

PATCH = "diff --git a/x b/x\n"


def verdicts(outcomes: Outcomes) -> dict[str, Any]:
    """Verdict by instance: true, false or None."""
    table = outcomes.table
    return {
        name: None if pd.isna(value) else bool(value)
        for name, value in zip(table["instance_id"], table["resolved"], strict=True)
    }


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def write_lines(path: Path, *values: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((value if isinstance(value, str) else json.dumps(value)) + "\n" for value in values))
    return path


# --- Harbor ---------------------------------------------------------------------------------------------------------


def trial(folder: Path, task: str, reward: Any = 1.0, raised: str = "", **fields: Any) -> None:
    """A trial as Harbor 0.26 leaves it; `reward_valid` only where it is given."""
    result = {
        "task_name": f"swe-bench/{task}",
        "trial_name": f"{task}__abc",
        "agent_info": {"name": "mini-swe-agent", "version": "2.4.6", "model_info": {"name": "m"}},
        "verifier_result": None
        if reward is None
        else {"rewards": reward if isinstance(reward, dict) else {"reward": reward}},
        "exception_info": {"exception_type": raised, "exception_message": ""} if raised else None,
    }
    write(folder / f"{task}__abc" / "result.json", result | fields)


def test_harbor_says_itself_which_rewards_are_valid(tmp_path: Path) -> None:
    trial(tmp_path, "a", 1.0, "NonZeroAgentExitCodeError", reward_valid=True)
    trial(tmp_path, "b", 0.0, "ContextWindowExceededError", reward_valid=True)
    trial(tmp_path, "c", 0.0, "AgentSafetyRefusalError", reward_valid=True)
    trial(tmp_path, "d", 1.0, "SomeNewError", reward_valid=True)
    trial(tmp_path, "e", 1.0, "ApiRateLimitError", reward_valid=False)
    trial(tmp_path, "f", 0.0, "NonZeroAgentExitCodeError", reward_valid=False)
    trial(tmp_path, "g", None, "AgentTimeoutError", reward_valid=False)
    found = import_outcomes(tmp_path)
    assert verdicts(found) == {"a": True, "b": False, "c": False, "d": True, "e": None, "f": None, "g": None}
    assert not found.notes


def test_an_older_harbor_is_judged_by_the_table_of_ends(tmp_path: Path) -> None:
    trial(tmp_path, "a", 1.0, "NonZeroAgentExitCodeError")
    trial(tmp_path, "b", 0.0, "ContextLengthExceededError")
    trial(tmp_path, "c", 0.0, "ApiRateLimitError")
    trial(tmp_path, "d", 0.0, step_results=[{"exception_info": {"exception_type": "EnvironmentStartTimeoutError"}}])
    assert verdicts(import_outcomes(tmp_path)) == {"a": True, "b": False, "c": None, "d": None}


def test_overflowed_trials_stay_in_harbor_s_denominator(tmp_path: Path) -> None:
    """The candidate overflows on tasks that the baseline solves: ten points worse, not equal."""
    for number in range(40):
        trial(tmp_path / "base", f"t{number}", float(number < 20))
        lost = 16 <= number < 20 or number >= 32
        end = {"raised": "ContextWindowExceededError", "reward_valid": True} if lost else {}
        trial(tmp_path / "cand", f"t{number}", float(number < 16), **end)
    table = load([tmp_path / "base", tmp_path / "cand"]).table
    rates = table.groupby("arm")["resolved"].mean()
    assert rates["cand"] - rates["base"] == pytest.approx(-0.1)


def test_a_damaged_trial_costs_its_own_verdict(tmp_path: Path) -> None:
    trial(tmp_path, "whole")
    trial(tmp_path, "half", 0.5)
    trial(tmp_path, "many", {"tests": 1, "style": 0})
    trial(tmp_path, "none", float("nan"))
    (tmp_path / "torn__xyz").mkdir()
    (tmp_path / "torn__xyz" / "result.json").write_text('{"task_name": "org/torn", "trial')
    (tmp_path / "gone__xyz").mkdir()
    write(tmp_path / "long__xyz" / "config.json", {"task": {"path": "tasks/a-name-that-is-long"}})
    found = import_outcomes(tmp_path)
    expected = dict.fromkeys(["half", "many", "none", "torn", "gone", "a-name-that-is-long"])
    assert verdicts(found) == expected | {"whole": True}
    (note,) = found.notes
    assert "6 records without a usable verdict" in note
    assert "torn__xyz" in note


def test_one_trial_s_folder_and_a_folder_with_one_job_are_read_too(tmp_path: Path) -> None:
    trial(tmp_path / "jobs" / "one", "a")
    write(tmp_path / "jobs" / "one" / "result.json", {"id": "the job's own"})
    assert verdicts(import_outcomes(tmp_path / "jobs")) == {"a": True}
    assert verdicts(import_outcomes(tmp_path / "jobs" / "one" / "a__abc")) == {"a": True}
    trial(tmp_path / "jobs" / "two", "a")
    with pytest.raises(DataError, match="several jobs"):
        import_outcomes(tmp_path / "jobs")


# --- mini-swe-agent, SWE-agent ----------------------------------------------------------------------------------------


def mini(
    folder: Path, name: str, status: str, messages: Any = (), patch: str | None = "", **info: Any
) -> dict[str, Any]:
    """A rollout's trajectory; returns its entry of preds.json."""
    document = {"info": {"exit_status": status, **info}, "messages": list(messages), "instance_id": name}
    write(folder / name / f"{name}.traj.json", document)
    return {"instance_id": name, "model_name_or_path": "m", "model_patch": patch}


def test_mini_swe_agent_s_ends_are_told_apart(tmp_path: Path) -> None:
    full = "This model's maximum context length is 4096 tokens. However, your request has 5000 input tokens."
    preds = [
        mini(tmp_path, "a", "Submitted", patch=PATCH),
        mini(tmp_path, "b", "ContextWindowExceededError"),
        mini(tmp_path, "c", "LimitsExceeded"),
        mini(tmp_path, "d", "RateLimitError"),
        mini(tmp_path, "e", "UserInterruption"),
        mini(tmp_path, "f", "BadRequestError", exception_str=full),
        mini(tmp_path, "g", "BadRequestError", exception_str="tools are not supported"),
        mini(tmp_path, "h", "CalledProcessError"),
    ]
    write(tmp_path / "preds.json", {one["instance_id"]: one for one in preds})
    empty = [one["instance_id"] for one in preds if not one["model_patch"]]
    write(tmp_path / "m.r1.json", {"resolved_ids": ["a"], "empty_patch_ids": empty, "submitted_ids": ["a", *empty]})
    found = import_outcomes(tmp_path)
    lost = {"a": True, "b": False, "c": False, "d": None, "e": None, "f": False, "g": None, "h": None}
    assert verdicts(found) == lost
    assert found.table.set_index("instance_id").loc["f", "exit_status"] == "context_limit"


def test_swe_agent_s_lost_servers_and_containers_are_no_wrong_answers(tmp_path: Path) -> None:
    ends = {"a": "submitted", "b": "exit_api", "c": "exit_environment_error", "d": "exit_cost"}
    ends |= {"e": "submitted (exit_command_timeout)", "f": "submitted (exit_api)", "g": "exit_error"}
    for name, status in ends.items():
        step = {"action": "ls", "observation": "", "response": "r"}
        write(tmp_path / name / f"{name}.traj", {"trajectory": [step], "info": {"exit_status": status}})
    report = {"resolved_ids": ["a", "f"], "unresolved_ids": ["e"], "empty_patch_ids": ["b", "c", "d", "g"]}
    write(tmp_path / "report.json", report)
    expected = {"a": True, "b": None, "c": None, "d": False, "e": False, "f": None, "g": False}
    assert verdicts(import_outcomes(tmp_path)) == expected


MESSAGES: dict[str, list[Any]] = {
    "content null, arguments an object": [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"function": {"arguments": {"command": "ls"}}}],
            "extra": None,
        }
    ],
    "parts with null text": [
        {
            "role": "assistant",
            "content": [{"type": "thinking", "text": None}, {"type": "text", "text": "```bash\nls\n```"}],
        }
    ],
    "bare strings": [{"role": "assistant", "content": ["look ", "```bash\nls\n```"]}],
    "Responses API": [
        {
            "object": "response",
            "output": [{"type": "reasoning"}, {"type": "function_call", "arguments": '{"command": "ls"}'}],
            "usage": {"input_tokens": 100, "output_tokens": 7},
            "extra": {"actions": [{"command": "ls"}]},
        }
    ],
    "Responses API without actions": [
        {"object": "response", "output": [{"type": "function_call", "arguments": '{"command": "ls"}'}]}
    ],
    "response as text": [{"role": "assistant", "content": "```bash\nls\n```", "extra": {"response": "gone"}}],
    "a null message, actions null": [
        None,
        {"role": "assistant", "content": "```bash\nls\n```", "extra": {"actions": None}},
    ],
}


@pytest.mark.parametrize("form", MESSAGES)
def test_every_form_of_a_message_gives_its_turn(tmp_path: Path, form: str) -> None:
    entry = mini(tmp_path, "a", "Submitted", MESSAGES[form], PATCH, model_stats=None)
    write(tmp_path / "preds.json", {"a": entry})
    write(tmp_path / "m.r1.json", {"resolved_ids": ["a"]})
    found = import_outcomes(tmp_path)
    assert verdicts(found) == {"a": True}
    turn = read_trajectory(tmp_path / "a" / "a.traj.json").turns
    assert [one.commands for one in turn] == [("ls",)]
    if form == "Responses API":
        assert (turn[0].prompt_tokens, turn[0].completion_tokens) == (100, 7)


def test_a_torn_trajectory_and_an_odd_measurement_cost_no_verdict(tmp_path: Path) -> None:
    long = "x__y-" + "1" * 300
    preds = [mini(tmp_path, name, "Submitted", patch=PATCH, model_stats={"instance_cost": "free"}) for name in "ab"]
    preds.append({"instance_id": long, "model_name_or_path": "m" * 3000, "model_patch": PATCH})
    (tmp_path / "a" / "a.traj.json").write_text('{"info": {"exit')
    write(tmp_path / "preds.json", {one["instance_id"]: one for one in preds})
    write(tmp_path / "m.r1.json", {"resolved_ids": ["a", "b", long]})
    found = import_outcomes(tmp_path)
    assert verdicts(found) == {"a": True, "b": True, long: True}
    (note,) = found.notes
    assert "a.traj.json" in note


DEEP = "[" * 20_000
ODD: dict[str, dict[str, Any]] = {
    "entropy as text": {"extra": {"mean_entropy": "low", "surprisal": [1]}},
    "numbers beyond all measure": {
        "extra": {"mean_entropy": 10**400, "prompt_tokens": 10**400, "completion_tokens": 2**70}
    },
    "not numbers": {"extra": {"mean_entropy": float("nan"), "surprisal": float("-inf"), "completion_tokens": True}},
    "arguments nested without end": {"tool_calls": [{"function": {"arguments": DEEP}}]},
    "an output that is no list": {"role": "tool", "object": "response", "output": 5},
}


@pytest.mark.parametrize("form", ODD)
def test_an_odd_value_in_a_trajectory_costs_itself_and_nothing_else(tmp_path: Path, form: str) -> None:
    odd = {"role": "assistant", "content": "```bash\nls\n```"} | ODD[form]
    good = {"role": "assistant", "content": "```bash\nls\n```", "extra": {"mean_entropy": 0.5, "completion_tokens": 7}}
    for name in ("one", "two"):
        entry = mini(tmp_path / name, "a", "Submitted", [odd, good], PATCH, submission=[PATCH])
        write(tmp_path / name / "preds.json", {"a": entry | {"model_name_or_path": ["m"]}})
        write(tmp_path / name / "m.r1.json", {"resolved_ids": ["a"]})
    table, read, problems = with_features(load([tmp_path / "one", tmp_path / "two"]).table)
    assert table["resolved"].all()
    assert (len(read), problems) == (2, [])
    assert table["entropy_late"].tolist() == [0.5, 0.5]
    assert table["completion_tokens"].tolist() == [7, 7]


def test_of_several_reports_beside_the_predictions_none_is_guessed(tmp_path: Path) -> None:
    write(tmp_path / "preds.json", [{"instance_id": "a", "model_patch": PATCH}])
    for run in ("r1", "r2"):
        write(tmp_path / f"m.{run}.json", {"resolved_ids": ["a"] if run == "r2" else [], "unresolved_ids": []})
    with pytest.raises(DataError, match=r"several reports \(m.r1.json, m.r2.json\).*--reports"):
        import_outcomes(tmp_path)
    assert verdicts(import_outcomes(tmp_path, reports=tmp_path / "m.r2.json")) == {"a": True}


def test_predictions_that_name_an_instance_twice_are_refused(tmp_path: Path) -> None:
    entry = {"instance_id": "a", "model_patch": PATCH}
    write(tmp_path / "preds.json", [entry, entry])
    write(tmp_path / "report.json", {"resolved_ids": ["a"]})
    with pytest.raises(DataError, match="a occurred before"):
        import_outcomes(tmp_path)


# --- official reports -----------------------------------------------------------------------------------------------

REPORT = {"submitted_ids": list("abcd"), "resolved_ids": ["a"], "unresolved_ids": ["b"], "error_ids": ["c", "d"]}


def test_a_run_report_and_its_logs_give_the_same_verdicts(tmp_path: Path) -> None:
    path = write(tmp_path / "model.r1.json", REPORT)
    tree = tmp_path / "logs/run_evaluation/r1/model"
    for name, resolved in (("a", True), ("b", False)):
        write(tree / name / "report.json", {name: {"patch_successfully_applied": True, "resolved": resolved}})
    for name, text in (("c", ">>>>> Patch Apply Failed:"), ("d", "the container was lost")):
        (tree / name).mkdir()
        (tree / name / "run_instance.log").write_text(text)
    found = import_outcomes(path)
    assert verdicts(found) == verdicts(import_outcomes(tree)) == {"a": True, "b": False, "c": False, "d": None}
    assert not found.notes


def test_errors_that_nothing_explains_count_as_in_the_official_rate_and_are_named(tmp_path: Path) -> None:
    found = import_outcomes(write(tmp_path / "model.r1.json", REPORT))
    assert verdicts(found) == {"a": True, "b": False, "c": False, "d": False}
    (note,) = found.notes
    assert "2 of 4" in note
    assert "--reports" in note


def test_the_reasons_that_swebench_5_gives_tell_its_errors_apart(tmp_path: Path) -> None:
    more = {"infra_failure_ids": ["c"], "failure_reasons": {"c": "container_unavailable", "d": "tests_timed_out"}}
    found = import_outcomes(write(tmp_path / "model.r1.json", REPORT | more))
    assert verdicts(found) == {"a": True, "b": False, "c": None, "d": False}
    assert found.table.set_index("instance_id").loc["d", "outcome"] == "test_timeout"


def test_an_instance_in_two_lists_or_twice_in_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a is in unresolved_ids and in resolved_ids"):
        import_outcomes(write(tmp_path / "m.r1.json", {"resolved_ids": ["a"], "unresolved_ids": ["a"]}))
    line = {"instance_id": "a", "resolved": True}
    with pytest.raises(DataError, match="line 2: a occurred before"):
        import_outcomes(write_lines(tmp_path / "reports.jsonl", line, line))


def test_bad_lines_are_one_warning_however_many_they_are(tmp_path: Path) -> None:
    good = [{"instance_id": f"g-{n}", "resolved": n % 2 == 0} for n in range(5)]
    bad = [f'{{"instance_id": "b-{n}", "resol' for n in range(400)]
    path = write_lines(tmp_path / "reports.jsonl", *good, *bad, "null", {"resolved": True})
    found = import_outcomes(path)
    known = verdicts(found)
    assert [known[f"g-{n}"] for n in range(5)] == [True, False, True, False, True]
    assert sum(value is None for value in known.values()) == 400, "a torn line that shows its id keeps the task"
    (note,) = found.notes
    assert "402 records" in note
    shown = CliRunner().invoke(app, ["import", str(path), "--out", str(tmp_path / "out.csv")])
    assert shown.exit_code == 0, shown.output
    assert len(shown.output.splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "arm"),
    [
        ("Qwen2.5-7B.r1.json", "Qwen2.5-7B"),
        ("Qwen2.5-72B-step-3.5.nightly.json", "Qwen2.5-72B-step-3.5"),
        ("model.json", "model"),
        ("gpt-4.1.run.json.gz", "gpt-4.1"),
    ],
)
def test_a_run_report_s_arm_keeps_its_name_up_to_the_run_id(name: str, arm: str) -> None:
    assert arm_of(Path(name)) == arm


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8"])
def test_files_of_other_systems_are_read_by_their_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "model.r1.json"
    path.write_text(json.dumps(REPORT | {"error_ids": []}), encoding=encoding)
    assert verdicts(import_outcomes(path))["a"] is True
    lines = tmp_path / "reports.jsonl"
    lines.write_text(
        json.dumps({"instance_id": "a\u2028b", "resolved": True}, ensure_ascii=False) + "\n", encoding=encoding
    )
    assert verdicts(import_outcomes(lines)) == {"a\u2028b": True}
    csv = tmp_path / "arms.csv"
    csv.write_text("arm;instance_id;seed;resolved\na;x;0;1\n", encoding=encoding)
    assert verdicts(import_outcomes(csv)) == {"x": True}


@pytest.mark.parametrize("name", ["a.csv.gz", "model.r1.json.gz", "reports.jsonl.gz"])
def test_a_torn_archive_is_one_line_that_names_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"arm,instance_id,seed,resolved\na,x,0,1\n" * 50)[:-12])
    with pytest.raises(DataError, match="cannot read") as caught:
        import_outcomes(path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


# --- Inspect --------------------------------------------------------------------------------------------------------


def inspect_log(path: Path, *samples: dict[str, Any], **header: Any) -> Path:
    described = {"task": "swe_bench", "model": "openai/m", "packages": {"inspect_ai": "0.3.285"}}
    described |= header.pop("eval", {})
    return write(path, {"version": 2, "status": "success", "eval": described, "samples": list(samples), **header})


def sample(name: Any, value: Any = None, epoch: int = 1, **fields: Any) -> dict[str, Any]:
    return {"id": name, "epoch": epoch, "scores": {"swe_bench_scorer": {"value": value}}, **fields}


def test_every_form_of_an_inspect_score_is_read_and_unscored_is_no_verdict(tmp_path: Path) -> None:
    path = inspect_log(
        tmp_path / "log.json",
        sample("a", "C"), sample("b", "I"), sample("c", 1.0), sample("d", 0), sample("e", "1"), sample("f", "0.0"),
        sample("g", True), sample("h", {"resolved": 1, "x": 0}), sample("i", {"resolved": 0}),
        sample("j", float("nan")), sample("k", None), sample("l", 0.5), sample("m", {"x": 1, "y": 0}),
        sample("n", "C", invalidation={"reason": "leak"}), {"id": "o", "epoch": 1}, sample(7, "C"),
    )  # fmt: skip
    found = import_outcomes(path)
    right = {
        "a": True,
        "b": False,
        "c": True,
        "d": False,
        "e": True,
        "f": False,
        "g": True,
        "h": True,
        "i": False,
        "7": True,
    }
    assert verdicts(found) == right | dict.fromkeys("jklmno")
    (note,) = found.notes
    assert "2 records" in note


def test_an_inspect_log_in_which_all_samples_raised_says_so(tmp_path: Path) -> None:
    path = inspect_log(tmp_path / "log.json", *({"id": n, "epoch": 1, "error": {"message": "boom"}} for n in "ab"))
    found = import_outcomes(path)
    assert verdicts(found) == {"a": None, "b": None}
    assert "not one of its 2 samples has a verdict" in found.notes[0]


def test_inspect_samples_that_were_planned_and_are_not_in_the_log_keep_their_row(tmp_path: Path) -> None:
    planned = {"dataset": {"name": "d", "sample_ids": ["a", "b"]}, "config": {"epochs": 2}}
    found = import_outcomes(inspect_log(tmp_path / "log.json", sample("a", "C"), eval=planned, status="started"))
    table = found.table
    assert sorted(zip(table["instance_id"], table["seed"], strict=True)) == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert table["resolved"].notna().sum() == 1
    assert "started" in found.notes[0]


def test_an_inspect_sample_s_error_is_whose_fault_its_class_says(tmp_path: Path) -> None:
    raised = {"a": "ContextWindowExceededError('too long')", "b": "RateLimitError('slow down')", "c": "boom"}
    samples = ({"id": name, "epoch": 1, "error": {"message": text}} for name, text in raised.items())
    found = import_outcomes(inspect_log(tmp_path / "log.json", *samples, sample("d", "I", limit={"type": "token"})))
    assert verdicts(found) == {"a": False, "b": None, "c": None, "d": False}
    assert found.table["exit_status"].tolist()[3] == "token_limit"


def test_an_invalidated_sample_is_found_in_an_eval_file_though_its_summary_is_silent(tmp_path: Path) -> None:
    path = tmp_path / "log.eval"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", json.dumps({"eval": {"task": "t", "model": "m"}, "invalidated": True}))
        archive.writestr("summaries.json", json.dumps([sample("a", "C"), sample("b", "C")]))
        archive.writestr("samples/a_epoch_1.json", json.dumps(sample("a", "C", invalidation={"reason": "x"})))
        archive.writestr("samples/b_epoch_1.json", json.dumps(sample("b", "C", invalidation=None)))
    assert verdicts(import_outcomes(path)) == {"a": None, "b": True}


# --- NeMo Evaluator, OpenHands, CSV -----------------------------------------------------------------------------------


def nemo(index: int, reward: Any, category: str | None = None, repeat: int = 0, **fields: Any) -> dict[str, Any]:
    """A line of results.jsonl as nemo-evaluator 0.3 writes it."""
    details = {"method": "x"} | ({"error_category": category, "error": "why"} if category else {})
    metadata = {"instance_id": f"x__y-{index}"}
    line = {"problem_idx": index, "repeat": repeat, "reward": reward, "metadata": metadata, "scoring_details": details}
    return line | {"latency_ms": 1500.0} | fields


def test_nemo_evaluator_s_zero_for_what_it_could_not_measure_is_no_verdict(tmp_path: Path) -> None:
    write(tmp_path / "eval-1.json", {"run_id": "eval-1", "benchmark": {"name": "swebench"}, "sdk_version": "0.3.0"})
    write_lines(
        tmp_path / "results.jsonl",
        nemo(0, 1.0), nemo(0, 0.0, repeat=1), nemo(1, 0.0, "infra_error"), nemo(2, 0.0, "system"),
        nemo(3, 0.0, "graceful"), nemo(4, 0.5), nemo(5, 1.0, scoring_details=None), '{"problem_idx": 6, "rew',
    )  # fmt: skip
    found = import_outcomes(tmp_path)
    table = found.table
    known = table.set_index(["instance_id", "seed"])["resolved"]
    assert known[[("x__y-0", 0), ("x__y-0", 1), ("x__y-3", 0), ("x__y-5", 0)]].tolist() == [True, False, False, True]
    assert table.set_index("instance_id").loc[["x__y-1", "x__y-2", "x__y-4"], "resolved"].isna().all()
    assert table["scaffold"].tolist()[0] == "nemo-evaluator 0.3.0"
    assert table["model_seconds"].tolist()[0] == 1.5
    (note,) = found.notes
    assert "2 records" in note


def openhands(name: str, patch: str | None = PATCH, error: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"instance_id": name, "test_result": {"git_patch": patch}, "error": error, "metrics": None, **fields}


def test_openhands_errors_are_told_apart_and_its_report_lies_beside(tmp_path: Path) -> None:
    usage = {"accumulated_cost": 0.5, "accumulated_token_usage": {"prompt_tokens": 10, "completion_tokens": 3}}
    write_lines(
        tmp_path / "output.jsonl",
        openhands("a", metrics=usage, metadata={"llm_config": {"model": "claude"}}),
        openhands("b", error="RuntimeError: Agent reached maximum iteration. Current iteration: 100"),
        openhands("c", "", "AgentRuntimeUnavailableError: no pod"),
        openhands("d", "", "AgentStuckInLoopError: Agent got stuck in a loop"),
        openhands("e", "", "Instance failed after 3 retries. Last error: ContextWindowExceededError: too long"),
        openhands("f", ""),
    )
    report = {"submitted_ids": list("abcdef"), "resolved_ids": ["a", "b"], "empty_patch_ids": list("cdef")}
    write(tmp_path / "output.report.json", report)
    found = import_outcomes(tmp_path)
    assert verdicts(found) == {"a": True, "b": True, "c": None, "d": False, "e": False, "f": False}
    first = found.table.iloc[0]
    assert (first["arm"], first["prompt_tokens"], first["cost_usd"]) == ("claude", 10, 0.5)


def test_openhands_last_attempt_counts_not_its_best(tmp_path: Path) -> None:
    line = {"instance_id": "a", "max_attempts": 3, "status": "success", "test_result": {}, "artifacts_url": ""}
    path = write_lines(
        tmp_path / "output.jsonl",
        line | {"attempt": 2, "resolved": False}, line | {"attempt": 1, "resolved": True},
        line | {"instance_id": "b", "attempt": 1, "status": "error", "error": "the pod was lost"},
    )  # fmt: skip
    found = import_outcomes(path)
    assert verdicts(found) == {"a": False, "b": None}
    assert "earlier attempts" in found.notes[0]


def test_openhands_without_verdicts_says_how_to_get_them(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "output.jsonl", openhands("a"))
    with pytest.raises(DataError, match="--reports"):
        import_outcomes(path)
    report = write(tmp_path / "elsewhere/m.r1.json", {"resolved_ids": ["a"]})
    assert verdicts(import_outcomes(path, reports=report)) == {"a": True}


def test_a_csv_with_other_column_names_is_imported(tmp_path: Path, shared: Path) -> None:
    out = tmp_path / "out.csv"
    source = str(shared / "data/multi-run-outcomes.csv")
    columns = "instance=instance_id,arm=study+agent+model+condition,seed=run"
    shown = CliRunner().invoke(app, ["import", source, "--columns", columns, "--out", str(out)])
    assert shown.exit_code == 0, shown.output
    assert len(import_outcomes(out).table) == 1443


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"instance_id": "nothing", "arm": "m"}, "has no column nothing"),
        (
            {"instance_id": "task", "arm": "m", "seed": "run"},
            "join columns that distinguish them.*arm=m\\+condition",
        ),
    ],
)
def test_columns_that_do_not_fit_are_refused_with_the_ones_that_are_there(
    tmp_path: Path, columns: dict[str, str], message: str
) -> None:
    path = tmp_path / "x.csv"
    path.write_text("m,condition,run,task,resolved\na,one,1,t,1\na,two,1,t,0\n")
    with pytest.raises(DataError, match=message):
        import_outcomes(path, columns=columns)


def test_rollouts_without_a_seed_are_numbered_in_order(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("m,task,ok\na,t,1\na,t,0\nb,t,1\n")
    table = import_outcomes(path, columns={"instance_id": "task", "arm": "m", "resolved": "ok"}).table
    assert table["seed"].tolist() == [0, 1, 0]
    named = import_outcomes(path, columns={"instance_id": "task", "resolved": "ok"}, arm="all").table
    assert named["seed"].tolist() == [0, 1, 2]
