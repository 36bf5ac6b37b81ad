"""A lab's own test can ask for a gate, and sees its report when the checkpoint does not pass."""

import os
import subprocess
import sys
from pathlib import Path

from tests.api.tables import write_table

TESTS = """
from aem_harness.harness.gate.driver import GateOptions

QUICK = {"sources": ["outcomes.csv"], "options": GateOptions(calibrated=False)}

def test_no_worse(aem_gate):
    assert aem_gate("base", "base", sources=["outcomes.csv"], options=GateOptions(calibrated=False, fresh=True)).verdict

def test_much_worse(aem_gate):
    assert aem_gate("base", "worse", margin=0.05, **QUICK).passed
"""
# Named, and no entry point read: the plugin may or may not be installed beside this source tree.
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "aem_harness.api.pytest_plugin"]


def test_a_checkpoint_that_is_worse_fails_the_test_and_the_report_says_how(tmp_path: Path) -> None:
    write_table(tmp_path / "outcomes.csv")
    (tmp_path / "test_checkpoint.py").write_text(TESTS)
    alone = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(PYTEST, cwd=tmp_path, env=alone, capture_output=True, text=True)
    assert "1 failed, 1 passed" in done.stdout, done.stdout
    assert "aem gate" in done.stdout
    assert "BLOCK" in done.stdout


def test_the_plugin_is_an_entry_point_and_imports_nothing_heavy() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert 'pytest11"]\naem = "aem_harness.api.pytest_plugin"' in text
    code = "import sys, aem_harness.api.pytest_plugin; print({'pandas', 'numpy', 'pydantic', 'rich'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
