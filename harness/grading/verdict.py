"""From the official report, the test log and what the engine saw to one outcome with its cause. Pure.

The official verdict (`resolved`) is never changed. What is decided here is what kind of failure a failure is, because
the official report says only "not resolved" for a wrong patch, a cut log and a run that was out of memory alike.

Whose fault a failed run is:

| what was seen | outcome | why |
|---|---|---|
| official report says resolved | RESOLVED | whatever else happened, every listed test passed |
| a limit of the container was reached, by gold too | ERROR | the limit is ours: the official harness sets none |
| the container's disk was full, with gold too | ERROR | the disk is the host's |
| a time limit in the eval script, for gold too | ERROR | seconds of a clock measure the machine as well as the patch |
| any other ERROR below, and gold gets its verdict | UNRESOLVED | what a patch does to its container is its own doing |
| time limit reached | TEST_TIMEOUT | an outcome of its own; the official harness writes no report either |
| listed tests failed, were skipped or missing | UNRESOLVED | the official reading |
| markers present, but no result in between | UNRESOLVED | the tests could not start on this patch (a broken conftest) |
| markers present, exit status and log contradict | UNRESOLVED | forged or crashed; the official rule since 5.0 |
| end marker missing, container healthy throughout | UNRESOLVED | code under test ended the script |
| end marker missing in a stored log | ERROR | the run was cut short; nothing tells by what |
| start marker missing | ERROR | the tests never began: image, eval script or an unmarked log of 2024 |
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aem_harness.harness.types import Outcome

# The words of the official logs (swebench 5.0.2, harness/constants); equality is held by a test.
PATCH_FAILED, PATCH_APPLIED = ">>>>> Patch Apply Failed", ">>>>> Applied Patch"
START, END = ">>>>> Start Test Output", ">>>>> End Test Output"
LEGACY_TIMEOUT = ">>>>> Tests Timed Out"
BAD_WORDS = (PATCH_FAILED, ">>>>> Reset Failed", ">>>>> Tests Errored", LEGACY_TIMEOUT)

_TIMED_OUT = re.compile(r"Timeout error: (\d+(?:\.\d+)?) seconds exceeded\.\s*\Z")
_FAILURES = re.compile(r"\d+ of \d+ (FAIL|PASS)_TO_PASS( and \d+ of \d+ PASS_TO_PASS)? failed")  # see _failures
_EXIT_STATUS = re.compile(r">>>>> Test Exit Code:\s*(-?\d+)")
_TIMEOUT = "124"  # the exit status of coreutils' `timeout` when it has ended what it ran


@dataclass(frozen=True)
class Verdict:
    outcome: Outcome
    cause: str = ""


@dataclass(frozen=True)
class Witness:
    """What the engine saw of the container while the eval script ran (a stored log has no witness).

    `limits_hit` names each limit of the container that was reached, in words.
    """

    limits_hit: tuple[str, ...] = ()
    disk_full: bool = False
    flooded: bool = False  # the log reached its bound


def timeout_note(seconds: float) -> str:
    """What the official harness appends to the test output of a run that was out of time."""
    return f"\n\nTimeout error: {seconds:g} seconds exceeded."


def refusal(words: str) -> str:
    """Why a patch could not be applied, in one line, from what git and patch said."""
    telling = [
        line.strip()
        for line in words.splitlines()
        if re.search(r"error:|FAILED|\*{4}|would create|No file to patch", line)
    ]
    return "; ".join(telling)[:300] or " ".join(words.split())[-300:] or "the patch could not be applied"


def judge(report: Mapping[str, Any], log: str, witness: Witness | None = None) -> Verdict:
    """The outcome of one graded log. `report` is the official report of this instance (its inner mapping)."""
    if report["resolved"]:
        return Verdict(Outcome.RESOLVED)
    if witness and witness.limits_hit:
        return Verdict(Outcome.ERROR, f"container limit reached during the tests: {', '.join(witness.limits_hit)}")
    if witness and witness.disk_full:
        return Verdict(Outcome.ERROR, "no space left on the container's disk")
    if timeout := _TIMED_OUT.search(log):
        return Verdict(Outcome.TEST_TIMEOUT, f"tests ran longer than {timeout[1]} s")
    if witness and out_of_its_own_time(log):
        return Verdict(Outcome.ERROR, f"a time limit of the eval script ended its tests (exit status {_TIMEOUT})")
    if report["patch_successfully_applied"]:
        return Verdict(Outcome.UNRESOLVED, _failures(report["tests_status"]))
    return _without_results(report, log, witness)


def _without_results(report: Mapping[str, Any], log: str, witness: Witness | None) -> Verdict:
    """The official grader found no results; it looks for the bad words first, then for the markers, and so do we."""
    if PATCH_FAILED in log:
        return Verdict(Outcome.NOT_APPLIED, "the log says that the patch could not be applied")
    if LEGACY_TIMEOUT in log:
        return Verdict(Outcome.TEST_TIMEOUT, "the log says that the tests timed out")
    if word := next((word for word in BAD_WORDS if word in log), ""):
        return Verdict(Outcome.ERROR, f"the log says {word.lstrip('> ')!r}")
    if not log.strip():
        return Verdict(Outcome.ERROR, "the test log is empty")
    if START not in log:
        return Verdict(Outcome.ERROR, "the log has no start marker: the tests never began, or it was written in 2024")
    if END not in log:
        if witness is None:
            return Verdict(Outcome.ERROR, "the log has no end marker: the run was cut short")
        if witness.flooded:
            return Verdict(Outcome.UNRESOLVED, "test output was cut off at its bound")
        return Verdict(Outcome.UNRESOLVED, "the eval script was ended from inside the container")
    flag = f" (swebench: {report['infra_failure_reason']})" if report.get("infra_failure_reason") else ""
    if (status := _exit_status(log)) and status != "0":
        return Verdict(Outcome.UNRESOLVED, f"tests exited with status {status} but the log shows no failed test{flag}")
    return Verdict(Outcome.UNRESOLVED, f"no test result in the log{flag}")


def out_of_its_own_time(log: str) -> bool:
    """Did a time limit of the eval script itself end the tests, as the log has it?"""
    return _exit_status(log) == _TIMEOUT


def _exit_status(log: str) -> str:
    """The exit status of the tests as the log has it; empty where it has none."""
    status = _EXIT_STATUS.search(log)
    return status[1] if status else ""


def on_test_results(outcome: Outcome, cause: str) -> bool:
    """Does a verdict rest on the results of listed tests alone, or on a refusal of the patch by a sound tree?

    It does not where a limit, a timeout, a cut log or a control with gold had a part in it.
    """
    if outcome is Outcome.UNRESOLVED:
        return bool(_FAILURES.fullmatch(cause))
    return outcome in (Outcome.RESOLVED, Outcome.NOT_APPLIED)


def _failures(status: Mapping[str, Mapping[str, list[str]]]) -> str:
    parts = []
    for kind in ("FAIL_TO_PASS", "PASS_TO_PASS"):
        failed = len(status[kind]["failure"])
        if failed:
            parts.append(f"{failed} of {failed + len(status[kind]['success'])} {kind}")
    return f"{' and '.join(parts)} failed"
