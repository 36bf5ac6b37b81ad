"""Stored patches graded again: does the grader give the same patch the same verdict?"""

import hashlib
import json
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aem_harness.harness.config import RunConfig
from aem_harness.harness.errors import AemError, DataError, NoSite
from aem_harness.harness.io import cut_torn
from aem_harness.harness.run.store import PATCH, Key, Progress, read_patch
from aem_harness.harness.types import Grade, Outcome, Prediction, Record, Task

if TYPE_CHECKING:
    from aem_harness.harness.grading.other_release import Release

REGRADES = "regrades.jsonl"
GRADED = (Outcome.RESOLVED, Outcome.UNRESOLVED, Outcome.NOT_APPLIED, Outcome.TEST_TIMEOUT)  # verdicts on a patch


class Again(Record):
    """One grading of a stored patch after the first, the `time`-th from 1. `moved`: chosen because its task moved."""

    instance_id: str
    seed: int
    time: int
    was: Outcome
    now: Outcome
    moved: bool
    cause: str = ""
    patch_sha256: str
    grader: str = ""

    @property
    def flipped(self) -> bool:
        """Not where the new grading was lost to infrastructure."""
        return self.now is not Outcome.ERROR and (self.was is Outcome.RESOLVED) != (self.now is Outcome.RESOLVED)


def read_regrades(folder: Path) -> list[Again]:
    """The gradings of a run after the first; a torn last line of a killed process is left out.

    One that was lost to infrastructure and then repeated is there once.
    """
    path = folder / REGRADES
    if not path.is_file():
        return []
    lines = path.read_text("utf-8").split("\n")[:-1]
    found = [Again(**json.loads(line)) for line in lines if line]
    return list({(one.instance_id, one.seed, one.time, one.patch_sha256): one for one in found}.values())


@dataclass(frozen=True)
class StoredRun:
    """A run whose patches are graded again: its folder, its tasks, what its journal says, and its settings."""

    folder: Path
    tasks: Mapping[str, Task]
    progress: Mapping[Key, Progress]
    config: RunConfig


class _Work(NamedTuple):
    """One grading to do: of which rollout, whether its task moved, which repetition, and the patch with its digest."""

    key: Key
    moved: bool
    time: int
    patch: str
    digest: str


def regrade_patches(
    run: StoredRun,
    keys: Mapping[Key, bool],
    *,
    times: int = 1,
    workers: int = 2,
    tell: Callable[[Again], None] = lambda found: None,
    grade: Callable[[Task, Prediction, Path], Grade],
    end: Callable[[], None] = lambda: None,
) -> None:
    """Grade the patches of `keys` (with whether their task moved) until each has `times` gradings after its first.

    `grade` does it for a prediction, with a folder for its files, and a fault of it costs that one alone; `end` ends
    what is under way when all is interrupted. Existing results are kept, except those that were lost to infrastructure;
    each new one is stored as soon as it exists.
    """
    results = run.folder / REGRADES
    cut_torn(results)
    sound = [one for one in read_regrades(run.folder) if one.now is not Outcome.ERROR]
    done = {(one.instance_id, one.seed, one.time, one.patch_sha256) for one in sound}
    writing, interrupted = threading.Lock(), threading.Event()

    def one(work: _Work) -> None:
        graded = _graded(run, work, grade)
        if interrupted.is_set():
            return
        again = _again(run, work, graded)
        with writing, results.open("a", encoding="utf-8") as file:
            file.write(again.model_dump_json() + "\n")
            file.flush()
            tell(again)

    with ThreadPoolExecutor(workers, "regrade") as pool:
        under_way = [pool.submit(one, work) for work in _due(run.folder, keys, times, done)]
        try:
            for each in under_way:
                each.result()
        except BaseException:  # an interrupt does not wait for gradings that may take half an hour
            interrupted.set()
            pool.shutdown(wait=False, cancel_futures=True)
            while running := [each for each in under_way if not each.done()]:
                end()  # repeatedly: another container may just be starting
                wait(running, timeout=0.5)
            raise


def _graded(run: StoredRun, work: _Work, grade: Callable[[Task, Prediction, Path], Grade]) -> Grade:
    """The new grade of a patch; a fault is an outcome of its own."""
    instance, _ = work.key
    prediction = Prediction(instance_id=instance, model_name_or_path=run.config.arm, model_patch=work.patch)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            return grade(run.tasks[instance], prediction, Path(scratch))
        except NoSite:
            raise
        except AemError as fault:  # an image that cannot be had
            return Grade(instance_id=instance, outcome=Outcome.ERROR, cause=f"{fault.boundary}: {fault}")


def _again(run: StoredRun, work: _Work, graded: Grade) -> Again:
    """The new grade beside the stored one."""
    before = run.progress[work.key].grade
    assert before is not None
    return Again(
        instance_id=work.key[0],
        seed=work.key[1],
        time=work.time,
        was=Outcome(before["outcome"]),
        now=graded.outcome,
        moved=work.moved,
        cause=graded.cause,
        patch_sha256=work.digest,
        grader=str(graded.versions.get("grader", "")),
    )


def _due(
    folder: Path, keys: Mapping[Key, bool], times: int, done: "set[tuple[str, int, int, str]]"
) -> "Iterator[_Work]":
    for (instance, seed), moved in keys.items():
        patch = read_patch(folder / "rollouts" / instance / str(seed) / PATCH)
        digest = hashlib.sha256(patch.encode("utf-8", "surrogateescape")).hexdigest()
        for time in range(1, times + 1):
            if (instance, seed, time, digest) not in done:
                yield _Work((instance, seed), moved, time, patch, digest)


def graded_keys(progress: Mapping[Key, Progress]) -> Sequence[Key]:
    """Rollouts with an official verdict on a patch: an empty one takes no grader."""
    return [key for key, state in progress.items() if state.grade and state.grade["outcome"] in GRADED]


def by_release(folder: Path, tasks: Mapping[str, Task], progress: Mapping[Key, Progress], python: Path) -> "Release":
    """What the swebench of another interpreter makes of the stored test output of every rollout that tests judged.

    Raises DataError where a run holds none.
    """
    from aem_harness.harness.grading.official import EVAL_SCRIPT, REPORT, TEST_OUTPUT
    from aem_harness.harness.grading.other_release import StoredLog, compare_release
    from aem_harness.harness.grading.regrade import passed_tests

    logs: dict[str, StoredLog] = {}
    verdicts: dict[str, bool] = {}
    passed: dict[str, frozenset[str]] = {}
    judged = {Outcome.RESOLVED.value, Outcome.UNRESOLVED.value}
    for (instance, seed), state in sorted(progress.items()):
        place = folder / "rollouts" / instance / str(seed)
        log, report = place / TEST_OUTPUT, place / REPORT
        if state.grade is None or state.grade["outcome"] not in judged or instance not in tasks or not log.is_file():
            continue
        name = f"{instance} seed {seed}"
        script = place / EVAL_SCRIPT
        ran = script.read_text("utf-8", "surrogateescape") if script.is_file() else None
        logs[name] = StoredLog(tasks[instance], read_patch(place / PATCH), log, ran)
        verdicts[name] = state.grade["outcome"] == Outcome.RESOLVED.value
        passed[name] = passed_tests(json.loads(report.read_text("utf-8")) if report.is_file() else {})
    if not logs:
        raise DataError(f"{folder} holds no test output of a graded rollout")
    return compare_release(python, logs, verdicts, passed)
