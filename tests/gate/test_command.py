"""`aem gate` and `aem calibrate` from the outside: exit codes, and what CI systems are left with."""

import json
import re
import shlex
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import junitparser
import numpy as np
import pytest
import typer
import yaml
from rich.console import Console

from aem_harness import cli
from aem_harness import gate as aem_gate
from aem_harness.harness.ends import read_ends
from aem_harness.harness.errors import ConfigError
from aem_harness.harness.gate.calibrate import lowered
from aem_harness.harness.gate.config import GateConfig
from aem_harness.harness.gate.driver import GateOptions, past_arms
from aem_harness.harness.gate.live import Live, Opening
from tests.gate.worlds import drawn, surface

Q = surface(200)
ARMS = {
    "base": drawn("base", Q, 4, seed=1),
    "same": drawn("same", Q, 4, seed=2),
    "broken": drawn("broken", lowered(Q, 0.25), 4, seed=3),
    "slightly": drawn("slightly", lowered(Q, 0.05), 4, seed=2),
}
QUIET = GateOptions(calibrated=False)
DOCS = Path(__file__).parents[2] / "docs" / "ci"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def table(tmp_path) -> Path:
    return write(tmp_path / "outcomes.csv", ARMS)


def write(path: Path, arms) -> Path:
    lines = ["arm,instance_id,seed,resolved"]
    for name, arm in arms.items():
        for task, row in zip(arm.tasks, arm.resolved, strict=True):
            lines += [f"{name},{task},{seed},{'' if np.isnan(value) else int(value)}" for seed, value in enumerate(row)]
    path.write_text("\n".join(lines) + "\n")
    return path


def aem(*words: object) -> int:
    """The exit code of a command line, by the very door that the installed program uses."""
    argv, sys.argv = sys.argv, ["aem", *map(str, words)]
    try:
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    finally:
        sys.argv = argv
    return int(stopped.value.code or 0)


def gate(table: Path, candidate: str, *words: object) -> int:
    options = ("--margin", 5, "--no-calibration", *words)
    return aem("gate", "--from", table, "--baseline", "base", "--candidate", candidate, *options)


# --- exit codes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("candidate", "code"), [("same", 0), ("broken", 1), ("slightly", 2)])
def test_each_verdict_has_its_exit_code(table, candidate, code, capsys):
    assert gate(table, candidate) == code
    assert capsys.readouterr().out.startswith(("PASS: ", "BLOCK: ", "INCONCLUSIVE: ")[code])


def test_drift_between_the_arms_is_no_verdict(tmp_path, capsys):
    table = write(tmp_path / "o.csv", ARMS)
    lines = table.read_text().splitlines()
    graded = [lines[0] + ",grader"]
    graded += [line + (",swebench 4.1.0" if line.startswith("base,") else ",swebench 5.0.2") for line in lines[1:]]
    table.write_text("\n".join(graded))
    assert gate(table, "same") == 3
    assert "grader differs: base: swebench 4.1.0; same: swebench 5.0.2" in capsys.readouterr().err
    assert gate(table, "same", "--allow", "grader") == 0
    assert "accepted: grader differs" in capsys.readouterr().out


def test_every_kind_of_drift_is_named(tmp_path, capsys):
    for column in ("grader", "scaffold", "dataset", "image_digest"):
        table = write(tmp_path / "o.csv", ARMS)
        lines = table.read_text().splitlines()
        changed = [
            f"{lines[0]},{column}",
            *(f"{line},{'old' if line.startswith('base') else 'new'}" for line in lines[1:]),
        ]
        table.write_text("\n".join(changed))
        assert gate(table, "same") == 3
        assert ("images differ" if column == "image_digest" else f"{column} differs") in capsys.readouterr().err


def change(old: str, new: str):
    return lambda text: text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change("resolved", "solved"), "lacks the column resolved"),
        (change("base,owner__repo-0000,0,1", "base,owner__repo-0000,0,7"), "row 2: resolved is '7'"),
        (change("base,owner__repo-0000,1,", "base,owner__repo-0000,0,"), "occurred before"),
        (lambda text: re.sub(r"same,owner__repo-0007,.*\n", "", text), r"1 only in 'base' (owner__repo-0007)"),
        (lambda text: re.sub(r"(same,.*,)\d\n", r"\1\n", text), "'same' has no verdict"),
        (lambda text: text.splitlines()[0] + "\n", "has no rows"),
    ],
)
def test_bad_outcomes_are_a_usage_error_that_names_what_is_wrong(table, damage, message, capsys):
    text = table.read_text()
    damaged = damage(text)
    assert damaged != text
    table.write_text(damaged)
    assert gate(table, "same") == 4
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--margin", "0"), "gate settings: margin"),
        (("--margin", "-1"), "Invalid value for '--margin'"),
        (("--budget", "much"), "write 800"),
        (("--budget", "5Mtok"), "no prompt_tokens and completion_tokens"),
        (("--pin", "sha256:00"), "not the pinned sha256:00"),
        (("--history", "older"), "no arm 'older'"),
        (("--budget", "2gpuh"), "no gpu_seconds"),
        (("--tier", "weekly"), "weekly"),
        (("--alpha", "0.7"), "gate settings: alpha"),
    ],
)
def test_options_that_make_no_sense_are_a_usage_error(table, words, message, capsys):
    assert gate(table, "same", *words) == 4
    assert message in capsys.readouterr().err


def test_an_unknown_arm_file_or_option_is_a_usage_error(table, tmp_path, capsys):
    assert gate(table, "nobody") == 4
    assert gate(tmp_path / "none.csv", "same") == 4
    assert gate(table, "same", "--no-such-option") == 4
    assert gate(table, "base") == 4
    assert "the same arm" in capsys.readouterr().err


def test_arms_may_be_files_of_their_own(tmp_path):
    one, two = (write(tmp_path / f"{name}.csv", {name: ARMS[name]}) for name in ("base", "same"))
    assert aem("gate", "--baseline", one, "--candidate", two, "--margin", 5, "--no-calibration") == 0


def test_an_empty_resolved_is_counted_as_missing(table, capsys):
    text = re.sub(r"(same,owner__repo-00\d\d,0,)\d\n", r"\1\n", table.read_text())
    table.write_text(text)
    assert gate(table, "same", "--json") in (0, 2)
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["missing"] <= 100


def with_ends(path: Path) -> Path:
    """Two arms that solve alike, but whose candidate ended in `exit_api`, without a success, on every fifth task."""
    lines = ["arm,instance_id,seed,outcome,end"]
    for name in ("base", "same"):
        for place, (task, row) in enumerate(zip(ARMS[name].tasks, ARMS[name].resolved, strict=True)):
            away = name == "same" and place % 5 == 0
            for seed, value in enumerate(row):
                outcome = "resolved" if value and not away else "unresolved"
                lines.append(f"{name},{task},{seed},{outcome},{'exit_api' if away else 'submitted'}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_whose_fault_an_end_is_may_be_overridden_for_both_arms_and_the_report_says_so(tmp_path, capsys):
    table = with_ends(tmp_path / "outcomes.csv")
    ends, page = tmp_path / "ends.yaml", tmp_path / "gate.html"
    ends.write_text("exit_api: model\n")
    gate(table, "same", "--json", "--ledger", tmp_path / "a.jsonl")
    plain = json.loads(capsys.readouterr().out)
    assert plain["missing"] > 0
    assert gate(table, "same", "--json", "--ends", ends, "--ledger", tmp_path / "b.jsonl", "--report", page) == 1
    assert '<h1 class="">BLOCK: ' in page.read_text()
    overridden = json.loads(capsys.readouterr().out)
    assert overridden["missing"] == 0
    assert "by --ends, in all arms: exit_api: model" in page.read_text()
    assert "accepted: by --ends, in all arms: exit_api: model" in overridden["notes"]
    found = aem_gate("base", "same", sources=[table], margin=0.05, ends={"exit_api": "model"}, options=QUIET)
    assert found.verdict == overridden["verdict"] == "BLOCK"


def test_arms_of_their_own_files_and_past_checkpoints_are_read_by_the_same_ends(tmp_path):
    table = with_ends(tmp_path / "outcomes.csv")
    base, same = f"{table}:base", f"{table}:same"
    found = aem_gate(base, same, margin=0.05, ends={"exit_api": "model"}, options=replace(QUIET, history=[same]))
    assert found.missing == 0
    (past,) = past_arms([same], None, retries=1, ends=read_ends({"exit_api": "model"}))
    assert not np.isnan(past.resolved).any()


def test_ends_for_a_candidate_that_is_run_are_refused_before_anything_is_spent(tmp_path):
    source = Live([], 1, Opening(list, list), Console(quiet=True), None)
    with pytest.raises(ConfigError, match=r"--ends .* stored outcomes"):
        source.start(GateConfig(), GateOptions(ends=read_ends({"exit_api": "model"})))


def test_a_baseline_run_beside_the_candidate_counts_twice(table, capsys):
    assert gate(table, "broken", "--fresh", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["planned"], found["fresh_baseline"], found["missing_baseline"]) == (1600, True, 0)
    assert found["rollouts"] == 2 * found["path"][-1]["rollouts"]


def test_a_past_checkpoint_may_be_an_arm_or_a_file_and_changes_the_order(table, tmp_path, capsys):
    past = write(tmp_path / "past.csv", {"past": drawn("past", Q, 8, seed=9)})
    orders = set()
    for words in ((), ("--history", "slightly"), ("--history", past), ("--history", f"{past}:past")):
        assert gate(table, "same", "--json", "--orders", 4, *words) in (0, 2)
        orders.add(json.loads(capsys.readouterr().out)["order_digest"])
    assert len(orders) == 3


@pytest.mark.parametrize(("budget", "most"), [("60", 60), ("0.06Mtok", 60), ("1gpuh", 60), ("7ktok", 7), ("1tok", 1)])
def test_a_budget_in_each_unit_ends_the_gate(tmp_path, budget, most, capsys):
    """A rollout costs 1000 tokens and 60 GPU-seconds."""
    table = write(tmp_path / "o.csv", ARMS)
    lines = table.read_text().splitlines()
    head = f"{lines[0]},prompt_tokens,completion_tokens,gpu_seconds"
    table.write_text("\n".join([head, *(f"{line},900,100,60" for line in lines[1:])]))
    assert gate(table, "slightly", "--budget", budget, "--json", "--futility", 0) == 2
    found = json.loads(capsys.readouterr().out)
    assert (found["rollouts"], found["tokens"]) == (most, most * 1000)
    assert found["gpu_hours"] == pytest.approx(most / 60)
    assert found["lower"] < found["difference"] < found["upper"]


@pytest.mark.parametrize(
    ("tier", "margin", "alpha", "planned", "looks"),
    [("smoke", 0.1, 0.05, 200, True), ("release", 0.05, 0.025, 800, False)],
)
def test_a_tier_sets_what_is_not_given(table, tier, margin, alpha, planned, looks, capsys):
    words = () if tier == "smoke" else ("--margin", 5)
    code = aem(
        "gate", "--from", table, "--baseline", "base", "--candidate", "broken", "--tier", tier, "--json",
        "--no-calibration", *words,
    )  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    assert (code, found["config"]["margin"], found["config"]["alpha"], found["planned"]) == (1, margin, alpha, planned)
    assert (found["rollouts"] < found["planned"]) is looks


def test_a_pinned_baseline_is_known_by_its_outcomes_not_by_its_name(table, tmp_path):
    assert gate(table, "same", "--pin", ARMS["base"].digest) == 0
    renamed = write(tmp_path / "r.csv", {"other": ARMS["base"], "same": ARMS["same"]})
    words = ("--candidate", "same", "--margin", 5, "--no-calibration", "--pin", ARMS["base"].digest)
    assert aem("gate", "--from", renamed, "--baseline", "other", *words) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--baseline", "nowhere", "--checkpoint", "tiny-aem"), "must be a run folder"),
        (("--fresh", "--baseline", "tiny-grpo", "--checkpoint", "tiny-aem"), "add --set for the tasks"),
        (
            ("--fresh", "--baseline", "tiny-grpo", "--checkpoint", "tiny-grpo", "--set", "tiny"),
            "both arms would be called",
        ),
        (("--fresh", "--baseline", "none-such", "--checkpoint", "tiny-aem", "--set", "tiny"), "none-such"),
        (
            ("--fresh", "--baseline", "tiny-grpo", "--checkpoint", "tiny-aem", "--pin", "sha256:0"),
            "remove one of the two",
        ),
    ],
)
def test_a_run_that_makes_no_sense_is_refused_before_it_begins(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert aem("gate", *words) == 4
    assert message in capsys.readouterr().err
    assert list(tmp_path.glob("results*")) == []


# --- what is left behind ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("candidate", "element"), [("same", None), ("broken", "failure"), ("slightly", "skipped")])
def test_junit_has_one_test_case_with_the_verdict(table, tmp_path, candidate, element):
    gate(table, candidate, "--junit", tmp_path / "deep" / "gate.xml")
    root = ET.parse(tmp_path / "deep" / "gate.xml").getroot()
    (case,) = root.iter("testcase")
    assert case.get("name") == f"{candidate} is at most 5 points worse than base"
    assert [child.tag for child in case if child.tag != "system-out"] == ([element] if element else [])
    assert (root.get("failures"), root.get("skipped")) == (
        str(int(element == "failure")),
        str(int(element == "skipped")),
    )


@pytest.mark.parametrize(("candidate", "result"), [("same", []), ("broken", ["Failure"]), ("slightly", ["Skipped"])])
def test_junit_is_read_as_ci_systems_read_it(table, tmp_path, candidate, result):
    """By the parser of the action that publishes test results on GitHub; GitLab's reads the same elements."""
    gate(table, candidate, "--junit", tmp_path / "gate.xml")
    (suite,) = junitparser.JUnitXml.fromfile(str(tmp_path / "gate.xml"))
    (case,) = suite
    assert [type(one).__name__ for one in case.result] == result
    assert (suite.tests, suite.failures, suite.errors) == (1, int(candidate == "broken"), 0)
    assert case.classname == "aem.gate"
    assert "| rollouts | difference | 90 % confidence sequence |" in case.system_out


def test_names_that_are_markup_leave_junit_and_summary_whole(tmp_path):
    arms = {"a|b <&> \x07": ARMS["base"], "c]]>": ARMS["broken"]}
    table = write(tmp_path / "o.csv", arms)
    files = ("--junit", tmp_path / "gate.xml", "--summary", tmp_path / "gate.md")
    words = ("--baseline", "a|b <&> \x07", "--candidate", "c]]>", "--margin", 5, "--no-calibration")
    assert aem("gate", "--from", table, *words, *files) == 1
    (suite,) = junitparser.JUnitXml.fromfile(str(tmp_path / "gate.xml"))
    assert "than a|b <&> \ufffd" in next(iter(suite)).name
    header = next(line for line in (tmp_path / "gate.md").read_text().splitlines() if line.startswith("| task"))
    assert len(re.findall(r"(?<!\\)\|", header)) == 5


def test_a_refusal_leaves_an_error_in_junit_and_says_so_in_the_summary(table, tmp_path):
    assert gate(table, "nobody", "--junit", tmp_path / "gate.xml", "--summary", tmp_path / "gate.md") == 4
    (error,) = ET.parse(tmp_path / "gate.xml").getroot().iter("error")
    assert "no arm 'nobody'" in (error.get("message") or "")
    assert "no verdict" in (tmp_path / "gate.md").read_text()


def test_the_summary_has_verdict_interval_path_and_flips(table, tmp_path):
    summary = tmp_path / "gate.md"
    summary.write_text("before\n")
    gate(table, "broken", "--summary", summary)
    text = summary.read_text()
    assert text.startswith("before\n## aem gate: BLOCK\n")
    assert len(re.findall(r"^\| \d+ \| [+-]\d+\.\d \| \[", text, re.MULTILINE)) >= 1
    assert "tasks worse</summary>" in text
    assert re.search(r"\| owner__repo-\d+ \| 4/4 \| 0/1 \|", text)


def test_the_summary_calls_a_task_worse_or_better_by_its_rates(tmp_path):
    """Two draws of one truth: each change is noise, both its probabilities are 0 and do not say which way it went."""
    arms = {name: drawn(name, surface(40), 4, seed=seed) for name, seed in (("base", 1), ("new", 101))}
    table, summary = write(tmp_path / "o.csv", arms), tmp_path / "gate.md"
    gate(table, "new", "--margin", 30, "--summary", summary)
    parts = re.findall(r"tasks? (worse|better)</summary>(.*?)</details>", summary.read_text(), re.DOTALL)
    counts = {title: re.findall(r"\| (\d)/(\d) \| (\d)/(\d) \|", rows) for title, rows in parts}
    signs = {
        title: {np.sign(int(c) / int(d) - int(a) / int(b)) for a, b, c, d in some} for title, some in counts.items()
    }
    assert signs == {"worse": {-1}, "better": {1}}


@pytest.mark.parametrize(
    "words", [("--checkpoint", "x"), ("--seeds", 2), ("-c", "stop_alike=0"), ("--engine", "local")]
)
def test_options_of_a_run_are_refused_where_the_candidate_was_run_already(table, words, capsys):
    assert gate(table, "same", *words) == 4
    option = "--config-value" if words[0] == "-c" else words[0]
    assert f"the outcomes of same are there already: remove {option}\n" in capsys.readouterr().err


def test_github_gets_a_job_summary_and_step_outputs(table, tmp_path, monkeypatch):
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"):
        monkeypatch.setenv(name, str(tmp_path / name))
    gate(table, "same")
    assert "## aem gate: PASS" in (tmp_path / "GITHUB_STEP_SUMMARY").read_text()
    assert re.fullmatch(r"verdict=PASS\nrollouts=\d+\n", (tmp_path / "GITHUB_OUTPUT").read_text())


def test_the_json_report_has_everything_and_the_same_gate_gives_the_same(table, capsys):
    gate(table, "broken", "--json")
    first = json.loads(capsys.readouterr().out)
    gate(table, "broken", "--json")
    assert json.loads(capsys.readouterr().out) == first
    assert first["verdict"] == "BLOCK"
    assert first["upper"] < -0.05
    assert first["rollouts"] < first["planned"] == 800
    assert first["baseline_digest"] == ARMS["base"].digest
    gate(table, "broken", "--json", "--order-seed", 1, "--ledger", table.parent / "other.jsonl")
    assert json.loads(capsys.readouterr().out)["order_digest"] != first["order_digest"]


def test_gates_of_a_sequence_share_the_alpha_of_block_with_those_near_them(table, tmp_path, capsys):
    state = tmp_path / "gates.json"
    for candidate, number in (("same", 1), ("broken", 2), ("same", 1)):
        gate(table, candidate, "--sequence", state, "--json")
        found = json.loads(capsys.readouterr().out)
        assert found["number"] == number
        assert found["config"]["block_alpha"] == pytest.approx(0.05 / 7)
        assert "any 7 consecutive gates" in found["shared"]
    assert len(json.loads(state.read_text())["gates"]) == 2


def test_the_verdict_comes_with_measured_error_rates(table, capsys):
    words = ("--from", table, "--baseline", "base", "--candidate", "broken", "--margin", 5)
    assert aem("gate", *words) == 1
    text = capsys.readouterr().out
    assert re.search(r"measured +an equal checkpoint passes .* false PASS of one exactly 5 points worse", text)
    aem("gate", *words, "--no-calibration")
    assert "measured     not for this gate; `aem calibrate` measures such gates" in capsys.readouterr().out


def test_calibrate_prints_a_line_for_every_drop(table, capsys):
    words = ("--from", table, "--baseline", "base", "--trials", 10, "--drops", "10", "--margin", 5)
    assert aem("calibrate", *words) == 0
    assert len(re.findall(r"^ +(0|5|10)  ", capsys.readouterr().out, re.MULTILINE)) == 3
    assert aem("calibrate", "--surface", "deepswe", "--tasks", 30, "--trials", 3, "--json") == 0
    assert json.loads(capsys.readouterr().out)["tasks"] == 30
    assert aem("calibrate", "--surface", "deepswe", "--tasks", 30, "--trials", 3, "--fresh") == 0
    assert "baseline run beside it" in capsys.readouterr().out
    assert aem("calibrate") == 4
    assert aem("calibrate", "--from", table, "--trials", 3) == 4
    assert "name one with --baseline" in capsys.readouterr().err
    one = write(table.with_name("one.csv"), {"base": ARMS["base"]})
    assert aem("calibrate", "--from", one, "--trials", 3, "--margin", 10) == 0
    assert aem("calibrate", "--surface", "deepswe", "--drops", "x") == 4


def test_calibrate_refuses_what_it_would_not_heed(table, capsys):
    few = ("--surface", "deepswe", "--tasks", 30, "--trials", 3)
    assert aem("calibrate", *few, "--baseline", "base") == 4
    assert "--baseline: only with --from" in capsys.readouterr().err
    assert aem("calibrate", *few, "--drops", "5,99") == 4
    assert "a drop of 99 points is impossible" in " ".join(capsys.readouterr().err.split())


# --- the CI examples --------------------------------------------------------------------------------------------------


def commands_in(node) -> list[str]:
    if isinstance(node, dict):
        return [line for value in node.values() for line in commands_in(value)]
    if isinstance(node, list):
        return [line for value in node for line in commands_in(value)]
    text = str(node).replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip().startswith("aem ")]


@pytest.mark.parametrize("name", ["github-gate.yml", "gitlab-gate.yml"])
def test_the_ci_examples_use_options_that_exist(name):
    lines = commands_in(yaml.safe_load((DOCS / name).read_text()))
    assert lines
    group = typer.main.get_command(cli.app)
    for line in lines:
        _, command, *words = shlex.split(re.sub(r"\$\{\{.*?\}\}|\$\w+", "x", line))
        known = {option for parameter in group.commands[command].params for option in parameter.opts}  # type: ignore[attr-defined]
        assert {word for word in words if word.startswith("-")} <= known
