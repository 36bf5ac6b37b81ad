"""The harness as an image: built from the Dockerfile on a local base, it runs instances through the host's engine."""

import subprocess
import uuid
from pathlib import Path

import pytest

from aem_harness.harness.sandbox.build import BASE, build_base

pytestmark = [
    pytest.mark.extended,
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.network,
    pytest.mark.usefixtures("engine"),
]

ROOT = Path(__file__).parents[2]


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def test_the_harness_image_resolves_gold_through_the_hosts_engine():
    build_base()
    image = f"aem-harness:test-{uuid.uuid4().hex[:8]}"
    docker("build", "--tag", image, "--build-arg", f"BASE={BASE}", ".")
    socket = "/var/run/docker.sock:/var/run/docker.sock"
    try:
        assert docker("run", "--rm", image, "--version").startswith("aem-harness ")
        said = docker("run", "--rm", "-v", socket, image, "run", "--agent", "gold", "--set", "sample", "--slice", "0:1")
        assert "resolved          1   100.0 %" in said
    finally:
        docker("image", "rm", "--force", image)
