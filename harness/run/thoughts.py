"""Thoughts that a server took out of replies into a field of their own: does the model see them again?

A prompt holds what was said before. Where the next one has grown by less than the reply, something of the reply is
missing in it; the counts of tokens tell that of any server, client and chat template.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Where servers put what their reasoning parser took out of the text: vLLM since 0.11.2; SGLang, DeepSeek, llama.cpp.
# Of a server that says both, the first is read by all its releases that read any.
FIELDS = ("reasoning", "reasoning_content")
# findings/vllm-takes-a-reply-without-a-thought-for-a-thought.sh; or the model thought, and said nothing.
ALL_REASONING = "all of it is reasoning: a thought, or what the server's reasoning parser takes for one"
AGENTS = ("bash", "deepswe")  # whose descriptions say what they do with thoughts: nothing where they drop them


def done_with(agent: Mapping[str, Any]) -> str:
    """What an agent does with thoughts, by its description: "send" or "drop"; empty where that does not tell."""
    return str(agent.get("thoughts") or ("drop" if agent.get("kind") in AGENTS else ""))


def field_in(message: Mapping[str, Any]) -> str:
    """The field in which a server's message has thoughts; one that holds text, where there are two. Else empty."""
    named = [name for name in FIELDS if message.get(name)]
    return next((name for name in named if isinstance(message[name], str)), named[0] if named else "")


def thought_in(message: Mapping[str, Any]) -> str:
    """The thoughts of the reply that a message holds, as ours are recorded or as other tools keep them."""
    extra = message.get("extra")
    found = extra.get("reasoning") if isinstance(extra, Mapping) else None
    found = found or message.get(field_in(message))
    return found if isinstance(found, str) else ""


@dataclass(frozen=True)
class Reply:
    """Sizes of one reply: characters of its thoughts and of its other text, tokens of its prompt and of itself.

    `kept` is how much of the text the scaffold keeps in the conversation; `valid` is False where it keeps nothing.
    """

    thought: int
    text: int
    kept: int
    prompt: int
    completion: int
    valid: bool = True


@dataclass
class Thoughts:
    """The count over rollouts: replies with thoughts of their own, and after how many of them these were missing.

    A message of role user can take all earlier thoughts away (findings/qwen3-forgets-its-thoughts-*.sh). Of those that
    go with the answer to a malformed reply one is counted.
    """

    replies: int = 0
    lost: int = 0
    _last: Reply | None = None
    _seen: int = 0  # replies whose thoughts are in the conversation, and were not found to be missing

    def add(self, reply: Reply) -> None:
        self.replies += reply.thought > 0
        if last := self._last:
            lost = missing(last, reply.prompt) or (self._seen > 0 and shrunk(last, reply.prompt))
            self.lost += lost
            self._seen += (last.thought > 0 and last.valid) - lost
        self._last = reply

    def end(self) -> None:
        """What follows is another rollout."""
        self._last, self._seen = None, 0


def missing(reply: Reply, prompt: int) -> bool:
    """Are the thoughts of `reply`, as good as certainly, missing in the next prompt, of so many tokens?

    Tokens are spread over a reply as its characters are. Half of those of the thoughts are left to templates that
    write calls anew, and to text that is tokenized in another way; a long observation hides the loss. What a server
    left out of the text (what follows a call, in vLLM's parser `hermes`) cannot be told from a loss.
    """
    if not (reply.thought and reply.valid and reply.prompt and reply.completion and prompt):
        return False
    expected = (reply.kept + reply.thought / 2) / (reply.text + reply.thought)
    return prompt - reply.prompt < reply.completion * min(1.0, expected)


def shrunk(reply: Reply, prompt: int) -> bool:
    """Does the prompt after a reply that left the conversation, of so many tokens, lack some of what was before it?"""
    return not reply.valid and 0 < prompt < reply.prompt
