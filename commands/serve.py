"""`aem serve`: servers for registered checkpoints; `aem determinism`: how reproducible a server is."""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from aem_harness.api.serving import card_defaults, connect, find, serve
from aem_harness.commands import options
from aem_harness.commands.options import grouped

if TYPE_CHECKING:
    from aem_harness.aem_checkpoints.determinism import Divergence

SERVE = """
One checkpoint; an adapter and its base model on one server; two full checkpoints, on ports 8000 and 8001:

  aem serve tiny-aem --port 8000

  aem serve qwen-base qwen-aem

  aem serve tiny-grpo tiny-aem --port 8000

Then, elsewhere:

  aem run --endpoint http://127.0.0.1:8000/v1 --checkpoint tiny-aem
"""
DETERMINISM = """
A registered checkpoint; a running server, with the prompts of a run:

  aem determinism tiny-aem --concurrency 1,8,32

  aem determinism --endpoint http://127.0.0.1:8000/v1 --run results/tiny-aem
"""


def register(app: typer.Typer) -> None:
    app.command("serve", epilog=SERVE)(serve_)
    app.command(epilog=DETERMINISM)(grouped(determinism))


def serve_(
    checkpoints: Annotated[list[str], typer.Argument(help="Registered checkpoints, or a series NAME@50..250.")],
    port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=1,
            max=65535,
            help="Port of the first server; others get the next ones (default: any free).",
        ),
    ] = None,
    registry: options.RegistryFolder = None,
    log: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the servers log.")] = Path("logs"),
) -> None:
    """Serve checkpoints until Ctrl-C, with vLLM, or small ones on transformers. A crashed server is restarted once."""
    from rich.console import Console

    from aem_harness.aem_checkpoints.command import together
    from aem_harness.aem_checkpoints.registry import Registry
    from aem_harness.harness.errors import PolicyFault

    known = Registry(registry)
    groups = together([entry for name in checkpoints for entry in find(name, registry)], known)
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                serve(group, known, log / f"{group[0].card.name}.log", Console(stderr=True), port and port + number)
            )
            for number, group in enumerate(groups)
        ]
        while not (failed := next((server.failed for server in servers if server.failed), "")):
            time.sleep(0.5)
    raise PolicyFault(f"a server crashed again after its restart: {failed}")


@dataclass
class Load:
    """What the server is asked, and how much at once."""

    PANEL: ClassVar[str] = "Requests"

    run: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Use prefixes of this run's trajectories as prompts.")
    ] = None
    prompts: Annotated[int, typer.Option(min=1, max=10**5, help="Maximum number of prompts.")] = 16
    concurrency: Annotated[str, typer.Option(metavar="N,...", help="Numbers of concurrent requests to test.")] = (
        "1,8,32"
    )
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens to generate per prompt.")] = 128
    temperature: Annotated[float, typer.Option(min=0, help="0: greedy; else each prompt has a fixed seed.")] = 0.0

    @property
    def levels(self) -> list[int]:
        from aem_harness.harness.errors import ConfigError

        try:
            return [int(level) for level in self.concurrency.split(",")]
        except ValueError:
            raise ConfigError(
                f"--concurrency {self.concurrency}: numbers separated by commas, for example 1,8,32"
            ) from None


def determinism(
    checkpoint: Annotated[str | None, typer.Argument(help="Registered checkpoint to serve and test.")] = None,
    endpoint: Annotated[str | None, typer.Option(metavar="URL", help="Instead: a running server.")] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Model name at the endpoint.")] = None,
    registry: options.RegistryFolder = None,
    *,
    load: Load,
) -> None:
    """Send a server the same prompts again, alone and concurrently, and report how far its tokens diverge."""
    from rich.console import Console

    from aem_harness.aem_checkpoints.determinism import BUILT_IN, measure, recorded_prefixes
    from aem_harness.harness.errors import ConfigError

    if bool(checkpoint) == bool(endpoint):
        raise ConfigError("give either a checkpoint or --endpoint URL")
    levels = load.levels
    asked = recorded_prefixes(load.run, load.prompts) if load.run else BUILT_IN[: load.prompts]
    entry = find(checkpoint, registry)[0] if checkpoint else None
    sampling = card_defaults(entry)["sampling"] if entry else {}
    console = Console(stderr=True)
    with connect(
        [endpoint] if endpoint else [],
        model,
        sampling,
        entry=entry,
        registry=registry,
        log=Path("logs") / "determinism.log",
        console=console,
    ) as connected:
        assert connected.policy is not None
        found = measure(
            connected.url,
            connected.policy.model,
            asked,
            levels,
            max_tokens=load.max_tokens,
            temperature=load.temperature,
            say=lambda line: console.print(f"[dim]{line}[/]"),
        )
    _print(found)


def _print(found: "list[Divergence]") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "in flight", "sequences", "diverging", "tokens diverging", "first at", "log-prob shift", box=box.SIMPLE_HEAD
    )
    for one in found:
        middle = one.first[len(one.first) // 2] if one.first else None
        table.add_row(
            str(one.concurrency),
            str(one.sequences),
            f"{one.sequences_diverging} ({100 * one.sequences_diverging / one.sequences:.1f} %)",
            f"{100 * one.tokens_diverging / max(one.tokens, 1):.1f} % of {one.tokens}",
            f"{one.first[0]} (median {middle})" if one.first else "-",
            f"{one.logprob_shift:.4f}",
        )
    Console().print(table)
