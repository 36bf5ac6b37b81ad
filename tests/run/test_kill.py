"""Kill -9 at any moment: the same command continues, with the results of an undisturbed run, nothing done twice."""

import hashlib
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from aem_harness.harness.run.store import read_journal

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.usefixtures("engine")]

KILLS, TASKS = 6, 6
COMMAND = [sys.executable, "-m", "aem_harness.cli", "run", "--agent", "gold", "--set", "sample", "-k", "2", "-w", "4"]


def hear_interrupts() -> None:
    """Shells start background jobs with SIGINT ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(folder: Path, tasks: int) -> subprocess.Popen[bytes]:
    """Two rollouts of each of the first `tasks` tasks."""
    log = folder.with_suffix(".log").open("ab")
    return subprocess.Popen(
        [*COMMAND, "--slice", f"0:{tasks}", "--out", str(folder)], stdout=log, stderr=log, preexec_fn=hear_interrupts
    )


def containers(folder: Path) -> list[str]:
    """Ids of the containers of a run, stopped ones too."""
    command = ["docker", "ps", "-aq", "--filter", f"label=aem.run={folder.name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def journaled(folder: Path) -> int:
    """How many events the journal of a run has, which may not exist yet."""
    journal = folder / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def results(folder: Path) -> dict[tuple[str, int], tuple[str, str, str]]:
    """Per rollout: how it ended, the patch, the verdict."""
    events = list(read_journal(folder))
    status = {(e["instance_id"], e["seed"]): e["exit_status"] for e in events if e["event"] == "rollout"}
    outcome = {(e["instance_id"], e["seed"]): e["outcome"] for e in events if e["event"] == "grade"}
    patch = {
        key: hashlib.sha256((folder / "rollouts" / key[0] / str(key[1]) / "patch.diff").read_bytes()).hexdigest()
        for key in status
    }
    return {key: (status[key], patch[key], outcome[key]) for key in status}


@pytest.mark.extended
def test_a_run_killed_at_random_moments_ends_as_an_undisturbed_one(tmp_path, unique):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / unique("killed")
    assert start(undisturbed, TASKS).wait() == 0
    moments = random.Random(20260501)
    kills = 0
    while kills < KILLS:
        process = start(killed, TASKS)
        reached = journaled(killed) + moments.randrange(4)  # of 24 events: measured in progress, not in seconds
        while process.poll() is None and journaled(killed) < reached:
            time.sleep(0.02)
        try:
            process.wait(timeout=moments.uniform(0.0, 1.0))
            break  # finished before the kill
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    assert kills >= 3, "the run ended before it could be disturbed"
    assert start(killed, TASKS).wait() == 0

    assert results(killed) == results(undisturbed)
    assert len(results(killed)) == 2 * TASKS
    done = Counter((e["event"], e["instance_id"], e["seed"]) for e in read_journal(killed))
    assert set(done.values()) == {1}, "something was journaled twice"
    assert not list(killed.glob("rollouts/*/.*")), "half a rollout was left behind"
    assert containers(killed) == [], "a container was left behind"


@pytest.mark.parametrize(
    ("how", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.extended)]
)
def test_an_interrupted_run_leaves_nothing_running_and_continues(tmp_path, unique, how, code):
    folder = tmp_path / unique("interrupted")
    process = start(folder, 3)
    while not containers(folder):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(how)
    assert process.wait(timeout=60) == code
    if how is signal.SIGINT:
        assert "the same command continues" in folder.with_suffix(".log").read_text()
    assert containers(folder) == []
    assert start(folder, 3).wait() == 0
    assert len(results(folder)) == 6
