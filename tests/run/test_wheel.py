"""The wheel holds what the repository holds, under one import name, and lives beside packages called like ours."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.peers import install

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "commands", "harness", "agents", "aem_checkpoints", "training")

pytestmark = [pytest.mark.extended, pytest.mark.network]  # setuptools for the isolated build, openai-agents


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    """The files of the distribution, by their names inside the package."""
    if not (ROOT / ".git").exists():
        pytest.skip("what belongs to the project is asked of git, and this is no checkout")
    known = subprocess.run(
        ["git", "ls-files", *PACKAGES, "cli.py"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name for name in known.stdout.splitlines() if (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def wheel(tracked: set[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "copy"
    for name in (*tracked, "pyproject.toml", "README.md", "LICENSE"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    package = copy / "src" / "aem_harness"
    package.mkdir(parents=True)
    for path in (ROOT / "src" / "aem_harness").iterdir():
        if path.is_symlink():
            (package / path.name).symlink_to(path.readlink())
        elif path.is_file():
            (package / path.name).write_bytes(path.read_bytes())
    (copy / "training" / "project" / "__pycache__").mkdir(parents=True)
    (copy / "training" / "project" / "__pycache__" / "t.cpython-311.pyc").write_bytes(b"stale")
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(copy)]
    subprocess.run(words, check=True, capture_output=True)
    (made,) = folder.glob("*.whl")
    return made


def test_every_file_of_the_packages_is_in_the_wheel_and_nothing_else(wheel: Path, tracked: set[str]) -> None:
    package = {
        path.name for path in (ROOT / "src" / "aem_harness").iterdir() if path.is_file() and not path.is_symlink()
    }
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == {f"aem_harness/{name}" for name in tracked | package}


def test_it_lives_beside_openai_agents_and_a_users_own_folder_called_agents(wheel: Path, tmp_path: Path) -> None:
    """openai-agents installs a top-level package `agents`; either can come or go without touching the other."""
    python = tmp_path / "venv" / "bin" / "python"
    install(tmp_path / "venv", "--no-deps", "openai-agents==0.3.3", check=True)
    alone = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def pip(*words: str) -> None:
        run = [sys.executable, "-m", "pip", "--python", str(python), *words, "--quiet"]
        subprocess.run(run, check=True, capture_output=True)

    def imports(statement: str, folder: Path) -> bool:
        return not subprocess.run(
            [str(python), "-c", statement], cwd=folder, env=alone, capture_output=True, check=False
        ).returncode

    pip("install", "--no-deps", str(wheel))
    (tmp_path / "mine" / "agents").mkdir(parents=True)
    (tmp_path / "mine" / "agents" / "__init__.py").write_text("MINE = True\n")
    assert imports("from agents import MINE; import aem_harness.agents, aem_harness.harness.errors", tmp_path / "mine")
    assert imports(
        "from importlib.util import find_spec as f; from pathlib import Path as P; "
        "assert (P(f('agents').origin).parent / 'run.py').exists()",
        tmp_path,
    )
    pip("uninstall", "--yes", "openai-agents")
    assert imports("import aem_harness.agents", tmp_path)
    pip("uninstall", "--yes", "aem-harness")
    pip("install", "--no-deps", "openai-agents==0.3.3")
    assert not imports("import aem_harness", tmp_path)
