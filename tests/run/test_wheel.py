"""The wheel holds what the repository holds: no data of the packages is forgotten, and no leftovers come along."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("commands", "harness", "agents", "aem_checkpoints", "training")


@pytest.mark.network  # setuptools, for the isolated build
def test_every_file_of_the_packages_is_in_the_wheel_and_nothing_else(tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("what belongs to the project is asked of git, and this is no checkout")
    known = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = {name for name in known.stdout.splitlines() if (ROOT / name).is_file()}
    copy = tmp_path / "copy"
    for name in (*tracked, "cli.py", "pyproject.toml", "README.md", "LICENSE"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    (copy / "training" / "project" / "__pycache__").mkdir()
    (copy / "training" / "project" / "__pycache__" / "t.cpython-311.pyc").write_bytes(b"stale")
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(copy)]
    subprocess.run(words, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith(PACKAGES)}
    assert held == tracked
