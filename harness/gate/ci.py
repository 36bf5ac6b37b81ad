"""What a gate writes for a CI system: JUnit XML, a Markdown summary, and GitHub's step outputs."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aem_harness.harness.errors import AemError, ConfigError, in_one_line
from aem_harness.harness.gate.report import (
    GateReport,
    refusal_junit,
    refusal_markdown,
    to_junit,
    to_markdown,
)
from aem_harness.harness.io import write_text


@contextmanager
def published(junit: Path | None, summary: Path | None) -> Iterator[list[GateReport]]:
    """Write what the body appends to the list; if it raises, write that there is no verdict, and raise again.

    The summary is appended, by default to the file that $GITHUB_STEP_SUMMARY names; $GITHUB_OUTPUT gets `verdict` and
    `rollouts`.
    """
    found: list[GateReport] = []
    started = time.monotonic()
    try:
        yield found
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        why = str(error) if isinstance(error, AemError) else in_one_line(error)
        _write(junit, refusal_junit(why, time.monotonic() - started))
        _append(_summary_file(summary), refusal_markdown(why))
        raise
    for one in found:
        _write(junit, to_junit(one, time.monotonic() - started))
        _append(_summary_file(summary), to_markdown(one))
        _append(_named_by("GITHUB_OUTPUT"), f"verdict={one.verdict}\nrollouts={one.rollouts}\n")


def _summary_file(given: Path | None) -> Path | None:
    return given or _named_by("GITHUB_STEP_SUMMARY")


def _named_by(variable: str) -> Path | None:
    return Path(os.environ[variable]) if os.environ.get(variable) else None


def _write(path: Path | None, text: str) -> None:
    if path:
        with _writable(path):
            write_text(path, text)


def _append(path: Path | None, text: str) -> None:
    if path:
        with _writable(path), path.open("a") as handle:
            handle.write(text)


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None
