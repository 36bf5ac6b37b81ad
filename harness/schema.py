"""What a row of the outcomes table may hold: its columns, their types, and the checks a foreign table has to pass."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from aem_harness.harness.errors import DataError, listed
from aem_harness.harness.types import Outcome


@dataclass(frozen=True)
class Column:
    """Kind of the values (text, count, number, truth) and what they mean."""

    kind: Literal["text", "count", "number", "truth"]
    meaning: str


COLUMNS: Mapping[str, Column] = {
    "arm": Column("text", "side of a comparison: one policy under one set of settings"),
    "instance_id": Column("text", "task"),
    "seed": Column("count", "the k-th rollout of the task in this arm, from 0"),
    "resolved": Column("truth", "official verdict; empty when there is none (infrastructure error, not run or graded)"),
    "outcome": Column("text", "resolved, unresolved, not_applied, empty_patch, test_timeout, error, or empty"),
    "cause": Column("text", "why there is no verdict, or the grader's explanation"),
    "exit_status": Column("text", "how the rollout ended (submitted, step_limit, ...)"),
    "end": Column("text", "how another tool names that end, where it has a word of its own (docs/ends.md)"),
    "graded": Column("text", "what the grader said, where the end takes the verdict away"),
    "attempt": Column("count", "which try at this rollout counted, from 0; more than 0 after infrastructure faults"),
    "repo": Column("text", "repository of the task, owner/name"),
    "difficulty": Column("text", "annotated difficulty of the task"),
    "created_at": Column("text", "when the issue was opened, ISO 8601"),
    "steps": Column("count", "model calls"),
    "prompt_tokens": Column("count", "prompt tokens over all calls"),
    "completion_tokens": Column("count", "generated tokens over all calls"),
    "seconds": Column("number", "wall time of the rollout, s"),
    "model_seconds": Column("number", "part of it spent waiting for the model, s"),
    "tool_seconds": Column("number", "part of it spent in the container, s"),
    "gpu_seconds": Column("number", "GPU-seconds of the model server spent on it, where they are known"),
    "cost_usd": Column("number", "price of the rollout, US dollars, where there is one"),
    "mean_entropy": Column("number", "mean over responses of the mean token entropy, nats"),
    "malformed": Column("count", "replies that could not be parsed into an action"),
    "patch_bytes": Column("count", "size of the patch, bytes"),
    "at": Column("text", "when the rollout ended, ISO 8601"),
    "trajectory": Column("text", "path of the trajectory file"),
    "integrity": Column("text", "grave integrity marks of the patch or its log (docs/grading.md), empty without any"),
    "canary": Column("text", "what a second grading with canaries found: clean, marked, unaudited (docs/integrity.md)"),
    "reuse": Column("text", "reused: verdict of an equal patch; confirmed, flipped: graded although one was known"),
    "image_digest": Column("text", "content digest of the container image"),
    "grader": Column("text", "grader and version, for example swebench 5.0.2"),
    "dataset": Column("text", "dataset and digest or revision"),
    "scaffold": Column("text", "agent and version that drove the policy"),
    "model": Column("text", "policy: checkpoint or model name"),
    "source": Column("text", "file or folder the row was read from"),
}
REQUIRED = ("arm", "instance_id", "seed", "resolved")
KEY = ["arm", "instance_id", "seed"]
NAMES = ("arm", "instance_id", "trajectory", "source")  # of folders and files, with whatever bytes they have

_EMPTY = {"", "na", "nan", "none", "null", "<na>"}
_TRUTH = {"1": True, "1.0": True, "true": True, "yes": True, "0": False, "0.0": False, "false": False, "no": False}


def normalise(raw: pd.DataFrame, source: str) -> pd.DataFrame:
    """`raw` with every column of the schema, in its type and order; columns of its own come last, untouched.

    `repo` is filled from the instance id and `resolved` from `outcome` where they are missing. Rows are counted as in a
    CSV file (the header is row 1). Raises DataError for a missing column, an unreadable value, a contradiction or a
    rollout that occurs twice.
    """
    missing = [name for name in REQUIRED if name not in raw.columns and not (name == "resolved" and "outcome" in raw)]
    if missing:
        raise DataError(f"{source} lacks the column {listed(missing)}; it needs {listed(REQUIRED)}")
    if raw.empty:
        raise DataError(f"{source} has no rows")
    raw = raw.reset_index(drop=True)
    table = pd.DataFrame({name: _typed(raw, name, column.kind, source) for name, column in COLUMNS.items()})
    for name in raw.columns:
        if name not in COLUMNS:
            table[name] = raw[name]
    for name in ("arm", "instance_id", "seed"):
        _require(table[name].notna(), table, source, f"{name} is empty")
    table["source"] = table["source"].fillna(source)
    table["repo"] = table["repo"].fillna(table["instance_id"].map(repo_of))
    _settle_verdicts(table, source)
    _require(~table.duplicated(KEY), table, source, "this arm, instance_id and seed occurred before")
    return table


def repo_of(instance_id: str) -> str:
    """`astropy__astropy-12907` -> `astropy/astropy`; the id itself where it is not of that form."""
    owner, separator, rest = instance_id.partition("__")
    return f"{owner}/{rest.rpartition('-')[0] or rest}" if separator else instance_id


def suspect(table: pd.DataFrame) -> pd.Series:
    """Which rollouts are resolved, but by a patch or a log that bears a grave integrity mark."""
    return table["resolved"].fillna(False) & table["integrity"].notna()


def tampered(table: pd.DataFrame) -> pd.Series:
    """Which rollouts are resolved, but were seen to tamper with their tests when they were graded with canaries."""
    return table["resolved"].fillna(False) & table["canary"].eq("marked").fillna(False)


def without_tampered(table: pd.DataFrame) -> pd.DataFrame:
    """The rollouts with the tampered ones counted as unresolved."""
    return table.assign(resolved=table["resolved"] & ~tampered(table))


def without_suspects(table: pd.DataFrame) -> pd.DataFrame:
    """The rollouts with the suspect ones counted as unresolved."""
    return table.assign(resolved=table["resolved"] & ~suspect(table))


def _settle_verdicts(table: pd.DataFrame, source: str) -> None:
    """Fill `resolved` and `outcome` from each other; refuse unknown words and contradictions."""
    verdicts: dict[str, bool | None] = {outcome.value: outcome is Outcome.RESOLVED for outcome in Outcome}
    verdicts[Outcome.ERROR.value] = None
    outcome = table["outcome"].str.lower()
    _require(outcome.isin(list(verdicts)) | outcome.isna(), table, source, f"outcome is none of {listed(verdicts)}")
    implied = outcome.astype(object).map(verdicts).astype("boolean")
    agree = (table["resolved"] == implied).fillna(False)
    _require(table["resolved"].isna() | outcome.isna() | agree, table, source, "resolved contradicts outcome")
    table["resolved"] = table["resolved"].fillna(implied)
    words = {True: Outcome.RESOLVED.value, False: Outcome.UNRESOLVED.value}
    table["outcome"] = outcome.fillna(table["resolved"].astype(object).map(words).astype("str"))


def _require(ok: pd.Series, table: pd.DataFrame, source: str, wrong: str) -> None:
    if not ok.all():
        row = int(ok.to_numpy(dtype=bool).argmin())
        arm, instance, seed = table.loc[row, KEY]
        raise DataError(f"{source} row {row + 2} ({arm}, {instance}, seed {seed}): {wrong}")


# --- reading values -------------------------------------------------------------------------------------------------


def writable(text: str) -> str:
    """Text that any file can hold: half a surrogate pair, which JSON can hold, becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def _truth(text: str) -> bool:
    return _TRUTH[text.lower()]


def _count(text: str) -> int:
    number = float(text)
    if not 0 <= number < 2**63 or number != int(number):
        raise ValueError(text)
    return int(number)


# kind -> how to read a non-empty value, the dtype of the column, and what to tell who wrote something else
_KINDS: Mapping[str, tuple[Callable[[str], Any], Any, str]] = {
    "text": (str.strip, "str", ""),
    "truth": (_truth, "boolean", "use 1, 0 or leave it empty"),
    "count": (_count, "Int64", "it must be a whole number from 0, or empty"),
    "number": (float, "float64", "it must be a number, or empty"),
}


def _plain(values: pd.Series, kind: str) -> bool:
    """Are these numbers already, all of them good, so that none need be read by itself?"""
    if kind not in ("count", "number") or values.dtype.kind not in "iuf" or not isinstance(values.dtype, np.dtype):
        return False
    known = values[values.notna()]
    return kind == "number" or bool(((known >= 0) & (known < 2**53) & (known == known.round())).all())


def _typed(raw: pd.DataFrame, name: str, kind: str, source: str) -> pd.Series:
    read, dtype, remedy = _KINDS[kind]
    if name not in raw.columns or raw[name].isna().all():
        return pd.Series([None] * len(raw), index=raw.index, dtype=dtype)
    if _plain(raw[name], kind):
        return raw[name].astype(dtype)
    values = raw[name].astype(object)
    if values.map(type).isin((list, dict)).any():  # of another tool
        values = values.map(lambda value: str(value) if isinstance(value, list | dict) else value)
    number, seen = pd.factorize(values)  # columns repeat few values many times
    read_once = np.empty(len(seen) + 1, dtype=object)  # the last one is of what is empty, whose number is -1
    for place, value in enumerate(seen):
        text = str(value).strip()
        empty = not text if kind == "text" else text.lower() in _EMPTY  # an arm may well be called "null"
        try:
            read_once[place] = None if empty else read(text if name in NAMES else writable(text))
        except (ValueError, KeyError, OverflowError):
            row = int((number == place).argmax()) + 2
            raise DataError(f"{source} row {row}: {name} is {value!r}; {remedy}") from None
    try:
        return pd.Series(read_once[number], index=raw.index, dtype=dtype)
    except UnicodeEncodeError:  # names that are no text, where pandas keeps text in pyarrow
        shown = [text if text is None else writable(text) for text in read_once]
        return pd.Series(np.array(shown, dtype=object)[number], index=raw.index, dtype=dtype)
