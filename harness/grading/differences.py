"""Why two official reports of one run differ: what changed between releases of the grader, dataset and parser. Pure."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from aem_harness.harness.types import Grade

KINDS = ("FAIL_TO_PASS", "PASS_TO_PASS")


def explain(stored: Mapping[str, Any], grade: Grade, statuses: Mapping[str, str]) -> str:
    """In words, what differs between a stored official report and a new grade of the same log; empty if nothing.

    `stored` is the inner mapping of report.json, `statuses` what the new grader read of each test.
    """
    fresh = grade.report[grade.instance_id]
    parts = []
    if stored["resolved"] != fresh["resolved"]:
        parts.append(f"resolved was {stored['resolved']}, is {fresh['resolved']}")
    old, new = stored.get("tests_status"), fresh.get("tests_status")
    if old and not new:
        parts.append(f"had lists, now none: {grade.cause}")
    elif new and not old:
        parts.append("had no lists, now has")
    elif old and new:
        reasons = Counter(
            _reason(test, before, after, statuses)
            for kind in KINDS
            for test, before, after in _moved(old[kind], new[kind])
        )
        parts += [f"{count} {reason}" for reason, count in sorted(reasons.items())]
    return "; ".join(parts)


def _moved(old: Mapping[str, list[str]], new: Mapping[str, list[str]]) -> list[tuple[str, str | None, str | None]]:
    before = {test: side for side in ("success", "failure") for test in old[side]}
    after = {test: side for side in ("success", "failure") for test in new[side]}
    return [
        (test, before.get(test), after.get(test))
        for test in sorted(before.keys() | after.keys())
        if before.get(test) != after.get(test)
    ]


def _reason(test: str, before: str | None, after: str | None, statuses: Mapping[str, str]) -> str:
    if statuses.get(test) == "SKIPPED":
        return "skipped tests, listed since 5.0 (as success if they passed before the patch, else as failure)"
    if after is None:
        return "not in the test lists of this dataset"
    if before is None:
        return "only in the test lists of this dataset"
    if test.count("[") > test.count("]"):
        return "cut ids, matched by their beginning since 5.0"
    return f"read differently by the log parser ({before} before, {after} now)"
