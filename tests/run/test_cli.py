"""Whatever goes wrong, the command line says one line and leaves with a documented exit code."""

import logging
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aem_harness import cli
from aem_harness.harness import log
from aem_harness.harness.gate.ci import published


def _main(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(str(caught.value.code))


def test_a_failure_of_the_machine_is_one_line_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(monkeypatch, OSError(28, "No space left on device", "results/a")) == 3
    words = "No space left on device: free or repair the disk, then give the same command again"
    assert capsys.readouterr().err == f"error: results/a: {words}\n"
    assert _main(monkeypatch, OSError(5, "Input/output error")) == 3
    assert "this machine: Input/output error: free or repair the disk" in capsys.readouterr().err
    assert _main(monkeypatch, OSError(24, "Too many open files")) == 3
    assert capsys.readouterr().err == "error: this machine: Too many open files\n"


@pytest.mark.parametrize(
    "error", [KeyError("x"), SystemExit(1), SystemExit("no"), RecursionError("deep"), MemoryError()]
)
def test_what_nobody_expected_is_infrastructure_and_never_a_block(monkeypatch, capsys, error):
    assert _main(monkeypatch, error) == 3
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1


def test_the_traceback_of_what_nobody_expected_is_in_the_newest_log(monkeypatch, capsys, tmp_path):
    with log.kept(tmp_path / "run.log"):
        pass
    assert _main(monkeypatch, KeyError("the culprit")) == 3
    assert str(tmp_path / "run.log") in capsys.readouterr().err
    assert "KeyError: 'the culprit'" in (tmp_path / "run.log").read_text()


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path):
    with log.kept(tmp_path / "missing" / "run.log"):
        logging.getLogger(log.ROOT).warning("unheard")
    log.keep_traceback(ValueError("x"))


def test_a_gate_that_fails_unexpectedly_says_so_in_junit(tmp_path):
    with pytest.raises(KeyError), published(tmp_path / "gate.xml", None):
        raise KeyError("x")
    assert "<error" in (tmp_path / "gate.xml").read_text()


@pytest.mark.parametrize("words", [["-v", "--log-file", "{log}", "plan"], ["plan", "--log-file={log}", "-vv"]])
def test_logging_options_stand_before_or_behind_a_command(tmp_path, words):
    command = [word.format(log=tmp_path / "aem.log") for word in words]
    done = subprocess.run(
        [sys.executable, "-m", "aem_harness.cli", *command, "--nonsense"], capture_output=True, text=True
    )
    assert done.returncode == 4
    done = subprocess.run([sys.executable, "-m", "aem_harness.cli", *command], capture_output=True, text=True)
    assert "plan" in (tmp_path / "aem.log").read_text()
    assert "INFO" in done.stderr


SLEEPER = """
import sys, time
from aem_harness import cli
def app(*_, **__):
    try:
        print("on", flush=True)
        time.sleep(60)
    finally:
        print("unwound", flush=True)
cli.app = app
cli.main()
"""


def hear_hangups() -> None:
    """What runs these tests may have been started with SIGHUP ignored, and children inherit that."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_end_and_a_lost_terminal_unwind_the_program(number):
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE, text=True, preexec_fn=hear_hangups
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "on\n"
    process.send_signal(number)
    assert process.stdout.read() == "unwound\n"
    assert process.wait() == 128 + number


def test_under_nohup_a_lost_terminal_ends_nothing():
    ignored = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{SLEEPER.replace('60', '1')}"
    process = subprocess.Popen([sys.executable, "-c", ignored], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "on\n"
    process.send_signal(signal.SIGHUP)
    assert process.wait() == 0


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


def test_the_old_spelling_of_a_training_setting_works_and_names_the_new_one() -> None:
    words = ["train", "--config", "tiny-aem", "--set", "seed=nothing"]
    done = subprocess.run([sys.executable, "-m", "aem_harness.cli", *words], capture_output=True, text=True)
    assert done.returncode == 4
    assert "--set KEY=VALUE is now -c KEY=VALUE" in done.stderr
    assert "seed: " in done.stderr
