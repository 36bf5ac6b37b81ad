"""The real vLLM killed, interrupted and outlived: nothing is lost, and nothing is left."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aem_harness.harness.io import read_json
from aem_harness.harness.run.store import read_journal
from tests.checkpoints.processes import group, until

pytestmark = [
    pytest.mark.extended,
    pytest.mark.vllm,
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.usefixtures("engine", "vllm"),
]

AEM = [sys.executable, "-m", "aem_harness.cli"]


def test_an_engine_killed_in_the_middle_is_restarted_and_the_run_completes(registry, tmp_path):
    out = tmp_path / "run"
    words = ["run", "--registry", str(registry), "--checkpoint", "tiny", "--set", "sample", "--slice", "0:6"]
    words += ["-k", "2", "-w", "4", "-c", "sampling.max_tokens=256", "--out", str(out)]
    process = subprocess.Popen([*AEM, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert until(lambda: (out / "journal.jsonl").exists() and len(list(read_journal(out))) >= 2, 300)
    guard = next(number for number in _children(process.pid) if len(group(number)) >= 3)
    engine = next(number for number, command in group(guard).items() if "EngineCore" in command)
    os.kill(engine, signal.SIGKILL)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    events = list(read_journal(out))
    assert sum(event["event"] == "grade" for event in events) == 12
    assert not any(event["fault"] for event in events if event["event"] == "rollout")
    server_events = [json.loads(line) for line in (out / "server.events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in server_events] == ["started", "crashed", "restarted", "stopped"]
    assert "killed from outside" in server_events[1]["detail"]
    extras = [
        message["extra"] for path in out.glob("rollouts/*/*/*.traj.json") for message in read_json(path)["messages"]
    ]
    assert any(extra.get("retries") for extra in extras)
    assert group(guard) == {}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_when_a_run_is_interrupted_or_killed(registry, tmp_path, how):
    out = tmp_path / "run"
    words = ["run", "--registry", str(registry), "--checkpoint", "tiny", "--set", "sample", "-w", "4"]
    words += ["-c", "sampling.max_tokens=2048", "--out", str(out)]
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen([*AEM, *words], stdout=log, stderr=log, preexec_fn=_hear_interrupts)
    assert until(lambda: list(out.glob("rollouts/*/.*/trajectory.jsonl")), 300)
    guard = next(number for number in _children(process.pid) if len(group(number)) >= 3)
    time.sleep(2)  # into the middle of replies
    process.send_signal(how)
    assert process.wait(timeout=60) == (-how if how == signal.SIGKILL else 130)
    assert until(lambda: not group(guard), 30), group(guard)


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]
