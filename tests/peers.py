"""Other people's packages in virtual environments of their own, made on first use and kept outside the repository."""

import fcntl
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest


def peer(requirement: str, *options: str) -> Path:
    """The interpreter of an environment that holds `requirement` (`name==version`); skips where it cannot be installed.

    `options` go to pip install, for example --no-deps.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aem-harness"
    venv = cache / requirement.replace("==", "-")
    python = venv / "bin" / "python"
    cache.mkdir(parents=True, exist_ok=True)
    with venv.with_name(f"{venv.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests that run side by side make it once
        if not (venv / ".complete").exists():
            shutil.rmtree(venv, ignore_errors=True)
            done = install(venv, *options, requirement)
            if done.returncode != 0:
                pytest.skip(f"{requirement} cannot be installed: {done.stderr.strip()[-200:]}")
            (venv / ".complete").touch()
    return python


def install(venv: Path, *words: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    """A new environment with these packages, by this interpreter's pip: one of its own takes longer than most packages.

    `words` go to pip install, `options` to subprocess.run. Packages are compiled when they are imported.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python"), "install", "--quiet", "--no-compile"]
    return subprocess.run([*pip, *words], capture_output=True, text=True, **options)


def needs(*modules: str) -> pytest.MarkDecorator:
    """Skips where one of these is not installed; imports none, unlike `importorskip`: collecting tests stays quick."""
    missing = [module for module in modules if find_spec(module) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def packages(python: Path) -> Path:
    """Where that environment keeps its packages."""
    return next((python.parents[1] / "lib").glob("python*/site-packages"))
