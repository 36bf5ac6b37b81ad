"""`aem checkpoints`: the registry of policies, as plain files."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from aem_harness.commands import options
from aem_harness.commands.options import grouped

if TYPE_CHECKING:
    from aem_harness.aem_checkpoints.registry import Entry

ADD = """
The output of aem train, with its card; a folder of full weights:

  aem checkpoints add my-aem --path results/training/tiny-aem-seed3/checkpoint

  aem checkpoints add qwen-base --path /models/qwen --method baseline

An adapter (its base model is read from adapter_config.json, unless given); a GGUF file:

  aem checkpoints add qwen-aem --path runs/aem/adapter --base-model qwen-base

  aem checkpoints add smollm2 --gguf SmolLM2-135M-Instruct.Q4_1.gguf

Every step of a training run, as qwen-dapo@50, qwen-dapo@100, ...; a checkpoint of the hub:

  aem checkpoints add 'qwen-dapo@*' --path runs/dapo --from-card qwen-base

  aem checkpoints add deepswe --hub agentica-org/DeepSWE-Preview
"""


class Kind(StrEnum):
    baseline = "baseline"
    aem = "aem"
    other = "other"


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Register, list, verify and compare checkpoints.", no_args_is_help=True)
    group.command("add", epilog=ADD)(grouped(add))
    group.command("list", epilog="Example: aem checkpoints list --registry checkpoints")(list_)
    group.command("show", epilog="Example: aem checkpoints show tiny-aem")(show)
    group.command("verify", epilog="Example: aem checkpoints verify 'deepswe-aem@50..250'")(verify)
    group.command("diff", epilog="Example: aem checkpoints diff tiny-grpo tiny-aem")(diff)
    app.add_typer(group, name="checkpoints")


@dataclass
class Weights:
    """Where the weights are."""

    PANEL: ClassVar[str] = "Weights"

    path: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Folder with safetensors files.")] = None
    gguf: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="GGUF file; its dequantised weights are written beside the card."),
    ] = None
    hub: Annotated[str | None, typer.Option(metavar="ID", help="Hub id, instead of a folder.")] = None
    revision: Annotated[str | None, typer.Option(metavar="COMMIT|TAG", help="Revision at the hub.")] = None
    base_model: Annotated[
        str | None, typer.Option(metavar="NAME|FOLDER|ID", help="For an adapter: its base model.")
    ] = None


@dataclass
class Origin:
    """Where the policy comes from."""

    PANEL: ClassVar[str] = "Where it comes from"

    method: Annotated[Kind | None, typer.Option(help="Its role in comparisons.")] = None
    parent: Annotated[str | None, typer.Option(metavar="NAME", help="Checkpoint that training started from.")] = None
    licence: Annotated[str | None, typer.Option(metavar="SPDX-ID", help="Licence of the weights.")] = None
    from_card: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Copy serving, scaffold, sampling and licence from this checkpoint."),
    ] = None


def add(
    name: Annotated[str, typer.Argument(help="NAME, NAME@STEP for one of a series, or 'NAME@*' for all steps.")],
    weights: Weights,
    origin: Origin,
    overrides: options.Overrides = None,
    registry: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder to write the card into.")] = Path(
        "checkpoints"
    ),
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite the card of that name.")] = False,
) -> None:
    """Register a checkpoint: digest its files and write its card."""
    from aem_harness.aem_checkpoints import adding
    from aem_harness.aem_checkpoints.registry import Registry
    from aem_harness.harness.config import set_dotted

    path = weights.path
    if weights.gguf:
        from aem_harness.aem_checkpoints.gguf import convert
        from aem_harness.harness.errors import ConfigError

        if path or weights.hub:
            raise ConfigError("give one of --gguf, --path and --hub")
        path = registry / name / "weights"
        convert(weights.gguf, path)
    given = {
        "path": str(path) if path else None,
        "hub": weights.hub,
        "revision": weights.revision,
        "base_model": weights.base_model,
        "parent": origin.parent,
        "licence": origin.licence,
    }
    values: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    lent: dict[str, Any] = {}
    if origin.from_card:
        known = Registry(registry if registry.is_dir() else None)
        lent = adding.lent(known.get(origin.from_card).card)
    for override in [*([f"method.kind={origin.method.value}"] if origin.method else []), *(overrides or ())]:
        set_dotted(values, override)
    for card in adding.cards(name, values, registry, lent):
        typer.echo(adding.add(card, registry, replace=replace))


def list_(registry: options.RegistryFolder = None) -> None:
    """List every registered checkpoint."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from aem_harness.aem_checkpoints.registry import Registry

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1), collapse_padding=True)
    for column in ("name", "weights", "method", "step", "parent or base", "licence", "where"):
        table.add_column(column, overflow="fold")
    for entry in Registry(registry).entries():
        card = entry.card
        method = " ".join(dict.fromkeys(part for part in (card.method.kind, card.method.base) if part))
        step = "" if card.step is None else str(card.step)
        table.add_row(
            card.name, card.weights, method, step, card.base_model or card.parent, card.licence, _where(entry)
        )
    Console().print(table)


def _where(entry: "Entry") -> str:
    """Where the weights are, as short as can be."""
    from aem_harness.aem_checkpoints.registry import SHIPPED

    if entry.folder is None:
        return entry.location
    if entry.folder.is_relative_to(SHIPPED.resolve()):
        return "shipped"
    here = Path.cwd()
    return str(entry.folder.relative_to(here) if entry.folder.is_relative_to(here) else entry.folder)


def show(
    name: Annotated[str, typer.Argument(help="A registered checkpoint.")], registry: options.RegistryFolder = None
) -> None:
    """Show the card of a checkpoint, its location, and the command that would serve it."""
    from aem_harness.aem_checkpoints.command import Program, arguments, find_program
    from aem_harness.aem_checkpoints.registry import Registry
    from aem_harness.harness.errors import ConfigError

    known = Registry(registry)
    entry = known.get(name)
    typer.echo(f"# {entry.file}")
    typer.echo(entry.card.to_yaml().rstrip())
    try:
        program = find_program()
    except ConfigError:
        program = Program("vLLM", ("vllm", "serve"))
    typer.echo(f"# {' '.join([*program.words, *arguments([entry], known, program)])}")


def verify(
    names: Annotated[list[str] | None, typer.Argument(help="Checkpoints or series (default: all).")] = None,
    registry: options.RegistryFolder = None,
) -> None:
    """Check files against the digests in their cards; print a line for each missing, damaged or changed one."""
    from aem_harness.aem_checkpoints.registry import Registry
    from aem_harness.harness.errors import DataError

    known = Registry(registry)
    entries = [entry for name in names for entry in known.series(name)] if names else known.entries()
    bad = 0
    for entry in entries:
        problems = entry.problems()
        bad += bool(problems)
        here = "as registered" if entry.folder else "on the hub, not verified here"
        typer.echo("\n".join(problems) or f"{entry.card.name}: {here}")
    if bad:
        raise DataError(
            f"{bad} of {len(entries)} checkpoints do not match their cards: copy the files again, or "
            "register them anew (aem checkpoints add NAME --replace)"
        )


def diff(
    left: Annotated[str, typer.Argument(help="A checkpoint, or a run folder with the fingerprint of a server.")],
    right: Annotated[str, typer.Argument(help="Another of the same kind.")],
    registry: options.RegistryFolder = None,
) -> None:
    """Show the differences between two cards, or, of two run folders, between the fingerprints of their servers."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from aem_harness.aem_checkpoints.card import differences

    rows = list(differences(_facts(left, registry), _facts(right, registry)))
    if not rows:
        typer.echo("no difference")
        return
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("", left, right):
        table.add_column(column, overflow="fold")
    for key, ours, theirs in rows:
        table.add_row(key, *map(_value, (ours, theirs)))
    Console().print(table)


def _value(value: object) -> str:
    """A value as a cell; of a digest as much as tells two apart."""
    return "" if value is None else re.sub(r"^(sha256:[0-9a-f]{12})[0-9a-f]{52}$", r"\1", str(value))


def _facts(name: str, registry: Path | None) -> Mapping[str, Any]:
    from aem_harness.aem_checkpoints.registry import Registry
    from aem_harness.harness.io import read_json

    if (run := Path(name) / "run.json").is_file():
        fingerprint: Mapping[str, Any] = read_json(run).get("fingerprint") or {}
        return fingerprint
    return Registry(registry).get(name).card.model_dump(mode="json")
