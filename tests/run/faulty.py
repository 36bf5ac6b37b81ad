"""A seeded fault injector: one rollout in ten meets a fault, somewhere between the image and the verdict.

The places are folders of this machine instead of containers, so that hundreds of rollouts take seconds; runner, store,
journal and trajectories are the real ones. The agent appends bytes that are no text to a file; the grader draws lots
by what the file holds.
"""

import errno
import hashlib
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker.errors
import requests

from aem_harness.harness.errors import ContainerDied, EnvironmentFault, GradingFault, PolicyFault
from aem_harness.harness.sandbox.worktree import Patch
from aem_harness.harness.types import AgentExit, ExitStatus, Grade, Instance, Observation, Outcome, Prediction, Task

Key = tuple[str, int]

# Where it strikes, and what; each carries its own words, so that the cause can be looked for afterwards.
FAULTS: dict[str, tuple[str, Callable[[str], BaseException]]] = {
    "full disk of the recorder": ("record", lambda words: OSError(errno.ENOSPC, words)),
    "too many open files": ("agent", lambda words: OSError(errno.EMFILE, words)),
    "no memory": ("agent", lambda words: MemoryError(words)),
    "no threads": ("agent", lambda words: RuntimeError(f"can't start new thread {words}")),
    "the engine's client": ("execute", lambda words: docker.errors.APIError(words)),
    "the engine's connection": ("execute", lambda words: requests.exceptions.ConnectionError(words)),
    "a container that died": ("execute", lambda words: ContainerDied(words)),
    "the model's server": ("agent", lambda words: PolicyFault(words)),
    "an image that is gone": ("image", lambda words: EnvironmentFault(words)),
    "no container": ("open", lambda words: OSError(errno.ENOMEM, words)),
    "an unreadable tree": ("patch", lambda words: EnvironmentFault(words)),
    "our own mistake": ("patch", lambda words: KeyError(words)),
    "a grading that cannot be": ("grade", lambda words: GradingFault(words)),
    "a grader's mistake": ("grade", lambda words: ZeroDivisionError(words)),
}


@dataclass
class Injector:
    """Which rollouts meet which fault: a tenth of `keys`, drawn by `seed`."""

    struck: dict[Key, str]

    @classmethod
    def drawn(cls, keys: list[Key], seed: int) -> "Injector":
        dice = random.Random(seed)
        chosen = dice.sample(keys, len(keys) // 10)
        return cls({key: dice.choice(sorted(FAULTS)) for key in chosen})

    def strike(self, where: str, key: Key) -> None:
        kind = self.struck.get(key)
        if kind and FAULTS[kind][0] == where:
            raise FAULTS[kind][1](words_of(key))


def words_of(key: Key) -> str:
    return f"struck {key[0]} {key[1]}"


class Folder:
    """An environment in a folder, with what the runner asks of a sandbox; a command is text that is appended."""

    def __init__(self, folder: Path, injector: Injector) -> None:
        self.folder, self.injector = folder, injector
        self.commands = 0
        self.key: Key = ("", 0)

    def execute(self, command: str, *, timeout: float = 60.0, cwd: str | None = None) -> Observation:
        self.injector.strike("execute", self.key)
        self.commands += 1
        with (self.folder / "number").open("ab") as handle:
            handle.write(command.encode("utf-8", "surrogateescape"))
        return Observation(output="", returncode=0, seconds=0.0)

    def patch(self) -> Patch:
        self.injector.strike("patch", self.key)
        return Patch((self.folder / "number").read_bytes(), carried={})

    @contextmanager
    def fresh(self) -> Iterator["Folder"]:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "number").write_text("1")
            yield Folder(Path(folder), self.injector)


class Folders:
    """Places that are folders; `Injector` may strike in each of their steps."""

    def __init__(self, injector: Injector) -> None:
        self.injector = injector
        self.now: dict[str, Key] = {}  # one rollout of an instance at a time

    def supply(self, *_: object) -> AbstractContextManager[None]:
        return nullcontext()

    @contextmanager
    def image(self, task: Task) -> Iterator[str]:
        self.injector.strike("image", (task.instance_id, 0))
        yield "sha256:none"

    @contextmanager
    def open(self, task: Task) -> Iterator[Folder]:
        self.injector.strike("open", (task.instance_id, 0))
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "number").write_bytes(f"{task.instance_id} ".encode())
            box = Folder(Path(folder), self.injector)
            box.key = (task.instance_id, 0)
            yield box

    def grade(self, task: Task, prediction: Prediction, folder: Path, left: Mapping[str, str | None] | None) -> Grade:
        self.injector.strike("grade", (task.instance_id, 0))
        data = prediction.model_patch.encode("utf-8", "surrogateescape")
        (folder / "test_output.txt").write_bytes(data)
        even = int(hashlib.sha256(data).hexdigest(), 16) % 2 == 0
        outcome = Outcome.RESOLVED if even else Outcome.UNRESOLVED
        return Grade(instance_id=task.instance_id, outcome=outcome)

    def ahead(self, gradings: int) -> int:
        return gradings

    def architecture(self) -> str:
        return "paper"

    def services(self) -> Mapping[str, Any]:
        return {}

    def close_all(self) -> None: ...


class Doubler:
    """An agent that leaves bytes that are no text, and whose own code fails now and then, the same in every run."""

    name = "doubler"

    def __init__(self, injector: Injector) -> None:
        self.injector = injector

    def describe(self) -> Mapping[str, Any]:
        return {"kind": self.name}

    def run(self, instance: Instance, environment: Any, record: Any, *, seed: int) -> AgentExit:
        key = (instance.instance_id, seed)
        record.message({"role": "assistant", "content": "caf\udce9", "extra": {"actions": []}})
        environment.execute("caf\udce9")
        self.injector.strike("agent", key)
        if self.injector.struck.get(key) == "full disk of the recorder":
            record._lines = Full(words_of(key))
            record.message({"role": "assistant", "content": "more", "extra": {}})
        number = int(instance.instance_id.rpartition("-")[2])
        if number % 17 == 0:
            raise UnicodeEncodeError("utf-8", "\udce9", 0, 1, "the agent's own slip")
        if number % 19 == 0:
            raise SystemExit("the agent's own way out")
        return AgentExit(status=ExitStatus.STEP_LIMIT if number % 3 else ExitStatus.SUBMITTED)


class Full:
    """A file on a disk that is full."""

    def __init__(self, words: str) -> None:
        self.words = words

    def write(self, _: str) -> int:
        raise OSError(errno.ENOSPC, self.words)

    def flush(self) -> None: ...

    def close(self) -> None: ...
