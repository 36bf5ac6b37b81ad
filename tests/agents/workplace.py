"""An `Environment` on this machine: a real git work tree and real bash, for tests that need no container."""

import os
import signal
import subprocess
import time
from pathlib import Path

from aem_harness.harness.types import Instance, Observation

BUGGY = "def add(a, b):\n    return a - b\n"
FIX = """\
diff --git a/calc.py b/calc.py
--- a/calc.py
+++ b/calc.py
@@ -1,2 +1,2 @@
 def add(a, b):
-    return a - b
+    return a + b
"""


class LocalEnvironment:
    """Runs each command in its own bash and process group; the sandbox does the same in a container."""

    def __init__(self, workdir: Path, env: dict[str, str] | None = None) -> None:
        self.workdir = workdir
        self._env = {**os.environ, **(env or {})}

    @classmethod
    def repository(cls, workdir: Path) -> "LocalEnvironment":
        """A fresh repository with one buggy file under one commit."""
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / "calc.py").write_text(BUGGY)
        environment = cls(workdir)
        git = "git -c user.name=t -c user.email=t@example.org -c init.defaultBranch=main"
        assert environment.execute(f"{git} init -q && {git} add -A && {git} commit -qm base").returncode == 0
        return environment

    def execute(self, command: str, *, timeout: float = 60.0, cwd: str | None = None) -> Observation:
        started = time.monotonic()
        process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=cwd or self.workdir,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        timed_out = False
        try:
            raw, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raw, _ = process.communicate()
            timed_out = True
        return Observation(
            output=raw.decode("utf-8", "replace"),
            returncode=process.returncode,
            seconds=time.monotonic() - started,
            timed_out=timed_out,
        )

    def diff(self) -> str:
        return self.execute("git add -A && git diff --cached --binary HEAD").output

    def write_file(self, path: str, data: bytes) -> None:
        Path(path).write_bytes(data)

    def read_file(self, path: str) -> bytes:
        return Path(path).read_bytes()


def instance(workdir: Path, instance_id: str = "demo__calc-1") -> Instance:
    return Instance(
        instance_id=instance_id,
        repo="demo/calc",
        base_commit="HEAD",
        problem_statement="add() subtracts.",
        image="none",
        workdir=str(workdir),
    )


class Transcript:
    """A `Recorder` that keeps everything in memory."""

    def __init__(self) -> None:
        self.messages: list[dict] = []
        self.facts: dict = {}

    def message(self, message) -> None:
        self.messages.append(dict(message))

    def info(self, **facts) -> None:
        self.facts.update(facts)
