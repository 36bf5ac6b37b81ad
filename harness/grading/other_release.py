"""Stored test output read by another release of swebench, which lives in an environment of its own.

The tests are not run again: what may change from release to release is how a log is read and what counts as resolved.
"""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aem_harness.harness.errors import ConfigError, GradingFault
from aem_harness.harness.grading.official import spec_row
from aem_harness.harness.types import Record, Task

# Run by the other interpreter: one JSON line in for a log, one out; the first line out is the release.
SCRIPT = """
import importlib, json, pkgutil, sys
from importlib.metadata import version
from types import SimpleNamespace
from swebench.harness import grading, log_parsers

def by_name(name):
    for module in pkgutil.iter_modules(log_parsers.__path__):
        found = getattr(importlib.import_module(f"swebench.harness.log_parsers.{module.name}"), name, None)
        if found:
            return found

def spec_of(row):
    if hasattr(log_parsers, "PARSER_REGISTRY"):
        from swebench.harness.utils import make_test_spec
        return make_test_spec(row) if row["log_parser"] in log_parsers.PARSER_REGISTRY else None
    if row["repo"] not in grading.MAP_REPO_TO_PARSER:
        parser = by_name(row["log_parser"])
        if parser is None:
            return None
        grading.MAP_REPO_TO_PARSER[row["repo"]] = parser
    specs = grading.MAP_REPO_VERSION_TO_SPECS.setdefault(row["repo"], {})
    specs.setdefault(row["version"], {"test_cmd": ""})
    return SimpleNamespace(**row)

print(json.dumps({"release": version("swebench")}), flush=True)
for line in sys.stdin:
    row = json.loads(line)
    prediction = {"instance_id": row["instance_id"], "model_name_or_path": "stored", "model_patch": row.pop("patch")}
    log = row.pop("log")
    try:
        spec = spec_of(row)
        report = spec and grading.get_eval_report(spec, prediction, log, True)[row["instance_id"]]
        answer = {"known": spec is not None, "report": report}
    except Exception as error:
        answer = {"known": True, "report": None, "error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
"""


class Reading(Record):
    """What a release reads from one log. `resolved` None: it knows no parser for it, or failed, as `reason` says."""

    resolved: bool | None
    passed: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class StoredLog:
    """A rollout's patch and test output."""

    task: Task
    patch: str
    log: Path


def read_by(python: Path, logs: Sequence[StoredLog], *, timeout: float = 3600) -> tuple[str, list[Reading]]:
    """The release that the interpreter `python` has, and its reading of every log.

    Raises ConfigError where there is no such interpreter or it has no swebench, GradingFault where it ends early.
    """
    lines = "".join(json.dumps({**spec_row(one.task), "patch": one.patch, "log": str(one.log)}) + "\n" for one in logs)
    environment = {**os.environ, "PYTHONUTF8": "1"}
    try:
        done = subprocess.run(
            [str(python), "-c", SCRIPT], input=lines, capture_output=True, text=True, timeout=timeout, env=environment
        )
    except OSError as error:
        raise ConfigError(f"--release {python} cannot be run: {error.strerror}; name an interpreter") from None
    except subprocess.TimeoutExpired:
        raise GradingFault(f"the swebench of {python} was not done after {timeout:g} s") from None
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if not answers or "release" not in answers[0]:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise ConfigError(
            f"{python} has no usable swebench ({last}); install one there: {python} -m pip install swebench"
        )
    release, *readings = answers
    if len(readings) != len(logs):
        last = (done.stderr.strip().splitlines() or [""])[-1]
        raise GradingFault(f"swebench {release['release']} ended after {len(readings)} of {len(logs)} logs ({last})")
    return str(release["release"]), [_reading(one) for one in readings]


def _reading(answer: Mapping[str, Any]) -> Reading:
    report = answer.get("report")
    if report is None:
        return Reading(resolved=None, reason=answer.get("error") or "no parser for this repository")
    statuses = report.get("tests_status") or {}
    passed = sorted(test for each in statuses.values() for test in each["success"])
    return Reading(resolved=bool(report["resolved"]), passed=tuple(passed))


class Release(Record):
    """A run's logs by another release: `alike` verdicts, those that changed by rollout, and those it cannot read."""

    release: str
    alike: int
    changed: Mapping[str, str]
    unread: Mapping[str, str]
    rates: tuple[float, float]


def compare_release(
    python: Path, logs: Mapping[str, StoredLog], verdicts: Mapping[str, bool], passed: Mapping[str, frozenset[str]]
) -> Release:
    """Stored verdicts against another release's, by rollout; `passed` are the tests that passed by the stored report.

    `rates` are the resolved shares of the rollouts that both have read.
    """
    names = list(logs)
    release, readings = read_by(python, list(logs.values()))
    changed: dict[str, str] = {}
    unread: dict[str, str] = {}
    both: list[tuple[bool, bool]] = []
    for name, reading in zip(names, readings, strict=True):
        if reading.resolved is None:
            unread[name] = reading.reason
            continue
        both.append((verdicts[name], reading.resolved))
        if reading.resolved != verdicts[name]:
            moved = sorted(passed[name] ^ set(reading.passed))
            more = " ..." if len(moved) > 3 else ""
            tests = f"; tests read otherwise: {', '.join(moved[:3])}{more}" if moved else ""
            words = ("unresolved", "resolved")
            changed[name] = f"{words[verdicts[name]]} -> {words[reading.resolved]}{tests}"
    total = max(len(both), 1)
    rates = sum(was for was, _ in both) / total, sum(now for _, now in both) / total
    return Release(
        release=release,
        alike=len(both) - len(changed),
        changed=changed,
        unread=unread,
        rates=rates,
    )
