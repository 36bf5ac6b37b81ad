"""The functions that `import aem_harness` offers: the objects that the commands render, and no output."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import aem_harness
from aem_harness.cli import app
from aem_harness.harness.compare.records import Comparison, Plan
from aem_harness.harness.errors import ConfigError, DataError
from aem_harness.harness.gate.driver import GateOptions
from aem_harness.harness.gate.report import GateReport
from tests.api.tables import write_table


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_table(tmp_path / "outcomes.csv")


@pytest.fixture
def silence(capfd: pytest.CaptureFixture[str]) -> pytest.CaptureFixture[str]:
    return capfd


def test_outcomes_are_one_row_a_rollout(table: Path) -> None:
    found = aem_harness.outcomes(table)
    assert isinstance(found, pd.DataFrame)
    assert len(found) == 3 * 60 * 2
    assert set(found["arm"]) == {"base", "same", "worse"}


def test_compare_gives_what_the_command_prints_as_json(table: Path, silence: pytest.CaptureFixture[str]) -> None:
    found = aem_harness.compare(table)
    assert isinstance(found, Comparison)
    assert silence.readouterr() == ("", "")
    printed = CliRunner().invoke(app, ["compare", str(table), "--json"])
    assert json.loads(printed.stdout) == json.loads(found.model_dump_json())


def test_compare_takes_rows_of_ones_own_as_a_file_or_a_mapping_and_says_so(tmp_path: Path) -> None:
    lines = [f"{arm},p__p-{i},0,resolved,{'exit_api' if i % 2 else 'submitted'}" for i in range(8) for arm in "ab"]
    (tmp_path / "arms.csv").write_text("\n".join(["arm,instance_id,seed,outcome,end", *lines]) + "\n")
    (tmp_path / "ends.yaml").write_text("exit_api: model\n")
    lost = [sum(row.lost for row in aem_harness.compare(tmp_path / "arms.csv").ledger)]
    for ends in (str(tmp_path / "ends.yaml"), tmp_path / "ends.yaml", {"exit_api": "model"}):
        found = aem_harness.compare(tmp_path / "arms.csv", ends=ends)
        assert found.ends == {"exit_api": "model"}
        lost.append(sum(row.lost for row in found.ledger))
        assert aem_harness.outcomes(tmp_path / "arms.csv", ends=ends)["resolved"].all()
    assert lost == [8, 0, 0, 0]


def test_gate_gives_what_the_command_prints_as_json(table: Path, silence: pytest.CaptureFixture[str]) -> None:
    found = aem_harness.gate("base", "worse", sources=[table], margin=0.05, options=GateOptions(calibrated=False))
    assert isinstance(found, GateReport)
    assert not found.passed
    assert silence.readouterr() == ("", "")
    words = ["gate", "--from", str(table), "--baseline", "base", "--candidate", "worse", "--margin", "5", "--json"]
    printed = CliRunner().invoke(app, [*words, "--no-calibration"])
    assert json.loads(printed.stdout) == json.loads(found.model_dump_json())


def test_plan_gives_what_the_command_prints_as_json(table: Path, silence: pytest.CaptureFixture[str]) -> None:
    found = aem_harness.plan(difference=0.02, history=table, tasks=200)
    assert isinstance(found, Plan)
    assert silence.readouterr() == ("", "")
    words = ["plan", "--difference", "2", "--history", str(table), "--tasks", "200", "--json"]
    assert json.loads(CliRunner().invoke(app, words).stdout) == json.loads(found.model_dump_json())


def test_what_makes_no_sense_raises_the_error_that_the_command_would_print(table: Path) -> None:
    with pytest.raises(DataError, match="no such run folder or file: nowhere"):
        aem_harness.outcomes("nowhere")
    with pytest.raises(ConfigError, match="gate settings: margin"):
        aem_harness.gate("base", "worse", sources=[table], margin=0)
    with pytest.raises(ConfigError, match="run configuration: agent_option: there is no such field"):
        aem_harness.run("gold", "sample", agent_option={})
    with pytest.raises(AttributeError, match="no attribute 'grad'"):
        _ = aem_harness.grad


def test_a_rollout_and_a_grading_return_where_they_are_and_how_they_ended(
    engine: None, tmp_path: Path, silence: pytest.CaptureFixture[str]
) -> None:
    first = aem_harness.Tasks(slice="0:1")
    finished = aem_harness.run("gold", "tiny", tasks=first, out=tmp_path / "run", canary=None)
    assert (finished.counts["resolved"], finished.lost, finished.exit_code, finished.suspect) == (1, 0, 0, [])
    assert finished.outcomes["resolved"].tolist() == [True]
    assert list((tmp_path / "run" / "facts").glob("trajectories-*.npz"))  # written as the rollouts ended
    again = aem_harness.run("gold", "tiny", tasks=first, out=tmp_path / "run", canary=None)
    assert again == finished
    graded = aem_harness.grade(
        tmp_path / "run" / "predictions.jsonl", "tiny", tasks=first, out=tmp_path / "graded", canary=None
    )
    assert graded.counts == finished.counts
    assert silence.readouterr() == ("", "")


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = "{'pandas', 'numpy', 'pydantic', 'docker', 'torch', 'rich'}"
    code = f"import sys, aem_harness; print(sorted({heavy} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_help_of_the_command_line_imports_nothing_heavy() -> None:
    heavy = "{'pandas', 'numpy', 'pydantic', 'docker', 'torch', 'openai', 'swebench', 'yaml', 'jinja2'}"
    code = f"import sys, aem_harness.cli; print(sorted({heavy} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_static_tools_see_every_function() -> None:
    assert {*aem_harness.__all__} <= {*dir(aem_harness)}
    for name in aem_harness.__all__:
        assert getattr(aem_harness, name).__doc__, name
