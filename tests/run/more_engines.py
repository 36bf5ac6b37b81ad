"""More Docker engines on this machine, each with data, sockets and a bridge of its own, and a small image of `tiny`.

`--bridge none` would not do: such an engine deletes docker0 of the first one (Docker 20.10).
"""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import docker

from aem_harness.harness.instances.load import load
from aem_harness.harness.sandbox.images import ensure_image

# Of the image of `tiny`, what neither its tests nor the harness need: half of it.
UNUSED = ("var/cache/", "usr/share/doc/", "usr/share/man/", "usr/share/locale/", "usr/share/zoneinfo/", "var/lib/apt/")
SECONDS = 60.0  # until an engine that does not answer counts as not started


class MoreEngine:
    """A dockerd that can be killed and started again."""

    def __init__(self, n: int, folder: Path) -> None:
        self.folder, self._bridge = folder, f"aemt{os.getpid() % 100000}{n}"
        self.socket = folder / "docker.sock"
        self.address = f"unix://{self.socket}"
        self._subnet = f"10.{200 + n}.{os.getpid() % 250}.1/24"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)
        subprocess.run(["ip", "link", "add", self._bridge, "type", "bridge"], check=True, capture_output=True)
        subprocess.run(["ip", "addr", "add", self._subnet, "dev", self._bridge], check=True, capture_output=True)
        subprocess.run(["ip", "link", "set", self._bridge, "up"], check=True, capture_output=True)

    def start(self) -> None:
        for left in ("docker.pid", "docker.sock"):
            (self.folder / left).unlink(missing_ok=True)
        self._process = subprocess.Popen(
            [
                "dockerd",
                f"--data-root={self.folder}/data",
                f"--exec-root={self.folder}/exec",
                f"--host={self.address}",
                f"--pidfile={self.folder}/docker.pid",
                f"--bridge={self._bridge}",
                "--iptables=false",
                "--ip-masq=false",
                "--storage-driver=overlay2",
            ],
            stdout=(self.folder / "log").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                self.client().close()
                return
            except docker.errors.DockerException:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise RuntimeError((self.folder / "log").read_text()[-2000:]) from None
                time.sleep(0.1)

    def client(self) -> docker.DockerClient:
        return docker.DockerClient(base_url=self.address, timeout=60)

    def containers(self) -> list[str]:
        """The names of all that are there, running or not."""
        client = self.client()
        try:
            return [container.name for container in client.containers.list(all=True, ignore_removed=True)]
        finally:
            client.close()

    def kill(self) -> None:
        """As a power cut: the engine, its containerd and every container's process at once."""
        if self._process is None:
            return
        pids = [self._process.pid, *_children(self._process.pid), *_shims(str(self.folder))]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def remove(self) -> None:
        with contextlib.suppress(Exception):
            for container in self.client().containers.list(all=True):
                container.remove(force=True)
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
        self.kill()
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            if line.split()[1].startswith(str(self.folder)):
                subprocess.run(["umount", "-l", line.split()[1]], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self._bridge], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def _children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                child = int(path.parent.name)
                found += [child, *_children(child)]
    return found


def _shims(folder: str) -> list[int]:
    """The shims of an engine's containers, which outlive it, and what runs under them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_text("utf-8", "replace")  # of any process of the machine
            if "containerd-shim" in line and folder in line:
                shim = int(path.parent.name)
                found += [*_children(shim), shim]
    return found


@dataclass(frozen=True)
class SmallImage:
    """The root folder of an image as a tar archive, and what is set in it."""

    name: str
    archive: Path
    changes: list[str]

    def load(self, engines: list[MoreEngine]) -> None:
        """Into each of them, the same: imported by the first, and copied from it."""
        first, others = engines[0].client(), [engine.client() for engine in engines[1:]]
        with self.archive.open("rb") as data:
            first.api.import_image_from_data(data, repository=self.name, tag="1", changes=self.changes)
        saved = b"".join(first.images.get(f"{self.name}:1").save(named=f"{self.name}:1"))
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda client: client.images.load(io.BytesIO(saved)), others))
        for client in (first, *others):
            client.close()


@contextlib.contextmanager
def more_engines(count: int, image: SmallImage) -> Iterator[list[MoreEngine]]:
    """So many engines that answer and have an image; they are gone after the block."""
    root = Path(tempfile.mkdtemp(prefix="aem-e-", dir="/tmp"))  # short: paths of sockets are limited
    engines = [MoreEngine(n, root / str(n)) for n in range(count)]
    try:
        for engine in engines:
            engine.start()
        image.load(engines)
        yield engines
    finally:
        for engine in engines:
            engine.remove()
        shutil.rmtree(root, ignore_errors=True)


def small_set(folder: Path, count: int) -> tuple[Path, SmallImage]:
    """Some instances of `tiny` as rows whose image is half as large, and that image."""
    tasks = load("tiny").tasks[:count]
    source = ensure_image(tasks[0])
    client = docker.from_env(timeout=600)
    name = f"aem-test/small-{uuid4().hex[:8]}"
    container = client.containers.create(source.name, ["true"])
    try:
        with tempfile.TemporaryFile() as whole, (folder / "root.tar").open("wb") as less:
            for chunk in container.export():
                whole.write(chunk)
            whole.seek(0)
            with tarfile.open(fileobj=whole) as before, tarfile.open(fileobj=less, mode="w") as after:
                for entry in before:
                    if not entry.name.startswith(UNUSED):
                        after.addfile(entry, before.extractfile(entry) if entry.isreg() else None)
        environment = client.images.get(source.name).attrs["Config"]["Env"]
    finally:
        container.remove(force=True)
        client.close()
    rows = folder / "small.jsonl"
    source_rows = Path(__file__).parents[2] / "harness/instances/tiny/rows.jsonl"
    with rows.open("w") as file:
        for line in source_rows.read_text().splitlines()[:count]:
            row = json.loads(line)
            row["image"] = f"{name}:1"
            row.pop("dockerfile", None)
            row.pop("build_args", None)
            file.write(json.dumps(row) + "\n")
    changes = [f"ENV {line.replace('=', ' ', 1)}" for line in environment]
    return rows, SmallImage(name, folder / "root.tar", changes)
