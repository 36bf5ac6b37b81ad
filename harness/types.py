"""The types that all packages share: one instance from dataset row to grade, and the protocols between packages.

Records are frozen; what can be derived is a property. `Instance` is all that an agent may see: it has no field for
the gold patch or the tests, so it cannot leak them.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field


class Record(BaseModel):
    """Base of all records that packages exchange or write to disk."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# --- tasks ----------------------------------------------------------------------------------------------------------


class Instance(Record):
    """The agent's half of a dataset row (field names are SWE-bench's)."""

    instance_id: str
    repo: str
    base_commit: str
    problem_statement: str
    version: str = ""
    hints_text: str = ""
    created_at: str = ""
    difficulty: str = ""
    image: str
    workdir: str = "/testbed"


class Task(Record):
    """A whole dataset row: the agent's half, and the half that only grader and image builder may see.

    `provenance` names, for every field the published row lacked, where its value came from
    (for example {"eval_script": "swebench 4.1.0 specification"}).
    """

    instance: Instance
    patch: str
    test_patch: str
    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]
    eval_script: str
    log_parser: str
    eval_type: str = "pass_and_fail"
    dockerfile: str | None = None  # path of a folder with a Dockerfile, when the image can be built here
    build_args: Mapping[str, str] = Field(default_factory=dict)  # for that Dockerfile's ARGs
    network: bool = True  # network while grading; the official images expect it, the agent never gets it by default
    dataset: str = ""
    provenance: Mapping[str, str] = Field(default_factory=dict)

    @property
    def instance_id(self) -> str:
        return self.instance.instance_id


# --- what happens in a container ------------------------------------------------------------------------------------


class Observation(Record):
    """What one command gave back. `output` is stdout and stderr interleaved, bounded: head + tail.

    `dropped_bytes` counts what the bound cut out of the middle; `output` then carries one line in its place.
    """

    output: str
    returncode: int
    seconds: float
    timed_out: bool = False
    dropped_bytes: int = 0


class Environment(Protocol):
    """One container that an agent or a grader works in. Faults of the engine raise `EnvironmentFault`."""

    def execute(self, command: str, *, timeout: float = 60.0, cwd: str | None = None) -> Observation:
        """Run `command` in a fresh bash subshell; at the timeout (seconds) its whole process group dies."""
        ...

    def diff(self) -> str:
        """The work tree against the base commit as a patch (new files included, ignored files left out)."""
        ...

    def write_file(self, path: str, data: bytes) -> None: ...

    def read_file(self, path: str) -> bytes: ...


# --- what a policy says ---------------------------------------------------------------------------------------------


class Completion(Record):
    """One model response with everything the server said about it. Times in seconds, entropies in nats.

    `logprobs` holds log pi(y_l | prefix) of the sampled tokens; `entropies` the per-token entropy estimates, by
    `entropy_method` ("full", "top-20 + tail bound", ...), empty where the server returned no log-probabilities.
    `seconds` is the attempt that succeeded, `queue_seconds` what passed on this side before it began, and
    `server_queue_seconds` the part of the attempt that the request queued at the server, None where that does not say.
    `gpu_seconds` is the request's share of the server's GPUs (`agents.accelerator`), None where those are not known.
    `reasoning` is what the server parsed out of `content`, and `reasoning_field` the field in which it came, empty
    where it is not to be sent back; `anomalies` names departures from the protocol that were corrected.
    """

    content: str
    reasoning: str = ""
    reasoning_field: str = ""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tokens: tuple[str, ...] = ()
    logprobs: tuple[float, ...] = ()
    entropies: tuple[float, ...] = ()
    entropy_method: str = ""
    seconds: float = 0.0
    queue_seconds: float = 0.0
    server_queue_seconds: float | None = None
    gpu_seconds: float | None = None
    retries: int = 0
    request_id: str = ""
    model: str = ""
    anomalies: tuple[str, ...] = ()


class ExitStatus(StrEnum):
    """How a rollout ended. Ending is not failing: whatever the status, the work tree's diff is the prediction."""

    SUBMITTED = "submitted"
    STEP_LIMIT = "step_limit"
    TOKEN_LIMIT = "token_limit"
    CONTEXT_LIMIT = "context_limit"
    WALL_LIMIT = "wall_limit"
    FORMAT_ERRORS = "format_errors"  # too many malformed replies in a row
    AGENT_CRASH = "agent_crash"  # the agent's own code raised
    SANDBOX_DESTROYED = "sandbox_destroyed"  # its commands left no container that works, where a fresh one does
    FAULT = "fault"  # infrastructure; the rollout is done again on request

    @property
    def at_a_limit(self) -> bool:
        """Cut off by a limit of steps, tokens, context or time."""
        return self in (self.STEP_LIMIT, self.TOKEN_LIMIT, self.CONTEXT_LIMIT, self.WALL_LIMIT)


class Recorder(Protocol):
    """Where an agent writes its trajectory, message by message, as it happens (appended: O(T) in all)."""

    def message(self, message: Mapping[str, Any]) -> None:
        """Append one message in mini-swe-agent 1.1 form: role, content, and an `extra` mapping."""
        ...

    def info(self, **facts: Any) -> None:
        """Merge facts into the trajectory's `info` (counters, configuration, reason of the end)."""
        ...


class AgentExit(Record):
    """How the agent ended, and the patch if it named one itself (None: take the work tree's diff)."""

    status: ExitStatus
    patch: str | None = None
    reason: str = ""


class Agent(Protocol):
    """Drives a policy in an environment. One object serves many rollouts at once, so `run` keeps no state on it."""

    name: str

    def run(self, instance: Instance, environment: Environment, record: Recorder, *, seed: int) -> AgentExit: ...

    def describe(self) -> Mapping[str, Any]:
        """What must be equal for two runs to be comparable: kind, prompts' digest, limits, sampling (JSON values)."""
        ...


class Policy(Protocol):
    """Weights and sampling: messages in, one completion out. Server faults raise `PolicyFault`."""

    def complete(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] = (), seed: int | None = None
    ) -> Completion: ...

    def describe(self) -> Mapping[str, Any]: ...


# --- what comes out -------------------------------------------------------------------------------------------------


class Prediction(Record):
    """One patch, in the official field names (`swebench` reads files of these)."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    instance_id: str
    model_name_or_path: str
    model_patch: str


class Outcome(StrEnum):
    """The verdict on one rollout. Only ERROR is not the policy's doing; it never counts as a wrong answer,
    and never silently leaves the denominator."""

    RESOLVED = "resolved"
    UNRESOLVED = "unresolved"
    NOT_APPLIED = "not_applied"
    EMPTY_PATCH = "empty_patch"
    TEST_TIMEOUT = "test_timeout"
    ERROR = "error"


class Grade(Record):
    """The official verdict on one prediction, and what produced it.

    `report` is the official per-instance report as swebench writes it ({} where swebench writes none);
    `versions` stamps grader, dataset digest, image digest and where derived row fields came from; `tree_differs` names
    the paths that the patch did not make what the agent had left (None: not compared).
    """

    instance_id: str
    outcome: Outcome
    cause: str = ""
    report: Mapping[str, Any] = Field(default_factory=dict)
    versions: Mapping[str, Any] = Field(default_factory=dict)
    seconds: float = 0.0
    tree_differs: tuple[str, ...] | None = None

    @property
    def resolved(self) -> bool:
        return self.outcome is Outcome.RESOLVED


ImageSource = Literal["local", "pulled", "built"]


class ImageRef(Record):
    """An image that is present in the engine, by name and by content digest (the image id when never pushed)."""

    name: str
    digest: str
    source: ImageSource
    architecture: str = ""  # amd64, arm64, ...; a digest may stand for images of several
