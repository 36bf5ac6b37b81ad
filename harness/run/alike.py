"""No silent zero: if all rollouts end alike without having worked, a setting is wrong, and the model is not to blame.

A rollout never worked if it ended (without handing in) before any command was run in its container, if the agent's
own code crashed, or if its patch is empty although it never handed in.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from aem_harness.harness.errors import AemError
from aem_harness.harness.types import ExitStatus

Event = Mapping[str, Any]

FEWEST = 3  # fewer rollouts show nothing
SHARE = 0.9  # of the rollouts end alike

_LIKELY = {
    ExitStatus.FORMAT_ERRORS: "check the chat template, the stop tokens, the sampling, whether model and prompt belong "
    "together, and whether the server's reasoning parser takes plain replies for thoughts (aem show RUN INSTANCE has "
    "its replies)",
    ExitStatus.CONTEXT_LIMIT: "prompt and sampling.max_tokens exceed the server's context: lower max_tokens, or "
    "serve with a larger context (aem doctor --endpoint compares them)",
    ExitStatus.TOKEN_LIMIT: "the token budget (agent_options) is too small for one reply, or replies do not end: "
    "check the stop tokens and the chat template",
    ExitStatus.WALL_LIMIT: "the wall time (agent_options) is too short for this server, or the server hardly answers",
    ExitStatus.STEP_LIMIT: "the step limit (agent_options) is too small, or the replies contain no edits (aem show)",
    ExitStatus.AGENT_CRASH: "the agent's own code fails (aem show has the traceback)",
    ExitStatus.SANDBOX_DESTROYED: "every container is destroyed from inside: check the agent's commands (aem show)",
}


class Alike(AemError):
    """All rollouts end alike without having worked: a setting is wrong, and the others would be lost too."""

    boundary = "run"


def sign(event: Event) -> str:
    """How a rollout that never worked ended; empty if it worked, or if it was lost to a fault."""
    status = event["exit_status"]
    if event.get("fault") or status == ExitStatus.SUBMITTED.value:
        return _left_out(event)
    reason = re.sub(r"\d+", "#", event.get("reason") or "")[:120]
    if status == ExitStatus.AGENT_CRASH.value:
        return f"{status} ({reason})"
    if event.get("commands") == 0:
        return f"{status} before a first command was run"
    return f"{status} with an empty patch" if event.get("patch_bytes") == 0 else ""


def _left_out(event: Event) -> str:
    """For a rollout that handed in: why its patch is empty although files changed."""
    if event.get("fault") or event.get("patch_bytes") != 0 or not event.get("left_out"):
        return ""
    return f"an empty patch, because all changes are {', '.join(sorted(event['left_out']))}"


def alike(events: Iterable[Event], fewest: int = FEWEST) -> str:
    """The likely error when nearly all rollouts ended alike without having worked; else empty."""
    chosen = [event for event in events if not event.get("fault")]
    if len(chosen) < fewest:
        return ""
    found, count = Counter(map(sign, chosen)).most_common(1)[0]
    if not found or count < SHARE * len(chosen):
        return ""
    likely = next((words for status, words in _LIKELY.items() if found.startswith(status.value)), "")
    return f"{count} of {len(chosen)} rollouts ended in {found}" + f": {likely}" * bool(likely)


class AlikeWatch:
    """Checks the first `fewest` rollouts of an arm; 0: none. Raises Alike if they show an error."""

    def __init__(self, fewest: int, known: Iterable[Event] = ()) -> None:
        self._fewest = fewest
        self._seen = [event for event in known if not event.get("fault")]

    def add(self, event: Event) -> None:
        if not event["fault"] and len(self._seen) < self._fewest:
            self._seen.append(event)
            self.check()

    def check(self) -> None:
        if not self._fewest or len(self._seen) < self._fewest:
            return
        if why := alike(self._seen[: self._fewest], min(self._fewest, FEWEST)):
            raise Alike(
                f"{why}. The run stops here. Correct the setting and start again in another folder (--out), "
                "or continue anyway with -c stop_alike=0"
            )
