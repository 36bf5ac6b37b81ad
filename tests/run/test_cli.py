"""Whatever goes wrong, the command line says one line and leaves with a documented exit code."""

import subprocess
import sys
from pathlib import Path

import pytest

from aem_harness import cli


def _main(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(str(caught.value.code))


def test_a_failure_of_the_machine_is_one_line_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(monkeypatch, OSError(28, "No space left on device", "results/a")) == 3
    assert capsys.readouterr().err == "error: results/a: No space left on device\n"


def test_a_reader_that_stops_early_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m aem_harness.cli instances list --set tiny | head -c 1"
    done = subprocess.run(["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True)
    assert done.stderr == ""


def test_an_output_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    out = tmp_path / "missing" / "rows.jsonl"
    command = [sys.executable, "-m", "aem_harness.cli", "instances", "export", str(out), "--set", "tiny"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 4
    assert f"error: cannot write {out}: No such file or directory" in done.stderr
    assert "Traceback" not in done.stderr
