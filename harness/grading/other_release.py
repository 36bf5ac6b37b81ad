"""Stored test output read by another release of swebench, which lives in an environment of its own.

The tests are not run again: what may change from release to release is how a log is read and what counts as resolved.
Also the eval script may, which made the log: the other release's is compared with the one that was run, and where they
differ its verdict would take another run of the tests.
"""

import difflib
import json
import os
import subprocess
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aem_harness.harness.errors import ConfigError, GradingFault
from aem_harness.harness.grading.official import script_commands, spec_row
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

# Before the loop, which adds to it what the parsers need.
known_specs = {repo: dict(each) for repo, each in getattr(grading, "MAP_REPO_VERSION_TO_SPECS", {}).items()}

def script_of(row):
    if hasattr(log_parsers, "PARSER_REGISTRY"):
        from swebench.harness.utils import make_test_spec
        return make_test_spec(row).eval_script
    known = known_specs.get(row["repo"], {}).get(row["version"])
    if known is None:
        return None
    from swebench.harness.test_spec.create_scripts import make_eval_script_list
    arguments = row, known, "testbed", "/testbed", row["base_commit"], row["test_patch"]
    return "\\n".join(["#!/bin/bash", "set -uxo pipefail", *make_eval_script_list(*arguments)]) + "\\n"

def tried(what, *given):
    try:
        return what(*given)
    except Exception:
        return None

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
    script = tried(script_of, row)
    try:
        spec = spec_of(row)
        report = spec and grading.get_eval_report(spec, prediction, log, True)[row["instance_id"]]
        answer = {"known": spec is not None, "report": report}
    except Exception as error:
        answer = {"known": True, "report": None, "error": f"{type(error).__name__}: {error}"}
    print(json.dumps({**answer, "script": script}), flush=True)
"""


class Reading(Record):
    """What a release reads from one log. `resolved` None: it knows no parser for it, or failed, as `reason` says.

    `script` is the eval script by which it would have made the log; None where it has none.
    """

    resolved: bool | None
    passed: tuple[str, ...] = ()
    reason: str = ""
    script: str | None = None


@dataclass(frozen=True)
class StoredLog:
    """A rollout's patch and test output, and the eval script that made it (None: that of its task)."""

    task: Task
    patch: str
    log: Path
    script: str | None = None


def read_by(python: Path, logs: Sequence[StoredLog], *, timeout: float = 3600) -> tuple[str, list[Reading]]:
    """The release that the interpreter `python` has, and its reading of every log.

    Raises ConfigError where there is no such interpreter or it has no swebench, GradingFault where it ends early.
    """
    lines = "".join(json.dumps(_row(one)) + "\n" for one in logs)
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


def _row(one: StoredLog) -> dict[str, Any]:
    """What the other interpreter is given: releases before 5 make the eval script of commit and test patch."""
    made_of = {"base_commit": one.task.instance.base_commit, "test_patch": one.task.test_patch}
    return {**spec_row(one.task), **made_of, "patch": one.patch, "log": str(one.log)}


def _reading(answer: Mapping[str, Any]) -> Reading:
    report, script = answer.get("report"), answer.get("script")
    if report is None:
        return Reading(resolved=None, reason=answer.get("error") or "no parser for this repository", script=script)
    statuses = report.get("tests_status") or {}
    passed = sorted(test for each in statuses.values() for test in each["success"])
    return Reading(resolved=bool(report["resolved"]), passed=tuple(passed), script=script)


def script_change(ours: str, theirs: str) -> str:
    """The lines in which the eval scripts differ, the first of each; empty if they run the same commands.

    Blanks at the end do not count: release 5 cuts off those of a last `git checkout COMMIT ` without files.
    """
    a, b = script_commands(ours), script_commands(theirs)
    found = [line for line in difflib.unified_diff(a, b, lineterm="", n=0) if not line.startswith(("---", "+++", "@@"))]
    first = [next((line for line in found if line.startswith(sign)), "") for sign in "-+"]
    return "; ".join(textwrap.shorten(f"{line[0]} {line[1:]}", 100) for line in first if line)


class Release(Record):
    """A run's logs by another release: `alike` verdicts, those that changed by rollout, and those it cannot read.

    `scripts` counts the instances with the same eval script in both. Of those in `reruns` (how the scripts differ, by
    instance) the logs say nothing about the other release: their tests would have to be run again. `unscripted` are
    instances for which the other release makes no script from these rows.
    """

    release: str
    alike: int
    changed: Mapping[str, str]
    unread: Mapping[str, str]
    rates: tuple[float, float]
    scripts: int = 0
    reruns: Mapping[str, str] = {}
    unscripted: tuple[str, ...] = ()


def compare_release(
    python: Path, logs: Mapping[str, StoredLog], verdicts: Mapping[str, bool], passed: Mapping[str, frozenset[str]]
) -> Release:
    """Stored verdicts against another release's, by rollout; `passed` are the tests that passed by the stored report.

    `rates` are the resolved shares of the rollouts that both have read, those of `reruns` among them.
    """
    names = list(logs)
    release, readings = read_by(python, list(logs.values()))
    changed: dict[str, str] = {}
    unread: dict[str, str] = {}
    both: list[tuple[bool, bool]] = []
    scripts: dict[str, str | None] = {}  # how they differ by instance, None where there is none to compare
    for name, reading in zip(names, readings, strict=True):
        stored = logs[name]
        if reading.script is None:
            scripts.setdefault(stored.task.instance_id, None)
        else:
            change = script_change(stored.script or stored.task.eval_script, reading.script)
            known = scripts.get(stored.task.instance_id)
            scripts[stored.task.instance_id] = known or change
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
        scripts=sum(change == "" for change in scripts.values()),
        reruns={task: change for task, change in scripts.items() if change},
        unscripted=tuple(task for task, change in scripts.items() if change is None),
    )
