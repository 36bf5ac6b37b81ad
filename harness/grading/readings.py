"""Where the official reading of a log is known to be wrong, or to miss something: marks, verdict unchanged. Pure.

Each is a property of swebench 5.0.2 with a runner newer than its parsers, or with a way of applying patches that leaves
its own traces. The text of the log decides; nothing is imported.
"""

import re
from collections.abc import Iterable, Iterator

from aem_harness.harness.grading.audit import Mark
from aem_harness.harness.types import Task

LOG, NOTES = "test_output.txt", "run_instance.log"
UNMERGED = "aem: unmerged after patching: "  # a line of run_instance.log
LONGEST_PARAMETER = 100  # pytest 9.2 prints strings and bytes beyond it as [name0]

_SUBTEST = re.compile(r"^SUBFAIL(?:ED)?\b.*?(\S+::[^\s\[]+(?:\[.*?\])?)(?= - |\s*$)", re.MULTILINE)
_STATUS = re.compile(r"^(?:PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS) (\S+)", re.MULTILINE)
_SHORT = re.compile(r"\[[\w-]*?[A-Za-z_]\d+[\w-]*\]$")
_SKIPPED_PART = re.compile(r"^\s*(\w+) \(([\w.]+)\).*\([^()]*=[^()]*\) \.\.\. skipped", re.MULTILINE)


def audit_readings(log: str, notes: str, task: Task) -> list[Mark]:
    """The marks of one graded rollout: of its test log, and of what was noted while its patch was applied."""
    return [*_unmerged(notes), *_failed_parts(log, task), *_shortened(log, task), *_without_status(log, task)]


def _unmerged(notes: str) -> Iterator[Mark]:
    for line in notes.splitlines():
        if line.startswith(UNMERGED):
            files = line.removeprefix(UNMERGED)
            why = f"a three-way apply left conflicts that no reset removes, and a later way applied on top: {files}"
            yield Mark(name="unmerged", file=NOTES, why=why)


def _failed_parts(log: str, task: Task) -> Iterator[Mark]:
    """pytest 9 reports a failed sub-test in a line of its own, and may report the test around it as passed."""
    if "SUBFAIL" not in log:
        return
    listed = {*task.fail_to_pass, *task.pass_to_pass}
    failed = [test for test in dict.fromkeys(_SUBTEST.findall(log)) if test in listed]
    if failed:
        why = f"sub-tests of {len(failed)} listed tests failed, which the parser does not read: {_some(failed)}"
        yield Mark(name="failed sub-test", file=LOG, why=why, grave=True)


def _shortened(log: str, task: Task) -> Iterator[Mark]:
    """A long parameter is printed by its name and number, so the listed id never occurs."""
    long = [
        test
        for test in (*task.fail_to_pass, *task.pass_to_pass)
        if "[" in test and len(test.split("[", 1)[1]) > LONGEST_PARAMETER
    ]
    if not long:
        return
    printed = set(_STATUS.findall(log))
    short = {name.split("[", 1)[0] for name in printed if _SHORT.search(name)}
    lost = [test for test in long if test not in printed and test.split("[", 1)[0] in short]
    if lost:
        why = f"{len(lost)} listed ids are longer than this image's pytest prints, and count as missing: {_some(lost)}"
        yield Mark(name="shortened id", file=LOG, why=why)


def _without_status(log: str, task: Task) -> Iterator[Mark]:
    """unittest prints a skipped sub-test on the line of its test, which then has no status of its own."""
    if task.log_parser != "parse_log_django" or " ... skipped" not in log:
        return
    listed = {*task.fail_to_pass, *task.pass_to_pass}
    parts = dict.fromkeys(f"{name} ({place})" for name, place in _SKIPPED_PART.findall(log))
    lost = [test for test in parts if test in listed and not _has_status(log, test)]
    if lost:
        why = f"{len(lost)} listed tests have a skipped sub-test and no status of their own: {_some(lost)}"
        yield Mark(name="skipped sub-test", file=LOG, why=why)


def _has_status(log: str, test: str) -> bool:
    return bool(re.search(rf"^{re.escape(test)} \.\.\. (?:ok|FAIL|ERROR|skipped)", log, re.MULTILINE))


def _some(tests: Iterable[str]) -> str:
    return ", ".join(test[:80] for test in list(tests)[:2])
