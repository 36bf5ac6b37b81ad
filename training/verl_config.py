"""`kind: verl`: the settings of a run on verl. What they do not name is verl's own default."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from aem_harness.harness.config import MOST_SECONDS, Limits
from aem_harness.harness.types import Record
from aem_harness.training.aem import AemConfig
from aem_harness.training.watch import GateSettings


class SandboxSettings(Record, allow_inf_nan=False):
    """Where the rollouts happen: which agent, on which instances, graded how long.

    `containers` bounds the rollouts at once of one of verl's agent workers, of which a node has several. `validation`
    are held-out rows for verl's own evaluation (trainer.test_freq).

    `compact_filtering` masks the loss of rollouts that ended at a limit (DeepSWE): they stay in the baseline with
    reward 0. With `record`, a folder that every node can write, every rollout leaves its trajectory and grading there.
    """

    instances: str = Field("", description="SWE-bench-format rows: a file, or a name that `aem run --set` knows")
    validation: str = Field("", description="held-out rows, likewise; without them verl does not evaluate")
    agent: str = "bash"
    agent_options: Mapping[str, Any] = Field(default_factory=dict)
    limits: Limits = Limits()
    grade_timeout: float = Field(1800, gt=0, le=MOST_SECONDS, description="seconds the official eval script may take")
    token_timeout: float = Field(
        1800, gt=0, le=MOST_SECONDS, description="seconds that the server may take for one reply"
    )
    containers: int = Field(0, ge=0, description="rollouts at once in one agent worker; 0: all that it has")
    compact_filtering: bool = False
    record: str = ""


class VerlConfig(Record):
    """A run of verl's PPO trainer in `mode`. `verl` holds settings of verl's own `ppo_trainer` configuration, nested.

    `aem` left out or null trains the base alone, with verl's own trainer and the same agent loop.
    """

    kind: Literal["verl"]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")
    start: str = Field(description="folder of the policy to start from, or its name on the hub")
    seed: int = Field(default=0, ge=0)
    steps: int = Field(gt=0)
    mode: Literal["sync", "colocate_async", "separate_async"] = "sync"
    aem: AemConfig | None = None
    sandbox: SandboxSettings = SandboxSettings()
    gate: GateSettings | None = None
    verl: Mapping[str, Any] = Field(default_factory=dict)
