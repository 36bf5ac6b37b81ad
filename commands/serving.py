"""A policy for a run: behind endpoints that are there, or from a registered checkpoint that is served for the while."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from aem_checkpoints.card import Card
    from aem_checkpoints.registry import Entry, Registry
    from agents.policy import EndpointPolicy


@dataclass
class Connected:
    """The policy (None for agents that need none) and what its server is."""

    policy: "EndpointPolicy | None" = None
    fingerprint: dict[str, Any] = field(default_factory=dict)


def find(checkpoint: str, registry: Path | None) -> "Entry":
    """The registered checkpoint, its weights verified against its card."""
    from aem_checkpoints.registry import Registry, problems
    from harness.errors import ConfigError

    entry = Registry(registry).get(checkpoint)
    wrong = problems(entry)
    if wrong:
        raise ConfigError(wrong[0])
    return entry


def card_defaults(card: "Card") -> dict[str, Any]:
    """The run settings that a card brings along; a config file, overrides and options win over them."""
    return {
        "agent": card.scaffold.agent,
        "agent_options": dict(card.scaffold.options),
        "sampling": dict(card.sampling),
        "arm": card.name,
    }


@contextmanager
def connect(
    endpoints: Sequence[str],
    model: str | None,
    sampling: Mapping[str, Any],
    *,
    entry: "Entry | None" = None,
    registry: Path | None = None,
    log: Path | None = None,
    console: "Console | None" = None,
) -> Iterator[Connected]:
    """Attach to `endpoints`, or serve the checkpoint `entry` (log and events beside `log`), or neither.

    Without `model`, the checkpoint's name, else the only model the endpoint serves.
    """
    from aem_checkpoints.fingerprint import fingerprint
    from aem_checkpoints.registry import Registry

    if not endpoints and entry is None:
        yield Connected()
        return
    with ExitStack() as stack:
        if entry is not None and not endpoints:
            server = stack.enter_context(serve([entry], Registry(registry), log or Path("server.log"), console))
            endpoints, model = [server], entry.card.name
        name = _served_model(endpoints[0], model or (entry.card.name if entry else None))
        policy = stack.enter_context(_policy(name, endpoints, sampling))
        yield Connected(policy, fingerprint(endpoints[0], name, entry))


@contextmanager
def serve(
    entries: "Sequence[Entry]", registry: "Registry", log: Path, console: "Console | None", port: int | None = None
) -> Iterator[str]:
    """The base URL of a vLLM server of these checkpoints, ready; it ends with the block."""
    from rich.console import Console as RichConsole

    from aem_checkpoints.serving import Server

    console = console or RichConsole(stderr=True)
    names = ", ".join(entry.card.name for entry in entries)
    with console.status(f"starting vLLM for {names}") as status:

        def say(line: str) -> None:
            status.update(f"starting vLLM for {names}: {line[-80:]}")

        server = Server([entry.card for entry in entries], registry, log, port=port, say=say)
        server.__enter__()
    try:
        console.print(f"serving {names} at {server.url}, log {log}", highlight=False)
        yield server.url
    finally:
        server.stop()


def _served_model(endpoint: str, model: str | None) -> str:
    from agents.policy import served_models
    from harness.errors import ConfigError

    served = served_models(endpoint)
    if model is None and len(served) != 1:
        raise ConfigError(f"{endpoint} serves {', '.join(served) or 'no model'}: choose one with --model")
    if model is not None and model not in served:
        raise ConfigError(f"{endpoint} serves {', '.join(served) or 'no model'}, not {model!r}: choose with --model")
    return model or served[0]


def _policy(model: str, endpoints: Sequence[str], sampling: Mapping[str, Any]) -> "EndpointPolicy":
    from pydantic import ValidationError

    from agents.policy import EndpointPolicy, Sampling
    from harness.errors import ConfigError

    try:
        return EndpointPolicy(model, list(endpoints), Sampling(**sampling))
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"sampling.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
