"""What a policy does: features of single rollouts as columns of the outcomes, and diversity across seeds.


The comparison treats the columns like any other metric. Facts of our own runs' trajectories are kept (`harness.facts`);
those of other trajectories are computed as they are read.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aem_harness.harness.compare.values import Ints, TaskValues
from aem_harness.harness.errors import DataError
from aem_harness.harness.facts.features import FEATURES, Sketch
from aem_harness.harness.facts.kept import BATCH, USED, Facts, Sketches, arrays_of, read_facts, row_of
from aem_harness.harness.interop.trajectories import read_trajectory
from aem_harness.harness.run.store import Key


class Read:
    """What is known of the trajectories of a table: `facts` in columns, one for each of the row labels in `rows`."""

    def __init__(self, facts: Facts | None = None, rows: Sequence[int] = ()) -> None:
        self.facts = facts or Facts.joined([])
        self.rows: Ints = np.asarray(rows, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def places(self, rows: Sequence[int] | pd.Index) -> Ints:
        """Where each of some row labels is in `facts`; -1 where it has no trajectory."""
        return np.asarray(pd.Index(self.rows).get_indexer(pd.Index(rows)), dtype=np.int64)

    def sketches(self, rows: Sequence[int]) -> Sketches:
        """The sketches of some row labels; those without a trajectory are left out."""
        found = zip(rows, self.places(rows).tolist(), strict=True)
        return self.facts.sketches({row: place for row, place in found if place >= 0})


def with_features(table: pd.DataFrame) -> tuple[pd.DataFrame, Read, list[str]]:
    """`table` with the columns FEATURES, what was read, and one line per trajectory that could not be.

    A column that the table already has is kept where it holds a value. Rows without a trajectory keep empty features.
    """
    parts: list[Facts] = []
    rows: list[int] = []
    problems: list[str] = []
    for facts, labels, unread in _read(table):
        parts.append(facts)
        rows += labels
        problems += unread
    read = Read(Facts.joined(parts), rows)
    places = read.places(table.index)
    columns: dict[str, pd.Series] = {}
    features = read.facts.features
    for number, name in enumerate(FEATURES):
        found = features[:, number]
        values = pd.Series(np.where(places >= 0, found[places], np.nan) if len(found) else np.nan, index=table.index)
        columns[name] = pd.to_numeric(table[name], errors="coerce").fillna(values) if name in table else values
    return table.assign(**columns), read, problems


def _read(table: pd.DataFrame) -> Iterator[tuple[Facts, list[int], list[str]]]:
    """Facts with their row labels and what could not be read: run by run, then the trajectories that lie elsewhere."""
    runs: dict[str, dict[Key, tuple[int, str]]] = {}
    others: dict[int, str] = {}
    columns = (table["trajectory"], table["source"], table["instance_id"], table["seed"])
    for row, path, source, name, seed in zip(table.index, *(column.tolist() for column in columns), strict=True):
        if not isinstance(path, str):
            continue
        if path == f"{'' if source == '.' else source + '/'}rollouts/{name}/{seed}/{name}.traj.json":
            runs.setdefault(source, {})[name, seed] = int(row), path
        else:
            others[int(row)] = path
    for source, wanted in runs.items():
        if not (Path(source) / "journal.jsonl").is_file():
            others |= dict(wanted.values())
            continue
        facts, problems = read_facts(Path(source), {key: path for key, (_, path) in wanted.items()})
        yield facts, [wanted[key][0] for key in facts.keys], problems
    paths = list(others.items())
    for start in range(0, len(paths), BATCH):
        yield _elsewhere(paths[start : start + BATCH])


def _elsewhere(paths: Sequence[tuple[int, str]]) -> tuple[Facts, list[int], list[str]]:
    rows, labels, problems = [], [], []
    for label, path in paths:
        try:
            rows.append(row_of(("", 0), "", read_trajectory(Path(path))))
        except DataError as error:
            problems.append(str(error))
        else:
            labels.append(label)
    return Facts.of(arrays_of(rows)), labels, problems


def diversity(table: pd.DataFrame, read: Read) -> TaskValues:
    """How differently the seeds of a task proceed: 1 - Jaccard similarity of their sets of commands.


    Mean over pairs of seeds; tasks with fewer than two trajectories are left out. One arm in `table`. Low diversity at
    equal success is a warning sign of suppressed exploration (compare with arXiv 2604.28182).
    """
    places = read.places(table.index)
    known = np.flatnonzero(places >= 0)
    lengths, values = read.facts.lists(USED, places[known])
    ends = np.cumsum(lengths)
    of_task: dict[str, list[int]] = {}
    for number, name in enumerate(table["instance_id"].to_numpy(dtype=object)[known]):
        of_task.setdefault(name, []).append(number)
    names = tuple(name for name in sorted(of_task) if len(of_task[name]) > 1)
    spread = np.array(
        [_spread([values[ends[one] - lengths[one] : ends[one]] for one in of_task[name]]) for name in names]
    )
    repos = table["repo"].to_numpy(dtype=object)[known]
    counts = np.array([len(of_task[name]) for name in names], dtype=np.int64)
    unknown = np.full(len(names), np.nan)
    clusters = np.array([repos[of_task[name][-1]] for name in names], dtype=str)
    return TaskValues(names, spread, unknown, unknown, np.zeros(len(names)), clusters, (counts,))


def first_divergence(a: Sketch, b: Sketch) -> int | None:
    """The first turn, from 0, whose commands differ; None when they are the same to the end."""
    for step, (one, other) in enumerate(zip(a.keys, b.keys, strict=False)):
        if one != other:
            return step
    return None if len(a.keys) == len(b.keys) else min(len(a.keys), len(b.keys))


def action_at(one: Sketch, step: int | None) -> str:
    """What the model did at a turn, as one short line."""
    if step is None:
        return ""
    return one.actions[step] if step < len(one.actions) else f"(ended: {one.exit_status or 'unknown'})"


@lru_cache
def _pairs(count: int) -> tuple[Ints, Ints]:
    """The first and the second of every pair of `count`."""
    return np.triu_indices(count, 1)


def _spread(sets: Sequence[NDArray[np.generic]]) -> float:
    """Mean over the pairs of `sets`, each an array of unlike members; two empty sets are alike."""
    members, number = np.unique(np.concatenate(sets), return_inverse=True)
    held = np.zeros((len(sets), len(members)))
    held[np.repeat(np.arange(len(sets)), [len(one) for one in sets]), number] = 1
    both = held @ held.T
    size = both.diagonal()
    first, second = _pairs(len(sets))
    either = size[first] + size[second] - both[first, second]
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.where(either > 0, 1 - both[first, second] / either, 0.0).mean())
