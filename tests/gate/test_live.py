"""A gate in command of a run: it stops the run when it can decide, and comes to the same verdict when asked again."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import pytest

from aem_harness.harness.run.store import read_journal

# The same driver without containers, in seconds: tests/gate/test_audited_live.py.
pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.extended, pytest.mark.usefixtures("engine")]

AEM = [sys.executable, "-m", "aem_harness.cli"]
FAST = ["-w", "4", "--grade-workers", "4"]
# The candidate does nothing at all: agents differ in more than weights, here on purpose.
ALLOWED = ["--allow", "agent", "--allow", "config.agent", "--allow", "scaffold"]
# The names of the arms are labels of containers: no other test that runs at the same time has these.
CAREFUL, IDLE = (f"{word}-{uuid4().hex[:8]}" for word in ("careful", "idle"))
TASKS = ["*"]  # 38 rollouts with two seeds: the first look comes after 30


@pytest.fixture(autouse=True)
def _ledger(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def baseline(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("baseline") / CAREFUL
    run = [*AEM, "run", "--agent", "replay:careful", "--arm", CAREFUL, "--set", "sample", "-k", "2", *FAST]
    chosen = [word for name in TASKS for word in ("-i", f"aem-sample__{name}")]
    subprocess.run([*run, *chosen, "--out", str(folder)], check=True, capture_output=True)
    return folder


def command(baseline: Path, out: Path, *options: str) -> list[str]:
    words = [*AEM, "gate", "--baseline", str(baseline), "--agent", "empty", "--arm", IDLE, "--seeds", "2", *ALLOWED]
    return [*words, "--margin", "10", "--no-calibration", "--json", "--out", str(out), *FAST, *options]


def gate(baseline: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(baseline, out, *options), capture_output=True, text=True, check=False)


def hear_interrupts() -> None:
    """Shells start background jobs with SIGINT ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def disturbed(how: signal.Signals, rollouts: int, folder: Path, words: list[str]) -> None:
    """Start the command and end it when the run has come to so many rollouts."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=hear_interrupts)
    while not (folder / "journal.jsonl").exists() or len(ran(folder)) < rollouts:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(how)
    process.wait(120)


def ran(folder: Path) -> list[tuple[str, int]]:
    return [(event["instance_id"], event["seed"]) for event in read_journal(folder) if event["event"] == "rollout"]


def containers(run: str) -> str:
    words = ["docker", "ps", "-aq", "--filter", f"label=aem.run={run}"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_a_worse_candidate_is_blocked_before_all_of_it_is_run_whatever_happens_on_the_way(baseline, tmp_path, unique):
    planned, calm, out = len(ran(baseline)), tmp_path / unique("calm"), tmp_path / unique("troubled")
    done = gate(baseline, calm, "--junit", str(tmp_path / "gate.xml"))
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert (found["verdict"], found["planned"]) == ("BLOCK", planned)
    assert found["rollouts"] <= len(ran(calm)) < planned
    assert "<failure" in (tmp_path / "gate.xml").read_text()
    assert containers(calm.name) == ""

    before = ran(calm)
    assert json.loads(gate(baseline, calm).stdout) == found
    assert ran(calm) == before

    for how, rollouts in ((signal.SIGKILL, 1), (signal.SIGINT, 4)):
        disturbed(how, rollouts, out, command(baseline, out))
    assert containers(out.name) == ""
    assert json.loads(gate(baseline, out).stdout) == found
    assert len(set(ran(out))) == len(ran(out))


def test_both_arms_are_run_side_by_side_and_no_further_than_the_verdict_needs(baseline, tmp_path):
    planned, out = 2 * len(ran(baseline)), tmp_path / "pair"
    disturbed(signal.SIGKILL, 2, out / IDLE, command(baseline, out, "--fresh"))
    done = gate(baseline, out, "--fresh")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert (found["verdict"], found["fresh_baseline"], found["planned"]) == ("BLOCK", True, planned)
    arms = {arm: ran(out / arm) for arm in (CAREFUL, IDLE)}
    assert len(set(arms[CAREFUL]) & set(arms[IDLE])) >= found["rollouts"] / 2
    assert sum(map(len, arms.values())) < planned
    assert abs(len(arms[CAREFUL]) - len(arms[IDLE])) <= 8  # the idle one is faster, but does not run ahead
    assert containers(CAREFUL) == containers(IDLE) == ""
    assert json.loads(gate(baseline, out, "--fresh").stdout) == found


def test_a_budget_in_gpu_hours_needs_to_know_how_many_gpus_there_are(baseline, tmp_path):
    done = gate(baseline, tmp_path / "idle", "--budget", "1gpuh")
    assert done.returncode == 4
    assert "--gpus" in done.stderr
    done = gate(baseline, tmp_path / "idle", "--budget", "0.0001gpuh", "--gpus", "8")
    found = json.loads(done.stdout)
    assert (done.returncode, found["reason"]) == (2, "the budget of 0.0001 GPU-hours is spent")
    seconds = [event["seconds"] for event in read_journal(tmp_path / "idle") if event["event"] == "rollout"]
    assert 0.0001 <= found["gpu_hours"] <= sum(seconds) * 8 / 4 / 3600


def test_past_checkpoints_are_the_control_variate_of_a_gate_that_runs(baseline, tmp_path):
    names = sorted({instance for instance, _ in ran(baseline)})
    rows = [f"past,{name},{seed},{n % 2}" for n, name in enumerate(names) for seed in range(4)]
    (tmp_path / "past.csv").write_text("\n".join(["arm,instance_id,seed,resolved", *rows]) + "\n")
    found = []
    for history in ([], ["--history", str(tmp_path / "past.csv")]):
        how = ["--question", "outcomes", "--budget", "20", "--margin", "40"]
        done = gate(baseline, tmp_path / f"idle{len(history)}", *history, *how)
        assert done.returncode == 1, done.stderr
        found.append(json.loads(done.stdout))
        # of the scripted baseline's rollouts 34 of 38 resolve, of the idle candidate's none
        assert found[-1]["verdict"] == "BLOCK"
        assert found[-1]["rollouts"] < 20
    assert found[0]["order_digest"] == found[1]["order_digest"]
    assert found[0]["difference"] != found[1]["difference"]


def test_arms_that_differ_in_more_than_the_weights_are_refused_before_anything_is_run(baseline, tmp_path):
    words = [word for word in command(baseline, tmp_path / "idle") if word not in {"--allow", *ALLOWED}]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert f"config.agent differs: {CAREFUL}: replay:careful; {IDLE}: empty" in done.stderr
    assert ran(tmp_path / "idle") == []
