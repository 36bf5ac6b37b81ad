"""Features of a run's trajectories, stored beside its journal in Parquet: computed once, when a rollout ends.

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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from aem_harness.harness.errors import AemError, DataError
from aem_harness.harness.facts.features import FEATURES, Sketch, features, sketch
from aem_harness.harness.interop.trajectories import Trajectory, parse_trajectory, read_trajectory
from aem_harness.harness.io import read_bytes, replacing
from aem_harness.harness.run.store import Event, Key, read_journal

logger = logging.getLogger(__name__)

_NONE = np.zeros(0, np.int32)

FOLDER = "facts"
VERSION = b"1"  # of what the columns mean; another one is computed anew
ROWS = 512
KEYS, ENTROPIES, USED, ACTIONS = "turn_keys", "turn_entropies", "used", "actions"
COLUMNS = ["instance_id", "seed", "sha256", *FEATURES, "exit_status", KEYS, ENTROPIES, USED]  # without ACTIONS
SCHEMA = pa.schema(
    [
        ("instance_id", pa.string()),
        ("seed", pa.int32()),
        ("sha256", pa.string()),
        *((name, pa.float64()) for name in FEATURES),
        ("exit_status", pa.string()),
        (KEYS, pa.list_(pa.uint64())),
        (ENTROPIES, pa.list_(pa.float64())),
        (USED, pa.list_(pa.uint64())),
        (ACTIONS, pa.list_(pa.string())),
    ],
    metadata={"aem.facts": VERSION},
)


def row_of(key: Key, digest: str, trajectory: Trajectory) -> dict[str, Any]:
    """One row of `SCHEMA`."""
    kept = sketch(trajectory)
    return {
        "instance_id": key[0],
        "seed": key[1],
        "sha256": digest,
        **features(trajectory),
        "exit_status": _text(kept.exit_status),
        KEYS: kept.keys,
        ENTROPIES: [float(one) if isinstance(one, int | float) else None for one in kept.entropies],
        USED: sorted(kept.used),
        ACTIONS: [_text(action) for action in kept.actions],
    }


class Keeper:
    """Computes the features of each rollout of a run when it has ended, and stores them. Safe to share by threads.

    Any error here is logged and costs no rollout: the features are then read from the trajectory later.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._rows: list[dict[str, Any]] = []
        self._mutex = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._write()

    def add(self, event: Event) -> None:
        """Take up a rollout that is in the journal; what is none of it (a grade) is passed over."""
        key = event["instance_id"], event["seed"]
        digest = digest_in(event)
        if event["event"] != "rollout" or not digest:
            return
        try:
            row = row_of(key, digest, _verified(self._run, key, digest))
        except Exception as error:
            logger.warning("%s seed %d: no facts of its trajectory", *key, exc_info=error)
            return
        with self._mutex:
            self._rows.append(row)
            full = len(self._rows) >= ROWS
        if full:
            self._write()

    def _write(self) -> None:
        with self._mutex:
            rows, self._rows = self._rows, []
        write_rows(self._run, rows)


@dataclass(frozen=True)
class Facts:
    """Features of N rollouts in columns: `table` has `COLUMNS`.

    The actions are long and few of them are shown, so they stay in their files: those of row i are at `place[i]` of
    `sources[number[i]]`, a file or a column.
    """

    table: pa.Table
    sources: tuple[Path | pa.ChunkedArray, ...]
    number: NDArray[np.int32]
    place: NDArray[np.int32]

    @classmethod
    def joined(cls, parts: "Sequence[Facts]") -> "Facts":
        starts = np.cumsum([0, *(len(part.sources) for part in parts)])
        return cls(
            table=pa.concat_tables([SCHEMA.empty_table().select(COLUMNS), *(part.table for part in parts)]),
            sources=tuple(source for part in parts for source in part.sources),
            number=np.concatenate([_NONE, *(part.number + start for part, start in zip(parts, starts, strict=False))]),
            place=np.concatenate([_NONE, *(part.place for part in parts)]),
        )

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> "Facts":
        """Features that are in no file."""
        table = pa.Table.from_pylist(list(rows), schema=SCHEMA)
        here = np.arange(len(rows), dtype=np.int32)
        return cls(table.select(COLUMNS), (table[ACTIONS],), np.zeros_like(here), here)

    def rollouts(self) -> list[Key]:
        """Instance and seed of each row."""
        return list(zip(self.table["instance_id"].to_pylist(), self.table["seed"].to_pylist(), strict=True))

    def sketches(self, rows: Sequence[int]) -> dict[int, Sketch]:
        """The sketches of some rows; without those whose file has gone since."""
        out: dict[int, Sketch] = {}
        at = np.asarray(sorted(set(rows)), dtype=np.int64)
        for number in np.unique(self.number[at]):
            some = at[self.number[at] == number]
            try:
                source = self.sources[number]
                column = _opened(source).read(columns=[ACTIONS])[ACTIONS] if isinstance(source, Path) else source
                actions = column.take(pa.array(self.place[some])).to_pylist()
            except (OSError, ValueError, pa.ArrowException) as error:
                logger.warning("%s cannot be read any more (%s)", source, error)
                continue
            for row, known, shown in zip(some, self.table.take(pa.array(some)).to_pylist(), actions, strict=True):
                out[int(row)] = Sketch(
                    exit_status=known["exit_status"],
                    keys=tuple(known[KEYS]),
                    actions=tuple(shown),
                    entropies=tuple(known[ENTROPIES]),
                    used=frozenset(known[USED]),
                )
        return out

    def lists(self, name: str) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """A column of lists: the length of each row's, (N,), and all values after each other; nan where one is null."""
        column = self.table[name].combine_chunks()
        lengths = column.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
        return lengths, column.flatten().to_numpy(zero_copy_only=False)


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
            loose.append(Facts.of(rows))
    if missing:  # the files have changed: read what they hold now
        held = {key for part in loose for key in part.rollouts()}
        parts, left = _kept(run, {key: digest for key, digest in digests.items() if key not in held})
        again = {key: wanted[key] for key in left if key not in missing}  # another process was at it
        loose += [Facts.of(rows) for rows in _batches(_computed(run, again, digests, problems))]
    return Facts.joined([*parts, *loose]), problems


def journaled(run: Path) -> dict[Key, str]:
    """The hash of the newest trajectory of every rollout, as the journal has it."""
    found: dict[Key, str] = {}
    for event in read_journal(run):
        if event["event"] == "rollout":
            found[event["instance_id"], event["seed"]] = digest_in(event)
    return {key: digest for key, digest in found.items() if digest}


def digest_in(event: Event) -> str:
    """The hash of the trajectory that a rollout's event speaks of; empty where it has none."""
    known = (event.get("files") or {}).get(f"{event['instance_id']}.traj.json") or {}
    return str(known.get("sha256", ""))


# --- files ----------------------------------------------------------------------------------------------------------


def _kept(run: Path, digests: Mapping[Key, str]) -> tuple[list[Facts], set[Key]]:
    """The valid rows, and the rollouts that have none."""
    left = dict(digests)
    parts: list[Facts] = []
    for path in _parts(run):
        try:
            part = _opened(path).read(columns=COLUMNS, use_threads=False)
            rows = zip(*(part[name].to_pylist() for name in ("instance_id", "seed", "sha256")), strict=True)
            good = [row for row, (name, seed, digest) in enumerate(rows) if _take(left, (name, seed), digest)]
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            logger.warning("%s is damaged and is not used (%s)", path, error)
            continue
        if good:
            place = np.array(good, np.int32)
            rest = part if len(good) == len(part) else part.take(pa.array(place))
            parts.append(Facts(rest, (path,), np.zeros_like(place), place))
    return parts, set(left)


def _take(left: dict[Key, str], key: Key, digest: str) -> bool:
    """Is this the row that is still looked for?"""
    return left.get(key) == digest and bool(left.pop(key))


def _parts(run: Path) -> list[Path]:
    return sorted((run / FOLDER).glob("*.parquet"))


def _opened(path: Path) -> pq.ParquetFile:
    """Raises ValueError where it holds other columns than this version's."""
    file = pq.ParquetFile(path, page_checksum_verification=True)
    if not file.schema_arrow.equals(SCHEMA) or (file.schema_arrow.metadata or {}).get(b"aem.facts") != VERSION:
        raise ValueError("it is of another version")
    return file


def write_rows(run: Path, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Store `rows`, with those of parts that are not full; False if the folder cannot be written."""
    if not rows:
        return True
    table = pa.Table.from_pylist(list(rows), schema=SCHEMA)
    small = []
    for path in _parts(run):
        with suppress(OSError, ValueError, pa.ArrowException):
            file = _opened(path)
            if file.metadata.num_rows + len(table) <= ROWS:
                table = pa.concat_tables([file.read(), table])
                small.append(path)
    try:
        (run / FOLDER).mkdir(exist_ok=True)
        with replacing(run / FOLDER / f"{os.urandom(8).hex()}.parquet") as out:
            pq.write_table(
                table.replace_schema_metadata(SCHEMA.metadata), out, compression="zstd", write_page_checksum=True
            )
        for path in small:
            path.unlink(missing_ok=True)
    except (OSError, AemError, pa.ArrowException) as error:
        logger.info("%s: facts of trajectories are not kept (%s)", run, error)
        return False
    return True


# --- trajectories ---------------------------------------------------------------------------------------------------


def _computed(
    run: Path, wanted: Mapping[Key, str | Path], digests: Mapping[Key, str], problems: list[str]
) -> Iterator[dict[str, Any]]:
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


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _text(text: str) -> str:
    """Text that Arrow can hold: half a surrogate pair, which JSON can, becomes a question mark."""
    return text.encode("utf-8", "replace").decode()
