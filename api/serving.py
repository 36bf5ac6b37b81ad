"""A policy for a run: behind endpoints that are there, or from registered checkpoints that are served meanwhile."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from aem_harness.aem_checkpoints.registry import Entry, Registry
    from aem_harness.aem_checkpoints.serving import Server
    from aem_harness.agents.policy import EndpointPolicy
    from aem_harness.harness.run.outages import Service


@dataclass(frozen=True)
class Served:
    """Behind what an arm is: servers that are there already, or none for a checkpoint that is served for the run.

    `retry_seconds` is how long one call of the model may take before it is given up and tried again.
    """

    endpoints: Sequence[str] = ()
    model: str | None = None
    retry_seconds: float | None = None


@dataclass
class Connected:
    """The policy (None for agents that need none), what its server is, and how to wake whoever waits for either."""

    policy: "EndpointPolicy | None" = None
    fingerprint: dict[str, Any] = field(default_factory=dict)
    release: Callable[[], None] = lambda: None
    url: str = ""
    services: "Mapping[str, Service]" = field(default_factory=dict)
    gpus: float | None = None  # behind each endpoint, where that is known


class Servers:
    """The model's servers as a service that may be away (harness/run/outages.py); `own`: one that was started here."""

    name = "the model's server"
    remedy = "start it again"

    def __init__(self, urls: Sequence[str], own: "Server | None" = None) -> None:
        self._urls, self._own = urls, own

    def probe(self) -> str:
        """Why no server answers; PolicyFault for one of our own that has crashed for good."""
        from aem_harness.agents.refusals import unanswered

        if self._own is not None:
            self._own.await_ready()
        return unanswered(self._urls)

    def watch(self, broke: Callable[[str], None]) -> AbstractContextManager[None]:
        return nullcontext()

    def recovered(self) -> None: ...


def find(name: str, registry: Path | None) -> "list[Entry]":
    """The registered checkpoint or steps of a series, their weights and base models verified against their cards."""
    from aem_harness.aem_checkpoints.registry import Registry
    from aem_harness.harness.errors import ConfigError

    known = Registry(registry)
    entries = known.series(name)
    for entry in entries:
        base = known.base(entry)
        if wrong := [*entry.problems(), *(base.problems() if base else ())]:
            raise ConfigError(wrong[0])
    return entries


def one_checkpoint(name: str, registry: Path | None) -> "Entry":
    """The registered checkpoint of that name; a series is refused."""
    from aem_harness.harness.errors import ConfigError

    entries = find(name, registry)
    if len(entries) > 1:
        raise ConfigError(f"{name} names several steps of a series; name one of them")
    return entries[0]


def card_defaults(entry: "Entry") -> dict[str, Any]:
    """The run settings that a card brings along; a config file, overrides and options win over them.

    Where the card asks for log-probabilities, the size of the vocabulary, which bounds the entropy of the tokens not
    listed, is taken from the checkpoint.
    """
    from aem_harness.aem_checkpoints.weights import setting

    card = entry.card
    sampling = dict(card.sampling)
    size = setting(entry.folder, "config.json", "vocab_size")
    if sampling.get("logprobs") and isinstance(size, int):
        sampling.setdefault("vocabulary", size)
    return {
        "agent": card.scaffold.agent,
        "agent_options": dict(card.scaffold.options),
        "sampling": sampling,
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
    retry_seconds: float | None = None,
) -> Iterator[Connected]:
    """Attach to `endpoints`, or serve the checkpoint `entry` (log and events beside `log`), or neither.

    Without `model`, the checkpoint's name, else the only model the endpoint serves.
    """
    from rich.console import Console as RichConsole
    from rich.markup import escape

    from aem_harness.aem_checkpoints.command import gpus
    from aem_harness.aem_checkpoints.fingerprint import base_it_equals, fingerprint, stored_dtype
    from aem_harness.aem_checkpoints.registry import Registry
    from aem_harness.agents.build import endpoint_policy
    from aem_harness.harness.errors import PolicyFault

    if not endpoints and entry is None:
        yield Connected()
        return
    name, known = model or (entry.card.name if entry else ""), Registry(registry)
    await_server: Callable[[], None] | None = None
    program, dtype, server = None, "", None
    say = (console or RichConsole(stderr=True)).print
    with ExitStack() as stack:
        if entry is not None and not endpoints:
            server = stack.enter_context(serve([entry], known, log or Path("server.log"), console))
            endpoints, name, await_server = [server.url], entry.card.name, server.await_ready
            program, dtype = server.program, server.dtype
            if (own := stored_dtype(entry, known)) and dtype and own != dtype:
                say(
                    f"[yellow]{entry.card.name} is stored in {own} and served in {dtype}[/]: serve all arms in one type"
                )
        count = gpus(entry, known, program) if entry else None
        policy = stack.enter_context(
            endpoint_policy(
                name, endpoints, sampling, await_server=await_server, gpus=count, retry_seconds=retry_seconds
            )
        )
        if base := base_it_equals(endpoints[0], policy.model):
            say(
                f"[yellow]{escape(policy.model)} answers to the last digit as its base model {escape(base)}:[/] the "
                "server applies nothing of the adapter (do the names of its tensors fit the base's layers?), or it is 0"
            )
        yield Connected(
            policy,
            fingerprint(endpoints[0], policy.model, entry, known, dtype),
            stack.close,
            endpoints[0],
            {PolicyFault.boundary: Servers(endpoints, server)},
            count,
        )


@contextmanager
def serve(
    entries: "Sequence[Entry]", registry: "Registry", log: Path, console: "Console | None", port: int | None = None
) -> "Iterator[Server]":
    """A server of these checkpoints, ready; it ends with the block."""
    from rich.console import Console as RichConsole

    from aem_harness.aem_checkpoints.command import find_program
    from aem_harness.aem_checkpoints.serving import Server

    console, program = console or RichConsole(stderr=True), find_program()
    names = ", ".join(entry.card.name for entry in entries)
    if program.name != "vLLM":
        console.print(f"[yellow]{program.name}, not vLLM,[/] serves {names}: good for small checkpoints only")
    with ExitStack() as stack:
        with console.status(f"starting {program.name} for {names}") as status:

            def say(line: str) -> None:
                status.update(f"starting {program.name} for {names}: {line[-80:]}")

            server = stack.enter_context(Server(entries, registry, log, port=port, program=program, say=say))
        console.print(f"serving {names} at {server.url}, log {log}", highlight=False)
        yield server
