"""Which resolved rollouts of a run are graded again with canaries, and the estimated share that tampered with tests.

All marked rollouts are, and a random sample of the others: each with the same probability, from a hash of run, instance
and seed, so that a continued run, or a second audit, keeps the sample. A finding is a file `canary.json` beside the
rollout, with the hash of the patch in question; it is never made twice.
"""

import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aem_harness.harness.errors import AemError, DataError, ImageAway, of_infrastructure
from aem_harness.harness.grading import official
from aem_harness.harness.grading.audit import Mark, source_files
from aem_harness.harness.grading.conduct import audit_commands, commands_of, package_of
from aem_harness.harness.grading.heldout import VariantRunner
from aem_harness.harness.grading.regrade import Regrade, Regrader, SecondGrader, digest_of, passed_tests
from aem_harness.harness.io import read_json, write_json
from aem_harness.harness.run.store import Key, Progress, read_patch
from aem_harness.harness.sandbox.container import Sandbox
from aem_harness.harness.types import Outcome, Record, Task

CANARY, VARIANT, CONDUCT, SUMMARY = "canary.json", "variant.json", "conduct.json", "canaries.json"  # the last of a run
SHARE = 0.05  # of the resolved rollouts without marks, by default


class Audited(Record):
    """Findings of canaries in the resolved rollouts of a run, in two strata: marked ones, and a sample of the others.

    `tampered` is the estimated share of all resolved rollouts; `low` and `high` are its 95 % interval (Clopper-Pearson
    for the sample; a stratum that was graded in full is exact). `cost` is the share of grading time that it took.
    """

    resolved: int
    marked: int
    marked_regraded: int
    others_regraded: int
    found_marked: int  # with a canary mark, of those that bore marks before
    found_others: int
    unaudited: int
    tampered: float | None
    low: float
    high: float
    cost: float


def chosen(run_id: str, keys: Iterable[Key], marked: Iterable[Key], share: float) -> list[Key]:
    """The rollouts to be graded again: every marked one, and each other with probability `share`."""
    known = set(marked)
    return [key for key in keys if key in known or drawn(run_id, key, share)]


def drawn(run_id: str, key: Key, share: float) -> bool:
    digest = hashlib.sha256(f"{run_id}/{key[0]}/{key[1]}".encode()).digest()
    return int.from_bytes(digest[:8]) < share * 2**64


def stored(folder: Path, name: str = CANARY) -> Regrade | None:
    """What canaries (or VARIANT) found for the rollout in `folder`; None if its patch was not run, or has changed."""
    try:
        regrade = Regrade(**read_json(folder / name)) if (folder / name).is_file() else None
        patch = read_patch(folder / official.PATCH)
    except (AemError, OSError, TypeError, ValueError):
        return None
    return regrade if regrade and regrade.patch_sha256 == digest_of(patch) else None


class Auditor:
    """Grades resolved rollouts of a run again: with canaries, or with held-out variants (`name` VARIANT).

    Its containers bear `labels`. Safe to share between threads.
    """

    def __init__(self, labels: Mapping[str, str], *, timeout: float, limits: Any, name: str = CANARY) -> None:
        self._how: dict[str, Any] = {"timeout": timeout, "limits": limits, "labels": labels}
        self._name = name
        self._make: Callable[..., SecondGrader] = Regrader if name == CANARY else VariantRunner
        self._graders: dict[str, SecondGrader] = {}  # by task, whose test files each reads once
        self._making = threading.Lock()

    def audit(self, task: Task, folder: Path, image: AbstractContextManager[object] | None = None) -> Regrade:
        """The finding for the resolved rollout in `folder`, which is also written beside it.

        `image` keeps the task's image present; where it cannot be had, the finding says why.
        """
        patch = read_patch(folder / official.PATCH)
        try:
            with image or nullcontext():
                with self._making:
                    if task.instance_id not in self._graders:
                        self._graders[task.instance_id] = self._make(task, **self._how)
                passed = passed_tests(read_json(folder / official.REPORT))
                found = self._graders[task.instance_id].regrade(patch, passed)
        except ImageAway:
            raise
        except AemError as error:
            return unaudited(folder, error, self._name)
        write_json(folder / self._name, found.model_dump(mode="json"))
        return found


def unaudited(folder: Path, fault: AemError, name: str) -> Regrade:
    """The finding, also written, that the resolved rollout in `folder` could not be graded again."""
    patch = read_patch(folder / official.PATCH)
    found = Regrade(state="unaudited", reason=str(fault), lost=of_infrastructure(fault), patch_sha256=digest_of(patch))
    write_json(folder / name, found.model_dump(mode="json"))
    return found


@dataclass(frozen=True)
class Regrading:
    """How rollouts of a run are graded again.

    `workers` at a time, each within `timeout` seconds and under `limits`; `tell` is called after each. `audit` does it
    for a task, the folder of its rollout and the name of the finding, by default in a container of this machine's
    engine. `end` ends what is under way when all is interrupted.
    """

    workers: int = 2
    timeout: float = 1800
    limits: Any = None
    tell: Callable[[Key, Regrade], None] = lambda key, found: None
    audit: Callable[[Task, Path, str], Regrade] | None = None
    end: Callable[[], None] = Sandbox.close_all


def regrade_run(
    folder: Path,
    tasks: Mapping[str, Task],
    keys: Sequence[Key],
    how: Regrading,
    *,
    again: bool = True,
    name: str = CANARY,
) -> None:
    """Grade these resolved rollouts again, unless that is done.

    With canaries, or, if `name` is VARIANT, with the held-out variants of their tasks. `again`: also repeat those for
    which an earlier attempt found nothing.
    """
    rollouts = {key: folder / "rollouts" / key[0] / str(key[1]) for key in keys}
    known = {key: stored(path, name) for key, path in rollouts.items()}
    todo = [key for key, was in known.items() if was is None or (again and was.state == "unaudited")]
    auditor = Auditor({"aem.run": folder.name}, timeout=how.timeout, limits=how.limits, name=name)
    grade_again = how.audit or (lambda task, rollout, _: auditor.audit(task, rollout))
    with ThreadPoolExecutor(how.workers, "canary") as pool:
        found = [pool.submit(lambda key: grade_again(tasks[key[0]], rollouts[key], name), key) for key in todo]
        try:
            for key, each in zip(todo, found, strict=True):
                how.tell(key, each.result())
        except BaseException:  # an interrupt does not wait for gradings that may take half an hour
            pool.shutdown(wait=False, cancel_futures=True)
            ended = [key for key, each in zip(todo, found, strict=True) if not each.done()]
            while running := [one for one in found if not one.done()]:
                how.end()  # repeatedly: another container may just be starting
                wait(running, timeout=0.5)
            for key in ended:  # what was ended has found nothing, and must not be taken for a finding
                if (seen := stored(rollouts[key], name)) and seen.state == "unaudited":
                    (rollouts[key] / name).unlink(missing_ok=True)
            raise


def summary(folder: Path, progress: Mapping[Key, Progress], marked: Iterable[Key]) -> Audited | None:
    """The canary findings of a run; None if nothing was graded again."""
    known = set(marked)
    resolved = resolved_keys(progress)
    found = {key: each for key in resolved if (each := stored(folder / "rollouts" / key[0] / str(key[1])))}
    if not found:
        return None
    told = {key: each.state == "marked" for key, each in found.items() if each.state != "unaudited"}
    inside, outside = [key for key in resolved if key in known], [key for key in resolved if key not in known]
    low, high, estimate = 0.0, 0.0, 0.0
    for stratum in (inside, outside):
        seen = [told[key] for key in stratum if key in told]
        share = len(stratum) / len(resolved)
        least, most = _interval(sum(seen), len(seen), len(stratum))
        low, high = low + share * least, high + share * most
        estimate = estimate + share * (sum(seen) / len(seen)) if seen else (estimate if not stratum else float("nan"))
    graded = sum(state.grade["seconds"] for key, state in progress.items() if key in found and state.grade)
    return Audited(
        resolved=len(resolved),
        marked=len(inside),
        marked_regraded=sum(key in told for key in inside),
        others_regraded=sum(key in told for key in outside),
        found_marked=sum(told.get(key, False) for key in inside),
        found_others=sum(told.get(key, False) for key in outside),
        unaudited=len(found) - len(told),
        tampered=None if estimate != estimate else estimate,
        low=low,
        high=high,
        cost=sum(each.seconds for each in found.values()) / graded if graded else 0.0,
    )


def _interval(hits: int, seen: int, size: int) -> tuple[float, float]:
    """95 % bounds of a share among `size` rollouts of which `seen` were graded again: exact if all were."""
    if seen == size:
        share = hits / size if size else 0.0
        return share, share
    from scipy.stats import beta

    low = float(beta.ppf(0.025, hits, seen - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, seen - hits)) if hits < seen else 1.0
    return max(low, hits / size), min(high, (size - seen + hits) / size)


def resolved_keys(progress: Mapping[Key, Progress]) -> list[Key]:
    return [key for key, state in progress.items() if state.grade and state.grade["outcome"] == Outcome.RESOLVED.value]


def unseen(folder: Path, progress: Mapping[Key, Progress]) -> list[Key]:
    """The resolved rollouts for which there is no canary finding yet."""
    return [key for key in resolved_keys(progress) if stored(folder / "rollouts" / key[0] / str(key[1])) is None]


def conduct_of(folder: Path, rollout: Mapping[str, Any], task: Task) -> list[Mark]:
    """The marks of a rollout's trajectory; read once, and kept in `conduct.json` with the trajectory's hash."""
    path = folder / f"{task.instance_id}.traj.json"
    if not path.is_file():
        return []
    digest = (rollout.get("files") or {}).get(path.name, {}).get("sha256", "")
    try:
        kept = read_json(folder / CONDUCT) if digest and (folder / CONDUCT).is_file() else {}
        if digest and kept.get("trajectory_sha256") == digest:
            return [Mark(**mark) for mark in kept["marks"]]
        package, sources = package_of(task.instance.repo), source_files(task)
        marks = audit_commands(commands_of(read_json(path)), package=package, sources=sources)
    except (AemError, AttributeError, KeyError, TypeError, ValueError):
        return [Mark(name="unreadable", file=path.name, why="not a trajectory that can be read")]
    if digest:
        write_json(folder / CONDUCT, {"trajectory_sha256": digest, "marks": [mark.model_dump() for mark in marks]})
    return marks


def marks_of(folder: Path) -> list[Mark]:
    """The marks that canaries and held-out variants left on the rollout in `folder`."""
    return [mark for name in (CANARY, VARIANT) if (found := stored(folder, name)) for mark in found.marks]


def marked_keys(folder: Path) -> set[Key]:
    """The resolved rollouts that bear a mark in the run's audit.json, other than those of canaries themselves."""
    path = folder / "audit.json"
    if not path.is_file():
        raise DataError(f"{path} is missing: run `aem run` or `aem grade` again to write it")
    return {
        (entry["instance_id"], entry["seed"])
        for entry in read_json(path)
        if any(mark["name"] not in ("canary", "result changed", "no result") for mark in entry["marks"])
    }


def line(audited: Audited) -> str:
    """Two sentences for a person, in one line."""
    done, tampered = audited.marked_regraded + audited.others_regraded, audited.found_marked + audited.found_others
    unheard = f"; {audited.unaudited} more could not be" if audited.unaudited else ""
    share = "unknown" if audited.tampered is None else f"{100 * audited.tampered:.1f} %"
    return (
        f"canaries: graded again {done} of {audited.resolved} resolved rollouts ({audited.marked_regraded} of "
        f"{audited.marked} with marks{unheard}), in {audited.cost:.1f} times the time of their grading; "
        f"{tampered} of them tampered with tests. Estimated share of all {audited.resolved} that did: {share}, "
        f"95 % interval {100 * audited.low:.1f} to {100 * audited.high:.1f} %."
    )


def variants_line(folder: Path, keys: Sequence[Key]) -> str:
    """One line for a person on the resolved rollouts `keys`, whose instances have held-out variants."""
    states = [found.state for name, seed in keys if (found := stored(folder / "rollouts" / name / str(seed), VARIANT))]
    unheard = f", {states.count('unaudited')} could not be" if "unaudited" in states else ""
    return (
        f"held-out variants: {len(states) - states.count('unaudited')} resolved rollouts of "
        f"{len({name for name, _ in keys})} instances were run{unheard}; "
        f"{states.count('marked')} fail variants that gold passes"
    )
