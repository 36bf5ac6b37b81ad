"""Is an endpoint fit for a run with these settings? What `aem doctor --endpoint` says of it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aem_harness.agents.bash import BASH_TOOL
from aem_harness.agents.refusals import base_url, check_context, heeds_tools, served_models, shows_thoughts
from aem_harness.harness.errors import AemError
from aem_harness.harness.finding import Finding
from aem_harness.harness.web import through


def look_at_endpoint(url: str, model: str = "", sampling: Mapping[str, Any] | None = None) -> Iterator[Finding]:
    """Who answers, the context against `max_tokens`, and whether the chat template shows tools and earlier thoughts."""
    try:
        served = served_models(url)
    except AemError as error:
        yield _problem("endpoint", error)
        return
    chosen = model or served[0] if served else model
    yield Finding(level="ok", what="endpoint", detail=f"{base_url(url)} serves {', '.join(served)}{through(url)}")
    yield from _context(url, chosen, (sampling or {}).get("max_tokens"))
    yield from _tools(url, chosen, [BASH_TOOL])
    yield from _thoughts(url, chosen)


def _problem(what: str, error: AemError) -> Finding:
    """An error as a finding: its line ends in a colon and the remedy."""
    detail, _, remedy = str(error).rpartition(": ")
    return Finding(level="problem", what=what, detail=detail, remedy=remedy)


def _context(url: str, model: str, max_tokens: Any) -> Iterator[Finding]:
    limit = max_tokens if isinstance(max_tokens, int) else None
    try:
        size = check_context(url, None, model, limit)
    except AemError as error:
        yield _problem("context", error)
        return
    if size is None:
        detail = f"{model}: the server does not report its context length, so max_tokens cannot be checked"
        yield Finding(level="warning", what="context", detail=detail)
    else:
        asked = f", max_tokens {limit}" if limit else ", max_tokens not set"
        yield Finding(level="ok", what="context", detail=f"{model}: {size} tokens{asked}")


def _tools(url: str, model: str, tools: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    heeds = heeds_tools(url, None, model, tools)
    if heeds is False:
        yield Finding(
            level="warning",
            what="tools",
            detail=f"{model}: its chat template ignores `tools`: native tool calls would end in malformed replies",
            remedy="use prompts that ask for actions in text (the default), or serve with --chat-template",
        )
    elif heeds:
        yield Finding(level="ok", what="tools", detail=f"{model}: its chat template shows tools to the model")


def _thoughts(url: str, model: str) -> Iterator[Finding]:
    """After which observations a model that thinks sees its earlier thoughts, where the server can tell of any."""
    answered: dict[str, Mapping[str, Any]] = {
        "tool results (bash-tool-1)": {"role": "tool", "tool_call_id": "call_0", "content": "a.py"},
        "observations in text (bash-1, deepswe)": {"role": "user", "content": "a.py"},
    }
    shown = {
        what: shows_thoughts(url, None, model, message, [BASH_TOOL] if message["role"] == "tool" else ())
        for what, message in answered.items()
    }
    seen, unseen = ([what for what in shown if shown[what] is value] for value in (True, False))
    if not seen and not unseen:
        return
    words = [f"shows earlier thoughts after {' and '.join(seen)}"] if seen else []
    words += [f"shows {'none' if seen else 'no earlier thoughts'} after {' or '.join(unseen)}"] if unseen else []
    yield Finding(level="ok", what="thoughts", detail=f"{model}: its chat template {', and '.join(words)}")
