"""Other people's results: real files of the formats where they can be had, and every verdict where it belongs."""

import gzip
import json
import shutil
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.compare.outcomes import import_outcomes, load
from aem_harness.harness.errors import DataError
from aem_harness.harness.interop import trajectories
from aem_harness.harness.interop.official import of_report, read_verdicts
from aem_harness.harness.interop.trajectories import read_trajectory

DATA = Path(__file__).parent / "data"
GEMINI = "gemini-3-pro-mini-1.15.0"


def by_task(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_index("instance_id")


def test_run_report_and_report_lines_and_leaderboard_agree(shared: Path) -> None:
    folder = shared / "data/predictions"
    whole = by_task(import_outcomes(folder / f"{GEMINI}.run-report.json", arm="gemini").table)
    lines = by_task(import_outcomes(folder / f"{GEMINI}.reports.jsonl.gz").table)
    board = load([f"{shared}/data/verified-leaderboard.csv.gz:20251118_mini-v1.15.0_gemini-3-pro-preview-20251118"])
    assert whole["resolved"].sum() == 371
    assert (whole["resolved"] == lines["resolved"].reindex(whole.index)).all()
    assert (whole["resolved"] == by_task(board.table)["resolved"].reindex(whole.index)).all()


def test_instances_without_a_verdict_in_a_run_report_keep_their_row(tmp_path: Path) -> None:
    report = {"submitted_ids": list("abcde"), "resolved_ids": ["a"], "unresolved_ids": ["b"]}
    report |= {"empty_patch_ids": ["c"], "error_ids": ["d"], "incomplete_ids": ["f"]}
    path = tmp_path / "model.run.json"
    path.write_text(json.dumps(report))
    table = by_task(import_outcomes(path).table)
    assert table["outcome"].fillna("").to_dict() == {
        "a": "resolved", "b": "unresolved", "c": "empty_patch", "d": "unresolved", "e": "", "f": "",
    }  # fmt: skip
    assert table["resolved"].isna().to_dict() == dict(zip("abcdef", [False] * 4 + [True] * 2, strict=True))


def test_folders_of_reports_say_why_there_is_none(tmp_path: Path, shared: Path) -> None:
    """Per-instance folders as the harness leaves them, from real logs."""
    index = pd.read_csv(shared / "data/grading-logs/index.csv")
    source = shared / "data/grading-logs"
    taken = 0
    for folder in sorted(source.glob("*/*/report.json"))[:3]:
        name = folder.parent.parent.name
        target = tmp_path / "my-run" / "my-model" / name
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder, target / "report.json")
        taken += 1
    lost = tmp_path / "my-run" / "my-model" / "x__y-1"
    lost.mkdir()
    (lost / "run_instance.log").write_text(">>>>> Patch Apply Failed:\nerror: patch failed")
    (tmp_path / "my-run" / "my-model" / "x__y-2").mkdir()
    found = read_verdicts(tmp_path / "my-run")
    assert len(index) >= taken == 3
    assert found["x__y-1"][0] == "not_applied"
    assert found["x__y-2"][0] == "error"
    (tmp_path / "my-run" / "other" / "x__y-3").mkdir(parents=True)
    (tmp_path / "my-run" / "other" / "x__y-3" / "report.json").write_text("{}")
    with pytest.raises(DataError, match="several runs or models"):
        read_verdicts(tmp_path / "my-run")
    (tmp_path / "turned" / "x__y-1" / "my-model").mkdir(parents=True)
    (tmp_path / "turned" / "x__y-1" / "my-model" / "report.json").write_text('{"x__y-1": {"resolved": true}}')
    with pytest.raises(DataError, match="no official report of my-model"):
        read_verdicts(tmp_path / "turned" / "x__y-1")


def test_reports_tell_empty_and_unapplied_patches_apart() -> None:
    assert of_report({"resolved": False, "patch_exists": True, "patch_successfully_applied": False})[0] == "not_applied"
    assert of_report({"resolved": False, "patch_is_None": True})[0] == "empty_patch"
    assert of_report({"resolved": False, "patch_exists": True, "patch_successfully_applied": True})[0] == "unresolved"


@pytest.fixture
def mini_folder(tmp_path: Path, shared: Path) -> Path:
    """A mini-swe-agent output folder: the real predictions and trajectories of two tasks, and one that crashed."""
    folder = tmp_path / "mini"
    folder.mkdir()
    with gzip.open(shared / f"data/predictions/{GEMINI}.preds.json.gz", "rt") as handle:
        predictions = json.load(handle)
    chosen = ["astropy__astropy-13033", "sympy__sympy-20590"]
    kept = {name: predictions[name] for name in chosen}
    for name in chosen:
        (folder / name).mkdir()
        shutil.copy(
            shared / f"data/trajectories/{name}__mini-swe-agent-1.15.0.traj.json", folder / name / f"{name}.traj.json"
        )
    crash = "x__y-1"
    kept[crash] = {"instance_id": crash, "model_name_or_path": "m", "model_patch": ""}
    (folder / crash).mkdir()
    info = {"exit_status": "APIConnectionError", "submission": ""}
    (folder / crash / f"{crash}.traj.json").write_text(json.dumps({"info": info, "messages": []}))
    (folder / "preds.json").write_text(json.dumps(kept))
    report = {"submitted_ids": [*chosen, crash], "resolved_ids": ["sympy__sympy-20590"]}
    report |= {"unresolved_ids": ["astropy__astropy-13033"], "empty_patch_ids": [crash]}
    (folder / "m.run1.json").write_text(json.dumps(report))
    return folder


def test_a_mini_swe_agent_folder_brings_steps_and_tokens_and_no_crash_as_failure(mini_folder: Path) -> None:
    table = by_task(import_outcomes(mini_folder, arm="gemini").table)
    solved = table.loc["sympy__sympy-20590"]
    assert solved["resolved"]
    assert (solved["steps"], solved["exit_status"]) == (60, "submitted")
    assert solved["prompt_tokens"] > 100_000
    assert solved["scaffold"] == "mini-swe-agent 1.15.0"
    assert solved["cost_usd"] == pytest.approx(0.377, abs=1e-3)
    assert not table.loc["astropy__astropy-13033", "resolved"]
    crash = table.loc["x__y-1"]
    assert crash["outcome"] == "error"
    assert pd.isna(crash["resolved"])
    assert "APIConnectionError" in crash["cause"]


OWN = {"api_base": "http://localhost:8000/v1", "drop_params": True}


@pytest.mark.parametrize(
    ("name", "asked", "unsent"),
    [
        ("openai/qwen-from-gpt-5", {"temperature": 0.7, "top_k": 20, **OWN}, "temperature"),
        ("openai/qwen-from-gpt-6", {"temperature": 0.0, "top_p": 0.9, "top_k": 20, **OWN}, "temperature, top_p"),
        (
            "openai/qwen-from-gpt-5",
            {"temperature": 0.7, "base_url": OWN["api_base"], "drop_params": True},
            "temperature",
        ),
        ("openai/qwen-from-gpt-5", {"temperature": 1.0, "stop": ["x"], **OWN}, "stop"),  # 1 is what it takes
        ("openai/qwen-from-gpt-5", {"temperature": 1, "top_p": None, **OWN}, ""),
        ("openai/qwen-from-gpt-5-chat", {"temperature": 0.7, **OWN}, ""),
        ("openai/qwen-from-gpt-5", {"temperature": 0.7, **OWN, "drop_params": False}, ""),
        ("openai/gpt-5", {"temperature": 0.7, "drop_params": True}, ""),  # OpenAI's own
        ("openai/qwen", {"temperature": 0.7, **OWN}, ""),
    ],
)
def test_settings_that_a_client_left_out_by_the_name_of_the_model_are_named(
    mini_folder: Path, name: str, asked: dict, unsent: str
) -> None:
    for number, file in enumerate(sorted(mini_folder.glob("*/*.traj.json"))):
        read = json.loads(file.read_text())
        read["info"].pop("config", None)  # as where a rollout ended before it had one
        if number:
            read["info"]["config"] = {"model": {"model_name": name, "model_kwargs": asked}}
        file.write_text(json.dumps(read))
    (mini_folder / "a").mkdir()
    (mini_folder / "a" / "a.traj.json").write_text("{ torn")  # the first by name
    said = [note for note in import_outcomes(mini_folder).notes if "litellm" in note]
    assert len(said) == bool(unsent)
    assert all(f"litellm leaves out {unsent} of what was asked" in note for note in said)


@pytest.mark.parametrize(("grown", "lost"), [(60, False), (20, True)])
def test_thoughts_that_the_next_prompt_lacks_are_named(mini_folder: Path, grown: int, lost: bool) -> None:
    def said(prompt: int, thought: str) -> dict:
        usage = {"prompt_tokens": prompt, "completion_tokens": 50}
        message = {"role": "assistant", "content": "```bash\nls\n```", "reasoning_content": thought}
        return message | {"extra": {"actions": [{"command": "ls"}], "response": {"usage": usage}}}

    for file in mini_folder.glob("*/*.traj.json"):
        read = json.loads(file.read_text())
        read["messages"] = [said(100, "t" * 300), {"role": "user", "content": "x"}, said(100 + grown, "t" * 300)]
        file.write_text(json.dumps(read))
    found = [note for note in import_outcomes(mini_folder).notes if "thoughts" in note]
    assert len(found) == lost  # no rollout is taken for what follows the one before it
    assert all("at least 3 of 6 replies" in note and "vLLM 0.16 to 0.21" in note for note in found)


def test_each_trajectory_of_a_folder_is_parsed_once(mini_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    parse = trajectories.parse_trajectory

    def counted(path: Path, document: object) -> trajectories.Trajectory:
        read.append(path.name)
        return parse(path, document)

    monkeypatch.setattr(trajectories, "parse_trajectory", counted)
    import_outcomes(mini_folder)
    assert sorted(read) == sorted(path.name for path in mini_folder.glob("*/*.traj.json"))


def test_predictions_without_verdicts_say_how_to_get_them(mini_folder: Path) -> None:
    (mini_folder / "m.run1.json").unlink()
    with pytest.raises(DataError, match="--reports"):
        import_outcomes(mini_folder)


def test_a_swe_agent_folder_is_read_with_its_report(tmp_path: Path, shared: Path) -> None:
    for name in ("sympy__sympy-16886", "pydata__xarray-6721"):
        (tmp_path / name).mkdir()
        shutil.copy(shared / f"data/trajectories/{name}__SWE-agent.traj", tmp_path / name / f"{name}.traj")
    report = tmp_path / "results.json"
    report.write_text(json.dumps({"resolved_ids": ["sympy__sympy-16886"], "unresolved_ids": ["pydata__xarray-6721"]}))
    table = by_task(import_outcomes(tmp_path, arm="sonnet").table)
    assert table["resolved"].to_dict() == {"pydata__xarray-6721": False, "sympy__sympy-16886": True}
    assert table["steps"].to_dict() == {"pydata__xarray-6721": 64, "sympy__sympy-16886": 7}
    assert table.loc["pydata__xarray-6721", "exit_status"] == "token_limit"
    assert table.loc["sympy__sympy-16886", "prompt_tokens"] == 66_875


def test_a_leaderboard_submission_counts_as_the_leaderboard_does(tmp_path: Path) -> None:
    submission = tmp_path / "20990101_agent"
    (submission / "results").mkdir(parents=True)
    predictions = [{"instance_id": f"x__y-{i}", "model_name_or_path": "m", "model_patch": "diff"} for i in range(3)]
    (submission / "all_preds.jsonl").write_text("".join(json.dumps(one) + "\n" for one in predictions))
    results = {"resolved": ["x__y-0"], "no_generation": ["x__y-3"], "no_logs": ["x__y-2"]}
    (submission / "results/results.json").write_text(json.dumps(results))
    table = by_task(import_outcomes(submission).table)
    assert table["arm"].unique().tolist() == ["20990101_agent"]
    assert table["outcome"].fillna("").tolist() == ["resolved", "unresolved", "", "empty_patch"]


def test_a_real_inspect_log_is_read_epochs_as_seeds_and_errors_as_errors() -> None:
    """The file was written by inspect_ai 0.3.285 (events taken out): three samples, two epochs, the last one lost."""
    table = import_outcomes(DATA / "inspect-0.3.285.eval").table
    assert table["seed"].tolist() == [0, 0, 0, 1, 1, 1]
    assert table["resolved"].tolist() == [True, False, True, False, True, pd.NA]
    assert table["outcome"].tolist()[-1] == "error"
    assert "sandbox died" in table["cause"].tolist()[-1]
    assert table["prompt_tokens"].tolist()[0] == 100
    assert table["completion_tokens"].tolist()[0] == 7
    assert table["scaffold"].tolist()[0] == "inspect_ai 0.3.285 swe_bench"
    assert table["grader"].tolist()[0] == "inspect scorer swe_bench_scorer"


def test_an_inspect_log_that_was_cut_short_still_gives_its_samples(tmp_path: Path) -> None:
    """Older logs are deflated; an interrupted one has only its journal."""
    samples = [{"id": "x__y-1", "epoch": 1, "scores": {"s": {"value": "C"}}}]
    path = tmp_path / "cut.eval"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("_journal/start.json", json.dumps({"eval": {"task": "t", "model": "m"}}))
        archive.writestr("_journal/summaries/1.json", json.dumps(samples))
    assert import_outcomes(path).table["resolved"].tolist() == [True]


@pytest.mark.parametrize(("seed", "epochs", "said"), [(7, 2, True), (None, 2, False), (7, 1, False)])
def test_epochs_that_were_sent_one_seed_are_said_to_be_no_independent_rollouts(tmp_path, seed, epochs, said) -> None:
    """The two places where inspect_ai 0.3.285 writes it; findings/inspect-sends-one-seed-for-all-epochs.sh."""
    samples = [{"id": "x__y-1", "epoch": epoch + 1, "scores": {"s": {"value": "C"}}} for epoch in range(epochs)]
    of_model = {"eval": {"task": "t", "model": "m", "model_generate_config": {"seed": seed}}}
    of_evaluation = {"eval": {"task": "t", "model": "m"}, "plan": {"config": {"seed": seed}}}
    for name, header in (("model.json", of_model), ("evaluation.json", of_evaluation)):
        (tmp_path / name).write_text(json.dumps({**header, "status": "success", "samples": samples}))
        read = import_outcomes(tmp_path / name)
        assert any("sent the seed 7 in every epoch" in note for note in read.notes) == said
        assert len(read.table) == epochs


def harbor_trial(folder: Path, name: str, trial: str, **fields: object) -> None:
    """A result.json with the fields that Harbor 0.25 writes (harbor.models.trial.result.TrialResult)."""
    (folder / trial).mkdir(parents=True)
    result = {
        "task_name": name,
        "trial_name": trial,
        "source": "swebench-verified",
        "task_checksum": "c0ffee",
        "agent_info": {"name": "mini-swe-agent", "version": "2.4.6", "model_info": {"name": "gpt-5-mini"}},
        "agent_result": {"n_input_tokens": 1000, "n_cache_tokens": 10, "n_output_tokens": 50, "cost_usd": 0.02},
        "agent_execution": {"started_at": "2026-08-01T10:00:00Z", "finished_at": "2026-08-01T10:01:30Z"},
        "verifier_result": {"rewards": {"reward": 1.0}},
        "exception_info": None,
    }
    (folder / trial / "result.json").write_text(json.dumps(result | fields))


def test_a_harbor_job_keeps_faults_apart_from_failures(tmp_path: Path) -> None:
    harbor_trial(tmp_path, "swebench/x__y-1", "a")
    harbor_trial(tmp_path, "swebench/x__y-1", "b", verifier_result={"rewards": {"reward": 0}})
    raised = {"exception_type": "EnvironmentStartTimeoutError", "exception_message": "", "exception_traceback": ""}
    harbor_trial(tmp_path, "swebench/x__y-2", "c", verifier_result=None, exception_info=raised)
    table = import_outcomes(tmp_path, arm="job").table
    assert table["resolved"].tolist() == [True, False, pd.NA]
    assert table["seed"].tolist() == [0, 1, 0]
    assert table["outcome"].tolist()[2] == "error"
    assert table["seconds"].tolist()[0] == 90
    assert table["scaffold"].tolist()[0] == "mini-swe-agent 2.4.6"


@pytest.mark.parametrize(
    ("file", "turns", "commands"),
    [
        ("sympy__sympy-20590__mini-swe-agent-1.15.0.traj.json", 60, "ls -R"),
        ("django__django-14752__mini-swe-agent-2.2.7.traj.json", 31, "find /testbed"),
        ("django__django-11119__live-SWE-agent-on-mini-swe-agent-2.2.4.traj.json", 9, "ls -la"),
        ("pydata__xarray-6721__SWE-agent.traj", 64, "create"),
    ],
)
def test_trajectories_of_every_kind_give_their_turns(shared: Path, file: str, turns: int, commands: str) -> None:
    found = read_trajectory(shared / "data/trajectories" / file)
    assert len(found.turns) == turns
    assert any(turn.commands and turn.commands[0].startswith(commands) for turn in found.turns[:2])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "cannot recognise the format"),
        ("b.json", "[]", "cannot recognise the format"),
        ("c.eval", "no zip", "cannot recognise the format"),
        (
            "d.jsonl",
            '{"instance_id": "x", "resolved": true}\n{"instance_id": "x", "resolved": true}\n',
            "occurred before",
        ),
    ],
)
def test_files_that_are_nothing_known_are_refused_by_name(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        import_outcomes(path)
    assert name in str(caught.value)


def test_import_and_compare_work_from_the_command_line(mini_folder: Path, tmp_path: Path) -> None:
    run = CliRunner()
    out = tmp_path / "gemini.csv"
    first = run.invoke(app, ["import", str(mini_folder), "--arm", "gemini", "--out", str(out)])
    assert first.exit_code == 0, first.output
    again = run.invoke(app, ["import", str(mini_folder), "--arm", "other", "--out", str(tmp_path / "other.csv")])
    assert again.exit_code == 0
    shown = run.invoke(app, ["compare", str(out), str(tmp_path / "other.csv"), "--out", str(tmp_path / "cmp")])
    assert shown.exit_code == 0, shown.output
    assert "no difference detected" in shown.output
    assert json.loads((tmp_path / "cmp/comparison.json").read_text())["baseline"] == "gemini"
