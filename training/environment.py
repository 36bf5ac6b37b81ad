"""Multi-turn bug fixing as the `bash` agent plays it, fast enough to learn in.

An `Episode` is one rollout of `agents.bash.BashAgent` under the prompts `tiny-1`, turned inside out: the trainer hands
in the policy's replies and gets observations back, for many rollouts at once. Same messages, same way of reading a
reply, same end; a policy trained here is driven by `aem run --agent bash` in containers. Two ends exist only here: a
reply without one valid command ends the episode (the agent would tell the policy and go on), and so does a command
that cannot be answered from memory exactly.

The reward is what the grader would say of the work tree, whatever the end: 1 if all examples hold, hidden ones
included, else 0.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from random import Random

from aem_harness.agents.bash import SENTINEL, fenced
from aem_harness.agents.templates import Prompts
from aem_harness.harness.types import ExitStatus
from aem_harness.training.functions import expression
from aem_harness.training.shell import SUBMIT, MemoryEnvironment, Unsupported, safe_failures
from aem_harness.training.tasks import BugFix, Edit, edits, mutants

PROMPTS = "tiny-1"
MAX_STEPS = 8


def files_of(task: BugFix) -> dict[str, str]:
    """The task's two files as they lie in the project at the base commit."""
    return {
        f"lib/{task.name}.py": task.bug + "\n",
        f"tests/{task.name}.txt": "".join(f"{example}\n" for example in task.visible),
    }


def statement_of(task: BugFix) -> str:
    """The problem statement of the task's instance."""
    return f"lib/{task.name}.py is wrong: {task.issue}"


@dataclass
class Episode:
    """One rollout. `messages` grows as the policy's replies come in; `status` is None until it ends."""

    task: BugFix
    prompts: Prompts
    max_steps: int = MAX_STEPS
    messages: list[Mapping[str, str]] = field(default_factory=list)
    status: ExitStatus | None = None
    reason: str = ""
    steps: int = 0

    def __post_init__(self) -> None:
        self.environment = MemoryEnvironment(files_of(self.task))
        self._say("system", self.prompts.render("system"))
        self._say("user", self.prompts.render("instance", task=statement_of(self.task)))

    def reply(self, content: str) -> str | None:
        """Take the policy's reply; the observation that it gets to read next, or None when the episode has ended."""
        self._say("assistant", content)
        self.steps += 1
        commands = fenced(content, self.prompts.fence)
        if len(commands) != 1:
            self._end(ExitStatus.FORMAT_ERRORS, f"{len(commands)} commands in a reply")
            return None
        try:
            seen = self.environment.execute(commands[0])
        except Unsupported as problem:
            self._end(ExitStatus.AGENT_CRASH, f"unsupported: {problem}")
            return None
        if seen.output.splitlines()[:1] == [SENTINEL]:
            self._end(ExitStatus.SUBMITTED)
            return None
        if self.steps >= self.max_steps:
            self._end(ExitStatus.STEP_LIMIT, f"{self.steps} steps taken")
            return None
        output = {"output": seen.output, "returncode": seen.returncode, "exception_info": ""}
        observation = self.prompts.render("observation", output=output)
        self._say("user", observation)
        return observation

    def cut(self, reason: str) -> None:
        """End the episode from outside: no room left in the context."""
        self._end(ExitStatus.CONTEXT_LIMIT, reason)

    @property
    def reward(self) -> float:
        source = self.environment.files[f"lib/{self.task.name}.py"]
        try:
            return float(not any(safe_failures(source, [*self.task.visible, *self.task.hidden])))
        except Unsupported:
            return 0.0

    def _say(self, role: str, content: str) -> None:
        self.messages.append({"role": role, "content": content})

    def _end(self, status: ExitStatus, reason: str = "") -> None:
        self.status, self.reason = status, reason


# --- demonstrations -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Skill:
    """How good the scripted teacher is: the chance that an attempt is the right edit, and that it runs the tests."""

    right: float = 0.5
    tests: float = 0.8
    attempts: int = 2


def demonstration(task: BugFix, skill: Skill, random: Random, prompts: Prompts) -> Episode:
    """A scripted, imperfect rollout: read, edit, test, start over after a failure, submit. Really executed."""
    episode = Episode(task, prompts)
    for command in _script(episode, skill, random):
        episode.reply(f"```bash\n{command}\n```")
        if episode.status is not None:
            break
    return episode


def _script(episode: Episode, skill: Skill, random: Random) -> Iterator[str]:
    task, path = episode.task, f"lib/{episode.task.name}.py"
    yield f"cat {path}"
    wrong = _wrong_edits(task)
    for attempt in range(skill.attempts):
        if attempt:
            yield f"git checkout -q {path}"
        edit = task.fix if random.random() < skill.right or not wrong else random.choice(wrong)
        yield sed(edit, path)
        if random.random() >= skill.tests:
            break
        yield f"python t.py {task.name}"
        if episode.messages[-1]["content"].startswith("all good"):
            break
    yield SUBMIT


def _wrong_edits(task: BugFix) -> list[Edit]:
    """Single mutations of the buggy function that do not fix it."""
    changes = (edits(task.bug, mutant) for mutant in mutants(task.bug) if mutant != task.gold)
    return [change[0] for change in changes if len(change) == 1]


def sed(edit: Edit, path: str) -> str:
    """The command that makes this edit by content: the line's expression up to its comment, and what it becomes."""
    colon = ":" if edit.before.partition("  # ")[0].endswith(":") else ""
    old, new = (f"{expression(line)}{colon}  # " for line in (edit.before, edit.after))
    return f"sed -i 's/{old}/{new}/' {path}"
