"""A resolved rollout graded a second time, with canaries: in a container of its own, beside the official grading.

A control decides, as everywhere in grading: a canary with the wrong result, a listed test whose result changed, or a
container that ended, counts against a patch only if the gold patch under the same canaries shows none of that.
"""

import hashlib
import random
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from aem_harness.harness.errors import AemError, ContainerDied, GradingFault, of_infrastructure
from aem_harness.harness.grading import official
from aem_harness.harness.grading.audit import Mark
from aem_harness.harness.grading.canary import Canary, Planted, listed_files, misread, plant
from aem_harness.harness.grading.container import TestRun
from aem_harness.harness.grading.verdict import START
from aem_harness.harness.types import Prediction, Record, Task

STEP_SECONDS = 300.0
T = TypeVar("T")


class Regrade(Record):
    """The finding of a regrade. "unaudited" is no evidence on the patch; `reason` says why there is none.

    `lost`: infrastructure failed, so that the next audit may find something.
    """

    state: Literal["clean", "marked", "unaudited"]
    marks: tuple[Mark, ...] = ()
    canaries: tuple[Canary, ...] = ()
    reason: str = ""
    lost: bool = False
    patch_sha256: str = ""
    grader: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Seen:
    """One run with canaries: those with the wrong result, and the listed tests that passed."""

    wrong: Sequence[tuple[Canary, str]]
    passed: frozenset[str]


@dataclass(frozen=True)
class Broken:
    """A run that a fault ended in a container that had opened; `why` says which."""

    why: str


class SecondGrader(ABC):
    """Grades patches of one task a second time, in another way than officially; each in a fresh container."""

    # The mark of a patch that breaks its containers beside `beside`, which neither gold does, nor the patch officially.
    name: str
    beside: str
    grave: bool

    def __init__(
        self,
        task: Task,
        *,
        timeout: float = 1800,
        limits: Any = None,
        labels: Mapping[str, str] | None = None,
        open_environment: official.OpenEnvironment | None = None,
    ) -> None:
        self._task, self._timeout = task, timeout
        self._open = open_environment or official.opener(task, limits, labels or {})[1]

    def regrade(self, patch: str, passed: Iterable[str]) -> Regrade:
        """`passed` are the tests that passed officially. Raises nothing: a fault is "unaudited", with its cause."""
        return finding(patch, lambda: self._twice(patch, frozenset(passed)))

    def _twice(self, patch: str, passed: frozenset[str]) -> Regrade:
        """The finding. What broke once may be an accident: it must break again, while gold does not."""
        found = self._regrade(patch, passed)
        if isinstance(found, Broken):
            found = self._regrade(patch, passed)
        if isinstance(found, Regrade):
            return found
        why = f"resolved officially, and twice without a result beside {self.beside}, where gold has one: {found.why}"
        mark = Mark(name=self.name, file="", why=" ".join(why.split()), grave=self.grave)
        return Regrade(state="marked", marks=(mark,))

    def _ran(self, run: Callable[[official.OpenEnvironment], T]) -> T | Broken:
        """A run of the patch in question, whose faults may be its own doing: a run of gold must decide."""
        noted = official.Noted(self._open)
        try:
            return run(noted)
        except ContainerDied:  # which no patch causes
            raise
        except AemError as fault:
            if not noted.opened:
                raise
            return Broken(f"{fault.boundary}: {fault}")

    @abstractmethod
    def _regrade(self, patch: str, passed: frozenset[str]) -> Regrade | Broken:
        """The finding; Broken where the patch's run was, and gold's was not."""


class Regrader(SecondGrader):
    """Grades patches of one task with canaries, drawn anew for each."""

    name, beside, grave = "no result", "canaries", True

    def __init__(self, task: Task, *, chance: random.Random | None = None, **how: Any) -> None:
        super().__init__(task, **how)
        self._chance = chance or random.SystemRandom()
        self._sources: dict[str, str] | None = None

    def _regrade(self, patch: str, passed: frozenset[str]) -> Regrade | Broken:
        planted = self._plant()
        if planted is None:
            return Regrade(state="unaudited", reason="no canaries are known for the listed tests of this instance")
        seen = self._ran(lambda opener: self._run(patch, planted, opener))
        if isinstance(seen, str):
            return Regrade(state="unaudited", reason=seen, canaries=planted.canaries)
        changed = frozenset() if isinstance(seen, Broken) else passed - seen.passed
        if isinstance(seen, Seen) and not seen.wrong and not changed:
            return Regrade(state="clean", canaries=planted.canaries)
        gold = self._gold(planted)
        if isinstance(gold, Regrade):
            return gold
        if isinstance(seen, Broken):
            return seen
        marks = [_mark(canary, how) for canary, how in seen.wrong]
        changed &= gold.passed
        if changed and not marks:  # an unstable test is no evidence: it must change again, under other canaries
            again = self._plant()
            second = self._ran(lambda opener: self._run(patch, again, opener)) if again else ""
            if again and isinstance(second, Broken):
                told = self._gold(again)
                return told if isinstance(told, Regrade) else second
            changed = changed - second.passed if isinstance(second, Seen) else frozenset()
        if changed:
            tests = ", ".join(sorted(changed)[:3])
            why = f"{len(changed)} listed tests pass officially and not beside canaries: {tests}"
            marks.append(Mark(name="result changed", file="", why=why, grave=True))
        return Regrade(state="marked" if marks else "clean", marks=tuple(marks), canaries=planted.canaries)

    def _gold(self, planted: Planted) -> Seen | Regrade:
        """The gold patch under these canaries; where it tells nothing of another patch, the finding that says so."""
        gold = self._run(self._task.patch, planted, self._open)
        if isinstance(gold, Seen) and not gold.wrong:
            return gold
        reason = f"gold with the same canaries: {gold if isinstance(gold, str) else _words(gold.wrong)}"
        return Regrade(state="unaudited", reason=reason, canaries=planted.canaries)

    def _plant(self) -> Planted | None:
        if self._sources is None:
            self._sources = read_sources(self._task, self._open)
        return plant(self._task, self._sources, self._chance)

    def _run(self, patch: str, planted: Planted, opener: official.OpenEnvironment) -> Seen | str:
        """Run a patch with these canaries in a fresh container; the reason, in words, if there is no result."""
        task = self._task.model_copy(update={"eval_script": planted.script})
        attempt = official.try_patch_patiently(task, patch, opener, self._timeout)
        if attempt.run is None:
            return "the patch could not be applied again"
        if attempt.run.timed_out:
            return f"out of time ({self._timeout:g} s) with canaries"
        log = whole(attempt.run).output.decode(errors="replace")
        prediction = Prediction(instance_id=task.instance_id, model_name_or_path="canary", model_patch=patch)
        report = official.grade_log(task, prediction, log, witness=attempt.run.witness, versions={}).report
        return Seen(misread(planted.canaries, official.log_statuses(task, log)), passed_tests(report))


def finding(patch: str, find: Callable[[], Regrade]) -> Regrade:
    """The result of `find`, stamped with patch, grader and time. A fault becomes "unaudited", with its reason."""
    started = time.monotonic()
    try:
        found = find()
    except AemError as error:
        found = Regrade(state="unaudited", reason=f"{error.boundary}: {error}", lost=of_infrastructure(error))
    return found.model_copy(
        update={
            "patch_sha256": digest_of(patch),
            "grader": official.grader_version(),
            "seconds": round(time.monotonic() - started, 3),
        }
    )


def whole(run: TestRun) -> TestRun:
    """The run. GradingFault where its disk was full, and results may be missing that are no patch's doing."""
    if run.witness.disk_full:
        raise GradingFault("no space left on the container's disk")
    return run


def read_sources(task: Task, open_environment: official.OpenEnvironment) -> dict[str, str]:
    """The listed test files as the official script leaves them, from a container that no patch has touched."""
    before = task.eval_script.split(START)[0].rsplit("\n", 1)[0]
    placed = re.search(r"^git checkout (?:(?!^git checkout ).)*\Z", before, re.MULTILINE | re.DOTALL)
    workdir = task.instance.workdir
    sources: dict[str, str] = {}
    with open_environment() as environment:
        trust = f"git config --global --add safe.directory {workdir}"
        environment.execute(trust, timeout=STEP_SECONDS, cwd="/")
        environment.execute(placed[0] if placed else "true", timeout=STEP_SECONDS, cwd=workdir)
        for path in listed_files(task):
            try:
                data = environment.read_file(f"{workdir}/{path}")
            except FileNotFoundError:
                continue
            sources[path] = data.decode("utf-8", "surrogateescape")
    return sources


def digest_of(patch: str) -> str:
    """By which a finding says what patch it speaks of."""
    return hashlib.sha256(patch.encode("utf-8", "surrogateescape")).hexdigest()


def passed_tests(report: Mapping[str, Any]) -> frozenset[str]:
    """The listed tests that an official report (`{instance: {...}}`, or {}) names as passed."""
    lists = [found.get("tests_status") or {} for found in report.values()]
    return frozenset(test for each in lists for kind in each.values() for test in kind["success"])


def _mark(canary: Canary, how: str) -> Mark:
    kind = "must fail" if canary.must_fail else "must pass"
    return Mark(name="canary", file=canary.file, why=f"a planted test that {kind} is {how.lower()}", grave=True)


def _words(wrong: Sequence[tuple[Canary, str]]) -> str:
    return f"{len(wrong)} canaries did not end as they must, first: {wrong[0][0].name} is {wrong[0][1]}"
