"""Commands in a container: fresh shells, hard timeouts, bounded output, and faults that are never observations."""

import resource
import subprocess
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aem_harness.harness.errors import EnvironmentFault
from aem_harness.harness.sandbox.build import DEBIAN
from aem_harness.harness.sandbox.container import Sandbox

pytestmark = pytest.mark.docker

# Text of the kind models emit, with what a shell gives a meaning to. Without > and <, whose effects outlast a command
# or run beside it, and without pids. | and & come doubled and between spaces, so that no backslash before them leaves
# a pipe or a background job: processes side by side complain in any order.
SHELL = (
    st.lists(st.sampled_from([*"abc \n\t'\"\\$`(){}[];*?~#!=-/0éß\x01", " || ", " && "]), max_size=40)
    .map("".join)
    .filter(lambda text: "$$" not in text)
)


def test_output_and_exit_status_are_those_of_the_command(sandbox):
    seen = sandbox.execute("echo out; echo err >&2; exit 3")
    assert (seen.output, seen.returncode, seen.timed_out, seen.dropped_bytes) == ("out\nerr\n", 3, False, 0)


def test_each_command_gets_a_fresh_shell_in_the_working_folder(sandbox):
    sandbox.execute("cd /tmp; export LEFT=over; set -e")
    assert sandbox.execute("pwd; echo ${LEFT-nothing}; false; echo on").output == "/\nnothing\non\n"
    assert sandbox.execute("pwd", cwd="/usr").output == "/usr\n"


def test_the_conda_environment_is_active(sandbox):
    assert sandbox.execute("command -v python").output == "/opt/miniconda3/envs/testbed/bin/python\n"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arguments=st.lists(SHELL, max_size=3), text=SHELL)
def test_any_text_gives_what_bash_c_gives(sandbox, arguments, text):
    command = f"printf '<%s>' {' '.join(arguments)}; {text}"
    seen = sandbox.execute(command, timeout=20)
    plain = ["docker", "exec", "-w", "/", sandbox.id, "bash", "-c", 'exec timeout 20 bash -c "$0" 2>&1', command]
    direct = subprocess.run(plain, capture_output=True, check=False)
    assert seen.output == direct.stdout.decode("utf-8", "replace")
    assert seen.returncode == direct.returncode


def test_a_command_that_reads_stdin_gets_its_end_at_once(sandbox):
    assert sandbox.execute("cat; echo read", timeout=5).output == "read\n"


def test_binary_output_is_kept_as_replacement_characters(sandbox):
    assert sandbox.execute(r"printf 'a\0b\xff\xfe'").output == "a\0b\ufffd\ufffd"


def test_at_the_timeout_everything_the_command_started_dies(sandbox):
    stubborn = (
        "trap '' TERM INT; (trap '' TERM; setsid bash -c 'trap \"\" TERM; exec -a leftover sleep 999' & wait) & wait"
    )
    seen = sandbox.execute(f"echo begun; {stubborn}", timeout=3)
    assert seen.timed_out
    assert seen.output == "begun\n"
    assert seen.seconds < 60
    assert sandbox.execute("pgrep -c -f leftover").output == "0\n"


def test_a_background_process_survives_its_command_but_not_a_timeout_of_its_own(sandbox):
    seen = sandbox.execute("sleep 999 & echo $!", timeout=120)
    assert not seen.timed_out
    assert seen.seconds < 60, "a background process that holds the output open must not be waited for"
    pid = seen.output.strip()
    assert sandbox.execute("sleep 60", timeout=0.5).timed_out
    assert sandbox.execute(f"kill {pid}").returncode == 0


@pytest.mark.slow
def test_a_flood_of_output_stays_in_the_container(sandbox):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seen = sandbox.execute("echo first; head -c 300000000 /dev/zero | tr '\\0' x; echo; echo last", timeout=120)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 50 * 1024
    assert seen.output.startswith("first\n")
    assert seen.output.endswith("\nlast\n")
    assert f"[... {seen.dropped_bytes} bytes left out ...]" in seen.output
    kept = len(seen.output) - len(f"\n[... {seen.dropped_bytes} bytes left out ...]\n")
    assert kept + seen.dropped_bytes == len("first\n") + 300_000_000 + len("\nlast\n")


def test_a_command_that_kills_every_process_ends_itself_and_the_next_one_works(sandbox):
    assert sandbox.execute("kill -9 -1").returncode == 137
    assert sandbox.execute("echo still here").output == "still here\n"


def test_no_signal_from_inside_ends_the_container(sandbox):
    assert sandbox.execute("for signal in HUP INT QUIT TERM KILL; do kill -$signal 1; done").returncode == 0
    assert sandbox.execute("sleep 0.5; echo on").output == "on\n"


def test_what_survives_its_supervisor_is_ended_with_it(sandbox):
    seen = sandbox.execute("setsid bash -c 'exec -a survivor sleep 999' & sleep 0.2; kill -9 $PPID; sleep 60")
    assert seen.returncode == 137
    assert sandbox.execute("pgrep -c -f survivor").output == "0\n"


@pytest.mark.parametrize("noise", ["x", "0 0 0 999999999 0\n"], ids=["without a line end", "with a forged length"])
def test_what_a_command_writes_into_the_supervisors_pipe_is_bounded_too(sandbox, noise):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    forge = (
        f"printf '{noise}' > /proc/$PPID/fd/1; head -c 200000000 /dev/zero | tee /proc/$PPID/fd/2 > /proc/$PPID/fd/1"
    )
    assert sandbox.execute(forge).returncode == 137
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024
    assert sandbox.execute("echo on").output == "on\n"


def test_an_image_with_bash_and_perl_base_is_enough(base):
    with Sandbox(DEBIAN, workdir="/", labels={"aem.test": "1"}, prelude="") as bare:
        assert bare.execute("command -v git python3; echo none").output == "none\n"
        assert bare.execute("sleep 5", timeout=0.3).timed_out


def test_a_command_over_the_memory_limit_fails_and_the_container_lives(open_sandbox):
    from aem_harness.harness.config import Limits

    small = open_sandbox(limits=Limits(memory="64m"))
    assert small.execute("python -c 'x = bytearray(500_000_000)'").returncode == 137
    assert small.execute("echo on").output == "on\n"


def test_a_dead_container_is_a_fault_and_never_an_observation(open_sandbox):
    box = open_sandbox()
    subprocess.run(["docker", "kill", box.id], check=True, capture_output=True)
    with pytest.raises(EnvironmentFault, match="died"):
        box.execute("echo hello")


def test_a_container_killed_under_a_running_command_is_a_fault(open_sandbox):
    box = open_sandbox()
    kill = threading.Timer(0.5, lambda: subprocess.run(["docker", "kill", box.id], check=True, capture_output=True))
    kill.start()
    began = time.monotonic()
    with pytest.raises(EnvironmentFault, match="died"):
        box.execute("sleep 999", timeout=999)
    assert time.monotonic() - began < 120
    kill.join()


def test_a_command_with_a_nul_byte_is_refused_like_any_bad_command(sandbox):
    assert sandbox.execute("echo a\0b").returncode == 126


def test_a_long_command_arrives_whole(sandbox):
    text = "x" * 100_000
    assert sandbox.execute(f"cat <<'EOF' | wc -c\n{text}\nEOF").output == "100001\n"
