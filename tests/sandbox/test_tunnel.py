"""An ssh connection that never comes to be, with a program of that name that hangs."""

import os
import time
from pathlib import Path

import pytest

from aem_harness.harness.errors import EnvironmentFault
from aem_harness.harness.sandbox import tunnel
from aem_harness.harness.sandbox.tunnel import Tunnel


def test_an_ssh_that_was_given_up_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stayed, and could bind the socket that the next connection needs."""
    pid = tmp_path / "pid"
    fake = tmp_path / "ssh"
    fake.write_text(f"#!/bin/sh\necho $$ > {pid}\nexec sleep 60\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(tunnel, "PATIENCE", -4.0)  # seconds less than the five of its own
    made = Tunnel("ssh://box")
    with pytest.raises(EnvironmentFault, match="no connection to ssh://box"):
        made.open()
    deadline = time.monotonic() + 60
    while (there := lives(pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    made.close()
    assert not there


def lives(pid: Path) -> bool:
    """Is the process there whose number is in the file? On a busy machine it may have ended before it wrote that."""
    number = pid.read_text().strip() if pid.exists() else ""
    return bool(number) and Path(f"/proc/{number}").exists()
