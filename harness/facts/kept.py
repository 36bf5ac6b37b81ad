"""Features of a run's trajectories, stored beside its journal in columns: computed once, when a rollout ends.

They are a cache; the journal decides. A row is valid only while it has the hash of the rollout's trajectory in the
journal; missing and damaged rows, and those of another version of this file, are read from the trajectories again.
`facts/` may be deleted at any time.

Every part holds up to `ROWS` rollouts. A part that is not full is merged into the next, so that a run continued a
hundred times does not have a hundred files. Two concurrent writers lose a few rows, which are then read again.
"""

import hashlib
import json
import logging
import os
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from aem_harness.harness.errors import DataError
from aem_harness.harness.facts.arrays import DAMAGE, FOLDER, open_arrays, write_arrays
from aem_harness.harness.facts.features import FEATURES, Sketch, features, sketch
from aem_harness.harness.interop.trajectories import Trajectory, parse_trajectory, read_trajectory
from aem_harness.harness.io import read_bytes
from aem_harness.harness.run.store import Event, Key, trajectory_digest

logger = logging.getLogger(__name__)

VERSION = 3  # of what the arrays mean; others are computed anew. (1 was Parquet.)
ROWS = 4096  # of a part
BATCH = 512  # rows that are stored at once
KEYS, ENTROPIES, USED, ACTIONS = "turn_keys", "turn_entropies", "used", "actions"
KINDS: dict[str, Any] = {KEYS: np.uint64, ENTROPIES: np.float64, USED: np.uint64, ACTIONS: np.uint8}
LENGTHS = {KEYS: "turns", ENTROPIES: "turns", USED: "commands_used", ACTIONS: "action_bytes"}

Row = dict[str, Any]
Arrays = Mapping[str, NDArray[Any]]


def row_of(key: Key, digest: str, trajectory: Trajectory) -> Row:
    """What is stored of one rollout. The actions, of which few are ever shown, are packed."""
    kept, numbers = sketch(trajectory), features(trajectory)
    return {
        "instance_id": key[0],
        "seed": key[1],
        "sha256": digest,
        "features": [numbers[name] for name in FEATURES],
        "exit_status": _text(kept.exit_status),
        KEYS: kept.keys,
        ENTROPIES: [float(one) if isinstance(one, int | float) else np.nan for one in kept.entropies],
        USED: sorted(kept.used),
        ACTIONS: zlib.compress("\n".join(map(_text, kept.actions)).encode()),
    }


def arrays_of(rows: Sequence[Row]) -> dict[str, NDArray[Any]]:
    """N rows as arrays: one value, or one row of FEATURES, for each; of lists the lengths, and all values in turn."""
    return {
        **{name: _texts([row[name] for row in rows]) for name in ("instance_id", "sha256", "exit_status")},
        "seed": np.array([row["seed"] for row in rows], np.int64),
        "features": np.array([row["features"] for row in rows], np.float64).reshape(-1, len(FEATURES)),
        **{lengths: np.array([len(row[name]) for row in rows], np.int64) for name, lengths in LENGTHS.items()},
        **{
            name: np.fromiter(chain.from_iterable(row[name] for row in rows), KINDS[name])
            for name in (KEYS, ENTROPIES, USED)
        },
        ACTIONS: np.frombuffer(b"".join(row[ACTIONS] for row in rows), np.uint8),
    }


class Keeper:
    """Computes the features of each rollout of a run when it has ended, and stores them. Safe to share by threads.

    Any error here is logged and costs no rollout: the features are then read from the trajectory later.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._rows: list[Row] = []
        self._mutex = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._write()

    def add(self, event: Event) -> None:
        """Take up a rollout that is in the journal; what is none of it (a grade) is passed over."""
        key = event["instance_id"], event["seed"]
        digest = trajectory_digest(event)
        if event["event"] != "rollout" or not digest:
            return
        try:
            row = row_of(key, digest, _verified(self._run, key, digest))
        except Exception as error:
            logger.warning("%s seed %d: no facts of its trajectory", *key, exc_info=error)
            return
        with self._mutex:
            self._rows.append(row)
            full = len(self._rows) >= BATCH
        if full:
            self._write()

    def _write(self) -> None:
        with self._mutex:
            rows, self._rows = self._rows, []
        write_rows(self._run, rows)


@dataclass(frozen=True)
class Facts:
    """Features of N rollouts: `keys`, and `features` (N, len(FEATURES)).

    Lists are long, and few of them are needed at a time, so they stay in their files: row i is `place[i]` of
    `parts[number[i]]`, an open file or arrays in memory.
    """

    keys: list[Key]
    features: NDArray[np.float64]
    parts: tuple[Arrays, ...]
    number: NDArray[np.int32]
    place: NDArray[np.int32]

    @classmethod
    def joined(cls, facts: "Sequence[Facts]") -> "Facts":
        starts = np.cumsum([0, *(len(one.parts) for one in facts)])
        none = np.zeros(0, np.int32)
        return cls(
            keys=[key for one in facts for key in one.keys],
            features=np.concatenate([np.zeros((0, len(FEATURES))), *(one.features for one in facts)]),
            parts=tuple(part for one in facts for part in one.parts),
            number=np.concatenate([none, *(one.number + start for one, start in zip(facts, starts, strict=False))]),
            place=np.concatenate([none, *(one.place for one in facts)]),
        )

    @classmethod
    def of(cls, part: Arrays, place: Sequence[int] | None = None) -> "Facts":
        """The rows of one part, or those at `place`."""
        at = np.arange(len(part["seed"]), dtype=np.int32) if place is None else np.array(place, np.int32)
        names, seeds = map(_decoded, part["instance_id"][at].tolist()), part["seed"][at].tolist()
        return cls(list(zip(names, seeds, strict=True)), part["features"][at], (part,), np.zeros_like(at), at)

    def lists(self, name: str, rows: Sequence[int] | NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """The lists of one kind of M rows: the length of each, (M,), and all values after each other."""
        lengths = np.zeros(len(rows), np.int64)
        for part, mine, place in self._by_part(rows):
            lengths[mine] = part[LENGTHS[name]][place]
        ends = np.cumsum(lengths)
        values = np.zeros(int(lengths.sum()), KINDS[name])
        for part, mine, place in self._by_part(rows):
            of_part = part[LENGTHS[name]]
            begin = (np.cumsum(of_part) - of_part)[place]
            values[_spans((ends - lengths)[mine], lengths[mine])] = part[name][_spans(begin, lengths[mine])]
        return lengths, values

    def exits(self, rows: Sequence[int]) -> list[str]:
        """The exit statuses of some rows."""
        out = [""] * len(rows)
        for part, mine, place in self._by_part(rows):
            for number, text in zip(mine.tolist(), part["exit_status"][place].tolist(), strict=True):
                out[number] = _decoded(text)
        return out

    def _by_part(
        self, rows: Sequence[int] | NDArray[Any]
    ) -> Iterator[tuple[Arrays, NDArray[np.int64], NDArray[np.int32]]]:
        """Each part that holds some of the rows, which of these it holds, and where."""
        rows = np.asarray(rows, np.int64)
        number, place = self.number[rows], self.place[rows]
        for one in np.unique(number):
            mine = np.flatnonzero(number == one)
            yield self.parts[one], mine, place[mine]

    def sketches(self, rows: Mapping[int, int]) -> "Sketches":
        """The sketches of some rows, by the names that `rows` has for them."""
        return Sketches(self, rows)


class Sketches(Mapping[int, Sketch]):
    """Sketches by name, each made when it is asked for: as objects they take ten times the memory of their arrays."""

    def __init__(self, facts: Facts, rows: Mapping[int, int]) -> None:
        self._at = {name: number for number, name in enumerate(rows)}
        chosen = list(rows.values())
        self._lists = {name: _ended(*facts.lists(name, chosen)) for name in LENGTHS}
        self._exits = facts.exits(chosen)

    def __contains__(self, row: object) -> bool:
        return row in self._at

    def __getitem__(self, row: int) -> Sketch:
        number = self._at[row]
        keys, entropies, used, packed = (
            values[ends[number] : ends[number + 1]] for ends, values in self._lists.values()
        )
        actions = zlib.decompress(packed.tobytes()).decode().split("\n")
        return Sketch(
            exit_status=self._exits[number],
            keys=tuple(keys.tolist()),
            actions=tuple(actions) if len(keys) else (),
            entropies=tuple(None if one != one else one for one in entropies.tolist()),
            used=frozenset(used.tolist()),
        )

    def __iter__(self) -> Iterator[int]:
        return iter(self._at)

    def __len__(self) -> int:
        return len(self._at)


def read_facts(run: Path, wanted: Mapping[Key, str | Path]) -> tuple[Facts, list[str]]:
    """The features of the `wanted` trajectories of a run folder, and one line for each that cannot be read.

    Missing ones are read from the trajectories, and then stored if the folder can be written.
    """
    digests = {key: digest for key, digest in journaled(run).items() if key in wanted}
    parts, left = _kept(run, digests)
    problems: list[str] = []
    loose: list[Facts] = []
    missing = {key: path for key, path in wanted.items() if key in left or key not in digests}
    for rows in _batches(_computed(run, missing, digests, problems)):
        if not all(row["sha256"] for row in rows) or not write_rows(run, rows):
            loose.append(Facts.of(arrays_of(rows)))
    if missing:  # the files have changed: read what they hold now
        held = {key for part in loose for key in part.keys}
        parts, left = _kept(run, {key: digest for key, digest in digests.items() if key not in held})
        again = {key: wanted[key] for key in left if key not in missing}  # another process was at it
        loose += [Facts.of(arrays_of(rows)) for rows in _batches(_computed(run, again, digests, problems))]
    return Facts.joined([*parts, *loose]), problems


def journaled(run: Path) -> dict[Key, str]:
    """The hash of the newest trajectory of every rollout, as the journal has it."""
    from aem_harness.harness.facts.journal import read_newest

    newest = read_newest(run)
    digests = newest.columns.get("sha256", [None] * len(newest.keys))
    return {key: digest for key, digest in zip(newest.keys, digests, strict=True) if digest}


# --- files ----------------------------------------------------------------------------------------------------------


def _kept(run: Path, digests: Mapping[Key, str]) -> tuple[list[Facts], set[Key]]:
    """The valid rows, and the rollouts that have none."""
    left = dict(digests)
    parts: list[Facts] = []
    for path in _parts(run):
        try:
            part = open_arrays(path, VERSION)
            columns = (map(_decoded, part["instance_id"].tolist()), part["seed"].tolist(), part["sha256"].tolist())
            rows = enumerate(zip(*columns, strict=True))
            good = [row for row, (name, seed, digest) in rows if _take(left, (name, seed), _decoded(digest))]
        except DAMAGE as error:
            logger.warning("%s is damaged and is not used (%s)", path, error)
            continue
        if good:
            parts.append(Facts.of(part, good))
    return parts, set(left)


def _take(left: dict[Key, str], key: Key, digest: str) -> bool:
    """Is this the row that is still looked for?"""
    return left.get(key) == digest and bool(left.pop(key))


def _parts(run: Path) -> list[Path]:
    return sorted((run / FOLDER).glob("trajectories-*.npz"))


def write_rows(run: Path, rows: Sequence[Row]) -> bool:
    """Store `rows`, with those of parts that are not full; False if the folder cannot be written."""
    if not rows:
        return True
    joined, done = [arrays_of(rows)], []
    for path in _parts(run):
        try:
            with open_arrays(path, VERSION) as part:
                if len(part["seed"]) + sum(len(one["seed"]) for one in joined) <= ROWS:
                    joined.insert(-1, dict(part))
                    done.append(path)
        except DAMAGE:  # or of another version: nobody will use it
            done.append(path)
    arrays = {name: np.concatenate([one[name] for one in joined]) for name in joined[-1]}
    if not write_arrays(run / FOLDER / f"trajectories-{os.urandom(8).hex()}.npz", VERSION, arrays):
        return False
    with suppress(OSError):
        for path in (*done, *(run / FOLDER).glob("*.parquet")):  # which earlier versions wrote
            path.unlink(missing_ok=True)
    return True


# --- trajectories ---------------------------------------------------------------------------------------------------


def _computed(
    run: Path, wanted: Mapping[Key, str | Path], digests: Mapping[Key, str], problems: list[str]
) -> Iterator[Row]:
    for key, path in wanted.items():
        digest = digests.get(key, "")
        try:
            trajectory = _verified(run, key, digest) if digest else read_trajectory(Path(path))
        except DataError as error:
            problems.append(str(error))
            continue
        yield row_of(key, digest, trajectory)


def _verified(run: Path, key: Key, digest: str) -> Trajectory:
    """The trajectory of a rollout. Raises DataError where its file is not the one that the journal speaks of."""
    path = run / "rollouts" / key[0] / str(key[1]) / f"{key[0]}.traj.json"
    data = read_bytes(path)
    if hashlib.sha256(data).hexdigest() != digest:
        raise DataError(f"{path} has other content than when it was written; `aem fsck {run}` says what else has")
    try:
        return parse_trajectory(path, json.loads(data))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from None


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


# --- small things ---------------------------------------------------------------------------------------------------


def _spans(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The indices of many slices, one after the other."""
    before = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths)


def _ended(lengths: NDArray[np.int64], values: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    return np.append(0, np.cumsum(lengths)), values


def _texts(texts: Sequence[str]) -> NDArray[np.bytes_]:
    return np.array([text.encode("utf-8", "surrogatepass") for text in texts], np.bytes_)


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "surrogatepass")


def _text(text: str) -> str:
    """Text that can be shown: half a surrogate pair, which JSON can hold, becomes a question mark."""
    return text.encode("utf-8", "replace").decode()
