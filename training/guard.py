"""No evaluation task is trained on: rows are compared with SWE-bench Verified before training.

A row counts as measured when its instance id, its repository at its base commit, or its problem statement is one of
Verified's; a renamed file, data set or instance does not hide it. What the set contains is known here as digests, 16
hexadecimal digits each, so that the check needs no network and no copy of the data. Rows of further held-out sets are
taken as they are.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from aem_harness.harness.errors import ConfigError
from aem_harness.harness.io import read_json
from aem_harness.harness.types import Task
from aem_harness.training.functions import skeleton
from aem_harness.training.tasks import BugFix, split_of

COMMIT = 7  # hexadecimal digits of a commit that are compared: some sets name no more
KINDS = ("instance id", "repository and base commit", "problem statement")
MEASURED = Path(__file__).parent / "measured.json"
CERTIFICATE = "certificate.json"  # what `aem data prepare` writes beside its rows
VERIFIED_PROJECTS = frozenset(
    {"astropy", "django", "flask", "matplotlib", "pylint", "pytest"}
    | {"requests", "scikit-learn", "seaborn", "sphinx", "sympy", "xarray"}
)


class Row(Protocol):
    """What is compared of a row; `harness.types.Instance` is one."""

    @property
    def instance_id(self) -> str: ...
    @property
    def repo(self) -> str: ...
    @property
    def base_commit(self) -> str: ...
    @property
    def problem_statement(self) -> str: ...


@dataclass(frozen=True)
class Overlap:
    """One training row that is measured on, and by what it was recognised."""

    instance_id: str
    by: str
    measured: str


def keys(row: Row) -> dict[str, str]:
    """The digests of a row, by kind; a kind is left out where the row says nothing."""
    statement = " ".join(row.problem_statement.split()).lower()
    said = {
        KINDS[0]: row.instance_id.strip().lower(),
        KINDS[1]: _place(row, project_of(row.repo)),
        KINDS[2]: statement if len(statement) >= 40 else "",  # shorter ones may be equal by chance
    }
    return {kind: _digest(kind, text) for kind, text in said.items() if text}


def renamed(row: Row) -> set[str]:
    """The digests of a row's base commit in every project of Verified, if its repository bears the name of none: a fork
    under another name has the same commits."""
    if project_of(row.repo) in VERIFIED_PROJECTS:
        return set()
    return {_digest(KINDS[1], place) for project in VERIFIED_PROJECTS if (place := _place(row, project))}


def _place(row: Row, project: str) -> str:
    commit = row.base_commit.strip().lower()
    return f"{project}@{commit[:COMMIT]}" if project and len(commit) >= COMMIT else ""


def _digest(kind: str, text: str) -> str:
    return hashlib.sha256(f"{kind}\0{text}".encode()).hexdigest()[:16]


def project_of(repo: str) -> str:
    """The project's own name: `django/django`, `someone/django` and SWE-smith's `swesmith/django__django.1fd52536` are
    django."""
    name = repo.strip().lower().rstrip("/").removesuffix(".git").rpartition("/")[2]
    return re.sub(r"\.[0-9a-f]{7,40}$", "", name).rpartition("__")[2]


@cache
def verified() -> Mapping[str, frozenset[str]]:
    """The digests of SWE-bench Verified's 500 rows, by kind."""
    return {kind: frozenset(values) for kind, values in json.loads(MEASURED.read_text())["verified"].items()}


def overlaps(rows: Iterable[Row], held_out: Mapping[str, Iterable[Row]] | None = None) -> list[Overlap]:
    """Every row that SWE-bench Verified, or one of the `held_out` sets by name, measures."""
    sets: dict[str, Mapping[str, frozenset[str]]] = {"SWE-bench Verified": verified()}
    for name, measured in (held_out or {}).items():
        digests = [keys(row) for row in measured]
        sets[name] = {kind: frozenset(one[kind] for one in digests if kind in one) for kind in KINDS}
    overlapping = []
    for row in rows:
        own, elsewhere = keys(row), renamed(row)
        for name, known in sets.items():
            kind = next((kind for kind, digest in own.items() if digest in known[kind]), None)
            kind = kind or (KINDS[1] if elsewhere & known[KINDS[1]] else None)
            if kind:
                overlapping.append(Overlap(row.instance_id, kind, name))
                break
    return overlapping


def base_unknown(task: Task) -> bool:
    """Whether a row of a project that Verified measures does not name its base commit, so that nothing can be said."""
    from aem_harness.harness.instances.training_sets.r2e_gym import OF_THE_FIX

    return task.provenance.get("base_commit") == OF_THE_FIX and project_of(task.instance.repo) in VERIFIED_PROJECTS


def certify(tasks: Sequence[Task], held_out: Mapping[str, Sequence[Task]] | None = None) -> dict[str, Any]:
    """What a card says of the training rows. Raises ConfigError, naming the first, when one of them is measured on."""
    if unknown := next((task.instance_id for task in tasks if base_unknown(task)), None):
        raise ConfigError(
            f"{unknown} names the commit of its fix, not the base that SWE-bench Verified may measure: bring the rows "
            "to their base with aem data prepare"
        )
    if named := next((task.dataset for task in tasks if "verified" in task.dataset.lower()), None):
        raise ConfigError(f"{named} is what checkpoints are measured on: train on other tasks")
    measured = {name: [task.instance for task in others] for name, others in (held_out or {}).items()}
    overlapping = overlaps([task.instance for task in tasks], measured)
    if overlapping:
        first, more = overlapping[0], f" and {len(overlapping) - 1} more" if len(overlapping) > 1 else ""
        raise ConfigError(
            f"{first.instance_id}{more}: {first.measured}, which checkpoints are measured on, has the same {first.by}; "
            "train on other tasks"
        )
    return stated(tasks, measured)


def stated(tasks: Sequence[Task], measured: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """The certificate of rows that were found apart from Verified and from the `measured` sets by name."""
    rows = sorted(json.dumps(task.instance.model_dump(mode="json"), sort_keys=True) for task in tasks)
    return {
        "rows": len(tasks),
        "rows_digest": "sha256:" + hashlib.sha256("\n".join(rows).encode()).hexdigest(),
        "disjoint_from": ["SWE-bench Verified (500)", *(f"{name} ({len(rows)})" for name, rows in measured.items())],
        "compared_by": list(KINDS),
    }


def certificate_of(
    source: str, tasks: Sequence[Task], held_out: Mapping[str, Sequence[Task]] | None = None
) -> dict[str, Any]:
    """`certify`, and over it what `aem data prepare` found out about the same rows, where they come from its folder.

    Raises ConfigError where the certificate beside the rows speaks of other ones.
    """
    certificate = certify(tasks, held_out)
    beside = Path(source).parent / CERTIFICATE
    if not (Path(source).is_file() and beside.is_file()):
        return certificate
    prepared = read_json(beside)
    if not isinstance(prepared, dict) or prepared.get("rows_digest") != certificate["rows_digest"]:
        raise ConfigError(f"{beside} is not of these rows: run aem data prepare again, or train on a copy without it")
    apart = dict.fromkeys([*prepared.get("disjoint_from", ()), *certificate["disjoint_from"]])
    return {**certificate, **prepared, "disjoint_from": list(apart)}


def certify_bug_fixes(drawn: Sequence[BugFix]) -> dict[str, Any]:
    """The same of the generated world: no function that is trained on has the shape of one that is measured on."""
    if measured := next((task for task in drawn if split_of(skeleton(task.gold)) != "train"), None):
        raise ConfigError(f"{measured.name} has the shape of a held-out function: train on tasks of the split train")
    digest = hashlib.sha256("\n".join(sorted(task.gold for task in drawn)).encode()).hexdigest()
    return {
        "rows": len(drawn),
        "rows_digest": f"sha256:{digest}",
        "disjoint_from": ["tiny, and every other task of the split test"],
        "compared_by": ["skeleton of the function"],
    }
