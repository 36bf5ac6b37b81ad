"""The command agent runs real programs, and leaves none running."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from aem_harness.agents.build import build
from aem_harness.agents.command import CommandAgent, CommandOptions
from aem_harness.harness.errors import ConfigError, EnvironmentFault, PolicyFault
from aem_harness.harness.sandbox.container import Sandbox
from aem_harness.harness.types import ExitStatus
from tests.agents.workplace import LocalEnvironment, Transcript, instance


@pytest.fixture
def repository(tmp_path):
    return LocalEnvironment.repository(tmp_path / "repo")


def rollout(repository, script, **options):
    program = repository.workdir.parent / "program.py"
    program.write_text(script)
    agent = CommandAgent(f"{sys.executable} {program}", CommandOptions(**options))
    transcript = Transcript()
    end = agent.run(instance(repository.workdir), repository, transcript, seed=3)
    return end, transcript.messages


def test_a_program_gets_the_instance_and_works_in_the_work_tree(repository):
    end, messages = rollout(
        repository,
        "import json, os, pathlib, sys\n"
        "job = json.load(sys.stdin)\n"
        "assert (job['instance_id'], job['seed']) == ('demo__calc-1', 3)\n"
        "assert 'patch' not in job and 'FAIL_TO_PASS' not in job\n"
        "file = pathlib.Path(os.environ['AEM_WORKDIR']) / 'calc.py'\n"
        "file.write_text(file.read_text().replace('-', '+'))\n"
        "print('done')\n",
    )
    assert (end.status, end.patch) == (ExitStatus.SUBMITTED, None)
    assert "+    return a + b" in repository.diff()
    assert messages[1]["extra"]["raw_output"] == "done\n"


def test_a_failing_program_is_a_crash_of_the_agent_and_its_work_is_kept(repository):
    end, _ = rollout(repository, "import os\nopen(os.environ['AEM_WORKDIR'] + '/x', 'w')\nraise SystemExit('oh')\n")
    assert end.status is ExitStatus.AGENT_CRASH
    assert end.reason == "exit code 1: oh"
    assert "b/x" in repository.diff()


def test_exit_code_75_is_infrastructure(repository):
    with pytest.raises(PolicyFault, match=r"exit code 75\): server gone"):
        rollout(repository, "print('server gone')\nraise SystemExit(75)\n")


@pytest.mark.timeout(120, func_only=True)
def test_out_of_time_kills_the_program_and_what_it_started(repository):
    pidfile = repository.workdir.parent / "pid"
    end, _ = rollout(
        repository,
        "import subprocess, time\n"
        f"open({str(pidfile)!r}, 'w').write(str(subprocess.Popen(['sleep', '600']).pid))\n"
        "time.sleep(600)\n",
        wall_seconds=1.5,
    )
    assert end.status is ExitStatus.WALL_LIMIT
    for _ in range(100):
        state = subprocess.run(["ps", "-o", "stat=", pidfile.read_text()], capture_output=True, text=True, check=False)
        if not state.stdout.strip() or state.stdout.startswith("Z"):
            break
        time.sleep(0.05)
    else:
        pytest.fail("the child outlived the program")


@pytest.mark.docker
@pytest.mark.timeout(120, func_only=True)
def test_a_program_ends_with_its_container_as_when_a_run_is_interrupted(testbed):
    with Sandbox(testbed) as box:
        threading.Timer(1, box.close).start()
        with pytest.raises(EnvironmentFault, match="closed"):
            CommandAgent("sleep 600").run(instance(Path("/testbed")), box, Transcript(), seed=0)


def test_a_flood_keeps_its_end_only(repository):
    end, messages = rollout(repository, "import sys\nsys.stdout.write('x' * 10_000_000 + 'end')\n")
    assert end.status is ExitStatus.SUBMITTED
    assert len(messages[1]["extra"]["raw_output"]) == 65536
    assert messages[1]["extra"]["raw_output"].endswith("end")
    json.dumps(messages)


@pytest.mark.timeout(120, func_only=True)
def test_a_background_process_that_holds_the_output_does_not_hold_the_run(repository):
    end, _ = rollout(repository, "import subprocess\nsubprocess.Popen(['sleep', '600'])\n")
    assert end.status is ExitStatus.SUBMITTED


def test_a_missing_program_is_found_before_the_run():
    with pytest.raises(ConfigError, match="no program 'no-such-program'"):
        build("command:no-such-program --x")
    with pytest.raises(ConfigError, match="no command line"):
        build("command:sh -c 'unclosed")
