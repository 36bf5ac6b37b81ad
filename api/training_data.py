"""Training rows: loaded, compared with evaluation sets, validated in containers, certified. `aem data prepare`."""

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aem_harness.api.grading import How, grade_all
from aem_harness.api.running import Selection, Tasks, quiet
from aem_harness.harness.errors import EXIT_INFRASTRUCTURE, EXIT_OK, AemError, DataError
from aem_harness.harness.io import write_json, write_json_lines
from aem_harness.harness.types import Outcome, Prediction

if TYPE_CHECKING:
    from rich.console import Console

    from aem_harness.harness.instances.load import Loaded
    from aem_harness.harness.types import Task

ROWS, DROPPED, IMAGES = "rows.jsonl", "dropped.jsonl", "images"
# An empty patch is never graded, so it could not show that the tests fail: a file that nothing reads stands for it.
UNCHANGED = """diff --git a/aem-unchanged.txt b/aem-unchanged.txt
new file mode 100644
--- /dev/null
+++ b/aem-unchanged.txt
@@ -0,0 +1 @@
+Nothing else is changed.
"""
BASE_UNKNOWN = "base commit unknown"


@dataclass(frozen=True)
class Dropped:
    """A row that is left out: `reason` is counted in the certificate, `detail` says it of this row."""

    instance_id: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Prepared:
    """What came of it: the rows that are left, those that were dropped, and those that only infrastructure kept out."""

    folder: Path
    kept: "Sequence[Task]"
    dropped: Sequence[Dropped]
    pending: Mapping[str, str]
    certificate: Mapping[str, Any]

    @property
    def exit_code(self) -> int:
        return EXIT_INFRASTRUCTURE if self.pending else EXIT_OK


def prepare(
    source: str,
    out: str | Path,
    *,
    split: str = "train",
    tasks: Tasks | None = None,
    held_out: Sequence[str] = (),
    validate: bool = True,
    how: How = How(),  # noqa: B008 - frozen
    console: "Console | None" = None,
) -> Prepared:
    """Write `rows.jsonl`, `dropped.jsonl` and `certificate.json` into the folder `out`; the same call again continues.

    `source` is a file, a folder or a name of the hub, in any form that `aem instances` reads; `split` is taken of the
    latter two. Left out are bad rows, rows that SWE-bench Verified or one of the `held_out` sets measures, and with
    `validate` those that the gold patch does not resolve or an unchanged tree does, graded as `how` says. Raises
    DataError where nothing is left or a held-out row is bad, EnvironmentFault where no engine answers.
    """
    from aem_harness.harness.instances.load import load, load_tasks
    from aem_harness.harness.instances.select import select

    console, folder = console or quiet(), Path(out)
    loaded = load(source, split=split)
    chosen = select(loaded.tasks, **vars(tasks or Tasks()))
    # All rows must be good: one that cannot be read cannot be kept apart.
    measured = {name: [task.instance for task in load_tasks(name)] for name in held_out}
    dropped = [Dropped("", "bad row", problem) for problem in loaded.problems]
    kept, overlapping = _apart(chosen, measured)
    dropped += overlapping
    pending: dict[str, str] = {}
    tried: Mapping[str, Any] = {"validated": False}
    if validate and kept:
        kept, overlapping = _apart(_with_bases(kept, how.workers, pending), measured)
        dropped += overlapping
        kept, failed, tried = _validated(kept, loaded, folder / "validation", console, pending, how)
        dropped += failed
    elif kept:
        kept, unknown = _of_known_base(kept)
        dropped += unknown
    return _written(
        folder, kept, dropped, pending, _facts(loaded, split, len(chosen), dropped, pending, tried), measured
    )


# --- what is measured -------------------------------------------------------------------------------------------------


def _apart(tasks: "Sequence[Task]", measured: Mapping[str, Sequence[Any]]) -> "tuple[list[Task], list[Dropped]]":
    """The tasks that nothing measures, and the others."""
    from aem_harness.training.guard import overlaps

    found = overlaps([task.instance for task in tasks], measured)
    names = {overlap.instance_id for overlap in found}
    dropped = [Dropped(one.instance_id, f"measured by {one.measured}", f"the same {one.by}") for one in found]
    return [task for task in tasks if task.instance_id not in names], dropped


def _with_bases(tasks: "Sequence[Task]", workers: int, pending: dict[str, str]) -> "list[Task]":
    """The tasks, with the base commit of their image where the row does not say it; what cannot be read is pending."""
    from aem_harness.harness.sandbox.container import Sandbox
    from aem_harness.harness.sandbox.images import end_pulls

    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(_with_base, task) for task in tasks]
        try:
            found = [future.result() for future in futures]
        except BaseException:  # Ctrl-C, mostly
            pool.shutdown(wait=False, cancel_futures=True)
            while running := [future for future in futures if not future.done()]:
                Sandbox.close_all()  # repeatedly: another container may just be starting
                end_pulls()
                wait(running, timeout=0.5)
            raise
    pending |= {task.instance_id: why for task, why in found if why}
    return [task for task, why in found if not why]


def _with_base(task: "Task") -> "tuple[Task, str]":
    """The task with its image's commit where its own is not the base, or why that could not be read."""
    from aem_harness.harness.instances.training_sets.r2e_gym import OF_THE_FIX
    from aem_harness.harness.sandbox.container import Sandbox
    from aem_harness.harness.sandbox.images import ensure_image

    if task.provenance.get("base_commit") != OF_THE_FIX:
        return task, ""
    try:
        ensure_image(task)
        with Sandbox(task.instance.image, workdir=task.instance.workdir, scrub_git=False, prelude="") as box:
            seen = box.execute("git -c safe.directory='*' rev-parse --verify HEAD")
    except AemError as error:
        return task, str(error)
    commit = seen.output.strip()
    if seen.returncode:
        return task, f"the image's repository has no commit: {commit[-200:]}"
    provenance = {**task.provenance, "base_commit": "the image's repository"}
    instance = task.instance.model_copy(update={"base_commit": commit})
    return task.model_copy(update={"instance": instance, "provenance": provenance}), ""


def _of_known_base(tasks: "Sequence[Task]") -> "tuple[list[Task], list[Dropped]]":
    """Without containers the base commit of some rows stays unknown: those of a measured project are left out."""
    from aem_harness.training.guard import base_unknown

    unknown = [task for task in tasks if base_unknown(task)]
    names = {task.instance_id for task in unknown}
    detail = "of a project that SWE-bench Verified measures; its image says it: validate in containers"
    return [task for task in tasks if task.instance_id not in names], [
        Dropped(task.instance_id, BASE_UNKNOWN, detail) for task in unknown
    ]


# --- what the containers say ------------------------------------------------------------------------------------------


def _validated(
    tasks: "Sequence[Task]",
    loaded: "Loaded",
    folder: Path,
    console: "Console",
    pending: dict[str, str],
    how: How,
) -> "tuple[list[Task], list[Dropped], dict[str, Any]]":
    """The tasks that the gold patch resolves and an unchanged tree does not, graded officially."""
    from aem_harness.harness.grading.official import grader_version

    graded: dict[str, dict[str, tuple[str, str]]] = {}
    for arm in ("gold", "unchanged"):
        predictions = [
            Prediction(
                instance_id=task.instance_id,
                model_name_or_path=arm,
                model_patch=task.patch if arm == "gold" else UNCHANGED,
            )
            for task in tasks
        ]
        grade_all(
            predictions,
            Selection(list(tasks), loaded),
            console,
            how,
            dataset=loaded.name,
            out=folder / arm,
        )
        graded[arm] = _grades(folder / arm)
    lost = (Outcome.ERROR.value, "it was not graded")
    gold = {task.instance_id: graded["gold"].get(task.instance_id, lost) for task in tasks}
    unchanged = {task.instance_id: graded["unchanged"].get(task.instance_id, lost) for task in tasks}
    kept, dropped = [], []
    for task in tasks:
        name = task.instance_id
        error = next((cause for outcome, cause in (gold[name], unchanged[name]) if outcome == Outcome.ERROR), None)
        if error is not None:
            pending[name] = error
        elif gold[name][0] != Outcome.RESOLVED:
            dropped.append(Dropped(name, "gold does not resolve", ": ".join(filter(None, gold[name]))))
        elif unchanged[name][0] == Outcome.RESOLVED:
            dropped.append(Dropped(name, "an unchanged tree resolves"))
        else:
            kept.append(task)
    facts = {
        "validated": True,
        "grader": grader_version(),
        "gold": dict(Counter(outcome for outcome, _ in gold.values())),
        "unchanged": dict(Counter(outcome for outcome, _ in unchanged.values())),
    }
    return kept, dropped, facts


def _grades(folder: Path) -> dict[str, tuple[str, str]]:
    """Outcome and cause of every row of a run with one seed."""
    from aem_harness.harness.compare.outcomes import read_run

    table = read_run(folder).table
    return {str(row.instance_id): (str(row.outcome), str(row.cause or "")) for row in table.itertuples()}


# --- what is written --------------------------------------------------------------------------------------------------


def _facts(
    loaded: "Loaded",
    split: str,
    chosen: int,
    dropped: Iterable[Dropped],
    pending: Mapping[str, str],
    tried: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "source": {"name": loaded.name, "split": split, "digest": f"sha256:{loaded.digest}"},
        "read": chosen + len(loaded.problems),
        "dropped": dict(Counter(one.reason for one in dropped)),
        "pending": len(pending),
        **tried,
    }


def _written(
    folder: Path,
    tasks: "Sequence[Task]",
    dropped: Sequence[Dropped],
    pending: Mapping[str, str],
    facts: Mapping[str, Any],
    measured: Mapping[str, Sequence[Any]],
) -> Prepared:
    """Rows, what is missing of them, and the certificate, which is written last."""
    from aem_harness.harness.instances.rows import local_columns, to_row
    from aem_harness.training.guard import CERTIFICATE, stated

    folder.mkdir(parents=True, exist_ok=True)
    lines = [vars(one) for one in dropped]
    lines += [{"instance_id": name, "reason": "pending", "detail": why} for name, why in pending.items()]
    write_json_lines(folder / DROPPED, lines)
    if not tasks and not pending:
        raise DataError(f"no row is left of {facts['read']}: {folder / DROPPED} says why of each")
    kept = [_with_layer(task, folder) for task in tasks]
    rows = folder / ROWS
    write_json_lines(rows, (to_row(task) | local_columns(task, rows) for task in kept))
    certificate = {**stated(kept, measured), **facts}
    write_json(folder / CERTIFICATE, certificate)
    return Prepared(folder, kept, dropped, pending, certificate)


def _with_layer(task: "Task", folder: Path) -> "Task":
    """The task with the layer that its image is made by copied beside the rows, so that the folder can be moved."""
    from aem_harness.harness.instances import training_sets

    layer = Path(task.dockerfile) if task.dockerfile else None
    if layer is None or not layer.resolve().is_relative_to(Path(training_sets.__file__).resolve().parent):
        return task
    copied = folder / IMAGES / layer.name
    if not copied.is_dir():
        shutil.copytree(layer, copied)
    return task.model_copy(update={"dockerfile": str(copied)})
