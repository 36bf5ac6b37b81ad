"""verl's agent loop as a rollout of this project: our agent, in a fresh container, its patch graded officially.

The agent is the one that `aem run` drives, prompts and limits included; only its policy differs. `TokenPolicy` asks
verl's server by token ids and keeps what was sampled, so that what is trained on is what was said: ids are only ever
appended, replies count as the policy's (mask 1), everything else as the environment's (mask 0). Where an agent shows
its policy a shortened or no copy of an earlier reply (a malformed one, thinking left out), the ids keep it whole.

Agent and containers block, and verl's loop is asynchronous: a rollout runs in a thread of its own, and hands the
requests for tokens back to the loop. A fault of engine, server or grader is raised; verl then drops the prompt's group.
"""

import asyncio
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from omegaconf import OmegaConf
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput

from aem_harness.agents.build import build
from aem_harness.agents.policy import ContextOverflow
from aem_harness.harness.errors import ConfigError, DataError, GradingFault, PolicyFault, boundary
from aem_harness.harness.grading import official
from aem_harness.harness.run.trajectory import TrajectoryWriter
from aem_harness.harness.sandbox.container import Sandbox
from aem_harness.harness.sandbox.images import ensure_image
from aem_harness.harness.sandbox.reaping import reap
from aem_harness.harness.types import Completion, ExitStatus, Outcome, Prediction, Task
from aem_harness.training.verl_config import SandboxSettings

THINKING_ENDS = "</think>"

Generate = Callable[[list[int], int], Any]  # (ids, most new tokens) -> verl's TokenOutput


@dataclass
class TokenPolicy:
    """A `Policy` over token ids. `ids` is the conversation; `mask` and `logprobs` belong to what follows the prompt.

    `builder` is verl's continuous-token builder for the model's chat template; `room` bounds what follows the
    prompt, in tokens, and `prompt_room` the prompt.
    """

    builder: Any
    decode: Callable[[list[int]], str]
    generate: Generate
    room: int
    prompt_room: int
    ids: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    server_facts: dict[str, Any] = field(default_factory=dict)
    turns: int = 0
    seconds: float = 0.0
    _told: int = 0
    _history: list[dict[str, Any]] = field(default_factory=list)

    def complete(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] = (), seed: int | None = None
    ) -> Completion:
        """The next reply. ContextOverflow when nothing more fits; `seed` is the server's business here."""
        if tools:
            raise ConfigError("verl's agent loop drives agents that act in text: choose prompts without tools")
        self._hear([dict(message) for message in messages])
        left = self.room - len(self.mask)
        if left <= 0:
            raise ContextOverflow(f"{self.room} tokens after the prompt are used up")
        started = time.monotonic()
        with boundary(PolicyFault, "verl's rollout server"):
            output = self.generate(self.ids, left)
        if output.stop_reason == "aborted" or not output.token_ids:
            raise PolicyFault("verl's rollout server broke off a reply")
        seconds = time.monotonic() - started
        self.seconds += seconds
        self._say(output)
        text = self.decode(output.token_ids)
        self._history.append({"role": "assistant", "content": text})
        reasoning, _, content = text.rpartition(THINKING_ENDS)
        return Completion(
            content=content,
            reasoning=reasoning,
            finish_reason="length" if len(output.token_ids) >= left else "stop",
            prompt_tokens=len(self.ids) - len(output.token_ids),
            completion_tokens=len(output.token_ids),
            logprobs=tuple(output.log_probs or ()),
            seconds=seconds,
        )

    def describe(self) -> Mapping[str, Any]:
        return {"kind": "verl", "room": self.room}

    def _hear(self, messages: list[dict[str, Any]]) -> None:
        """Append what was said since the last reply, by anyone but the policy."""
        if not self.ids:
            self.ids = list(self.builder.build_initial_tokens(messages))
            if len(self.ids) > self.prompt_room:
                raise DataError(f"the prompt has {len(self.ids)} tokens: raise data.max_prompt_length")
            self._history = messages
        else:
            new = [message for message in messages[self._told :] if message["role"] != "assistant"]
            heard = [*self._history, *new]
            merged = self.builder.merge_context_tokens(self._history, heard, self.ids)
            self.mask, logprobs = self.builder.align_response_metadata(merged, self.mask, self.logprobs)
            self.ids, self.logprobs, self._history = merged.token_ids, logprobs or [], heard
        self._told = len(messages)

    def _say(self, output: Any) -> None:
        """Append a sampled reply. A server that returns no log-probabilities leaves zeros, and `scored` false."""
        merged = self.builder.merge_assistant_tokens(self.ids, output.token_ids)
        scores = output.log_probs or [0.0] * len(output.token_ids)
        self.mask, logprobs = self.builder.align_response_metadata(
            merged, self.mask, self.logprobs, assistant_logprobs=scores
        )
        self.ids, self.logprobs = merged.token_ids, logprobs or []
        self.turns += 1
        first = self.server_facts.get("min_global_steps", output.extra_fields.get("min_global_steps"))
        self.server_facts |= {**output.extra_fields, "min_global_steps": first, "scored": bool(output.log_probs)}


@dataclass(frozen=True)
class Result:
    """One graded rollout."""

    policy: TokenPolicy
    status: ExitStatus
    reward: float
    seconds_agent: float
    seconds_grade: float


class SandboxAgentLoop(AgentLoopBase):
    """`aem_sandbox`: one rollout. The dataset's rows carry it in `task` (`verl_run.write_rows`)."""

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        sandbox = SandboxSettings.model_validate(OmegaConf.to_container(self.config.aem.sandbox, resolve=True))
        task = Task.model_validate_json(kwargs["task"])
        loop, request = asyncio.get_running_loop(), uuid4().hex

        def generate(ids: list[int], most: int) -> Any:
            wanted = self.server_manager.generate(
                request_id=request, prompt_ids=ids, sampling_params={**sampling_params, "max_tokens": most}
            )
            return within(asyncio.run_coroutine_threadsafe(wanted, loop), sandbox.token_timeout)

        policy = TokenPolicy(
            self.continuous_token_builder,
            lambda ids: str(self.tokenizer.decode(ids, skip_special_tokens=True)),
            generate,
            room=self.rollout_config.response_length,
            prompt_room=self.rollout_config.prompt_length,
        )
        seed = int(kwargs.get("session_id", 0))
        place = Path(sandbox.record) / task.instance_id / request if sandbox.record else None
        threads = ThreadPoolExecutor(1, "rollout")
        try:
            result = await loop.run_in_executor(threads, rollout, task, policy, sandbox, seed, place)
        finally:
            threads.shutdown(wait=False)
        return output_of(result, sandbox)


def within(future: "Future[Any]", seconds: float) -> Any:
    """The answer of a request for tokens. PolicyFault when it takes longer: a server that died never answers, and one
    rollout that waits holds the whole batch."""
    try:
        return future.result(seconds)
    except FutureTimeout:
        future.cancel()
        raise PolicyFault(f"verl's rollout server gave no reply within {seconds:g} s (sandbox.token_timeout)") from None


_slots: dict[int, threading.BoundedSemaphore] = {}
_once = threading.Lock()


def slots(containers: int) -> AbstractContextManager[Any]:
    """A place among the rollouts that this process runs at once; 0: there is no bound."""
    if not containers:
        return nullcontext()
    with _once:
        return _slots.setdefault(containers, threading.BoundedSemaphore(containers))


@cache
def reaped() -> int:
    """Remove, once in a process, what killed processes of this node left; how many containers."""
    return reap()


def rollout(task: Task, policy: TokenPolicy, sandbox: SandboxSettings, seed: int, place: Path | None = None) -> Result:
    """Drive the agent in a fresh container and grade its patch in another; faults are raised."""
    with slots(sandbox.containers):
        return _rollout(task, policy, sandbox, seed, place)


def _rollout(task: Task, policy: TokenPolicy, sandbox: SandboxSettings, seed: int, place: Path | None) -> Result:
    with _once:
        reaped()
    labels = {"aem.run": "verl", "aem.instance": task.instance_id}
    agent = build(sandbox.agent, options=sandbox.agent_options, tasks=[task], policy=policy)
    ensure_image(task)
    with nullcontext(place) if place else tempfile.TemporaryDirectory(prefix="aem-rollout-") as folder:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        record, started = TrajectoryWriter(folder, task.instance_id), time.monotonic()
        with Sandbox(
            task.instance.image, workdir=task.instance.workdir, limits=sandbox.limits, labels=labels
        ) as environment:
            ended = agent.run(task.instance, environment, record, seed=seed)
            patch = ended.patch if ended.patch is not None else environment.diff()
        record.finish(ended.status, patch)
        seconds_agent = time.monotonic() - started
        prediction = Prediction(instance_id=task.instance_id, model_name_or_path="verl", model_patch=patch)
        grade = official.grade(
            task, prediction, folder=folder, timeout=sandbox.grade_timeout, limits=sandbox.limits, labels=labels
        )
    if grade.outcome is Outcome.ERROR:
        raise GradingFault(f"{task.instance_id}: {grade.cause}")
    return Result(policy, ended.status, float(grade.resolved), seconds_agent - policy.seconds, grade.seconds)


def output_of(result: Result, sandbox: SandboxSettings) -> AgentLoopOutput:
    """What verl trains on."""
    policy, room = result.policy, result.policy.room
    filtered = sandbox.compact_filtering and result.status.at_a_limit
    reward = 0.0 if filtered else result.reward
    facts = dict(policy.server_facts)
    scored = facts.pop("scored", False)
    start = len(policy.ids) - len(policy.mask)
    return AgentLoopOutput(
        prompt_ids=policy.ids[:start],
        response_ids=policy.ids[start:][:room],
        response_mask=[0 if filtered else bit for bit in policy.mask[:room]],
        response_logprobs=policy.logprobs[:room] if scored else None,
        reward_score=reward,
        num_turns=2 * policy.turns,
        metrics=AgentLoopMetrics(
            generate_sequences=policy.seconds, tool_calls=result.seconds_agent, compute_score=result.seconds_grade
        ),
        extra_fields={
            **facts,
            "turn_scores": [],
            "tool_rewards": [],
            "reward_extra_info": {"resolved": result.reward, "filtered": float(filtered), "turns": policy.turns},
        },
    )
