"""A second Docker engine of a test's own, apart from the machine's in data, socket and bridge: it can be killed."""

import os
import signal
import subprocess
import time
from pathlib import Path
from uuid import uuid4


class SecondEngine:
    """`start`, `kill` (as a crash does) and `restart` it. Raises RuntimeError with its log where it does not start.

    Its bridge is made here and named to it: with `--bridge none` it would delete the first engine's docker0.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self._short = Path(f"/tmp/aem-{uuid4().hex[:6]}")  # a socket's path is limited to about 100 characters
        self._short.mkdir()
        self.host = f"unix://{self._short}/docker.sock"
        self._bridge = f"aem{uuid4().hex[:6]}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if not Path(f"/sys/class/net/{self._bridge}").exists():
            subprocess.run(["ip", "link", "add", self._bridge, "type", "bridge"], check=True)
            address = f"10.{int(self._bridge[3:5], 16)}.{int(self._bridge[5:7], 16)}.1/24"
            subprocess.run(["ip", "address", "add", address, "dev", self._bridge], check=True)
            subprocess.run(["ip", "link", "set", self._bridge, "up"], check=True)
        command = [
            *("dockerd", "--host", self.host, "--data-root", str(self.folder / "data")),
            *("--exec-root", str(self._short / "exec"), "--pidfile", str(self._short / "pid")),
            *("--bridge", self._bridge, "--iptables=false", "--ip-masq=false", "--storage-driver", "overlay2"),
        ]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 60
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(self._log.read_text("utf-8", "replace")[-2000:])
            time.sleep(0.2)

    def answers(self) -> bool:
        return self.docker("version").returncode == 0

    def docker(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["docker", "--host", self.host, *words], capture_output=True, text=True)

    def stop(self) -> None:
        """As `systemctl stop` does: with its containers."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """As a crash does: nothing is tidied up, and containers live on until the next start."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def remove(self) -> None:
        """Everything of it, when the test is over."""
        if self.answers():
            containers = self.docker("ps", "-aq").stdout.split()
            if containers:
                self.docker("rm", "--force", *containers)
        self.stop()
        subprocess.run(["ip", "link", "delete", self._bridge], capture_output=True)
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in reversed([one for one in mounts if one.startswith((f"{self.folder}/", f"{self._short}/"))]):
            subprocess.run(["umount", "--lazy", mount], capture_output=True)
        subprocess.run(["rm", "-rf", "--one-file-system", str(self.folder / "data"), str(self._short)], check=False)

    @property
    def _log(self) -> Path:
        return self.folder / "dockerd.log"

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        if how is signal.SIGKILL:
            os.killpg(self._process.pid, how)
        else:
            self._process.send_signal(how)
        self._process.wait()
        self._process = None
