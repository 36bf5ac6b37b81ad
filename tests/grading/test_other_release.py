"""Stored logs read by another release of swebench: verdicts alike, changed, and not read."""

import gzip
import os
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from aem_harness.harness.errors import ConfigError
from aem_harness.harness.grading.official import eval_script
from aem_harness.harness.grading.other_release import Reading, StoredLog, compare_release, read_by, script_change
from aem_harness.harness.io import read_json
from aem_harness.harness.types import Task

pytestmark = pytest.mark.slow

HERE = Path(sys.executable)


@pytest.fixture(scope="module")
def stored(logs: Path, verified: dict[str, Task], tmp_path_factory: pytest.TempPathFactory) -> dict[str, StoredLog]:
    """Six real logs of Verified with their official reports."""
    folder, out = tmp_path_factory.mktemp("logs"), {}
    for report in sorted(logs.glob("*/*/report.json"))[::12][:6]:
        place, task = report.parent, report.parent.parent.name
        name = f"{task} {place.name}"
        (folder / f"{len(out)}.txt").write_bytes(gzip.decompress((place / "test_output.txt.gz").read_bytes()))
        out[name] = StoredLog(verified[task], (place / "patch.diff").read_text(), folder / f"{len(out)}.txt")
    return out


@pytest.fixture(scope="module")
def readings(stored: dict[str, StoredLog]) -> list[Reading]:
    release, found = read_by(HERE, list(stored.values()))
    assert release == version("swebench")
    return found


def test_the_same_release_reads_what_the_official_report_says(
    logs: Path, stored: dict[str, StoredLog], readings: list[Reading]
) -> None:
    for name, one in zip(stored, readings, strict=True):
        task, run = name.split()
        assert one.resolved == read_json(logs / task / run / "report.json")[task]["resolved"], name
    assert any(one.passed for one in readings)


def test_changes_are_told_with_the_tests_that_are_read_otherwise(
    stored: dict[str, StoredLog], readings: list[Reading]
) -> None:
    verdicts = {name: bool(one.resolved) for name, one in zip(stored, readings, strict=True)}
    passed = {name: frozenset(one.passed) for name, one in zip(stored, readings, strict=True)}
    first = next(name for name in stored if passed[name])
    gone = sorted(passed[first])[0]
    found = compare_release(
        HERE, stored, verdicts | {first: not verdicts[first]}, passed | {first: passed[first] - {gone}}
    )
    assert (found.alike, list(found.changed), found.unread) == (5, [first], {})
    assert gone in found.changed[first]
    assert abs(found.rates[1] - found.rates[0]) == pytest.approx(1 / 6)


def test_an_instance_whose_eval_script_differs_is_said_to_need_another_run(stored: dict[str, StoredLog]) -> None:
    """The log of the first was made with another test command than the release would use."""
    verdicts, passed = dict.fromkeys(stored, True), dict.fromkeys(stored, frozenset[str]())
    first, *others = stored
    ours = eval_script(stored[first].task)
    command = ours.split(": '>>>>> Start Test Output'\n")[1].split("\n")[0]
    ran = replace(stored[first], script=ours.replace(command, f"{command} --another"))
    found = compare_release(HERE, stored | {first: ran}, verdicts, passed)
    assert list(found.reruns) == [stored[first].task.instance_id]
    assert "--another" in found.reruns[stored[first].task.instance_id]
    assert found.scripts == len({stored[name].task.instance_id for name in others})
    assert found.unscripted == ()


def test_lines_that_only_record_an_exit_status_are_no_other_script() -> None:
    plain = "#!/bin/bash\npytest a.py\n: '>>>>> End Test Output'\ngit checkout abc \n"
    recorded = (
        "#!/bin/bash\npytest a.py\nSWEBENCH_TEST_EXIT_CODE=$?\n: '>>>>> End Test Output'\n"
        'echo ">>>>> Test Exit Code: $SWEBENCH_TEST_EXIT_CODE"\ngit checkout abc\n'
    )
    assert script_change(plain, recorded) == ""
    assert script_change(plain, recorded.replace("a.py", "b.py")) == "- pytest a.py; + pytest b.py"


def test_what_a_release_cannot_read_is_counted_apart(stored: dict[str, StoredLog]) -> None:
    first, *_ = stored
    odd = stored[first].task.model_copy(update={"log_parser": "parse_log_of_nobody"})
    found = compare_release(HERE, {"odd": StoredLog(odd, "", stored[first].log)}, {"odd": True}, {"odd": frozenset()})
    assert (found.alike, list(found.unread)) == (0, ["odd"])


def test_an_interpreter_without_swebench_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be run"):
        read_by(tmp_path / "nowhere", [])
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{os.path.realpath(sys.executable)}" -I -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(ConfigError, match="no usable swebench"):
        read_by(bare, [])
