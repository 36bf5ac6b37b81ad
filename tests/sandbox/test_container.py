"""One container per rollout: limited, unprivileged, offline, and gone whatever ends it."""

import contextlib
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait

import docker
import pytest

from aem_harness.harness.config import Limits
from aem_harness.harness.errors import ConfigError, EnvironmentFault
from aem_harness.harness.sandbox.build import BASE
from aem_harness.harness.sandbox.container import Sandbox
from aem_harness.harness.sandbox.reaping import INSIDE, OWNER, reap
from tests.sandbox.proxy import Door

pytestmark = pytest.mark.docker


def running(label: str) -> list[str]:
    found = docker.from_env().containers.list(all=True, filters={"label": label}, ignore_removed=True)
    return [container.id for container in found]


def test_limits_and_privileges_are_what_was_asked(open_sandbox):
    box = open_sandbox(limits=Limits(cpus=1.5, memory="256m", pids=77))
    host = docker.from_env().containers.get(box.id).attrs["HostConfig"]
    assert host["NanoCpus"] == 1_500_000_000
    assert host["Memory"] == host["MemorySwap"] == 256 * 2**20
    assert host["PidsLimit"] == 77
    assert not host["CapAdd"]
    assert {"NET_RAW", "MKNOD"} <= {name.removeprefix("CAP_") for name in host["CapDrop"]}
    assert not host["Privileged"]
    assert host["SecurityOpt"] == ["no-new-privileges"]


def test_a_disk_limit_holds_or_is_refused_in_one_line(base):
    box = Sandbox(base, workdir="/", limits=Limits(disk="200m"), labels={"aem.test": "disk"})
    driver = docker.from_env().info()
    if driver["Driver"].startswith("overlay") and ["Backing Filesystem", "xfs"] not in driver["DriverStatus"]:
        with pytest.raises(ConfigError, match=r"limits\.disk"):
            box.__enter__()
    else:
        with box:
            assert box.execute("head -c 300000000 /dev/zero > /big").returncode != 0


def test_too_many_processes_fail_inside_and_the_container_lives(open_sandbox):
    box = open_sandbox(limits=Limits(pids=30))
    seen = box.execute("for i in $(seq 60); do sleep 5 & done; wait", timeout=20)
    assert "fork" in seen.output
    assert box.execute("echo on").output == "on\n"


def test_there_is_no_network_unless_granted(open_sandbox):
    interfaces = "cat /proc/net/dev | tail -n +3 | cut -d: -f1 | tr -d ' '"
    assert open_sandbox().execute(interfaces).output.split() == ["lo"]
    assert "eth0" in open_sandbox(network=True).execute(interfaces).output.split()


def test_files_go_in_and_out_byte_for_byte(open_sandbox):
    box = open_sandbox()
    data = bytes(range(256)) * 5000
    box.write_file("/somewhere/new folder/file.bin", data)
    assert box.read_file("/somewhere/new folder/file.bin") == data
    with pytest.raises(FileNotFoundError):
        box.read_file("/nothing/here")


def test_a_file_is_written_the_same_way_whatever_its_size_and_whatever_was_there(open_sandbox):
    box = open_sandbox()
    for size in (0, 1, 64 * 1024, 64 * 1024 + 1):
        data = bytes(range(256)) * (size // 256) + b"\0" * (size % 256)
        box.execute("umask 077; mkdir -p '/a b'; echo before > /kept; ln -sf /kept '/a b/file'", cwd="/")
        box.write_file("/a b/file", data)
        assert box.read_file("/a b/file") == data
        assert box.execute("stat -c '%F %a %U' '/a b/file'; cat /kept").output.endswith("file 644 root\nbefore\n")


def test_a_missing_image_is_a_fault_that_names_it():
    with pytest.raises(EnvironmentFault, match="no/such-image"), Sandbox("no/such-image:latest"):
        pass


def test_nothing_is_left_after_an_exception(base, unique):
    name = unique("exception")
    label = f"aem.test={name}"
    box = Sandbox(base, workdir="/", labels={"aem.test": name})
    with contextlib.suppress(RuntimeError), box:
        assert len(running(label)) == 1
        raise RuntimeError
    assert running(label) == []


def test_many_sandboxes_work_side_by_side(base, unique):
    name = unique("many")

    def one(number: int) -> str:
        with Sandbox(base, workdir="/", labels={"aem.test": name}) as box:
            return box.execute(f"echo {number}").output.strip()

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(one, range(32))) == [str(number) for number in range(32)]
    assert running(f"aem.test={name}") == []


HOLD = textwrap.dedent(
    """
    import sys
    from aem_harness.harness.sandbox.container import Sandbox
    with Sandbox({base!r}, workdir="/", labels={{"aem.test": {name!r}}}) as box:
        print("open", flush=True)
        box.execute("sleep 60", timeout=60)
    """
)


def hold(name: str) -> subprocess.Popen[str]:
    """Another process with a container open and a command running in it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(base=BASE, name=name)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # Shells start background jobs with SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


def test_closing_all_ends_whoever_starts_or_works_in_a_container_at_once(base, unique):
    """Whatever a thread is at: making the container, connecting to it, waiting for an answer."""
    name, over = unique("closing"), threading.Event()

    def work():
        with contextlib.suppress(EnvironmentFault), Sandbox(base, workdir="/", labels={"aem.test": name}) as one:
            while not over.is_set():
                one.execute("true")

    with ThreadPoolExecutor(8) as pool, contextlib.ExitStack() as stack:
        stack.callback(over.set)  # of a test that fails, no thread may work for ever
        for pause in (0.0, 0.25, 0.5, 0.75):
            threads = [pool.submit(work) for _ in range(8)]
            time.sleep(pause)
            began = time.monotonic()
            while not all(thread.done() for thread in threads):
                Sandbox.close_all()
                wait(threads, timeout=0.2)
                assert time.monotonic() - began < 120
    mine = {"all": True, "filters": {"label": f"aem.test={name}"}, "ignore_removed": True}
    assert docker.from_env().containers.list(**mine) == []


def test_ending_one_run_of_a_process_closes_none_of_another(base, unique):
    """When one arm of a gate ended in an error, rollouts of the other were lost."""
    labels = [{"aem.run": unique("arm"), "aem.run-id": unique("id")} for _ in range(2)]
    with contextlib.ExitStack() as stack:
        mine, others = (
            stack.enter_context(Sandbox(BASE, workdir="/", scrub_git=False, prelude="", labels={**own, "x": "y"}))
            for own in labels
        )
        Sandbox.close_all(labels=labels[0])
        with pytest.raises(EnvironmentFault, match="closed"):
            mine.execute("true")
        assert others.execute("echo here").output == "here\n"


def test_an_interrupted_process_leaves_no_container(base, unique):
    name = unique("interrupted")
    process = hold(name)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=30)
    assert running(f"aem.test={name}") == []


def test_after_kill_9_the_next_run_reaps_what_was_left_and_nothing_that_lives(base, unique):
    names = unique("dead"), unique("alive")
    dead, alive = map(hold, names)
    dead.send_signal(signal.SIGKILL)
    dead.wait()
    reap()  # another test that runs beside this one may have done it already
    assert running(f"aem.test={names[0]}") == []
    assert len(running(f"aem.test={names[1]}")) == 1
    alive.send_signal(signal.SIGINT)
    alive.wait(timeout=30)


@pytest.fixture
def door_name(unique):
    return unique("door")


@pytest.fixture
def engine_door(tmp_path, monkeypatch, door_name):
    door = Door(tmp_path / "docker.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{door.path}")
    yield door
    monkeypatch.undo()
    for container in docker.from_env().containers.list(
        all=True, filters={"label": f"aem.test={door_name}"}, ignore_removed=True
    ):
        container.remove(force=True)


def test_an_engine_that_goes_away_is_a_fault_also_when_the_container_is_then_closed(base, engine_door, door_name):
    def work() -> None:
        with Sandbox(base, workdir="/", labels={"aem.test": door_name}) as box:
            assert box.execute("echo on").output == "on\n"
            engine_door.shut()
            box.execute("echo still on")

    with ThreadPoolExecutor(1) as fresh_thread:  # each thread has its own client
        with pytest.raises(EnvironmentFault, match="engine does not answer"):
            fresh_thread.submit(work).result()
        with pytest.raises(EnvironmentFault, match="engine does not answer"):
            fresh_thread.submit(reap).result()


def test_what_a_harness_in_a_container_made_goes_when_that_container_is_gone(base):
    def idle(**labels: str) -> "docker.models.containers.Container":
        return docker.from_env().containers.run(base, ["sleep", "99"], detach=True, labels={"aem.test": "1", **labels})

    harness = idle()
    assert harness.id is not None
    made = idle(**{OWNER: "0123456789ab/pid:[1]:1:1", INSIDE: harness.id})
    unknown = idle(**{OWNER: "another-host/pid:[1]:1:1"})
    try:
        reap()
        assert made.id in running(OWNER)
        harness.kill()
        reap()
        for _ in range(100):  # another test may have begun to remove it
            if made.id not in running(OWNER):
                break
            time.sleep(0.1)
        assert made.id not in running(OWNER)
        assert unknown.id in running(OWNER)
    finally:
        for container in (harness, unknown):
            container.remove(force=True)


def test_tear_down_takes_no_grace_period(base):
    def seconds() -> float:
        box = Sandbox(base, workdir="/", labels={"aem.test": "quick"})
        box.__enter__()
        began = time.monotonic()
        box.close()
        return time.monotonic() - began

    assert min(seconds() for _ in range(3)) < 8, "docker stop would wait 10 s"
