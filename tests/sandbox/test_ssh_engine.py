"""An engine behind ssh: a server of our own, keys of its own, and the engine of this machine at the other end."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aem_harness.harness.errors import EnvironmentFault
from aem_harness.harness.sandbox.container import Sandbox
from aem_harness.harness.sandbox.engine import Engine, at, identity
from aem_harness.harness.sandbox.watch import Watch
from aem_harness.harness.web import reserve_port

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(
        os.geteuid() != 0 or not Path(SSHD).is_file() or not Path("/var/run/docker.sock").exists(),
        reason="needs root, sshd and an engine at /var/run/docker.sock",
    ),
]


@pytest.fixture(scope="module")
def address(engine: None, tmp_path_factory) -> Iterator[str]:
    """Of the engine here, behind a server that only a key of this fixture opens."""
    folder = tmp_path_factory.mktemp("ssh")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    Path("/run/sshd").mkdir(exist_ok=True)  # where sshd wants to lock itself in
    kept = reserve_port()
    port = kept.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        "PermitRootLogin prohibit-password\nStrictModes no\nUsePAM no\nPidFile none\n"
    )
    (folder / "config").write_text(
        f"Host *\nIdentityFile {folder}/user\nIdentitiesOnly yes\nStrictHostKeyChecking no\n"
        f"UserKnownHostsFile {folder}/known\nLogLevel ERROR\n"
    )
    # The user's configuration, as ssh would read it from the home folder.
    programs = folder / "bin"
    programs.mkdir()
    (programs / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/config "$@"\n')
    (programs / "ssh").chmod(0o755)
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=subprocess.DEVNULL)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{programs}:{before}"
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert server.poll() is None
                assert time.monotonic() < deadline
        yield f"ssh://root@127.0.0.1:{port}"
    finally:
        os.environ["PATH"] = before
        server.terminate()
        server.wait()
        kept.close()


def test_containers_are_worked_through_one_connection(address: str, base: str) -> None:
    engine = Engine(address)
    here = identity()
    with at(engine):
        assert identity() == here, "the engine at the other end is the one of this machine"
        with Sandbox(base, workdir="/", labels={"aem.test": "1"}) as sandbox:
            assert sandbox.execute("printf 'over ssh'").output == "over ssh"
            sandbox.write_file("/tmp/x", b"\0" * 100_000)
            assert len(sandbox.read_file("/tmp/x")) == 100_000
    tunnel = engine._tunnel
    assert tunnel is not None
    tunnel.close()


def test_a_connection_that_breaks_is_noticed_and_made_again(address: str) -> None:
    engine = Engine(address)
    engine.connect(timeout=30).close()
    watch = Watch(engine)
    try:
        assert engine._tunnel is not None
        assert engine._tunnel._process is not None
        until(lambda: watch._thread.is_alive())
        subprocess.run(["pkill", "-x", "ssh", "-P", str(engine._tunnel._process.pid)], check=True)
        until(lambda: engine.losses == 1)
        until(lambda: not engine.gone)
        assert engine.connect(timeout=30).ping()
    finally:
        watch.close()
        engine._tunnel.close()


def test_the_connection_ends_with_the_process_that_made_it_also_when_that_is_killed(address: str) -> None:
    code = (
        f"from aem_harness.harness.sandbox.engine import Engine; Engine({address!r}).connect(30); print(1, flush=True)"
    )
    maker = subprocess.Popen(
        [sys.executable, "-c", f"{code}; import time; time.sleep(600)"], stdout=subprocess.PIPE, text=True
    )
    assert maker.stdout is not None
    assert maker.stdout.readline() == "1\n"
    port = address.rpartition(":")[2]
    tunnels = ["pgrep", "-f", f"^[^ ]*ssh .*-p {port} -N"]
    assert subprocess.run(tunnels, capture_output=True).stdout
    maker.kill()
    maker.wait()
    until(lambda: not subprocess.run(tunnels, capture_output=True).stdout)


def test_a_host_that_lets_nobody_in_is_named_with_what_ssh_said(address: str) -> None:
    with pytest.raises(EnvironmentFault, match=r"no connection to ssh://nobody@127.0.0.1.*Permission denied"):
        Engine(address.replace("root@", "nobody@")).connect(timeout=30)


def until(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
