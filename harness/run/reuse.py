"""Verdicts that are reused: a patch is not graded again where an equal one was, under the same circumstances.

Equal must be all that a verdict depends on: instance, bytes of the patch, digest and architecture of the image, eval
script, dataset, grader, limits and time limit; and what the agent had left of the files that the patch changes, where
that is known, since the patched tree is compared with it. Only verdicts on test results and refusals of a patch are
reused: never faults, timeouts, limits that were reached, or what gold had to decide. A reused verdict is never a source
itself.

A seeded share is graded anyway. A patch that got another verdict there, or in `aem regrade`, is graded every time
from then on.
"""

import hashlib
import logging
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aem_harness.harness.config import RunConfig
from aem_harness.harness.errors import AemError, ConfigError, DataError
from aem_harness.harness.grading import official
from aem_harness.harness.grading.verdict import on_test_results
from aem_harness.harness.io import read_json
from aem_harness.harness.run.auditing import drawn
from aem_harness.harness.run.folder import run_json
from aem_harness.harness.run.listing import newest
from aem_harness.harness.run.origin import Reuse, flipped
from aem_harness.harness.run.proof import Files, damage
from aem_harness.harness.run.regrading import read_regrades
from aem_harness.harness.run.rollout import RECEIPT
from aem_harness.harness.run.store import PATCH, Event, Key, Progress, RunStore, read_journal
from aem_harness.harness.types import Grade, ImageRef, Outcome, Task

logger = logging.getLogger(__name__)

FILES = (official.TEST_OUTPUT, official.REPORT, official.NOTES, official.EVAL_SCRIPT)
Same = tuple[str, str]  # instance, SHA-256 of the patch


@dataclass(frozen=True)
class Known:
    """The verdict of a grading: its event, the folder of its rollout, and of its run ("" is the present one)."""

    grade: Event
    folder: Path
    run: str = ""

    @property
    def place(self) -> dict[str, Any]:
        """For the journal: where the verdict is from."""
        return {"run": self.run, "seed": self.grade["seed"], "attempt": self.grade["attempt"]}


class Verdicts:
    """The reusable verdicts of a run, and whose turn it is where equal patches wait for their grading.

    `find` and `take` may be called from any thread; `begin` and `ended` by the one that distributes gradings.
    """

    def __init__(
        self,
        store: RunStore,
        tasks: Mapping[str, Task],
        dataset_digest: str,
        reuse: Reuse,
        *,
        here: bool = True,
    ) -> None:
        """`here`: all is graded by the local engine, so that the image of a patch without a rollout is known.

        Raises ConfigError and DataError for other runs whose verdicts cannot be reused.
        """
        refuse_others(reuse, store.config, dataset_digest)
        self._store, self._tasks, self._dataset_digest, self._here = store, tasks, dataset_digest, here
        self._check = reuse.check
        self.architecture = ""  # of the machines that grade; empty where they differ: then nothing is reused
        self._known: dict[Same, list[Known]] = {}
        self._unsteady: set[Same] = set()
        self._leading: dict[Same, Key] = {}  # an equal patch is being graded
        self._held: dict[Same, list[Key]] = {}
        self._unheld: set[Same] = set()
        self._scripts: dict[str, str] = {}
        for run in reuse.runs:
            folder = Path(run)
            if folder.resolve() != store.folder.resolve():
                self._read(folder, newest(read_journal(folder)), str(folder))
        self._read(store.folder, store.progress, "")

    # --- turns ------------------------------------------------------------------------------------------------------

    def begin(self, key: Key) -> list[Key]:
        """The gradings that may start, now that this one is due: itself, unless an equal patch is being graded."""
        same = self._same(self._store.progress[key])
        if same is None or same in self._unheld or same in self._unsteady:
            return [key]
        with suppress(AemError, OSError):  # whatever it is, the grading meets it too, and says so
            if self.find(key):
                return [key]
        if same in self._leading:
            self._held.setdefault(same, []).append(key)
            return []
        self._leading[same] = key
        return [key]

    def ended(self, key: Key) -> list[Key]:
        """Note the verdict of a grading; returns the gradings that waited for it and may start now."""
        progress = self._store.progress[key]
        self._note(progress, self._store.rollout_folder(*key), "")
        same = self._same(progress)
        if same is None or self._leading.get(same) != key:
            return []
        del self._leading[same]
        if same not in self._known:  # a timeout, say: others need not wait for each other in vain
            self._unheld.add(same)
        return self._held.pop(same, [])

    # --- verdicts ---------------------------------------------------------------------------------------------------

    def find(self, key: Key) -> Known | None:
        """The verdict that can be reused for a rollout, if there is one."""
        progress = self._store.progress[key]
        same = self._same(progress)
        if same is None or same in self._unsteady or not self.architecture:
            return None
        now = self._circumstances(progress)
        left = _left(self._store.rollout_folder(*key))
        found = [
            one
            for one in self._known.get(same, ())
            if _of(one.grade) == now and (left is None or _left(one.folder) == left)
        ]
        if len({one.grade["outcome"] for one in found}) != 1 or not self._same_script(found[0], key[0]):
            return None
        return found[0]

    def checked(self, key: Key) -> bool:
        """Is it one of those that are graded anyway? The same in every continuation of the run."""
        return drawn(f"{self._store.folder.name}/reuse", key, self._check)

    def take(self, key: Key, known: Known) -> Grade | None:
        """The verdict as that of another rollout, with its files; None where those are damaged or gone.

        Raises OSError where the files cannot be written.
        """
        started = time.monotonic()
        folder = self._store.rollout_folder(*key)
        files: Files = {name: proof for name, proof in known.grade["files"].items() if name in FILES}
        for name in FILES:
            (folder / name).unlink(missing_ok=True)  # of an earlier attempt
        for name in files:
            with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError):
                shutil.copyfile(known.folder / name, folder / name)
        if wrong := damage(folder, files):
            logger.warning("%s: %s: its verdict is not reused", known.folder, wrong)
            return None
        differs = known.grade.get("tree_differs") if _left(folder) is not None else None
        return Grade(
            instance_id=key[0],
            outcome=Outcome(known.grade["outcome"]),
            cause=known.grade["cause"],
            versions=known.grade["versions"],
            seconds=time.monotonic() - started,
            tree_differs=None if differs is None else tuple(differs),
        )

    # --- inside -----------------------------------------------------------------------------------------------------

    def _read(self, folder: Path, progress: Mapping[Key, Progress], run: str) -> None:
        self._unsteady |= {(again.instance_id, again.patch_sha256) for again in read_regrades(folder) if again.flipped}
        for (instance_id, seed), one in progress.items():
            if instance_id in self._tasks:
                self._note(one, folder / "rollouts" / instance_id / str(seed), run)

    def _note(self, progress: Progress, folder: Path, run: str) -> None:
        same, grade = self._same(progress), progress.grade
        if same is None or grade is None or "reused" in grade:
            return
        if flipped(grade):
            self._unsteady.add(same)
        complete = {"files", "versions", "cause"} <= grade.keys()
        if complete and on_test_results(Outcome(grade["outcome"]), grade["cause"]):
            self._known.setdefault(same, []).append(Known(grade, folder, run))

    def _same(self, progress: Progress) -> Same | None:
        """By which equal patches are found; None for an empty patch, a lost rollout, and journals without hashes."""
        rollout = progress.rollout
        proof = (rollout.get("files") or {}).get(PATCH, {})
        if rollout["fault"] is not None or not proof.get("bytes") or "sha256" not in proof:
            return None
        return rollout["instance_id"], proof["sha256"]

    def _circumstances(self, progress: Progress) -> dict[str, Any]:
        task = self._tasks[progress.rollout["instance_id"]]
        digest = progress.rollout["image_digest"] or (_local_digest(task) if self._here else "")
        if not digest:
            return {}
        image = ImageRef(name=task.instance.image, digest=digest, source="local", architecture=self.architecture)
        return _without_name(official.stamp(task, image=image, dataset_digest=self._dataset_digest))

    def _same_script(self, known: Known, instance_id: str) -> bool:
        if instance_id not in self._scripts:
            script = official.eval_script(self._tasks[instance_id])
            self._scripts[instance_id] = hashlib.sha256(script.encode()).hexdigest()
        was = known.grade["files"].get(official.EVAL_SCRIPT)
        if was is None:  # a patch that was refused: no script was run
            return bool(known.grade["outcome"] == Outcome.NOT_APPLIED.value)
        return bool(was["sha256"] == self._scripts[instance_id])


def refuse_others(reuse: Reuse, config: RunConfig, dataset_digest: str) -> None:
    """Raise ConfigError where verdicts of other runs cannot be those of a run under `config`, DataError for no runs."""
    if not 0 <= reuse.check <= 1:
        raise ConfigError(f"the share of reusable verdicts to check must be between 0 and 1, is {reuse.check:g}")
    for folder in map(Path, reuse.runs):
        run = run_json(folder)
        theirs, ours = run.get("config", {}), config.model_dump(mode="json")
        grader = f"swebench {run.get('versions', {}).get('swebench')}"
        facts = {
            "limits": (theirs.get("limits"), ours["limits"]),
            "grade_timeout": (theirs.get("grade_timeout"), ours["grade_timeout"]),
            "dataset": (run.get("dataset", {}).get("digest"), dataset_digest),
            "grader": (grader, official.grader_version()),
        }
        if differing := [name for name, (then, now) in facts.items() if then != now]:
            raise ConfigError(
                f"the verdicts of {folder} cannot be reused, since it has another {', '.join(differing)}: leave it out "
                "of --reuse-from"
            )


def checked_with(known: Known) -> dict[str, Any]:
    """For the journal: the verdict that would have been reused."""
    return {**known.place, "outcome": known.grade["outcome"]}


def _of(grade: Event) -> dict[str, Any]:
    return _without_name(grade["versions"])


def _without_name(versions: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in versions.items() if name != "dataset"}  # its digest counts


def _left(folder: Path) -> Any:
    try:
        return read_json(folder / RECEIPT)["carried"] if (folder / RECEIPT).is_file() else None
    except (DataError, KeyError, TypeError):
        return None


def _local_digest(task: Task) -> str:
    from aem_harness.harness.sandbox.images import find, ref_of

    with suppress(AemError):
        name = task.instance.image
        return ref_of(name, "local").digest if find(name) is not None else ""
    return ""
