"""The engine is restarted, and then killed, under a run that nobody watches: it ends complete all the same."""

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from aem_harness.harness.errors import DataError
from aem_harness.harness.instances.load import load
from aem_harness.harness.run.store import Event, read_journal
from aem_harness.harness.sandbox.images import ensure_image
from tests.run.engines import SecondEngine

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.extended, pytest.mark.usefixtures("engine")]

TASKS, SEEDS = 7, 2
WORK = 'exec docker exec -w "$AEM_WORKDIR" "$AEM_CONTAINER" bash -c "sleep 2; echo touched > touched"'
IMAGES = ("aem/base:bookworm", "aem/debian:bookworm")  # below the set's own


@pytest.fixture
def second(tmp_path: Path) -> Iterator[SecondEngine]:
    """A second engine that has the image of the set `tiny`; skips where none can be started."""
    if os.geteuid() or not shutil.which("dockerd") or not shutil.which("ip"):
        pytest.skip("a second engine needs root, dockerd and ip")
    task = load("tiny").tasks[0]
    ensure_image(task)
    made = SecondEngine(tmp_path / "engine")
    try:
        made.start()
    except RuntimeError as error:
        made.remove()
        pytest.skip(f"no second engine starts here: {str(error)[-300:]}")
    try:
        saved = subprocess.Popen(
            ["docker", "save", task.instance.image, "aem/base:bookworm", "aem/debian:bookworm"], stdout=subprocess.PIPE
        )
        subprocess.run(["docker", "--host", made.host, "load"], stdin=saved.stdout, check=True, capture_output=True)
        assert saved.wait() == 0
        yield made
    finally:
        made.remove()


def journaled(folder: Path) -> list[Event]:
    try:
        return list(read_journal(folder))
    except (DataError, OSError):
        return []


def until(reached: int, folder: Path, process: "subprocess.Popen[bytes]") -> None:
    """Until so many rollouts are in the journal."""
    while sum(event["event"] == "rollout" for event in journaled(folder)) < reached:
        assert process.poll() is None, folder.with_suffix(".log").read_text()[-3000:]
        time.sleep(0.2)


def test_a_run_whose_engine_is_restarted_and_then_killed_ends_complete_by_itself(tmp_path, second, unique):
    folder = tmp_path / unique("outage")
    agent = tmp_path / "agent.sh"
    agent.write_text(WORK)
    command = [sys.executable, "-m", "aem_harness.cli", "run", "--set", "tiny", "--slice", f"0:{TASKS}"]
    command += ["-k", str(SEEDS), "-w", "3", "--agent", f"command:bash {agent}", "--no-canary", "--out", str(folder)]
    with folder.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"DOCKER_HOST": second.host})
    try:
        until(3, folder, process)
        second.restart()
        until(8, folder, process)
        second.kill()
        time.sleep(3)
        second.start()
        assert process.wait(timeout=300) == 0, folder.with_suffix(".log").read_text()[-3000:]
    finally:
        process.kill()
        process.wait()
    events = journaled(folder)
    assert Counter(event["event"] for event in events) == {"rollout": TASKS * SEEDS, "grade": TASKS * SEEDS}
    once = Counter((event["event"], event["instance_id"], event["seed"]) for event in events)
    assert set(once.values()) == {1}, "something was journaled twice"
    assert {event["attempt"] for event in events} == {0}, "an outage spends no attempt"
    assert {event["fault"] for event in events if event["event"] == "rollout"} == {None}
    assert {event["outcome"] for event in events if event["event"] == "grade"} == {"unresolved"}
    told = folder.with_suffix(".log").read_text()
    assert told.count("the container engine is away") == told.count("the container engine is back") == 2, told
    # At most what the dying engine was just creating is left, and goes with the next run.
    assert len(second.docker("ps", "-aq").stdout.split()) <= 2, "containers were left behind"
    reap = "from aem_harness.harness.sandbox.reaping import reap; reap()"
    subprocess.run([sys.executable, "-c", reap], env=os.environ | {"DOCKER_HOST": second.host}, check=True)
    assert second.docker("ps", "-aq").stdout == "", "a container was left behind"
