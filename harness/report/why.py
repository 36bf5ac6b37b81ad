"""Why a rollout failed, in words: its cause, how it ended, and what the failing tests said."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aem_harness.harness.io import read_json
from aem_harness.harness.types import ExitStatus, Outcome

END_WORDS = {
    ExitStatus.SUBMITTED: "the agent handed in its work",
    ExitStatus.STEP_LIMIT: "the agent reached its limit of steps",
    ExitStatus.TOKEN_LIMIT: "the agent reached its limit of tokens",
    ExitStatus.CONTEXT_LIMIT: "the conversation no longer fitted into the model's context",
    ExitStatus.WALL_LIMIT: "the agent reached its time limit",
    ExitStatus.FORMAT_ERRORS: "too many replies in a row held no valid action",
    ExitStatus.SANDBOX_DESTROYED: "the agent's commands left no container that works, where a fresh one does",
    ExitStatus.AGENT_CRASH: "the agent's own code raised an exception",
    ExitStatus.FAULT: "infrastructure failed; the rollout is no answer of the model",
}
_HEADER = re.compile(r"^(?:_{3,} (?P<pytest>.+?) _{3,}|(?:FAIL|ERROR): (?P<unittest>.+))$")
_SUMMARY = re.compile(r"^Ran \d+ tests? in ")
_RULE = re.compile(r"^(?:={20,}|-{20,}|_{3,} .+ _{3,}|={3,} .+ ={3,})$")


@dataclass(frozen=True)
class ListedTests:
    """The listed tests of an official report: how many passed, and the names of those that did not."""

    fixed: int
    not_fixed: tuple[str, ...]
    kept: int
    broken: tuple[str, ...]


def read_tests(folder: Path) -> ListedTests | None:
    """The tests of the official report in a rollout's folder; None where the patch was never tested."""
    path = folder / "report.json"
    if not path.is_file():
        return None
    report: Mapping[str, Any] = next(iter(read_json(path).values()), {})
    status = report.get("tests_status") or {}
    fixed, kept = status.get("FAIL_TO_PASS") or {}, status.get("PASS_TO_PASS") or {}
    if not fixed and not kept:
        return None
    return ListedTests(
        fixed=len(fixed.get("success", ())),
        not_fixed=tuple(fixed.get("failure", ())),
        kept=len(kept.get("success", ())),
        broken=tuple(kept.get("failure", ())),
    )


def end_words(status: str) -> str:
    """An exit status as a sentence; one that is not ours as it stands."""
    return END_WORDS[ExitStatus(status)] if status in list(ExitStatus) else status


def cause(rollout: Mapping[str, Any], grade: Mapping[str, Any] | None, tests: ListedTests | None) -> str:
    """Why the rollout is not resolved, as one of few phrases, so that like failures group; empty where it is resolved.

    `tests` are those of the official report, None where there is none.
    """
    status = rollout["exit_status"]
    if rollout["fault"] is not None:
        return f"lost to infrastructure: {rollout['fault']['boundary']}"
    if grade is None:
        return "not graded yet"
    match Outcome(grade["outcome"]):
        case Outcome.RESOLVED:
            return ""
        case Outcome.ERROR:
            return "lost to infrastructure: grading"
        case Outcome.NOT_APPLIED:
            return "the patch does not apply"
        case Outcome.TEST_TIMEOUT:
            return "the tests ran out of time"
        case Outcome.EMPTY_PATCH:
            return _nothing_handed_in(status)
        case Outcome.UNRESOLVED:
            return _wrong(tests)


def _nothing_handed_in(status: str) -> str:
    if status == ExitStatus.SUBMITTED:
        return "gave up: handed in without a change"
    if status == ExitStatus.FORMAT_ERRORS:
        return "no change: replies without a valid action"
    if status == ExitStatus.AGENT_CRASH:
        return "no change: the agent crashed"
    return f"no change before the end: {status.replace('_', ' ')}"


def _wrong(tests: ListedTests | None) -> str:
    if tests is None or not (tests.fixed + tests.kept):
        return "no listed test passed: the code does not load, or the tests did not run"
    if tests.not_fixed and tests.broken:
        return "wrong fix, and passing tests broken"
    if tests.broken:
        return "right fix, but passing tests broken"
    return "wrong fix" if not tests.fixed else "incomplete fix: some of the tests still fail"


def excerpt(log: str, test: str, lines: int = 8) -> list[str]:
    """The last lines of what a failing test printed, from the log of pytest, unittest or Django's runner.

    Empty where the log has no part of its own for the test.
    """
    wanted = _short(test)
    part: list[str] = []
    inside = False
    for line in log.split("\n"):
        if header := _HEADER.match(line.strip()):
            name = header["pytest"] or header["unittest"] or ""
            inside = wanted in re.split(r"[\s.(]+", name.replace("[", " [")) or name.endswith(wanted)
            part = [] if inside else part
        elif inside and part and (_SUMMARY.match(line) or _ends(line.strip())):
            break
        elif inside:
            part.append(line.rstrip())
    kept = [line for line in part if line.strip() and not _RULE.match(line.strip())]
    return kept[-lines:]


def _ends(line: str) -> bool:
    """Does a rule close the part of a test? One of dashes stands inside it, after the test's name."""
    return bool(_RULE.match(line)) and not line.startswith("-")


def _short(test: str) -> str:
    """The name of a test function without file, class and parameters: `a.py::C::test_x[1]`, `test_x (a.C)`."""
    return re.split(r"[\[ (]", test.rsplit("::", 1)[-1])[0]


def printable(text: str) -> str:
    """Text of a model or a test for a terminal: control characters but line ends and tabs are shown, not obeyed."""
    clean = text.encode("utf-8", "replace").decode()
    return "".join(one if one in "\n\t" or one.isprintable() else _shown(one) for one in clean)


def _shown(character: str) -> str:
    number = ord(character)
    return chr(0x2400 + number) if number < 0x20 else "\N{REPLACEMENT CHARACTER}"


def failing(folder: Path, tests: ListedTests | None, most: int = 20) -> Iterator[tuple[str, list[str]]]:
    """Each failing test with its last lines, those that the issue is about first."""
    if tests is None:
        return
    path = folder / "test_output.txt"
    log = path.read_bytes().decode("utf-8", "replace") if path.is_file() else ""
    for name in (*tests.not_fixed, *tests.broken)[:most]:
        yield name, excerpt(log, name)
