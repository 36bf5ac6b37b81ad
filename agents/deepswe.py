"""The deepswe agent: R2E-Gym's scaffold as DeepSWE-Preview was evaluated with it (42.2 % pass@1 on Verified).

Four tools called in XML text, one call a reply; every message to the policy ends with the steps that remain; 100 steps,
65,536 tokens of context, 90 s a command; temperature 1. The prediction is the work tree's diff however it ends.

Read where:

- loop, limits, what is kept of a reply, the steps-remaining line: R2E-Gym, `agenthub/agent/agent.py`, in the revision
  that DeepSWE's own evaluation command runs (65,536 tokens, no condensing of history).
- parsing of calls: `agenthub/action/action.py`; observations: `agenthub/observation` and rLLM's copy of it
  (`rllm/environments/swe/observation.py`); tools: see `aem_harness.agents.deepswe_tools`.
- the evaluation command, in DeepSWE's instructions for reproduction: `vllm serve agentica-org/DeepSWE-Preview
  --max-model-len 70000`, then `runagent_multiple --use_fn_calling False --temperature 1 --max_steps_absolute 100`.

Not confirmed, and each an option here:

- `announced_steps`: that command leaves R2E-Gym's soft limit at its default of 40 steps, after which every message says
  to submit now. DeepSWE's published logs average 64.8 steps a rollout where runs of that command average 45.2
  (rllm-org/rllm, issue 138), so the logs were hardly made with 40. Default here: 100.
- `keep`: R2E-Gym puts the `<think>` block and the call of a reply into the conversation and drops other text
  (`think`, the default); rLLM trains with the whole text before the call (`text`).
- `thoughts`: R2E-Gym sends text alone. DeepSWE was evaluated without a reasoning parser: its thoughts were in the text,
  and stayed in the conversation. Behind a parser they are a field of their own, which is sent back (`send`, the
  default), or left out as R2E-Gym would (`drop`).
- `prompts`: ours by default. Published numbers were taken under R2E-Gym's words: give the path of its
  `config/r2egym/edit_non_fn_calling.yaml`.
- Sampling: the command sends only the temperature, so vLLM takes top_p and top_k from the model's generation_config.
  Set `sampling.top_p=null` to do the same.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field

from aem_harness.agents.budget import Meter, RolloutLimits
from aem_harness.agents.deepswe_tools import KEPT_LINES, NAMES, ToolResult, Tools
from aem_harness.agents.messages import Message, Thoughts, called, described, ended, observed, plain, sent
from aem_harness.agents.policy import ContextOverflow
from aem_harness.harness.config import MOST_SECONDS, read_yaml
from aem_harness.harness.errors import ConfigError
from aem_harness.harness.types import AgentExit, Completion, Environment, ExitStatus, Instance, Policy, Record, Recorder

NO_CALL = """
You forgot to use a function call in your response.
YOU MUST USE A FUNCTION CALL IN EACH RESPONSE.

IMPORTANT: YOU SHOULD NEVER ASK FOR HUMAN HELP.
"""


class DeepsweOptions(RolloutLimits):
    """R2E-Gym's limits; `steps` is the hard one, `announced_steps` what the policy is told."""

    steps: int = Field(100, ge=0)
    context: int = Field(65_536, ge=0)
    format_errors: int = Field(0, ge=0)
    command_seconds: float = Field(90, gt=0, le=MOST_SECONDS)
    announced_steps: int = Field(100, ge=1)
    keep: Literal["think", "text"] = "think"
    thoughts: Thoughts = "send"
    prompts: str = Field("deepswe-1", min_length=1)


class DeepswePrompts(Record):
    """System and instance prompt, in the fields of R2E-Gym's configuration files; `{problem_statement}` and
    `{working_dir}` are filled in by str.format."""

    name: str
    version: str | int
    system_prompt: str
    instance_prompt: str

    @classmethod
    def load(cls, name: str) -> Self:
        """By shipped name, or the path of a YAML file of ours or of R2E-Gym. ConfigError says what is wrong."""
        shipped = resources.files("aem_harness.agents") / "prompts" / "deepswe" / f"{name}.yaml"
        path = Path(str(shipped)) if shipped.is_file() else Path(name)
        if not path.is_file():
            raise ConfigError(f"unknown prompts {name!r}: choose deepswe-1, or give R2E-Gym's edit_non_fn_calling.yaml")
        values = {"name": path.stem, "version": "file"} | read_yaml(path)
        try:
            prompts = cls(**{field: values[field] for field in cls.model_fields})
            prompts.instance_prompt.format(problem_statement="", working_dir="")
        except (KeyError, ValueError, IndexError) as error:
            raise ConfigError(f"{path}: needs system_prompt and instance_prompt ({error})") from None
        return prompts

    def describe(self) -> dict[str, Any]:
        digest = hashlib.sha256(f"{self.system_prompt}\0{self.instance_prompt}".encode()).hexdigest()[:12]
        return {"name": self.name, "version": self.version, "digest": digest}


class Call(NamedTuple):
    """One tool call as it stands in a reply; without a name where there is none."""

    name: str
    parameters: Mapping[str, str]

    @property
    def xml(self) -> str:
        """The call as it goes into the conversation."""
        lines = [f"  <parameter={key}>{value}</parameter>\n" for key, value in self.parameters.items()]
        return f"<function={self.name}>\n{''.join(lines)}</function>"

    @property
    def ends(self) -> bool:
        return "finish" in self.name.lower() or "submit" in self.name.lower()


class DeepsweAgent:
    """Drives a policy in R2E-Gym's scaffold. Keeps no state between rollouts; safe to share between threads."""

    name = "deepswe"

    def __init__(self, policy: Policy, options: DeepsweOptions | None = None) -> None:
        self.policy = policy
        self.options = options or DeepsweOptions()
        self.prompts = DeepswePrompts.load(self.options.prompts)

    def describe(self) -> Mapping[str, Any]:
        return {
            "kind": self.name,
            "prompts": self.prompts.describe(),
            "budget": self.options.model_dump(mode="json", exclude={"prompts", "thoughts"}),
            **described(self.options.thoughts),
            "policy": dict(self.policy.describe()),
        }

    def run(self, instance: Instance, environment: Environment, record: Recorder, *, seed: int) -> AgentExit:
        """One rollout. Raises EnvironmentFault and PolicyFault through; every other end is an AgentExit."""
        meter = Meter(self.options)
        tools = Tools(environment, instance.workdir, seconds=self.options.command_seconds)
        conversation: list[Message] = []

        def add(message: Message) -> None:
            record.message(message)
            conversation.append(sent(message))

        asked = self.prompts.instance_prompt.format(
            problem_statement=instance.problem_statement, working_dir=instance.workdir
        )
        add(plain("system", self.prompts.system_prompt))
        add(plain("user", f"{asked}\n{self._remaining(meter)}"))
        end = meter.spent()
        while end is None:
            try:
                completion = self.policy.complete(conversation, seed=seed)
            except ContextOverflow as overflow:
                end = AgentExit(status=ExitStatus.CONTEXT_LIMIT, reason=str(overflow))
                break
            meter.add(completion)
            call = parse(completion.content)
            add(self._said(completion, call))
            if not call.name:
                end = meter.malformed() or meter.spent()
                add(plain("user", self._closed(NO_CALL, meter, end)))
                continue
            meter.malformed_in_a_row = 0
            if call.ends:
                end = AgentExit(status=ExitStatus.SUBMITTED)
                add(plain("user", "<<< Finished >>>"))
                break
            answer = tools.call(call.name, call.parameters)
            end = meter.spent()
            output = {"output": answer.output, "returncode": answer.code, "exception_info": ""}
            text = self._closed(observation(call.name, answer), meter, end)
            add(observed(text, output, seconds=answer.seconds))
        record.message(ended(end))
        return end

    def _said(self, completion: Completion, call: Call) -> Message:
        kept = thinking(completion.content) if self.options.keep == "think" else before_call(completion.content)
        actions = [{"tool": call.name, "parameters": dict(call.parameters)}] if call.name else []
        text, thoughts = f"{kept}\n\n{call.xml}", self.options.thoughts
        return called(text, completion, actions, thoughts, malformed=call.name not in NAMES)

    def _remaining(self, meter: Meter) -> str:
        left = self.options.announced_steps - meter.steps
        if left > 0:
            return f"Steps Remaining: {left}"
        return "You have reached the maximum number of steps. Please submit your answer NOW."

    def _closed(self, text: str, meter: Meter, end: AgentExit | None) -> str:
        """Close an observation with the steps that remain, unless no reply follows."""
        return text if end else f"{text}\n{self._remaining(meter)}"


# --- text of calls and observations ---------------------------------------------------------------------------------
# Searches for fixed strings where upstream has lazy regular expressions: those take quadratic time on replies that
# repeat an unclosed tag, with the same result.


def parse(reply: str) -> Call:
    """The first `<function=...>...</function>` of a reply; a Call without a name where there is none."""
    block = _first(reply, "<function=", "</function>")
    named = re.search(r"<function\s*=\s*([^>]+)>", block)
    parameters: dict[str, str] = {}
    opening = re.compile(r"<parameter\s*=\s*([^>]+)>")
    found = opening.search(block)
    while found:
        close = block.find("</parameter>", found.end())
        if close == -1:
            break
        parameters[found[1].strip()] = block[found.end() : close].strip()
        found = opening.search(block, close)
    return Call(named[1].strip() if named else "", parameters)


def thinking(reply: str) -> str:
    """The first `<think>...</think>` of a reply, tags included."""
    return _first(reply, "<think>", "</think>").strip()


def before_call(reply: str) -> str:
    """All text before the first call; the whole reply where there is none."""
    block = _first(reply, "<function=", "</function>")
    return (reply[: reply.index(block)] if block else reply).strip()


def observation(name: str, answer: ToolResult) -> str:
    """A tool's answer as the policy reads it; long command output loses its middle lines."""
    if name != "execute_bash":
        return f"Execution output of [{name}]:\n{answer.output}"
    lines: Sequence[str] = answer.output.splitlines()
    text = answer.output
    if len(lines) > 2 * KEPT_LINES:
        rule = "-" * 50
        note = "<Observation truncated in middle for saving context>"
        text = "\n".join([*lines[:KEPT_LINES], rule, note, rule, *lines[-KEPT_LINES:]])
    return f"Exit code: {answer.code}\nExecution output of [{name}]:\n{text}"


def _first(text: str, opening: str, closing: str) -> str:
    start = text.find(opening)
    end = text.find(closing, start) if start != -1 else -1
    return text[start : end + len(closing)] if end != -1 else ""
