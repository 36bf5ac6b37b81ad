"""One run of `benchmarks.steps`, by whichever checkout of this project is on the path. Prints one line of JSON."""

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aem_harness.agents.bash import BashAgent, BashOptions
from aem_harness.agents.policy import EndpointPolicy, Sampling
from aem_harness.api import running
from aem_harness.api.sites import AtATime, Driver
from aem_harness.harness.config import RunConfig
from aem_harness.harness.sandbox.container import Sandbox
from aem_harness.harness.sandbox.worktree import Patch
from aem_harness.harness.types import Grade, Outcome, Prediction, Task


class Engine:
    """What a `Channel` asks of docker-py, on the socket of the simulated engine."""

    def __init__(self, path: str) -> None:
        self.path = path

    def exec_create(self, *_: Any, **__: Any) -> dict[str, str]:
        return {"Id": "exec"}

    def exec_start(self, *_: Any, **__: Any) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.path)
        return connection


class Box(Sandbox):
    """A sandbox of the simulated engine: its channel is real, its patch is one line."""

    engine, last = "", 0.0

    def _create(self) -> Any:
        nothing: Callable[..., None] = lambda *_, **__: None  # noqa: E731
        client = SimpleNamespace(api=Engine(self.engine))
        return SimpleNamespace(id="box", attrs={"Image": "sha256:0"}, client=client, start=nothing, remove=nothing)

    def patch(self) -> Patch:
        return Patch(b"diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1 +1 @@\n-a\n+b\n", carried={})

    def close(self) -> None:
        super().close()
        Box.last = time.monotonic()


class Boxes:
    """Places whose containers are simulated, and whose grader says no at once. `first`: when one was opened."""

    def __init__(self) -> None:
        self.first = float("inf")

    def supply(self, *_: Any) -> AbstractContextManager[None]:
        return nullcontext()

    @contextmanager
    def image(self, task: Task) -> Any:
        yield "sha256:0"

    def open(self, task: Task) -> Box:
        self.first = min(self.first, time.monotonic())
        return Box("none", scrub_git=False)

    def grade(self, task: Task, prediction: Prediction, *_: Any) -> Grade:
        return Grade(instance_id=task.instance_id, outcome=Outcome.UNRESOLVED)

    def ahead(self, gradings: int) -> int:
        return gradings

    def architecture(self) -> str:
        return ""

    def services(self) -> Mapping[str, Any]:
        return {}

    def close_all(self) -> None:
        Sandbox.close_all()


class Memory(threading.Thread):
    """The largest resident size, in MB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.over = self.now(), threading.Event()

    def now(self) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return float(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024

    def run(self) -> None:
        while not self.over.wait(0.2):
            self.most = max(self.most, self.now())


def run(
    settings: Mapping[str, Any], name: str, rollouts: int, flight: int, steps: int
) -> tuple[Sequence[Mapping[str, Any]], float]:
    """A whole run: the events of its rollouts, and the seconds from the first container to the end of the last."""
    selection = running.choose("tiny", running.quiet())
    ids = [task.instance_id for task in selection.tasks]
    counts = {one: rollouts // len(ids) + (n < rollouts % len(ids)) for n, one in enumerate(ids)}
    keys = running.keys_of({one: count for one, count in counts.items() if count})
    selection.tasks = [task for task in selection.tasks if counts[task.instance_id]]
    sampling = Sampling(logprobs=settings["logprobs"], vocabulary=32000)
    config = RunConfig(arm="a", agent="bash", stop_alike=0)
    with EndpointPolicy("m", [settings["url"]], sampling) as policy:
        agent = BashAgent(policy, BashOptions(steps=steps))
        seeds = {one: count for one, count in counts.items() if count}
        with running.open_run(Path(settings["out"]) / name, config, selection, agent, seeds) as store:
            places: Any = Boxes()
            at_a_time = AtATime(flight, grade_workers=2)
            running.perform(store, selection, Driver(agent), keys, running.quiet(), at_a_time, places=places)
            return [known.rollout for known in store.progress.values()], Box.last - places.first


def main(settings: Mapping[str, Any]) -> None:
    Box.engine = settings["engine"]
    run(settings, "first", 2, 2, 2)  # imports what it needs
    memory, spent = Memory(), time.process_time()
    before = memory.most
    memory.start()
    events, took = run(settings, "run", settings["rollouts"], settings["flight"], settings["steps"])
    spent = time.process_time() - spent
    memory.over.set()
    memory.join()
    done = sum(event["steps"] for event in events)
    if done != settings["rollouts"] * settings["steps"] or any(event["fault"] for event in events):
        raise SystemExit(f"{done} steps of {settings['rollouts'] * settings['steps']}: look at {settings['out']}")
    mb = (memory.most - before) / settings["flight"]
    print(json.dumps({"rate": done / took, "cpu_ms": 1000 * spent / done, "mb": mb, "seconds": took}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
