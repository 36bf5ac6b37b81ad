"""The GitHub Action, acted out: its own shell steps, with the variables that GitHub would give them."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.api.tables import write_table

ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
EXAMPLE = yaml.safe_load((ROOT / "docs" / "ci" / "github-action.yml").read_text())
INSTALL, GATE = [step for step in ACTION["runs"]["steps"] if "run" in step]


def filled(values: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a step: expressions replaced by the inputs given, else by their defaults."""
    known = {f"inputs.{name}": given.get(name, one.get("default", "")) for name, one in ACTION["inputs"].items()}
    known["github.action_path"] = str(ROOT)
    return {name: re.sub(r"\$\{\{ (.*?) \}\}", lambda found: known[found[1]], text) for name, text in values.items()}


def act(step: Mapping[str, Any], folder: Path, **given: str) -> "subprocess.CompletedProcess[str]":
    """One step in `folder`, with an `aem` on the path that is this tree's."""
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    (tools / "aem").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m aem_harness.cli "$@"\n')
    (tools / "aem").chmod(0o755)
    environment = {
        **os.environ,
        **filled(step["env"], given),
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "GITHUB_OUTPUT": str(folder / "output"),
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
    }
    words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)


def outputs(folder: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (folder / "output").read_text().splitlines())


def test_a_worse_checkpoint_fails_the_job_and_leaves_summary_junit_and_outputs(tmp_path: Path) -> None:
    write_table(tmp_path / "outcomes.csv")
    given = {"from": "outcomes.csv", "baseline": "base", "candidate": "worse", "arguments": "--no-calibration"}
    done = act(GATE, tmp_path, **given)
    assert done.returncode == 1, done.stderr
    assert outputs(tmp_path).items() >= {"verdict": "BLOCK", "exit-code": "1"}.items()
    assert "BLOCK" in (tmp_path / "summary.md").read_text()
    assert (tmp_path / "gate.xml").is_file()


@pytest.mark.parametrize(("strict", "code"), [("false", 0), ("true", 2)])
def test_inconclusive_is_a_warning_unless_it_shall_fail(tmp_path: Path, strict: str, code: int) -> None:
    write_table(tmp_path / "outcomes.csv")
    done = act(
        GATE,
        tmp_path,
        **{"from": "outcomes.csv", "baseline": "base", "candidate": "same", "margin": "1"},
        **{"arguments": "--no-calibration --futility 0", "fail-on-inconclusive": strict},
    )
    assert done.returncode == code, done.stderr
    assert ("::warning" in done.stdout) == (strict == "false")
    assert outputs(tmp_path)["verdict"] == "INCONCLUSIVE"


def test_words_with_spaces_and_signs_of_the_shell_reach_the_gate_as_they_are(tmp_path: Path) -> None:
    write_table(tmp_path / "outcomes.csv")
    done = act(GATE, tmp_path, **{"from": "outcomes.csv", "baseline": "base", "candidate": "no $(touch made) arm"})
    assert done.returncode == 4
    assert "no $(touch made) arm" in done.stderr
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("arguments", ['--no-calibration --arm "no end', "--no-calibration --arm it's"])
def test_arguments_with_an_open_quote_end_the_job_instead_of_being_dropped(tmp_path: Path, arguments: str) -> None:
    write_table(tmp_path / "outcomes.csv")
    given = {"from": "outcomes.csv", "baseline": "base", "candidate": "same", "arguments": arguments}
    done = act(GATE, tmp_path, **given)
    assert done.returncode == 4
    assert "::error" in done.stdout
    assert "quote" in done.stdout
    assert outputs(tmp_path) == {"exit-code": "4"}


def test_a_baseline_that_was_not_given_is_named(tmp_path: Path) -> None:
    """GitHub itself does not enforce `required`."""
    done = act(GATE, tmp_path, candidate="results/new")
    assert done.returncode == 4
    assert "::error" in done.stdout
    assert "`baseline`" in done.stdout
    assert outputs(tmp_path) == {"exit-code": "4"}


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.extended
def test_the_program_is_installed_from_the_checkout_that_the_action_lies_in(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", tmp_path / "venv"], check=True)
    copy = tmp_path / "checkout"
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_symlink():
                (copy / name).symlink_to((ROOT / name).readlink())
            else:
                (copy / name).write_bytes((ROOT / name).read_bytes())
    environment = {
        "PATH": f"{tmp_path / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "SOURCE": str(copy),
        "EXTRAS": "",
        "PIP_NO_DEPS": "1",
    }
    subprocess.run(["bash", "-c", INSTALL["run"]], env=environment, check=True, capture_output=True)
    known = "importlib.metadata.entry_points(group='pytest11')['aem']"
    code = f"import aem_harness, importlib.metadata; print(aem_harness.__file__, {known})"
    python = tmp_path / "venv" / "bin" / "python"
    done = subprocess.run([python, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(tmp_path / "venv"))
    assert "aem_harness.api.pytest_plugin" in done.stdout


def test_the_example_uses_the_action_from_a_checkout_with_inputs_that_it_has() -> None:
    steps = EXAMPLE["jobs"]["gate"]["steps"]
    (fetched,) = [step for step in steps if "repository" in step.get("with", {})]
    (used,) = [step for step in steps if str(step.get("uses", "")).startswith("./")]
    assert used["uses"] == f"./{fetched['with']['path']}"
    assert {*used["with"]} <= {*ACTION["inputs"]}
    required = {name for name, one in ACTION["inputs"].items() if one.get("required")}
    assert required <= {*used["with"]}
