"""A scripted policy with the latency of a model: some commands with a wait before each, then the gold patch or none.

aem run --agent tests.run.cluster_agent:Slow -c agent_options.latency=0.5
"""

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aem_harness.harness.instances.load import load
from aem_harness.harness.types import AgentExit, ExitStatus, Instance


class Slow:
    """Which rollouts get the gold patch depends on instance and seed alone, so that every run of it ends alike."""

    name = "slow"

    def __init__(self, policy: Any, options: Mapping[str, Any]) -> None:
        self._latency, self._steps = float(options.get("latency", 0.5)), int(options.get("steps", 4))
        self._patches = {task.instance_id: task.patch for task in load(options["rows"]).tasks}
        self._log = Path(options["log"]) if "log" in options else None

    def describe(self) -> Mapping[str, Any]:
        return {"kind": self.name, "latency": self._latency, "steps": self._steps}

    def run(self, instance: Instance, environment: Any, record: Any, *, seed: int) -> AgentExit:
        name = instance.instance_id
        if self._log:
            with self._log.open("a") as log:
                log.write(f"{name} {seed}\n")
        for step in range(self._steps):
            time.sleep(self._latency)
            seen = environment.execute(f"cat lib/*.py | wc -c; echo step {step}")
            record.message({"role": "assistant", "content": f"step {step}", "extra": {"actions": []}})
            record.message({"role": "tool", "content": seen.output, "extra": {}})
        if self._patches[name] and int(hashlib.sha256(f"{name} {seed}".encode()).hexdigest(), 16) % 3:
            environment.write_file("/tmp/gold.diff", self._patches[name].encode())
            environment.execute("git apply /tmp/gold.diff")
        return AgentExit(status=ExitStatus.SUBMITTED)


class Idle(Slow):
    """The same, and it never repairs anything."""

    name = "idle"

    def __init__(self, policy: Any, options: Mapping[str, Any]) -> None:
        super().__init__(policy, options)
        self._patches = dict.fromkeys(self._patches, "")

    def run(self, instance: Instance, environment: Any, record: Any, *, seed: int) -> AgentExit:
        self._steps = 1
        return super().run(instance, environment, record, seed=seed)
