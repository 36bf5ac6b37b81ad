"""Runs in other people's formats, read back by those people's own readers, with the content that breaks strict ones."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.compare.outcomes import import_outcomes, load_one
from aem_harness.harness.config import RunConfig
from aem_harness.harness.errors import ConfigError, DataError
from aem_harness.harness.export import FORMATS, export, plain
from aem_harness.harness.io import write_json
from aem_harness.harness.run.store import RunStore, now, write_patch
from aem_harness.harness.run.trajectory import TrajectoryWriter
from aem_harness.harness.types import ExitStatus
from tests.peers import packages, peer

NAMES = [f"repo__project-{n}" for n in range(3)]
FACTS = {
    "plan": {"instances": NAMES, "seeds": 2},
    "tasks": {name: {"repo": "repo/project"} for name in NAMES},
    "agent": {"kind": "bash"},
    "dataset": {"name": "verified", "digest": "d" * 64, "n": 3},
    "versions": {"aem": "0.1.0", "swebench": "5.0.2"},
    "fingerprint": {},
}
LONE = "a lone surrogate: \udc80"
PATCH = "diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-a\n+b\n"


def conversation(writer: TrajectoryWriter) -> None:
    """A malformed reply, a reply with tool calls and no content, content in parts, and numbers that JSON lacks."""
    writer.message({"role": "system", "content": "You are an engineer."})
    writer.message({"role": "user", "content": f"Resolve this. {LONE}"})
    usage = {"prompt_tokens": 10, "completion_tokens": 3, "mean_entropy": 0.5}
    complaint = {"model_response": "I will think first.", "malformed": True, **usage, "logprobs": [-0.1, -0.2]}
    complaint["reasoning"] = f"Which file? {LONE}"
    writer.message({"role": "user", "content": "No action found.", "extra": complaint})
    call = {"id": "call-1", "type": "function", "function": {"name": "bash", "arguments": '{"command": "ls"}'}}
    extra = {"actions": [{"command": "ls"}], **usage, "logprobs": [-0.1, float("-inf")], "reasoning": "Look first."}
    called = {"role": "assistant", "content": None, "tool_calls": [call], "reasoning": "Look first."}
    writer.message({**called, "extra": extra})
    writer.message({"role": "tool", "tool_call_id": "call-1", "content": [{"type": "text", "text": "a.py"}]})
    writer.message({"role": "assistant", "content": "Done.", "extra": {"actions": [{"command": "submit"}], **usage}})
    writer.message({"role": "exit", "content": "", "extra": {"exit_status": "Submitted"}})


def finish(store: RunStore, name: str, seed: int, outcome: str) -> None:
    scratch = store.scratch(name, seed)
    writer = TrajectoryWriter(scratch, name)
    conversation(writer)
    patch = "" if outcome == "empty_patch" else PATCH
    writer.finish(ExitStatus.SUBMITTED, patch)
    write_patch(scratch / "patch.diff", patch)
    fault = {"boundary": "environment", "message": "engine gone"} if outcome == "lost" else None
    event = {
        "event": "rollout", "instance_id": name, "seed": seed, "attempt": 0, "reason": "", "fault": fault, "at": now(),
        "exit_status": "fault" if fault else "submitted", **writer.summary.facts(), "seconds": 12.5,
        "patch_bytes": len(patch), "image_digest": "",
    }  # fmt: skip
    if not fault:
        write_json(scratch / "report.json", {name: {"resolved": outcome == "resolved"}})
        (scratch / "test_output.txt").write_text("PASSED\n")
    store.finish_rollout(scratch, event)
    if not fault:
        common = {"event": "grade", "instance_id": name, "seed": seed, "attempt": 0, "at": now()}
        store.finish_grade(common | {"outcome": outcome, "cause": "", "seconds": 1.0, "versions": {}})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tasks with two seeds: resolved, unresolved, an empty patch, and one that was lost."""
    folder = tmp_path_factory.mktemp("export") / "run"
    with RunStore(folder, RunConfig(arm="mine", agent="bash", dataset="verified"), FACTS) as store:
        outcomes = ("resolved", "unresolved", "unresolved", "lost", "empty_patch", "resolved")
        for place, outcome in enumerate(outcomes):
            finish(store, NAMES[place // 2], place % 2, outcome)
    return folder


def inside(python: Path, program: str, *arguments: object) -> Any:
    """What a program prints as its last line, JSON, run by a peer's interpreter with our sources beside it."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    words = [str(python), "-c", program, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])  # a peer may greet its user first


def test_the_outcomes_table_is_the_one_that_compare_reads(run, tmp_path):
    export(run, "csv", tmp_path / "o.csv")
    export(run, "parquet", tmp_path / "o.parquet")
    table = load_one(str(run)).table
    for read in (load_one(str(tmp_path / "o.csv")).table, pd.read_parquet(tmp_path / "o.parquet")):
        assert list(read["resolved"].astype("boolean")) == list(table["resolved"])
        assert read["resolved"].isna().sum() == 1  # what was lost is neither right nor wrong


def test_minis_folder_holds_no_empty_patch_for_a_rollout_that_was_lost(run, tmp_path):
    written = export(run, "mini", tmp_path / "mini")
    assert (written.rollouts, written.left_out) == (5, 1)
    seeds = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("mini/*/preds.json")}
    assert {seed: sorted(preds) for seed, preds in seeds.items()} == {"seed0": NAMES, "seed1": [NAMES[0], NAMES[2]]}
    for path in tmp_path.glob("mini/*/*/*.traj.json"):
        assert "Infinity" not in path.read_text()


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.extended
def test_minis_folder_is_opened_by_its_own_inspector(run, tmp_path):
    python = peer("mini-swe-agent==2.4.6")
    export(run, "mini", tmp_path / "mini", seed=0)
    program = """
import asyncio, json, sys
from pathlib import Path
from minisweagent.run.utilities.inspector import TrajectoryInspector
async def main():
    app = TrajectoryInspector(sorted(Path(sys.argv[1]).glob("*/*.traj.json")))
    async with app.run_test() as pilot:
        await pilot.pause()
        seen = app.n_steps
    print(json.dumps(seen))
asyncio.run(main())
"""
    assert inside(python, program, tmp_path / "mini") > 2


def test_a_submission_lists_what_was_lost_apart_and_is_read_as_the_leaderboards_are(run, tmp_path):
    with pytest.raises(ConfigError, match="add --seed"):
        export(run, "swebench-experiments", tmp_path / "both")
    export(run, "swebench-experiments", tmp_path / "20261129_mine", seed=1)
    folder = tmp_path / "20261129_mine"
    results = json.loads((folder / "results" / "results.json").read_text())
    assert results == {"no_generation": [], "no_logs": [NAMES[1]], "resolved": [NAMES[2]]}
    assert {path.name for path in (folder / "logs" / NAMES[0]).iterdir()} >= {"patch.diff", "report.json"}
    table = import_outcomes(folder).table.set_index("instance_id")["resolved"]
    assert table[NAMES[2]]
    assert not table[NAMES[0]]
    assert pd.isna(table[NAMES[1]])


def test_training_data_leaves_lost_rollouts_out_and_gives_malformed_replies_to_the_assistant(run, tmp_path):
    written = export(run, "sft", tmp_path / "s.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert (len(rows), written.left_out) == (5, 1)
    assert [row["reward"] for row in rows] == [1.0, 0.0, 0.0, 0.0, 1.0]
    roles = [message["role"] for message in rows[0]["messages"]]
    assert roles == ["system", "user", "assistant", "user", "assistant", "tool", "assistant"]
    assert rows[0]["messages"][2]["content"] == "I will think first."
    thoughts = [message.get("reasoning_content") for message in rows[0]["messages"]]
    assert thoughts == [None, None, plain(f"Which file? {LONE}"), None, "Look first.", None, None]
    assert not any("reasoning" in message for message in rows[0]["messages"])


def test_training_data_reads_nothing_of_lost_rollouts(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    events = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    for event in events:
        event.pop("thoughts", None)  # as earlier releases wrote them
    (tmp_path / "run" / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (tmp_path / "run" / "rollouts" / NAMES[1] / "1" / f"{NAMES[1]}.traj.json").write_text("{ torn")
    export(run, "sft", tmp_path / "whole.jsonl")
    export(tmp_path / "run", "sft", tmp_path / "s.jsonl")
    assert (tmp_path / "s.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()


def test_thoughts_of_few_rollouts_are_loaded_by_datasets_with_the_others(tmp_path):
    """It takes the fields of a file from its first 10 MB."""
    import datasets

    with RunStore(tmp_path / "run", RunConfig(arm="mine", agent="bash", dataset="verified"), FACTS) as store:
        for number, name in enumerate(NAMES):
            scratch = store.scratch(name, 0)
            writer = TrajectoryWriter(scratch, name)
            writer.message({"role": "user", "content": "x" * 6_000_000})
            thought = {"reasoning": "Look first."} if number == 2 else {}
            writer.message({"role": "assistant", "content": "Done.", "extra": thought})
            writer.finish(ExitStatus.SUBMITTED, "")
            write_patch(scratch / "patch.diff", "")
            known = {"instance_id": name, "seed": 0, "attempt": 0, "at": now(), "exit_status": "submitted"}
            facts = writer.summary.facts() if number else {}  # an earlier release did not count thoughts
            store.finish_rollout(scratch, {"event": "rollout", "reason": "", "fault": None, **known, **facts})
            store.finish_grade({"event": "grade", "outcome": "resolved", **known})
    export(tmp_path / "run", "sft", tmp_path / "s.jsonl")
    options = {"split": "train", "cache_dir": str(tmp_path / "cache")}
    loaded = datasets.load_dataset("json", data_files=str(tmp_path / "s.jsonl"), **options)
    thoughts = {row["instance_id"]: row["messages"][1].get("reasoning_content") for row in loaded}
    assert thoughts == {NAMES[0]: None, NAMES[1]: None, NAMES[2]: "Look first."}


def test_thoughts_are_trained_on_as_chat_templates_read_them(run, tmp_path):
    from transformers.utils.chat_template_utils import render_jinja_template

    trl = pytest.importorskip("trl")
    export(run, "sft", tmp_path / "s.jsonl")
    messages = json.loads((tmp_path / "s.jsonl").read_text().splitlines()[0])["messages"]
    template = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text()
    ((text,), _) = render_jinja_template([messages], chat_template=template)
    assert "<think>\nLook first.\n</think>" in text


def test_arguments_of_tool_calls_are_trained_on_as_servers_read_them(run, tmp_path):
    """Of JSON text some templates make a string in quotes (findings/trl-trains-on-tool-calls-in-quotes.sh)."""
    from transformers.utils.chat_template_utils import render_jinja_template

    trl = pytest.importorskip("trl")
    export(run, "sft", tmp_path / "s.jsonl")
    messages = json.loads((tmp_path / "s.jsonl").read_text().splitlines()[0])["messages"]
    template = (Path(trl.__file__).parent / "chat_templates" / "qwen2_5.jinja").read_text()
    ((text,), _) = render_jinja_template([messages], chat_template=template)
    assert '{"name": "bash", "arguments": {"command": "ls"}}' in text


def test_the_hubs_folder_is_loaded_by_datasets(run, tmp_path):
    import datasets

    export(run, "hf-dataset", tmp_path / "hub")
    loaded = datasets.load_dataset(str(tmp_path / "hub"), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.num_rows == 6
    assert [row["reward"] for row in loaded] == [1.0, 0.0, 0.0, None, 0.0, 1.0]
    malformed = {"role": "assistant", "content": "I will think first.", "tool_calls": None}
    assert loaded[0]["messages"][2] == malformed | {"reasoning_content": plain(f"Which file? {LONE}")}
    assert loaded[0]["messages"][6]["reasoning_content"] is None
    assert "1 without a verdict" in (tmp_path / "hub" / "README.md").read_text()


@pytest.mark.network
def test_atif_is_read_strictly_by_harbors_models(run, tmp_path, monkeypatch):
    export(run, "atif", tmp_path / "atif")
    monkeypatch.syspath_prepend(str(packages(_harbor(tmp_path))))
    from harbor.models.trajectories import Trajectory

    files = sorted((tmp_path / "atif").iterdir())
    assert len(files) == 6
    read = [Trajectory.model_validate_json(path.read_text()) for path in files]
    steps = read[0].steps
    assert [step.source for step in steps] == ["system", "user", "agent", "agent", "agent"]
    assert (steps[2].message, steps[2].observation.results[0].content) == ("I will think first.", "No action found.")
    assert [step.reasoning_content for step in steps[2:]] == [plain(f"Which file? {LONE}"), "Look first.", None]
    assert steps[3].tool_calls[0].arguments == {"command": "ls"}
    assert steps[3].observation.results[0].source_call_id == "call-1"
    assert steps[2].metrics.logprobs == [-0.1, -0.2]
    assert steps[3].metrics.logprobs is None  # one of them is minus infinity
    assert steps[2].metrics.completion_tokens == 3
    assert [one.extra["reward"] for one in read] == [1.0, 0.0, 0.0, None, 0.0, 1.0]


def _harbor(tmp_path: Path) -> Path:
    """Harbor's models need nothing but pydantic, and its distribution a newer Python: its wheel alone is unpacked."""
    options = ("--no-deps", "--ignore-requires-python")
    return peer("harbor==0.26.0", *options)


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.extended
def test_an_inspect_log_is_read_by_inspect_and_gives_the_same_outcomes_back(run, tmp_path):
    python = peer("inspect-ai==0.3.285")
    write = """
import json, sys
from pathlib import Path
from aem_harness.harness.export import export
print(json.dumps(export(Path(sys.argv[1]), "inspect", Path(sys.argv[2])).rollouts))
"""
    assert inside(python, write, run, tmp_path / "run.eval") == 6
    read = """
import json, sys
from inspect_ai.log import read_eval_log
log = read_eval_log(sys.argv[1])
print(json.dumps({
    "status": log.status, "mean": log.results.scores[0].metrics["mean"].value,
    "ids": [[s.id, s.epoch, bool(s.input), s.target] for s in log.samples],
    "roles": [m.role for m in log.samples[0].messages],
    "thoughts": [[c.reasoning for c in m.content if c.type == "reasoning"] for m in log.samples[0].messages
                 if m.role == "assistant" and not isinstance(m.content, str)],
    "unique": len({m.id for m in log.samples[0].messages}) == len(log.samples[0].messages),
    "errors": [s.error.message if s.error else "" for s in log.samples],
}))
"""
    seen = inside(python, read, tmp_path / "run.eval")
    assert seen["status"] == "success"
    assert seen["mean"] == pytest.approx(2 / 5)
    assert sorted(seen["ids"]) == [[name, epoch, True, ""] for name in NAMES for epoch in (1, 2)]
    assert seen["roles"] == ["system", "user", "assistant", "user", "assistant", "tool", "assistant"]
    assert seen["thoughts"] == [[plain(f"Which file? {LONE}")], ["Look first."]]
    assert seen["unique"]
    assert [error for error in seen["errors"] if error] == ["environment: engine gone"]
    back = import_outcomes(tmp_path / "run.eval").table.set_index(["instance_id", "seed"])["resolved"]
    ours = load_one(str(run)).table.set_index(["instance_id", "seed"])["resolved"]
    assert back.reindex(ours.index).equals(ours)


def test_without_inspect_one_line_says_what_to_install(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "inspect_ai", None)
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    with pytest.raises(ConfigError, match="pip install inspect_ai"):
        export(run, "inspect", tmp_path / "x.eval")


def test_the_command_says_what_it_left_out_and_overwrites_nothing(run, tmp_path):
    words = ["export", str(run), "--to", "sft", "--out", str(tmp_path / "s.jsonl")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0
    assert "5 rollouts" in done.stdout
    assert "left out: 1 rollout without a verdict" in done.stderr
    assert isinstance(CliRunner().invoke(app, words).exception, ConfigError)


def test_errors_name_what_is_wrong(run, tmp_path):
    with pytest.raises(ConfigError, match="unknown format 'xml'"):
        export(run, "xml", tmp_path / "x")
    with pytest.raises(DataError, match=r"no run\.json"):
        export(tmp_path, "csv", tmp_path / "x.csv")
    with pytest.raises(DataError, match="no finished rollout with seed 9"):
        export(run, "csv", tmp_path / "x.csv", seed=9)
    assert all(
        (Path(__file__).parents[2] / "harness" / "export" / f"{name}.py").is_file() for name, _ in FORMATS.values()
    )


def test_plain_values_pass_any_strict_reader():
    value = {"a": [float("inf"), float("nan"), 1.5, LONE], 1: ("x", None, True)}
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == plain(value)
    plain(value)["a"][3].encode("utf-8")
