"""A policy cannot excuse itself: what its commands did to their container is theirs, what the engine did is not.

The shells here are stopped and removed by the test, not by a command of the sandbox.
"""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import docker as docker_py
import pytest

from aem_harness.harness.config import Limits
from aem_harness.harness.errors import ContainerDied, EnvironmentFault
from aem_harness.harness.sandbox import channel, container, engine
from aem_harness.harness.sandbox.blame import own_doing, probe

pytestmark = pytest.mark.docker


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout


def test_a_stopped_shell_ends_the_command_and_the_container_goes_on(open_sandbox, monkeypatch):
    box = open_sandbox()
    monkeypatch.setattr(channel, "PATIENCE", 1.0)
    box.execute("touch /kept; setsid bash -c 'exec -a leftover sleep 999' > /dev/null 2>&1 &")
    docker("exec", box.id, "bash", "-c", "kill -STOP $(pgrep -x aem-supervisor)")
    assert box.execute("echo on", timeout=1).returncode == 137
    seen = box.execute("ls /kept; pgrep -c -f leftover")
    assert seen.output == "/kept\n0\n"


def test_a_container_without_a_shell_is_the_doing_of_what_ran_in_it(open_sandbox, monkeypatch):
    box = open_sandbox()
    monkeypatch.setattr(container, "REVIVAL_PAUSES", (0.0, 0.2))
    docker("exec", box.id, "bash", "-c", "mv /bin/bash /bin/elsewhere; kill -9 $(pgrep -x aem-supervisor)")
    with pytest.raises(EnvironmentFault, match="takes no more commands") as fault:
        box.execute("echo on")
    assert own_doing(box, fault.value, probe)


@pytest.mark.parametrize("for_a_moment", [True, False])
def test_a_container_that_the_engine_holds_is_nobodys_doing(open_sandbox, monkeypatch, for_a_moment):
    """As some backups do. One that stayed so counted as `sandbox_destroyed`, a failure of the policy."""
    box = open_sandbox()
    docker("pause", box.id)
    with monkeypatch.context() as impatient:
        impatient.setattr(channel, "PATIENCE", 0.5)
        impatient.setattr(container, "REVIVAL_PAUSES", (0.0, 0.2))
        with pytest.raises(ContainerDied, match="somebody else paused it") as fault:
            box.execute("echo on", timeout=1)
        if for_a_moment:
            docker("unpause", box.id)
        assert not own_doing(box, fault.value, probe)
        assert not own_doing(box, EnvironmentFault("the container takes no more commands"), probe)


def test_a_file_of_a_container_that_was_removed_is_not_taken_for_one_that_is_missing(open_sandbox):
    """The grader read an empty log, an audit no test files."""
    box = open_sandbox()
    with pytest.raises(FileNotFoundError):
        box.read_file("/none")
    docker("rm", "--force", box.id)
    with pytest.raises(ContainerDied, match="somebody else removed it"):
        box.read_file("/etc/passwd")


@pytest.mark.parametrize("ended", [("kill",), ("rm", "--force"), ("restart", "--time", "0")], ids=" ".join)
def test_a_container_ended_from_outside_is_nobodys_doing(open_sandbox, ended):
    box = open_sandbox()
    docker(*ended, box.id)
    with pytest.raises(ContainerDied) as fault:
        box.execute("echo on")
    assert not own_doing(box, fault.value, probe)


def run_out_of_memory(box):
    assert box.execute("perl -e '$x = \"a\" x 200_000_000'").returncode == 137
    for _ in range(600):  # until the engine has heard of it
        if docker(
            "events", "--since", "1h", "--until", "0s", "--filter", f"container={box.id}", "--filter", "event=oom"
        ):
            return
        time.sleep(0.1)
    pytest.skip("this engine says nothing of a lack of memory")


def end_first_process(box):
    first = Path("/proc", docker("inspect", "--format", "{{.State.Pid}}", box.id).strip())
    if not first.is_dir() or container.IDLE not in (first / "cmdline").read_text():
        pytest.skip("the engine's processes are not seen from here")
    os.kill(int(first.name), signal.SIGKILL)  # as the kernel does
    docker("wait", box.id)  # a command can still be answered while its container ends


def test_a_container_killed_from_outside_long_after_a_command_ran_out_of_memory_is_nobodys_doing(open_sandbox):
    """The engine then says of the container, too, that it was killed for memory."""
    box = open_sandbox(limits=Limits(memory="64m"))
    run_out_of_memory(box)
    docker("kill", box.id)
    with pytest.raises(ContainerDied) as fault:
        box.execute("echo on")
    assert not own_doing(box, fault.value, probe)


def test_a_container_whose_first_process_ran_out_of_memory_is_the_doing_of_what_ran_in_it(open_sandbox):
    box = open_sandbox(limits=Limits(memory="64m"))
    run_out_of_memory(box)
    end_first_process(box)
    with pytest.raises(EnvironmentFault, match="ran out of memory") as fault:
        box.execute("echo on")
    assert own_doing(box, fault.value, probe)


def says(monkeypatch, code):
    """The engine's events give every container's end this code, as that of a first process or of another release."""
    events = docker_py.DockerClient.events

    def altered(client, **how):
        for event in events(client, **how):
            if event.get("Action") == "die":
                event["Actor"]["Attributes"]["exitCode"] = code
            yield event

    monkeypatch.setattr("docker.DockerClient.events", altered)


@pytest.mark.parametrize("code", ["137", "255"])
def test_a_container_that_nobody_told_the_engine_to_end_is_the_doing_of_what_ran_in_it(open_sandbox, monkeypatch, code):
    """A limit that a command gives the first process ends that as well; it counted as the infrastructure's failure."""
    box = open_sandbox()
    end_first_process(box)
    says(monkeypatch, code)
    with pytest.raises(EnvironmentFault, match="died by itself: exit code 137") as fault:
        box.execute("echo on")
    assert not isinstance(fault.value, ContainerDied)
    assert own_doing(box, fault.value, probe)


@pytest.mark.parametrize("code", ["255", "137"], ids=["Docker 20.10", "Docker 23"])
def test_a_container_whose_keeper_is_gone_is_nobodys_doing(open_sandbox, monkeypatch, code):
    """The engine then says of its first process what it says of one that was killed from within: 137."""
    box = open_sandbox()
    says(monkeypatch, code)
    keepers = [
        one for one in Path("/proc").glob("[0-9]*/cmdline") if box.id in (said := words_of(one)) and "shim" in said[0]
    ]
    if len(keepers) != 1:
        pytest.skip("the engine's processes are not seen from here")
    os.kill(int(keepers[0].parent.name), signal.SIGKILL)
    docker("wait", box.id)
    monkeypatch.setattr(channel, "PATIENCE", 1)  # the connection stays open
    with pytest.raises(ContainerDied) as fault:
        box.execute("echo on", timeout=1)
    assert not own_doing(box, fault.value, probe)


def words_of(cmdline):
    with contextlib.suppress(OSError):  # the process has ended meanwhile
        return cmdline.read_text(errors="replace").split("\0")
    return []


def test_a_podman_that_does_not_say_who_ended_a_container_leaves_it_nobodys_doing(open_sandbox, monkeypatch):
    """Of `podman stop` it notes the end alone: stopping a container counted against the policy."""
    box, info = open_sandbox(), engine.client().info()
    end_first_process(box)
    monkeypatch.setattr("docker.DockerClient.info", lambda *_, **__: info | {"BuildahVersion": "1.28.2"})
    with pytest.raises(ContainerDied) as fault:
        box.execute("echo on")
    assert not own_doing(box, fault.value, probe)


def test_where_the_engine_has_forgotten_how_a_container_ended_it_is_nobodys_doing(open_sandbox, monkeypatch):
    box = open_sandbox()
    end_first_process(box)
    monkeypatch.setattr("docker.DockerClient.events", lambda *_, **__: (one for one in ()))
    with pytest.raises(ContainerDied) as fault:
        box.execute("echo on")
    assert not own_doing(box, fault.value, probe)


def test_a_busy_engine_is_given_time_to_say_how_a_container_ended(open_sandbox, monkeypatch):
    """It says so some time after the container's end, which was asked for within the same second."""
    box, events = open_sandbox(), docker_py.DockerClient.events
    end_first_process(box)

    def late(client, *, since, until, **how):
        for event in events(client, since=since, until=until, **how):
            if event.get("Action") != "die" or until > event["time"] + 5:
                yield event

    monkeypatch.setattr("docker.DockerClient.events", late)
    with pytest.raises(EnvironmentFault, match="died by itself"):
        box.execute("echo on")


def test_an_engine_that_fails_again_after_the_control_is_to_blame(open_sandbox):
    box, calls = open_sandbox(), []

    def work(sandbox):
        calls.append(sandbox)
        if len(calls) > 1:
            raise EnvironmentFault("the engine does not answer")

    assert not own_doing(box, EnvironmentFault("the engine does not answer"), work)
    assert [one is box for one in calls] == [False, True, False]


def test_where_a_fresh_container_does_not_work_either_the_engine_is_to_blame(open_sandbox):
    box = open_sandbox(workdir="/")
    box._limits = box._limits.model_copy(update={"memory": "1k"})  # below what any engine starts
    assert not own_doing(box, EnvironmentFault("the container takes no more commands"), probe)
