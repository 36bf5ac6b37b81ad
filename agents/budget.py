"""What a rollout may spend. Steps, tokens and context decide; wall time is only a safety, and is recorded as such.

Steps and tokens are the same under any server load, so they end the same rollout at the same place; a wall limit
does not, and a comparison in which many rollouts ended by it compares machines.
"""

import time
from dataclasses import dataclass, field

from pydantic import ConfigDict, Field

from aem_harness.harness.config import MOST_SECONDS
from aem_harness.harness.types import AgentExit, Completion, ExitStatus, Record


class RolloutLimits(Record):
    """Limits of one rollout; 0 means none, except for `command_seconds`. Seconds are wall-clock seconds.

    `tokens` counts what the model generates over the whole rollout; `context` bounds prompt + reply of a single call;
    `format_errors` is how many malformed replies in a row end the rollout; `command_seconds` bounds one command.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    steps: int = Field(250, ge=0)
    tokens: int = Field(0, ge=0)
    context: int = Field(0, ge=0)
    wall_seconds: float = Field(0, ge=0)
    format_errors: int = Field(3, ge=0)
    command_seconds: float = Field(60, gt=0, le=MOST_SECONDS)


@dataclass
class Meter:
    """The running count of one rollout against its budget."""

    budget: RolloutLimits
    steps: int = 0
    tokens: int = 0
    context: int = 0
    malformed_in_a_row: int = 0
    _started: float = field(default_factory=time.monotonic)

    def add(self, completion: Completion) -> None:
        self.steps += 1
        self.tokens += completion.completion_tokens
        self.context = completion.prompt_tokens + completion.completion_tokens

    def spent(self) -> AgentExit | None:
        """The end of the rollout if a limit is reached, asked before each call of the model."""
        budget = self.budget
        if 0 < budget.steps <= self.steps:
            return AgentExit(status=ExitStatus.STEP_LIMIT, reason=f"{self.steps} steps taken")
        if 0 < budget.tokens <= self.tokens:
            return AgentExit(status=ExitStatus.TOKEN_LIMIT, reason=f"{self.tokens} tokens generated")
        if 0 < budget.context <= self.context:
            return AgentExit(status=ExitStatus.CONTEXT_LIMIT, reason=f"{self.context} tokens in context")
        if 0 < budget.wall_seconds <= time.monotonic() - self._started:
            return AgentExit(status=ExitStatus.WALL_LIMIT, reason=f"{budget.wall_seconds:g} s of wall time are used up")
        return None

    def malformed(self) -> AgentExit | None:
        """Count one more malformed reply; the end of the rollout if it was one too many."""
        self.malformed_in_a_row += 1
        if 0 < self.budget.format_errors <= self.malformed_in_a_row:
            return AgentExit(
                status=ExitStatus.FORMAT_ERRORS, reason=f"{self.malformed_in_a_row} malformed replies in a row"
            )
        return None
