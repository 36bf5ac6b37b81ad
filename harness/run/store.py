"""A run on disk: the journal that says what is finished, one folder per rollout, and what is still pending.

Everything happens exactly once, whatever is killed when. A rollout is written into a scratch folder, its event file
last; the folder is renamed into place, then the event is appended to the journal. On opening, finished folders that the
journal lacks (killed between rename and append) are adopted, scratch folders are removed, and a torn last line is cut
off, so that each rollout and each grade is journaled once and none is repeated.

Every file is on the disk before the journal line that names it, and the line carries the files' hashes. On opening, a
rollout or grading whose files have changed (power loss, a full disk, a deleted folder) becomes pending again: nothing
is graded from half a file. Folders that were hashed before and cannot have changed since are not hashed again
(`verified.py`).
"""

import gc
import json
import logging
import os
import re
import shutil
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol, Self

from aem_harness.harness import log
from aem_harness.harness.config import RunConfig
from aem_harness.harness.errors import ConfigError, DataError
from aem_harness.harness.io import (
    make_durable,
    read_json,
    remove_left,
    temporary_folder,
    write_bytes,
    write_json,
)
from aem_harness.harness.locks import Held, lock
from aem_harness.harness.run.proof import Files, damage, files_of
from aem_harness.harness.run.seeds import widened
from aem_harness.harness.run.verified import SETTLED, Verified
from aem_harness.harness.types import Outcome

logger = logging.getLogger(__name__)

# Names in an instance's folder: a rollout, one in progress, an earlier attempt.
_SEED, _SCRATCH, _EARLIER = re.compile(r"0|[1-9][0-9]*"), re.compile(r"\.[0-9]+\..+"), re.compile(r"[0-9]+\.attempt.+")

LINES = 1000  # of a journal, parsed together

Event = dict[str, Any]
Key = tuple[str, int]  # instance_id, seed


class Digest(Protocol):
    """A hash of `hashlib`."""

    def update(self, data: bytes, /) -> None: ...


PATCH, ROLLOUT_EVENT, GRADE_EVENT = "patch.diff", "rollout.json", "grade.json"
UNGRADED = ("canary.json", "conduct.json")  # left later by an audit, with hashes of its own
ROLLOUT_AGAIN, GRADING_AGAIN = "the rollout is done again", "the grading is done again"


@dataclass
class Progress:
    """What the journal says of one instance and seed: the newest rollout, and its grade if there is one."""

    rollout: Event
    grade: Event | None = None

    @property
    def infrastructure(self) -> bool:
        """Lost to infrastructure: the rollout itself, or its grading."""
        return self.rollout["fault"] is not None or (
            self.grade is not None and self.grade["outcome"] == Outcome.ERROR.value
        )


@dataclass
class Pending:
    """The pending work of a run: whole rollouts, with the number of their next attempt, and gradings alone."""

    rollouts: list[tuple[str, int, int]] = field(default_factory=list)
    grades: list[Key] = field(default_factory=list)


class RunStore:
    """One run folder, opened for writing by one process at a time. Safe to share between threads.

    Raises ConfigError when the folder belongs to a different configuration or another live process, and DataError
    when the journal is damaged anywhere but in its last line.
    """

    def __init__(self, folder: Path, config: RunConfig, facts: Mapping[str, Any], *, settled: bool = True) -> None:
        """`settled` False: some `facts` are not known yet, so run.json is compared, but not written before `settle`."""
        self.folder = folder
        self.config = config
        self.facts = facts
        self.progress: dict[Key, Progress] = {}
        self.damaged: dict[Key, str] = {}  # files that have changed since they were written, in words
        self._attempts: dict[Key, int] = {}  # the newest attempt of each, also of those to be repeated
        self.stray: list[Path] = []  # entries among the rollouts that are none
        self._fresh: deque[tuple[float, Key]] = deque()  # ended in this process, and when; not yet read again
        self._mutex = threading.Lock()
        (folder / "rollouts").mkdir(parents=True, exist_ok=True)
        with ExitStack() as opening:
            opening.enter_context(_lock(folder))
            opening.enter_context(log.kept(folder / log.RUN_LOG))
            for place in (folder, folder / "facts"):
                remove_left(place)
            self._compare()
            if settled:
                self.settle({})
            with uncollected():
                for event in _repair(folder / "journal.jsonl"):
                    self._note(event)
                self._journal = opening.enter_context((folder / "journal.jsonl").open("ab", buffering=0))
                make_durable(folder)
                self._verified = Verified(folder)
                opening.callback(self._verified.close)
                self._check(self._adopt())
            opening.callback(self._verify)
            self._open = opening.pop_all()
        logger.info("%s opened: arm %s, configuration %s", folder, config.arm, config.digest)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    # --- writing ----------------------------------------------------------------------------------------------------

    def scratch(self, instance_id: str, seed: int) -> Path:
        """A fresh folder for a rollout in progress; nothing in it counts until `finish_rollout`."""
        parent = self.folder / "rollouts" / instance_id
        parent.mkdir(parents=True, exist_ok=True)
        return temporary_folder(parent, str(seed))

    def finish_rollout(self, scratch: Path, event: Event) -> None:
        """Make a rollout final: its folder is moved into place (an earlier attempt is kept beside it), then journaled.

        The event that is journaled carries the hashes of the folder's files under "files". After an OSError (a full
        disk) it may be called again.
        """
        if not scratch.exists():  # an earlier call got past the renaming
            key = event["instance_id"], event["seed"]
            with self._mutex:
                self._adopt_one(self.rollout_folder(*key), key)
            return
        event = {**event, "files": files_of(scratch, without=(ROLLOUT_EVENT,))}
        for name in event["files"]:
            make_durable(scratch / name)
        write_json(scratch / ROLLOUT_EVENT, event)  # which also makes the folder's names durable
        final = self.rollout_folder(event["instance_id"], event["seed"])
        # Shared is only the journal: where many rollouts end together, each waits for one write of the others.
        if final.exists():
            final.rename(_free(final, self._attempts.get((event["instance_id"], event["seed"]))))
        scratch.rename(final)
        make_durable(final.parent)
        make_durable(final.parent.parent)
        with self._mutex:
            self._append(event)

    def finish_grade(self, event: Event) -> None:
        """Journal the grade of the newest rollout of an instance and seed, with the hashes of the grading's files."""
        key = event["instance_id"], event["seed"]
        folder = self.rollout_folder(*key)
        rolled = {ROLLOUT_EVENT, GRADE_EVENT, PATCH, *UNGRADED, *self.progress[key].rollout.get("files", ())}
        event = {**event, "files": files_of(folder, without=rolled)}
        for name in event["files"]:
            make_durable(folder / name)
        write_json(folder / GRADE_EVENT, event)
        with self._mutex:
            self._append(event)
        self._fresh.append((time.monotonic(), key))
        self._verify()

    # --- reading ----------------------------------------------------------------------------------------------------

    def begun(self, fact: str) -> Any:
        """A fact of run.json as the first command of this run wrote it; None where it is not written yet."""
        path = self.folder / "run.json"
        return read_json(path).get(fact) if path.exists() else None

    def rollout_folder(self, instance_id: str, seed: int) -> Path:
        return self.folder / "rollouts" / instance_id / str(seed)

    def patch(self, instance_id: str, seed: int) -> str:
        """The patch of a finished rollout. Raises DataError if it has changed since it was journaled."""
        folder = self.rollout_folder(instance_id, seed)
        if wrong := damage(folder, patch_proof(self.progress[instance_id, seed].rollout)):
            raise DataError(f"{folder}: {wrong}; run the same command again to repeat this rollout")
        return read_patch(folder / PATCH)

    def pending(self, keys: list[Key], *, retry_infrastructure: bool = False) -> Pending:
        """The pending work among `keys`, in their order; with `retry_infrastructure` also what infrastructure lost.

        A lost grading is graded again; a lost rollout is run again.
        """
        pending = Pending()
        for instance_id, seed in keys:
            progress = self.progress.get((instance_id, seed))
            if progress is None:
                pending.rollouts.append((instance_id, seed, self._attempts.get((instance_id, seed), -1) + 1))
            elif progress.rollout["fault"] is not None:
                if retry_infrastructure:
                    pending.rollouts.append((instance_id, seed, progress.rollout["attempt"] + 1))
            elif progress.grade is None or (retry_infrastructure and progress.infrastructure):
                pending.grades.append((instance_id, seed))
        return pending

    # --- inside -----------------------------------------------------------------------------------------------------

    def _compare(self) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """The present and the future content of run.json; ConfigError if the run has another configuration."""
        path = self.folder / "run.json"
        fresh: dict[str, Any] = {
            "run_id": self.folder.name,
            "arm": self.config.arm,
            "config": self.config.model_dump(mode="json"),
            "config_digest": self.config.digest,
            "created_at": now(),
            **self.facts,
        }
        known = read_json(path) if path.exists() else None
        if known is not None:
            _refuse_other_run(known, fresh, self.folder)
        return known, fresh

    def settle(self, facts: Mapping[str, Any]) -> None:
        """Add the facts that were unknown when the folder was opened, and write run.json, or widen its plan.

        Raises ConfigError when the folder is another run's.
        """
        self.facts = {**self.facts, **facts}
        known, fresh = self._compare()
        if known is not None:
            fresh = known | {
                "plan": widened(known["plan"], fresh["plan"]),
                "tasks": known.get("tasks", {}) | fresh.get("tasks", {}),
            }
            if fresh == known:
                return
        write_json(self.folder / "run.json", fresh)

    def _adopt(self) -> set[Key]:
        """Journal whole folders that the journal lacks; remove those that were killed in progress.

        Returns the rollouts whose folders are known to be as they were when they were hashed.
        """
        sound: set[Key] = set()
        for instance in _entries(self.folder / "rollouts"):
            for entry in _entries(instance.path) if instance.is_dir() else ():
                if entry.is_dir() and _SEED.fullmatch(entry.name):
                    key = instance.name, int(entry.name)
                    if key in self.progress and self._verified.holds(key, entry.path, vars(self.progress[key])):
                        sound.add(key)
                    elif (Path(entry) / ROLLOUT_EVENT).exists():
                        self._adopt_one(Path(entry), key)
                    else:
                        self._ignore(Path(entry))
                elif entry.is_dir() and _SCRATCH.fullmatch(entry.name):
                    shutil.rmtree(entry)  # killed in progress: still pending
                elif not (entry.is_dir() and _EARLIER.fullmatch(entry.name)):
                    self._ignore(Path(entry))
        return sound

    def _ignore(self, path: Path) -> None:
        logger.warning("%s is no folder of a run: ignored", path)
        self.stray.append(path)

    def _adopt_one(self, folder: Path, key: Key) -> None:
        known = self.progress.get(key)
        rollout = event_in(folder, ROLLOUT_EVENT, key)
        if rollout and (known is None or known.rollout["attempt"] < rollout["attempt"]):
            if damage(folder, rollout.get("files", {})):
                return
            self._append(rollout)
            known = None
        grade = event_in(folder, GRADE_EVENT, key)
        fresh = grade and key in self.progress and (known is None or known.grade != grade)
        if grade and fresh and not damage(folder, grade.get("files", {})):
            self._append(grade)

    def _check(self, sound: Collection[Key]) -> None:
        """Make journaled work whose files have changed pending again; `sound` has not."""
        began = self._verified.now()
        for key, progress in [one for one in self.progress.items() if one[0] not in sound]:
            folder = self.rollout_folder(*key)
            wrong = damage_of(folder, progress)
            if not wrong:
                self._verified.add(key, str(folder), vars(progress), began)
            else:
                self.damaged[key] = wrong
                if wrong.startswith(ROLLOUT_AGAIN):
                    del self.progress[key]
                else:
                    progress.grade = None

    def _verify(self) -> None:
        """Read what ended in this process once more, when it has been left alone long enough to be noted as good."""
        while self._fresh and time.monotonic() - self._fresh[0][0] > 1.5e-9 * SETTLED:
            try:
                key = self._fresh.popleft()[1]
            except IndexError:  # another thread was quicker
                return
            folder, progress, began = self.rollout_folder(*key), self.progress[key], self._verified.now()
            if not damage_of(folder, progress):
                self._verified.add(key, str(folder), vars(progress), began)

    def _append(self, event: Event) -> None:
        end = self._journal.seek(0, os.SEEK_END)
        try:
            rest = (json.dumps(event) + "\n").encode()
            while rest:
                rest = rest[self._journal.write(rest) :]
            os.fsync(self._journal.fileno())
        except OSError:  # a full disk: half a line would damage the next one
            self._journal.truncate(end)
            raise
        self._note(event)

    def _note(self, event: Event) -> None:
        key = event["instance_id"], event["seed"]
        if event["event"] == "rollout":
            self.progress[key] = Progress(rollout=event)
            self._attempts[key] = event["attempt"]
        elif key in self.progress:
            self.progress[key].grade = event


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection meanwhile: to look through a million new objects that are all kept takes longer than to
    read them. Afterwards they count as old ones, so that the next collection does not look through them either."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            if not gc.get_freeze_count():
                gc.freeze()
                gc.unfreeze()  # into the oldest generation
            gc.enable()


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def damage_of(folder: Path, progress: Progress) -> str:
    """Which files of a journaled rollout have changed, and what must be done again; empty if none.

    The files of a lost rollout are only evidence, and never count as damaged.
    """
    rollout, grade = progress.rollout, progress.grade
    if rollout["fault"] is not None:
        return ""
    if not folder.is_dir():
        return f"{ROLLOUT_AGAIN}: its folder is gone"
    if wrong := damage(folder, patch_proof(rollout)) or damage(folder, rollout.get("files", {})):
        return f"{ROLLOUT_AGAIN}: {wrong}"
    if grade and (wrong := damage(folder, grade.get("files", {}))):
        return f"{GRADING_AGAIN}: {wrong}"
    return ""


def patch_proof(rollout: Event) -> Files:
    """The size and hash of a rollout's patch; only its size if it was journaled without hashes."""
    files: Files = rollout.get("files", {})
    if PATCH in files:
        return {PATCH: files[PATCH]}
    return {PATCH: {"bytes": rollout["patch_bytes"]}} if "patch_bytes" in rollout else {}


def trajectory_digest(rollout: Event) -> str:
    """The hash of the trajectory that a rollout's event speaks of; empty where it has none."""
    known = (rollout.get("files") or {}).get(f"{rollout['instance_id']}.traj.json") or {}
    return str(known.get("sha256", ""))


def event_in(folder: Path, name: str, key: Key) -> Event | None:
    """The event in a rollout's folder; None if there is none, half of one, or that of another rollout."""
    try:
        event: Event = json.loads((folder / name).read_text())
        return event if (event["instance_id"], event["seed"]) == key else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _free(folder: Path, attempt: int | None) -> Path:
    """A name beside `folder` for an attempt that is being replaced."""
    name = f"{folder.name}.attempt{0 if attempt is None else attempt}"
    taken = {path.name for path in folder.parent.iterdir()}
    return folder.with_name(next(n for n in (name, *(f"{name}.{i}" for i in range(1, 10**6))) if n not in taken))


def read_journal(folder: Path, digest: Digest | None = None) -> Iterator[Event]:
    """The events of a run, oldest first, without opening it for writing; without a torn last line.

    `digest` is fed all bytes that were read.
    """
    path = folder / "journal.jsonl"
    if not path.exists():
        raise DataError(f"{folder} is not a run: it has no journal.jsonl")
    with path.open("rb") as lines:
        yield from _parse(path, lines if digest is None else _through(lines, digest))


def _through(lines: Iterable[bytes], digest: Digest) -> Iterator[bytes]:
    for line in lines:
        digest.update(line)
        yield line


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run's lock. Raises ConfigError if another process holds it."""
    handle = _lock(folder)
    try:
        yield
    finally:
        handle.close()


def _lock(folder: Path) -> IO[str]:
    handle = (folder / ".lock").open("w")
    try:
        lock(handle)
    except Held:
        handle.close()
        raise ConfigError(f"another aem process is writing {folder}; wait for it, or choose another --out") from None
    return handle


def _repair(path: Path) -> list[Event]:
    """Read the journal and cut off a torn last line, left by a kill in the middle of a write."""
    if not path.exists():
        return []
    raw = path.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):
        with path.open("r+b") as handle:
            handle.truncate(len(whole))
    return list(_parse(path, whole.splitlines(keepends=True)))


def _parse(path: Path, lines: Iterable[bytes]) -> Iterator[Event]:
    lines, before = iter(lines), 0
    while some := list(islice(lines, LINES)):
        whole = some if some[-1].endswith(b"\n") else some[:-1]
        yield from _together(whole) or _one_by_one(path, whole, before)
        if len(whole) < len(some):  # torn, or just being written: its rest would be a line of its own
            return
        before += len(some)


def _together(lines: Sequence[bytes]) -> list[Event]:
    """The events in some lines of a journal, in half the time that they take one by one; none where one is damaged."""
    try:
        events: list[Event] = json.loads(f"[{b','.join(lines).decode()}]")
    except (ValueError, RecursionError):
        return []
    return events if len(events) == len(lines) else []


def _one_by_one(path: Path, lines: Sequence[bytes], before: int) -> Iterator[Event]:
    for number, line in enumerate(lines, start=before + 1):
        try:
            yield json.loads(line.decode())
        except ValueError:
            raise DataError(
                f"{path}, line {number}: not a journal entry; `aem fsck {path.parent}` rebuilds it from the folders"
            ) from None


def _refuse_other_run(known: Event, fresh: Event, folder: Path) -> None:
    if known["config_digest"] != fresh["config_digest"]:
        differing = [key for key in fresh["config"] if known["config"].get(key) != fresh["config"][key]]
        raise ConfigError(
            f"{folder} holds a run with another configuration (differs in: {', '.join(differing) or 'defaults'}); "
            "continue it with the same options, or choose another --out"
        )
    for fact in ("agent", "dataset", "versions", "fingerprint"):
        then, today = _lasting(known.get(fact)), _lasting(fresh.get(fact))
        if fact in fresh and then != today:
            raise ConfigError(
                f"{folder} was started with another {fact} ({then} then, {today} now): "
                "one run cannot mix the two; choose another --out"
            )


def _lasting(fact: Any) -> Any:
    """A fact, without the parts that may differ between starts of the same server."""
    asked = ("canary", "logprobs")  # answers that may fail to come, or differ in their last digits
    return {key: value for key, value in fact.items() if key not in asked} if isinstance(fact, Mapping) else fact


def write_patch(path: Path, patch: str) -> None:
    """A patch is bytes, mostly text: line ends are kept, and bytes that are not UTF-8 survive as surrogates."""
    write_bytes(path, patch.encode("utf-8", "surrogateescape"))


def read_patch(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "surrogateescape")


def now() -> str:
    """The current time: UTC, ISO 8601, seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def moment(text: object) -> datetime | None:
    """A time as `now` writes it; None where a file that was edited or damaged holds none. Without a zone it is UTC."""
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found and found.tzinfo is None else found


def latest(times: Iterable[object]) -> str:
    """The latest of the times in a journal, as `now` writes it; empty where none is known."""
    known = [one for one in map(moment, times) if one]
    return max(known).isoformat() if known else ""
