"""The outcomes table from which everything is computed: one row per rollout, from any tool.

Built from our own run folders, from a plain CSV, and through `harness.interop` from other formats. A rollout that was
planned but has no verdict keeps its row with an empty `resolved`: lost work never counts as a wrong answer, and never
disappears.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aem_harness.harness.compare.columns import is_outcomes_csv, read_table, rename_columns
from aem_harness.harness.compare.ledger import settle
from aem_harness.harness.ends import Ends, read_ends
from aem_harness.harness.errors import DataError, listed
from aem_harness.harness.schema import COLUMNS, KEY, REQUIRED, normalise
from aem_harness.harness.types import Outcome, Record


class ArmFacts(Record):
    """The facts of an arm beyond its rollouts. Two arms should differ in the weights and in nothing else here."""

    arm: str
    source: str = ""
    run_id: str = ""
    config_digest: str = ""
    config: Mapping[str, Any] = {}
    agent: Mapping[str, Any] = {}
    dataset: Mapping[str, Any] = {}
    versions: Mapping[str, Any] = {}
    fingerprint: Mapping[str, Any] = {}
    status: str = ""  # "running" while a process writes the run, "stopped" where its results ended it early


@dataclass(frozen=True)
class Outcomes:
    """The table, and per arm the settings and versions of its source (absent for plain CSV files).

    `notes` are lines for the reader of a result: records that could not be read, and unknown exit statuses.
    """

    table: pd.DataFrame
    facts: Mapping[str, ArmFacts] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def arms(self) -> list[str]:
        """Arms in the order in which they were read."""
        return list(dict.fromkeys(self.table["arm"]))


def load(sources: Sequence[str | Path], ends: Ends | None = None) -> Outcomes:
    """Read arms from `sources` into one table; `ends` says, for all of them, whose fault each exit status is.

    A source is a run folder, a CSV of outcomes, or anything `aem import` reads. `file.csv:NAME` selects one arm of a
    file, `NAME=source` renames the arm. Raises DataError with the source, row and column of the error.
    """
    return combine(load_one(str(source), ends) for source in sources)


def load_one(source: str, ends: Ends | None = None) -> Outcomes:
    """One source; see `load`."""
    path, rename, pick = _parse_source(source)
    if not _exists(str(path)):
        raise DataError(f"no such run folder or file: {path}")
    outcomes = import_outcomes(path, ends=ends)
    if pick:
        outcomes = only(outcomes, pick, str(path))
    return _renamed(outcomes, rename, path) if rename else outcomes


def import_outcomes(
    path: Path,
    *,
    format: str = "auto",
    arm: str = "",
    seed: int = 0,
    reports: Path | None = None,
    columns: Mapping[str, str] | None = None,
    ends: Ends | None = None,
) -> Outcomes:
    """Results of any tool: a run folder, an outcomes CSV, or one of the formats of `aem_harness.harness.interop`.

    `arm` and `seed` name the rollouts if the source does not, `reports` is the place of the official verdicts,
    `columns` maps our columns to those of a CSV (`{"arm": "study+model"}` joins two).
    """
    from aem_harness.harness.interop import ImportSource, read

    ends = ends or read_ends()
    if format in ("auto", "run") and (path / "run.json").is_file():
        run = read_run(path)
        return _settled(run.table, ends, str(path), facts=run.facts)
    if columns:
        renamed = rename_columns(read_table(path), columns, str(path), arm)
        return _settled(normalise(renamed, str(path)), ends, str(path))
    if format in ("auto", "csv") and is_outcomes_csv(path):
        return _settled(read_csv(path), ends, str(path))
    source = ImportSource(path, arm, seed, reports, ends)
    table = normalise(read(source, format), str(path))
    return _settled(table, ends, str(path), notes=source.problems.lines(str(path)))


def _settled(
    table: pd.DataFrame,
    ends: Ends,
    source: str,
    *,
    facts: Mapping[str, ArmFacts] | None = None,
    notes: Sequence[str] = (),
) -> Outcomes:
    settled = settle(table, ends, source)
    return Outcomes(settled.table, facts or {}, (*notes, *settled.notes))


def describe_tasks(outcomes: Outcomes, dataset: str) -> Outcomes:
    """Fill repo, difficulty and created_at, where they are missing, from a dataset that `harness.instances` reads."""
    from aem_harness.harness.instances.load import load as load_dataset

    known = {task.instance_id: task.instance for task in load_dataset(dataset).tasks}
    table = outcomes.table.copy()
    for name in ("repo", "difficulty", "created_at"):
        facts = {task: getattr(instance, name) or None for task, instance in known.items()}
        table[name] = table[name].fillna(table["instance_id"].astype("object").map(facts).astype("str"))
    return Outcomes(table, outcomes.facts, outcomes.notes)


def readable(source: str) -> bool:
    """Does the path of `[NAME=]path[:ARM]` exist?"""
    return _parse_source(source)[0].exists()


def only(outcomes: Outcomes, arm: str, source: str = "the table") -> Outcomes:
    """One arm of several."""
    if arm not in outcomes.arms:
        raise DataError(f"{source} has no arm {arm!r}; it has: {listed(outcomes.arms)}")
    facts = {arm: outcomes.facts[arm]} if arm in outcomes.facts else {}
    return Outcomes(outcomes.table[outcomes.table["arm"] == arm], facts, outcomes.notes)


def combine(parts: Iterable[Outcomes]) -> Outcomes:
    """Stack tables; a repeated rollout (arm, instance, seed) is an error that names both sources."""
    parts = list(parts)
    if not parts:
        raise DataError("nothing to compare: give at least one run folder or CSV file")
    table = pd.concat([part.table for part in parts], ignore_index=True)
    twice = table[table.duplicated(KEY, keep=False)].sort_values(KEY, kind="stable").head(2)
    if len(twice):
        first, second = twice.to_dict("records")
        raise DataError(
            f"arm {first['arm']!r} has two rollouts of {first['instance_id']} seed {first['seed']} (from "
            f"{first['source']} and {second['source']}); rename one arm with NAME=source"
        )
    facts = {arm: fact for part in parts for arm, fact in part.facts.items()}
    return Outcomes(table, facts, tuple(note for part in parts for note in part.notes))


# --- our own runs ---------------------------------------------------------------------------------------------------


NOT_RUN, NOT_GRADED = "not run", "not graded"


def read_run(folder: Path) -> Outcomes:
    """A run folder of aem. The last attempt of an instance and seed counts; an ERROR verdict leaves `resolved` empty.

    Planned rollouts that have not been run or graded are rows too, with an empty `resolved` and the reason in `cause`.
    """
    from aem_harness.harness.facts.journal import read_newest
    from aem_harness.harness.io import read_json
    from aem_harness.harness.run.listing import STOPPED, is_written
    from aem_harness.harness.run.seeds import seeds_of

    marks, canaries = _audited(folder)
    run = read_json(folder / "run.json")
    known = {key: run[key] for key in ArmFacts.model_fields if run.get(key)}
    facts = ArmFacts(**{"arm": folder.name, **known, "source": str(folder)})
    newest = read_newest(folder)
    about: Mapping[str, Mapping[str, Any]] = run.get("tasks") or {}  # repo, difficulty and created_at by instance
    plan = run.get("plan") or {"instances": [], "seeds": 0}
    planned = [(instance, seed) for instance, seeds in seeds_of(plan).items() for seed in range(seeds)]
    keys = list(dict.fromkeys([*planned, *newest.keys]))
    if not keys:
        raise DataError(f"{folder} holds no rollouts yet; run `aem run` first")
    told = newest.at(keys)
    none = [None] * len(keys)
    said = (told.get(name, none) for name in ("run", "fault", "has_grade", "outcome", "cause", "reuse"))
    verdicts = [_verdict(*one) for one in zip(*said, strict=True)]
    unfinished = any(why in (NOT_RUN, NOT_GRADED) for _, why, _ in verdicts[: len(planned)])
    if is_written(folder):
        facts = facts.model_copy(update={"status": "running"})
    elif unfinished and (folder / STOPPED).is_file():
        facts = facts.model_copy(update={"status": "stopped"})
    constant = {
        "arm": facts.arm,
        "source": str(folder),
        "grader": _joined("swebench", str(facts.versions.get("swebench", "")).removeprefix("swebench ")),
        "dataset": _joined(facts.dataset.get("name"), str(facts.dataset.get("digest", ""))[:12]),
        "scaffold": _joined("aem", facts.versions.get("aem"), facts.agent.get("name") or facts.agent.get("kind")),
        "model": _joined(facts.fingerprint.get("model") or facts.config.get("checkpoint")),
    }
    columns: dict[str, Any] = {name: [value] * len(keys) for name, value in constant.items()}
    for name in dict.fromkeys(name for known in about.values() for name in known):
        columns[name] = [about.get(instance, {}).get(name) for instance, _ in keys]
    columns["integrity"], columns["canary"] = [marks.get(key) for key in keys], [canaries.get(key) for key in keys]
    for name, values in told.items():
        if name not in COLUMNS:
            continue
        columns[name] = (
            values
            if name not in columns
            else [old if new is None or new != new else new for new, old in zip(values, columns[name], strict=True)]
        )
    columns |= {
        "instance_id": [instance for instance, _ in keys],
        "seed": [seed for _, seed in keys],
        "resolved": [None] * len(keys),
        "outcome": [outcome for outcome, _, _ in verdicts],
        "cause": [cause for _, cause, _ in verdicts],
        "reuse": [reuse for _, _, reuse in verdicts],
        "trajectory": [_trajectory(str(folder / "rollouts"), *key) for key in keys],
    }
    raw = {  # objects as they are: pandas would look what they could become, and not every text can be kept in pyarrow
        name: values if isinstance(values, np.ndarray) and values.dtype != object else pd.Series(values, dtype=object)
        for name, values in columns.items()
    }
    return Outcomes(normalise(pd.DataFrame(raw), str(folder)), {facts.arm: facts})


def _verdict(
    run: bool, fault: str | None, graded: object, outcome: str | None, cause: str | None, reuse: str | None
) -> tuple[str | None, str | None, str | None]:
    """Outcome, cause and reuse of a rollout, from what its journal says (`facts.journal.Newest`)."""
    if not run:
        return None, NOT_RUN, None
    if fault:
        return Outcome.ERROR.value, fault, None
    return (outcome, cause, reuse) if graded == 1 else (None, NOT_GRADED, None)


def _trajectory(place: str, instance_id: str, seed: int) -> str | None:
    path = f"{place}/{instance_id}/{seed}/{instance_id}.traj.json"
    return path if os.path.exists(path) else None  # noqa: PTH110 - tens of thousands of times


def _audited(folder: Path) -> tuple[dict[tuple[str, int], str], dict[tuple[str, int], str]]:
    """For the rollouts in audit.json: the names of their grave marks, and the findings of canaries."""
    from aem_harness.harness.io import read_json

    if not (folder / "audit.json").is_file():
        return {}, {}
    grave: dict[tuple[str, int], str] = {}
    canaries: dict[tuple[str, int], str] = {}
    for entry in read_json(folder / "audit.json"):
        key = entry["instance_id"], entry["seed"]
        if names := [mark["name"] for mark in entry["marks"] if mark["grave"]]:
            grave[key] = ", ".join(dict.fromkeys(names))
        if entry.get("canary"):
            canaries[key] = entry["canary"]
    return grave, canaries


# --- CSV ------------------------------------------------------------------------------------------------------------


def read_csv(path: Path) -> pd.DataFrame:
    """A CSV with the columns arm, instance_id, seed, resolved and any others of `COLUMNS` or of its own."""
    return normalise(read_table(path), str(path))


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """The inverse of `read_csv`; columns that hold nothing are left out."""
    columns = [name for name in table.columns if name in REQUIRED or table[name].notna().any()]
    table[columns].assign(resolved=table["resolved"].astype("Int64")).to_csv(
        path, index=False, errors="backslashreplace"
    )


# --- small things ---------------------------------------------------------------------------------------------------


def _parse_source(source: str) -> tuple[Path, str, str]:
    """Split `NAME=path:ARM` into path, new name and arm; an existing path wins over the punctuation in it."""
    rename, pick = "", ""
    if not _exists(source) and "=" in source:
        rename, _, source = source.partition("=")
    if not _exists(source) and ":" in source:
        source, _, pick = source.rpartition(":")
    return Path(source), rename, pick


def _exists(source: str) -> bool:
    try:
        return Path(source).exists()
    except OSError:  # too long for a name of a file
        return False


def _renamed(outcomes: Outcomes, name: str, path: Path) -> Outcomes:
    if len(outcomes.arms) > 1:
        raise DataError(
            f"{path} holds {len(outcomes.arms)} arms ({listed(outcomes.arms)}); pick one: {name}={path}:ARM"
        )
    facts = [fact.model_copy(update={"arm": name}) for fact in outcomes.facts.values()]
    return Outcomes(outcomes.table.assign(arm=name), {fact.arm: fact for fact in facts}, outcomes.notes)


def _joined(*parts: object) -> str:
    return " ".join(str(part) for part in parts if part)
