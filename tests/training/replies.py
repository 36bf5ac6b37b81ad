"""A policy that repeats what was said before, and a recorder that keeps nothing."""

from collections.abc import Iterable, Mapping
from typing import Any

from aem_harness.harness.types import Completion


class Replies:
    """Gives these replies, one after the other; `heard` is the conversation before the last."""

    def __init__(self, contents: Iterable[str]) -> None:
        self.contents = list(contents)

    def complete(self, messages, *, tools=(), seed=None) -> Completion:
        self.heard = [dict(message) for message in messages]
        return Completion(content=self.contents.pop(0))

    def describe(self) -> Mapping[str, Any]:
        return {}


class Silent:
    """A recorder for trajectories that nobody reads."""

    def message(self, message: Mapping[str, Any]) -> None: ...

    def info(self, **facts: Any) -> None: ...
