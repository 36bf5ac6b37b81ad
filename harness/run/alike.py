"""No silent zero: rollouts that all end alike, without ever having worked, tell of a wrong setting and not of a model.

A rollout never worked when no command was run in its container before it ended other than by handing in, when the
agent's own code crashed, or when its patch is empty although it never got to hand one in.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from aem_harness.harness.errors import AemError
from aem_harness.harness.types import ExitStatus

Event = Mapping[str, Any]

FEWEST = 3  # of fewer nothing can be said
SHARE = 0.9  # of the rollouts end alike: nearly all

_LIKELY = {
    ExitStatus.FORMAT_ERRORS: "look at the chat template, the stop tokens, the sampling, and whether model and prompt "
    "belong together (aem show RUN INSTANCE has its replies)",
    ExitStatus.CONTEXT_LIMIT: "prompt and sampling.max_tokens do not fit the server's context: lower max_tokens, or "
    "serve with a larger context (aem doctor --endpoint compares them)",
    ExitStatus.TOKEN_LIMIT: "the budget of tokens (agent_options) is too small for one reply, or replies do not end: "
    "look at the stop tokens and the chat template",
    ExitStatus.WALL_LIMIT: "the wall time (agent_options) is too short for this server, or it hardly answers",
    ExitStatus.STEP_LIMIT: "the limit of steps (agent_options) is too small, or the replies hold no edits (aem show)",
    ExitStatus.AGENT_CRASH: "the agent's own code fails (the traceback is in the trajectories, aem show)",
    ExitStatus.SANDBOX_DESTROYED: "every container is destroyed from inside: look at the agent's commands (aem show)",
}


class Alike(AemError):
    """Rollout after rollout ends alike without having worked: a setting is wrong, and the rest would be lost too."""

    boundary = "run"


def sign(event: Event) -> str:
    """How a rollout ended that never worked; empty for one that did, and for one that was lost to a fault."""
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
    """Of a rollout that handed in: an empty patch because it could carry nothing of what changed."""
    if event.get("fault") or event.get("patch_bytes") != 0 or not event.get("left_out"):
        return ""
    return f"a patch that carries nothing, since all that changed is {', '.join(sorted(event['left_out']))}"


def alike(events: Iterable[Event], fewest: int = FEWEST) -> str:
    """What is likely wrong when nearly all rollouts ended alike without having worked; else empty."""
    chosen = [event for event in events if not event.get("fault")]
    if len(chosen) < fewest:
        return ""
    found, count = Counter(map(sign, chosen)).most_common(1)[0]
    if not found or count < SHARE * len(chosen):
        return ""
    likely = next((words for status, words in _LIKELY.items() if found.startswith(status.value)), "")
    return f"{count} of {len(chosen)} rollouts ended in {found}" + f": {likely}" * bool(likely)


class Watch:
    """Looks at the first `fewest` rollouts of an arm; 0 never looks. Raises Alike once they say what is wrong."""

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
                f"{why}. The run stops here; correct it and start again in another folder (--out), "
                "or go on all the same with -c stop_alike=0"
            )
