"""A gate in command of a run: it stops the run when it can decide, and comes to the same verdict when asked again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.run.store import read_journal

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.usefixtures("engine")]

AEM = [sys.executable, "-m", "cli"]
FAST = ["-w", "4", "--grade-workers", "4"]
SCRIPTS = ["config.agent", "agent.source", "agent.digest"]  # two replays differ in more than weights, on purpose


@pytest.fixture(scope="module")
def baseline(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("baseline") / "careful"
    run = [*AEM, "run", "--agent", "replay:careful", "--arm", "careful", "--set", "sample", "-k", "2", *FAST]
    subprocess.run([*run, "--out", str(folder)], check=True, capture_output=True)
    return folder


def gate(baseline: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [*AEM, "gate", "--baseline", str(baseline), "--agent", "replay:hasty", "--arm", "hasty", "--seeds", "2"]
    command += ["--margin", "10", "--no-calibration", "--json", "--out", str(out), *FAST, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_worse_candidate_is_blocked_before_all_of_it_is_run_and_again_when_asked_again(baseline, tmp_path):
    allowed = [word for name in SCRIPTS for word in ("--allow", name)]
    done = gate(baseline, tmp_path / "hasty", *allowed, "--junit", str(tmp_path / "gate.xml"))
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["verdict"] == "BLOCK"
    assert found["rollouts"] < 38
    ran = [event for event in read_journal(tmp_path / "hasty") if event["event"] == "rollout"]
    assert found["rollouts"] <= len(ran) < 38
    assert "<failure" in (tmp_path / "gate.xml").read_text()
    left = subprocess.run(
        ["docker", "ps", "-aq", "--filter", "label=aem.run=hasty"], capture_output=True, text=True, check=True
    )
    assert left.stdout == ""

    again = gate(baseline, tmp_path / "hasty", *allowed)
    assert json.loads(again.stdout) == found
    assert len([event for event in read_journal(tmp_path / "hasty") if event["event"] == "rollout"]) == len(ran)


def test_arms_that_differ_in_more_than_the_weights_are_refused_before_anything_is_run(baseline, tmp_path):
    done = gate(baseline, tmp_path / "hasty")
    assert done.returncode == 3
    assert "agent.source differs" in done.stderr
    assert list(read_journal(tmp_path / "hasty")) == []
