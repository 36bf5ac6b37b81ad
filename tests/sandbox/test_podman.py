"""The same code against Podman's Docker-compatible socket: a service of the test's own, with storage of its own."""

import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.errors import EnvironmentFault
from aem_harness.harness.instances.load import load
from aem_harness.harness.run.store import read_journal
from aem_harness.harness.sandbox import build, engine, images
from aem_harness.harness.sandbox.engine import Engine, at
from aem_harness.harness.sandbox.trial import why_no_start
from aem_harness.harness.sandbox.watch import answers

pytestmark = [
    pytest.mark.skipif(not shutil.which("podman"), reason="podman is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="the service of this test needs root"),
]


@pytest.fixture(scope="module")
def podman() -> Iterator[str]:
    """The address of a fresh Podman, and this thread's client moved to it."""
    folder = Path(tempfile.mkdtemp(prefix="aem-", dir="/tmp"))  # podman takes no runroot of more than 50 characters
    words = ["podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]
    address = f"unix://{folder}/socket"
    with (folder / "log").open("w") as log:
        service = subprocess.Popen([*words, "system", "service", "--time=0", address], stdout=log, stderr=log)
    deadline = time.monotonic() + 60
    while not (folder / "socket").exists():
        if service.poll() is not None or time.monotonic() > deadline:
            service.kill()
            pytest.skip(f"podman offers no service here: {(folder / 'log').read_text()[-300:]}")
        time.sleep(0.05)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", address)
        patch.setattr(engine, "_local", threading.local())  # what was connected to Docker before stays out of it
        try:
            yield address
        finally:
            service.terminate()
            service.wait(timeout=30)
            shutil.rmtree(folder, ignore_errors=True)


def root_file_system() -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("hello"))
    return archive.getvalue()


def test_an_imported_image_gets_the_name_that_podman_drops_and_its_id_as_identity(podman: str) -> None:
    name = "aem-podman-test/root:one"
    build.import_root(root_file_system(), name, {build.RECIPE: "test"})
    image = engine.client().images.get(name)
    assert image.labels[build.RECIPE] == "test"
    assert images.ref_of(name, "local").digest == image.id


def test_a_podman_is_known_by_the_same_words_each_time_and_its_images_by_the_names_of_tasks(podman: str) -> None:
    """It makes up an id for each answer: two addresses of one were not refused. No task went where its image was."""
    assert engine.identity() == engine.identity()
    assert engine.is_podman()
    name = "aem-podman-test/named:one"
    build.import_root(root_file_system(), name, {build.RECIPE: "test"})
    assert images.all_here([name])


def test_an_image_of_a_mirror_is_gone_with_all_its_names(podman: str) -> None:
    name = "registry.example.invalid/aem-podman-test/mirrored:latest"
    build.import_root(root_file_system(), name, {build.RECIPE: "test"})
    image = images.find(name)
    image.tag("m.local:5000/aem-podman-test/mirrored", "latest")
    images.remove(images.find(name), name, "m.local:5000")
    assert image.id not in [one["Id"] for one in engine.client().api.images()]


def test_a_podman_of_a_pool_that_starts_no_container_costs_a_run_nothing(podman: str, tmp_path: Path) -> None:
    """As one inside a container that may not raise limits: each rollout that came to it was lost."""
    if not why_no_start():
        pytest.skip("this Podman starts containers")
    docker = Engine("unix:///var/run/docker.sock")
    if not answers(docker):
        pytest.skip("no Docker engine answers")
    with at(docker):
        image = images.ensure_image(load("tiny").tasks[0]).name
    build.import_root(root_file_system(), image, {build.RECIPE: "test"})
    rows = (Path(load.__code__.co_filename).parent / "tiny" / "rows.jsonl").read_text().splitlines()[:3]
    unbuilt = [{key: value for key, value in json.loads(row).items() if key != "dockerfile"} for row in rows]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in unbuilt))
    words = ["run", "--agent", "gold", "--set", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "run")]
    words += ["--engine", f"{podman}*2,{docker.address}*2", "-c", "infra_retries=0", "--no-canary"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "starts no container" in done.output
    ends = [(event["event"], event["attempt"], event.get("outcome")) for event in read_journal(tmp_path / "run")]
    assert sorted(ends, key=str) == sorted(3 * [("rollout", 0, None), ("grade", 0, "resolved")], key=str)


def test_a_registry_that_does_not_answer_is_no_missing_image(podman: str) -> None:
    with pytest.raises(EnvironmentFault, match="cannot be pulled") as caught:
        images._pull("localhost:1/nobody/nothing:latest", None, build.silent)
    assert "connection refused" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_doctor_says_whether_a_container_can_start_in_the_engine_s_words(podman: str, monkeypatch) -> None:
    wrong = why_no_start()
    shown = CliRunner().invoke(app, ["doctor", "--set", "sample"])
    if wrong:
        assert shown.exit_code == 3
        assert "no container can start" in shown.output
    else:
        assert "a container starts" in shown.output
    assert "http+docker" not in shown.output


def test_nothing_is_left_of_the_trial(podman: str) -> None:
    why_no_start()
    assert [image for image in engine.client().images.list() if not image.labels] == []
    assert engine.client().containers.list(all=True) == []
