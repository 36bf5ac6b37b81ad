"""One run of `benchmarks.image_flow`, by whichever checkout of this project is on the path: rows, seconds, workers.

Images are pulled by the engine, as the run decides. Agents are simulated: each waits so many seconds, in a folder
instead of a container, and its grading takes no time; so the processor has next to nothing to do.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aem_harness.api import running
from aem_harness.harness.config import RunConfig
from aem_harness.harness.run.runner import Runner
from aem_harness.harness.sandbox.images import ensure_image
from aem_harness.harness.sandbox.worktree import Patch
from aem_harness.harness.types import AgentExit, ExitStatus, Grade, Outcome, Task


class Box:
    commands = 1

    def execute(self, *_: Any, **__: Any) -> None: ...

    def patch(self) -> Patch:
        return Patch(b"diff", carried={})


class Waiting:
    name = "waiting"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def describe(self) -> Mapping[str, Any]:
        return {"kind": self.name}

    def run(self, *_: Any, **__: Any) -> AgentExit:
        time.sleep(self.seconds)
        return AgentExit(status=ExitStatus.SUBMITTED)


class Before:
    """Places as they were: an image is pulled when a rollout needs it."""

    def image(self, task: Task) -> Any:
        return ensure_image(task).digest

    @contextmanager
    def open(self, task: Task) -> Iterator[Box]:
        yield Box()

    def grade(self, task: Task, *_: Any) -> Grade:
        return Grade(instance_id=task.instance_id, outcome=Outcome.UNRESOLVED)

    def ahead(self, gradings: int) -> int:
        return gradings

    def close_all(self) -> None: ...


class Now(Before):
    """Places with the flow of images of real runs."""

    def __init__(self, containers: Any) -> None:
        self.image, self.supply, self.services = containers.image, containers.supply, containers.services


def main(rows: str, seeds: str, workers: str, seconds: str) -> None:
    selection = running.choose(rows, running.quiet())
    keys = running.keys_of({task.instance_id: int(seeds) for task in selection.tasks})
    tasks = {task.instance_id: task for task in selection.tasks}
    agent: Any = Waiting(float(seconds))
    folder = Path(tempfile.mkdtemp(dir=os.environ["AEM_FLOW_FOLDER"])) / "run"
    with running.open_run(folder, RunConfig(arm="a", agent="waiting"), selection, agent, int(seeds)) as store:
        places: Any = Before()
        if hasattr(running, "together"):
            from aem_harness.harness.run.identity import Identity
            from aem_harness.harness.run.places import Containers

            keys = running.together(keys, selection.tasks)
            places = Now(Containers(Identity.of(store.folder, store.config)))
        began = time.monotonic()
        Runner(store, tasks, agent, workers=int(workers), places=places).run(keys)
        ended = time.monotonic() - began
        events = [known for known in store.progress.values() if known.grade and not known.rollout["fault"]]
    if len(events) != len(keys):
        raise SystemExit(f"{len(keys) - len(events)} of {len(keys)} rollouts are missing: look at {folder}")
    print(f"{ended:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
