"""OpenHands: `output.jsonl`, one line per instance (and an attempt, since its benchmarks left the main repository).

The first line form has `test_result.git_patch`, `history`, `metrics` and `error`; the newer standardized one `status`,
`attempt`, `resolved` and `cost`. Verdicts: `test_result.report` (of its eval_infer), `resolved`, or an official report
beside it. The last attempt at an instance counts, whatever came of it: the tool itself keeps the best one, which is no
pass@1.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aem_harness.harness.errors import DataError
from aem_harness.harness.interop import ImportSource, Row
from aem_harness.harness.interop.files import holds, peek_line, records, table
from aem_harness.harness.interop.official import ReportedVerdict, read_verdicts, row_of
from aem_harness.harness.interop.predictions import only_report
from aem_harness.harness.overflow import names_overflow
from aem_harness.harness.types import Outcome

NAME = "output.jsonl"
LOGS = ("eval_outputs", "logs")
# What its `error` says, where it does not begin with the name of an exception, and the word of `harness.ends` for it.
SENTENCES = (
    (
        r"(reached|exceeded) maximum (iteration|number of iterations)|max(imum)? iterations? reached",
        "MaxIterationsReached",
    ),
    (r"stuck in a loop|AgentStuck", "AgentStuckInLoopError"),
    (r"remote conversation ended with error|runtime|sandbox|workspace|container|pod\b", "AgentRuntimeError"),
)
_CLASS = re.compile(r"\b([A-Z]\w*(?:Error|Exception|Timeout|Unavailable))\b")


def matches(path: Path) -> bool:
    line = peek_line(path / NAME if path.is_dir() else path)
    return holds(line, "instance_id", "test_result") or holds(line, "instance_id", "status", "attempt")


def read(source: ImportSource) -> list[Row]:
    file = source.path / NAME if source.path.is_dir() else source.path
    lines: dict[str, Mapping[str, Any]] = {}
    attempts = 0
    for number, line in records(file, source.problems):
        name = line.get("instance_id")
        if not isinstance(name, str):
            source.problems.add("have no instance_id", f"line {number}")
            continue
        if name in lines and _attempt(line) == _attempt(lines[name]):
            raise DataError(f"{file} line {number}: {name} occurred before with the same attempt")
        attempts += name in lines
        if name not in lines or _attempt(line) > _attempt(lines[name]):
            lines[name] = line
    if attempts:
        source.problems.note(
            f"{file}: {attempts} earlier attempts are left out; the last attempt of an instance counts"
        )
    verdicts = _verdicts(source, file, lines)
    arm = source.arm or _model(next(iter(lines.values()), {})) or file.parent.resolve().name
    return [
        {"arm": arm, "seed": source.seed, "instance_id": name, **_row(lines.get(name, {}), verdicts.get(name), source)}
        for name in sorted({*lines, *verdicts})
    ]


def _attempt(line: Mapping[str, Any]) -> int:
    attempt = line.get("attempt")
    return attempt if isinstance(attempt, int) else 1


def _verdicts(source: ImportSource, file: Path, lines: Mapping[str, Mapping[str, Any]]) -> dict[str, ReportedVerdict]:
    """Verdicts of an official report; empty where the lines have their own. DataError where there are none at all."""
    if source.reports is not None:
        return read_verdicts(source.reports, source.problems)
    if own := only_report(file.parent, file.name.partition(".jsonl")[0]):
        return read_verdicts(own, source.problems)
    if logs := next((path for name in LOGS if (path := file.parent / name).is_dir()), None):
        return read_verdicts(logs, source.problems)
    if any(_own_verdict(line) for line in lines.values()) or all(line.get("error") for line in lines.values()):
        return {}
    raise DataError(
        f"{file} has patches but no verdicts; grade them (aem grade, or swebench eval) and name the report with "
        "--reports"
    )


def _own_verdict(line: Mapping[str, Any]) -> ReportedVerdict | None:
    report = table(table(line.get("test_result")).get("report")) or table(line.get("report"))
    if isinstance(line.get("resolved"), bool):
        return ReportedVerdict(Outcome.RESOLVED if line["resolved"] else Outcome.UNRESOLVED)
    if report.get("resolved"):
        return ReportedVerdict(Outcome.RESOLVED)
    if report.get("empty_generation"):
        return ReportedVerdict(Outcome.EMPTY_PATCH)
    if report.get("failed_apply_patch"):
        return ReportedVerdict(Outcome.NOT_APPLIED)
    if report.get("test_timeout"):
        return ReportedVerdict(Outcome.TEST_TIMEOUT)
    if report.get("error_eval"):
        return ReportedVerdict("", "its evaluation failed")
    return ReportedVerdict(Outcome.UNRESOLVED) if report.get("resolved") is False else None


def _row(line: Mapping[str, Any], verdict: ReportedVerdict | None, source: ImportSource) -> dict[str, Any]:
    patch = table(line.get("test_result")).get("git_patch")
    verdict = verdict or _own_verdict(line) or ReportedVerdict("", "no verdict in the report")
    if not verdict.outcome and isinstance(patch, str) and not patch.strip():
        verdict = ReportedVerdict(Outcome.EMPTY_PATCH)
    metrics, cost = table(line.get("metrics")), table(line.get("cost"))
    usage = table(metrics.get("accumulated_token_usage"))
    found = {
        **row_of(verdict),
        "model": _model(line),
        "scaffold": "OpenHands",
        "patch_bytes": len(patch.encode("utf-8", "surrogatepass")) if isinstance(patch, str) else None,
        "prompt_tokens": usage.get("prompt_tokens", cost.get("input_tokens")),
        "completion_tokens": usage.get("completion_tokens", cost.get("output_tokens")),
        "cost_usd": metrics.get("accumulated_cost", cost.get("total_cost")),
    }
    if not line.get("error") and line.get("status") in (None, "success"):
        return found | {"exit_status": "submitted"} if line else found
    said = " ".join(str(line.get("error") or line.get("status")).split())
    end = source.ends.of(_word(said))
    return found | {"end": end.word, "exit_status": end.status or end.word, "cause": said[:200]}


def _word(said: str) -> str:
    """The word for an error: what the sentence means, else the exception that it names last (the innermost)."""
    if names_overflow(said):
        return "LLMContextWindowExceedError"
    for pattern, word in SENTENCES[:2]:
        if re.search(pattern, said, re.IGNORECASE):
            return word
    if named := _CLASS.findall(said):
        return str(named[-1])
    return next((word for pattern, word in SENTENCES if re.search(pattern, said, re.IGNORECASE)), "instance error")


def _model(line: Mapping[str, Any]) -> str:
    metadata = table(line.get("metadata"))
    settings = table(metadata.get("llm_config")) or table(metadata.get("llm"))
    return str(settings.get("model") or "")
