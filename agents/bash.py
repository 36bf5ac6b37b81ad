"""The bash agent: one linear conversation, shell commands as the only action, a sentinel line to hand in.

The kind of mini-swe-agent 2.x: with its prompts (`prompts: mini-swe-agent`) the conversation is the same byte for
byte as that of mini-swe-agent 2.4.6, whose behaviour is followed in every detail that the model can see. What
differs is what it cannot see: at a limit the work tree's diff is the prediction (there: an empty patch), a dead
container or server raises a fault (there: an observation, or an empty patch), and a command past its timeout is
killed with all it started (there: abandoned). One difference the model can see: with `mini-swe-agent-backticks`,
whose configuration forgets to, commands run in the environment `testbed` too.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from pydantic import Field

from aem_harness.agents.budget import Meter, RolloutLimits
from aem_harness.agents.messages import Message, Thoughts, described, ended, observed, plain, refused, said, sent
from aem_harness.agents.policy import ContextOverflow
from aem_harness.agents.templates import Prompts
from aem_harness.harness.types import AgentExit, Completion, Environment, ExitStatus, Instance, Policy, Recorder

SENTINEL = "COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
_SPACE = re.compile(r"\s*")

BASH_TOOL: Mapping[str, Any] = {
    "type": "function",
    "function": {
        "name": "bash",
        "description": "Execute a bash command",
        "parameters": {
            "type": "object",
            "properties": {"command": {"type": "string", "description": "The bash command to execute"}},
            "required": ["command"],
        },
    },
}


class BashOptions(RolloutLimits):
    """A budget; which prompts to use: a name in `agents/prompts`, `mini-swe-agent`, or the path of a YAML file; and
    whether thoughts that the server returns in a field of their own go back to it with the conversation."""

    prompts: str = Field("bash-1", min_length=1)
    thoughts: Thoughts = "send"


class Malformed(Exception):
    """The reply holds no valid action; `str()` says why, in the words that the model gets to read."""

    def __init__(self, error: str, actions: Sequence[str] = (), *, has_tool_calls: bool = False) -> None:
        super().__init__(error)
        self.actions = list(actions)
        self.has_tool_calls = has_tool_calls


class BashAgent:
    """Drives any policy with shell commands. Keeps no state between rollouts; safe to share between threads."""

    name = "bash"

    def __init__(self, policy: Policy, options: BashOptions | None = None, *, prompts: Prompts | None = None) -> None:
        self.policy = policy
        self.options = options or BashOptions()
        self.prompts = prompts or Prompts.load(self.options.prompts)

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
        prompts, meter = self.prompts, Meter(self.options)
        conversation: list[Message] = []

        def add(message: Message) -> None:
            record.message(message)
            conversation.append(sent(message))

        add(plain("system", prompts.render("system", **self._task(instance))))
        add(plain("user", prompts.render("instance", **self._task(instance))))
        end = meter.spent()
        while end is None:
            try:
                completion = self.policy.complete(conversation, tools=self.tools, seed=seed)
            except ContextOverflow as overflow:
                end = AgentExit(status=ExitStatus.CONTEXT_LIMIT, reason=str(overflow))
                break
            meter.add(completion)
            try:
                actions = list(self._actions(completion))
            except Malformed as problem:
                add(self._refusal(problem, completion))
                end = meter.malformed() or meter.spent()
                continue
            meter.malformed_in_a_row = 0
            add(said(completion, actions, self.options.thoughts))
            end = self._act(actions, environment, add) or meter.spent()
        record.message(ended(end))
        return end

    # --- reading a reply --------------------------------------------------------------------------------------------

    @property
    def tools(self) -> Sequence[Mapping[str, Any]]:
        return (BASH_TOOL,) if self.prompts.action == "tool" else ()

    def _actions(self, completion: Completion) -> Iterator[dict[str, Any]]:
        """The commands of a reply, in order: one fenced block, or one or more tool calls. Raises Malformed."""
        if self.prompts.action == "tool":
            yield from tool_actions(completion.tool_calls)
            return
        found = fenced(completion.content, self.prompts.fence)
        if len(found) != 1:
            raise Malformed(f"Expected exactly 1 action, found {len(found)}.", found)
        yield {"command": found[0]}

    def _refusal(self, problem: Malformed, completion: Completion) -> Message:
        text = self.prompts.render(
            "format_error",
            error=str(problem),
            actions=problem.actions,
            finish_reason=completion.finish_reason,
            has_tool_calls=problem.has_tool_calls,
        )
        return refused(text, completion, n_actions=len(problem.actions))

    def _task(self, instance: Instance) -> dict[str, Any]:
        return {
            "task": instance.problem_statement,
            "repo": instance.repo,
            "workdir": instance.workdir,
            "instance_id": instance.instance_id,
            "steps": self.options.steps or "as many as you like",
            "command_seconds": f"{self.options.command_seconds:g}",
        }

    # --- acting on it -----------------------------------------------------------------------------------------------

    def _act(self, actions: Sequence[Mapping[str, Any]], environment: Environment, add: Any) -> AgentExit | None:
        """Run the commands of one reply. Handing in ends at once; the reply's other observations are not shown then."""
        observations = []
        for action in actions:
            output, seconds, dropped = self._execute(action["command"], environment)
            if (handed_in := submission(output)) is not None:
                return self._submitted(handed_in, dropped)
            text = self.prompts.render("observation", output={**output, "output": Whole(output["output"], dropped)})
            observations.append(
                observed(text, output, tool_call_id=action.get("tool_call_id"), seconds=seconds, dropped=dropped)
            )
        for message in observations:
            add(message)
        return None

    def _execute(self, command: Any, environment: Environment) -> tuple[dict[str, Any], float, int]:
        """One command as mini-swe-agent reports it: output, returncode, exception_info; its seconds; bytes dropped."""
        if not isinstance(command, str):
            return _unrunnable(f"expected str, bytes or os.PathLike object, not {type(command).__name__}"), 0.0, 0
        if "\0" in command:
            return _unrunnable("embedded null byte"), 0.0, 0
        timeout = self.options.command_seconds
        seen = environment.execute(in_shell(command, self.prompts.env), timeout=timeout)
        # mini-swe-agent reads in text mode: all line ends become \n.
        text = seen.output.replace("\r\n", "\n").replace("\r", "\n")
        if seen.timed_out:
            output = _unrunnable(f"Command '{command}' timed out after {timeout:g} seconds", text)
        else:
            output = {"output": text, "returncode": seen.returncode, "exception_info": ""}
        return output, seen.seconds, seen.dropped_bytes

    def _submitted(self, handed_in: str, dropped: int) -> AgentExit:
        if self.prompts.submission == "worktree":
            return AgentExit(status=ExitStatus.SUBMITTED)
        if dropped:
            reason = "the patch handed in exceeds what one command may print; the work tree's diff is taken instead"
            return AgentExit(status=ExitStatus.SUBMITTED, reason=reason)
        return AgentExit(status=ExitStatus.SUBMITTED, patch=handed_in)


def in_shell(command: str, env: Mapping[str, str]) -> str:
    """The command under its own `bash -c` with `env` set, which is how mini-swe-agent 2.4.6 runs one."""
    if not env:
        return command
    assignments = " ".join(f"{key}={shlex.quote(value)}" for key, value in env.items())
    return f"{assignments} bash -c {shlex.quote(command)}"


def submission(output: Mapping[str, Any]) -> str | None:
    """What is handed in if the output's first line is the sentinel and the command succeeded, else None."""
    lines = output["output"].lstrip().splitlines(keepends=True)
    if lines and lines[0].strip() == SENTINEL and output["returncode"] == 0:
        return "".join(lines[1:])
    return None


def fenced(text: str, fence: str) -> list[str]:
    """The stripped contents of all fenced blocks: `re.findall(r"```FENCE\\s*\\n(.*?)\\n```", text, DOTALL)`.

    Written as a scan because that expression takes quadratic time on replies that repeat an unclosed fence, and a
    degenerate policy writes exactly those, a megabyte long.
    """
    opening = f"```{fence}"
    blocks: list[str] = []
    at = text.find(opening)
    while at != -1:
        after = at + len(opening)
        space = _SPACE.match(text, after).end()  # type: ignore[union-attr]
        line_end = text.rfind("\n", after, space)
        resume = max(space, at + 1)
        if line_end != -1:
            start = line_end + 1
            close = text.find("\n```", start)
            if close != -1:
                blocks.append(text[start:close].strip())
                resume = close + 4
            elif text.startswith("```", start) and text.find("\n", after, line_end) != -1:
                # Only blank lines between the fences: the expression backtracks to an earlier line end.
                blocks.append("")
                resume = start + 3
            elif text.find("\n```", after) == -1:
                return blocks  # nothing later can close either
        at = text.find(opening, resume)
    return blocks


def tool_actions(calls: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The commands of native tool calls; Malformed, in mini-swe-agent's words, at the first call that is none."""
    if not calls:
        raise Malformed("No tool calls found in the response. Every response MUST include at least one tool call.")
    for call in calls:
        function = call.get("function") or {}
        error, arguments = "", None
        try:
            arguments = json.loads(function.get("arguments"))  # type: ignore[arg-type]
        except Exception as problem:
            error, arguments = f"Error parsing tool call arguments: {problem}.", {}
        if function.get("name") != "bash":
            error += f"Unknown tool '{function.get('name')}'."
        if not isinstance(arguments, dict) or "command" not in arguments:
            error += "Missing 'command' argument in bash tool call."
        if error:
            raise Malformed(error.strip(), has_tool_calls=True)
        yield {"command": arguments["command"], "tool_call_id": call.get("id")}


class Whole(str):
    """A command's output as the templates see it: its length is that of the whole, also of what was never kept.

    Templates show head and tail and say how much they leave out; the environment bounds what reaches the host, far
    above what they show, and marks the place by one line.
    """

    _missing: int

    def __new__(cls, text: str, dropped: int = 0) -> Self:
        whole = super().__new__(cls, text)
        mark = f"\n[... {dropped} bytes left out ...]\n"
        whole._missing = dropped - (len(mark) if dropped and mark in text else 0)
        return whole

    def __len__(self) -> int:
        return super().__len__() + self._missing


def _unrunnable(problem: str, output: str = "") -> dict[str, Any]:
    info = f"An error occurred while executing the command: {problem}"
    return {"output": output, "returncode": -1, "exception_info": info}
