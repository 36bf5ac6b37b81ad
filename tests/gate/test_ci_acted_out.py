"""The CI files, acted out: from a clean checkout, with the scripts as they are written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.docker, pytest.mark.extended, pytest.mark.slow, pytest.mark.usefixtures("engine")]

ROOT = Path(__file__).parents[2]
# What differs from a lab's settings: agents that need no GPU, five small tasks, and their differences accepted.
SETTINGS = {
    "AEM_EXTRAS": "",
    "SEEDS": "2",
    "GATE_OPTIONS": "--margin 30 --allow agent --allow config.agent --allow scaffold --no-calibration",
    "CANDIDATE": "--agent empty --arm ci-idle",
    "BASELINE": "--agent gold",
    "BASELINE_DIGEST": "",
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A clean clone, with a virtual environment whose dependencies are there already: only the project is installed."""
    folder = tmp_path_factory.mktemp("ci")
    subprocess.run(["git", "clone", "-q", str(ROOT), "aem-harness"], cwd=folder, check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "venv"], cwd=folder, check=True)
    site = next((folder / "venv" / "lib").iterdir()) / "site-packages"
    (site / "dependencies.pth").write_text(
        "\n".join(path for path in sys.path if path.endswith("site-packages")) + "\n"
    )
    pip = folder / "venv" / "bin" / "pip"
    pip.write_text(
        f'#!/bin/sh\nexec {folder}/venv/bin/python -m pip "$@" --no-deps --no-build-isolation --ignore-installed -q\n'
    )
    pip.chmod(0o755)
    return folder


def environment(folder: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "GITHUB_STEP_SUMMARY")}
    path = f"{folder}/venv/bin:{os.environ['PATH']}"
    return (
        kept | SETTINGS | {"PATH": path, "XDG_STATE_HOME": str(folder / "state"), "TASKS": str(folder / "tasks.jsonl")}
    )


def bash(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = ["bash", "-e", "-o", "pipefail", "-c", script]
    return subprocess.run(words, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)


def test_the_github_workflow_bootstraps_gates_and_leaves_its_evidence(checkout):
    steps = yaml.safe_load((checkout / "aem-harness/docs/ci/github-gate.yml").read_text())["jobs"]["gate"]["steps"]
    scripts = {step["name"]: step["run"] for step in steps if "run" in step}
    done = bash(scripts["install"], checkout)
    assert done.returncode == 0, done.stderr
    where = bash("python -c 'import aem_harness; print(aem_harness.__file__)'", checkout).stdout
    assert where.startswith(str(checkout))

    chosen = "-i 'aem-sample__calx-*' -i 'aem-sample__[ghs]*'"
    done = bash(f"aem instances export --set sample {chosen} tasks.jsonl", checkout)
    assert done.returncode == 0, done.stderr
    too_early = bash(scripts["gate"], checkout)
    assert (too_early.returncode, "no baseline yet" in too_early.stdout) == (4, True)
    done = bash(scripts["bootstrap"], checkout)
    assert done.returncode == 0, done.stderr
    done = bash(scripts["gate"], checkout)
    assert done.returncode == 1, done.stderr  # an agent that does nothing is blocked
    for name in ("gate.xml", "gate.html", "gates.json", "ledger.jsonl", "results/gate/journal.jsonl"):
        assert (checkout / name).stat().st_size > 0
