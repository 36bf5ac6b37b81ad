"""What a run's journal says of the newest attempt of every rollout, in columns: parsed once, then kept beside it.

The journal decides. Kept columns are used only while they have the digest of the journal's bytes and are the columns
that this version asks for; those that are missing, stale or damaged are read from it again. A process killed at any
moment leaves whole columns or none.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aem_harness.harness.errors import DataError, in_one_line
from aem_harness.harness.facts.arrays import DAMAGE, FOLDER, read_arrays, write_arrays
from aem_harness.harness.run.origin import reuse_of
from aem_harness.harness.run.store import Digest, Event, Key, read_journal, trajectory_digest, uncollected
from aem_harness.harness.schema import COLUMNS

logger = logging.getLogger(__name__)

FILE = "journal.npz"
VERSION = 2  # of what the columns mean; those of another one are read again
_TOLD = tuple(name for name in COLUMNS if name not in ("instance_id", "seed", "resolved", "outcome", "cause", "reuse"))


@dataclass(frozen=True)
class Newest:
    """The newest attempt of N rollouts, in the order in which they first occur in the journal.

    `columns` have N values each: numbers, nan for none, or objects, None for none. Beside those of the outcomes table
    (`COLUMNS`), as far as the journal has them, they are `fault` (boundary and message), `has_grade` (1 where this
    attempt has a grade), the grade's `outcome`, `cause` and `reuse`, and `sha256` of the trajectory.
    """

    keys: list[Key]
    columns: dict[str, NDArray[Any]]

    def at(self, keys: Sequence[Key]) -> dict[str, NDArray[Any]]:
        """The columns for M rollouts, with `run`, whether the journal has them; empty where it has not."""
        place = {key: number for number, key in enumerate(self.keys)}
        where = np.array([place.get(key, -1) for key in keys], np.int64)
        run = where >= 0
        found: dict[str, NDArray[Any]] = {"run": run}
        for name, values in self.columns.items():
            if values.dtype != object and run.all():
                found[name] = values[where]
            else:  # the last one is of what it has not
                none = np.array([None if values.dtype == object else np.nan])
                found[name] = np.concatenate([values, none])[where]
        return found


def read_newest(run: Path) -> Newest:
    """The newest attempts of a run. Raises DataError as `read_journal` does."""
    path = run / FOLDER / FILE
    try:
        arrays = read_arrays(path, VERSION)
        with (run / "journal.jsonl").open("rb") as journal:
            if arrays["digest"].tobytes() == hashlib.file_digest(journal, _digest).digest():
                return _unpacked(arrays)
    except FileNotFoundError:
        pass
    except DAMAGE as error:
        logger.warning("%s is damaged and is not used (%s)", path, error)
    digest = _digest()
    with uncollected():
        rollouts, grades = _newest(run, digest)
        keys = list(rollouts)
        newest = Newest(keys, _columns([rollouts[key] for key in keys], [grades.get(key) for key in keys]))
    del rollouts, grades
    write_arrays(path, VERSION, {"digest": np.frombuffer(digest.digest(), np.uint8), **_packed(newest)})
    return newest


def _digest() -> Any:
    """A digest for the journal's bytes. It begins with the names of the columns: another version may ask for others."""
    return hashlib.sha256(json.dumps(_TOLD).encode())


# --- from the journal -----------------------------------------------------------------------------------------------

_Rollout = tuple[Any, ...]  # values of _TOLD, fault in words, hash of the trajectory: a tenth of an event
_Grade = tuple[Any, Any, Any]  # outcome, cause, reuse


def _newest(run: Path, digest: Digest) -> tuple[dict[Key, _Rollout], dict[Key, _Grade]]:
    rollouts: dict[Key, _Rollout] = {}
    grades: dict[Key, _Grade] = {}
    try:
        for event in read_journal(run, digest):
            _take(event, rollouts, grades)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{run / 'journal.jsonl'}: an entry is none of a run ({in_one_line(error)}); "
            f"`aem fsck {run}` rebuilds it from the folders"
        ) from None
    return rollouts, grades


def _take(event: Event, rollouts: dict[Key, _Rollout], grades: dict[Key, _Grade]) -> None:
    key = event["instance_id"], event["seed"]
    if event["event"] == "rollout":
        fault = event.get("fault")
        words = f"{fault['boundary']}: {fault['message']}" if fault else None
        rollouts[key] = (*map(event.get, _TOLD), words, trajectory_digest(event) or None)
        grades.pop(key, None)  # an earlier attempt's
    elif event["event"] == "grade":
        grades[key] = event["outcome"], event.get("cause"), reuse_of(event)


def _columns(rollouts: Sequence[_Rollout], grades: Sequence[_Grade | None]) -> dict[str, NDArray[Any]]:
    names = (*_TOLD, "fault", "sha256")
    found = {name: [values[place] for values in rollouts] for place, name in enumerate(names)}
    for place, name in enumerate(("outcome", "cause", "reuse")):
        found[name] = [grade and grade[place] for grade in grades]
    found["has_grade"] = [int(grade is not None) for grade in grades]
    return {name: _array(values) for name, values in found.items() if any(one is not None for one in values)}


def _array(values: Sequence[Any]) -> NDArray[Any]:
    kinds = {type(value) for value in values}
    if kinds == {int} and all(abs(value) < 2**53 for value in values):
        return np.array(values, np.int64)
    if kinds <= {int, float, type(None)} and all(abs(value) < 2**53 for value in values if type(value) is int):
        return np.array([np.nan if value is None else value for value in values], np.float64)
    return _objects(values)


# --- as arrays without objects --------------------------------------------------------------------------------------


def _packed(newest: Newest) -> dict[str, NDArray[Any]]:
    """Texts repeat, so a column of them is numbers, and every text once, as JSON: it holds any text that Python can."""
    out: dict[str, NDArray[Any]] = {
        "instance_id": _json([name for name, _ in newest.keys]),
        "seed": _json([seed for _, seed in newest.keys]),
    }
    for name, values in newest.columns.items():
        if values.dtype != object:
            out[f"number {name}"] = values
        elif all(value is None or isinstance(value, str) for value in values):
            place = {text: number for number, text in enumerate(dict.fromkeys(t for t in values if t is not None))}
            out[f"text {name}"] = _json(list(place))
            out[f"which {name}"] = np.array([place.get(text, -1) for text in values], np.int32)
        else:
            out[f"any {name}"] = _json(values.tolist())
    return out


def _unpacked(arrays: dict[str, NDArray[Any]]) -> Newest:
    columns = {}
    for stored, values in arrays.items():
        kind, _, name = stored.partition(" ")
        if kind == "number":
            columns[name] = values
        elif kind == "text":
            columns[name] = _objects([*_parsed(values), None])[arrays[f"which {name}"]]
        elif kind == "any":
            columns[name] = _objects(_parsed(values))
    names, seeds = _parsed(arrays["instance_id"]), _parsed(arrays["seed"])
    return Newest(list(zip(names, seeds, strict=True)), columns)


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    return np.fromiter(values, dtype=object, count=len(values))  # lists of one length would become a matrix elsewhere


def _json(value: Any) -> NDArray[Any]:
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def _parsed(data: NDArray[Any]) -> Any:
    return json.loads(data.tobytes())
