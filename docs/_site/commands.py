"""The reference of `aem`: one section a command, from the same objects that print `--help`."""

import inspect
import re
from typing import Any

import typer

from aem_harness.cli import app


def commands_page() -> str:
    """The whole page, in Markdown."""
    parts = [
        "# Commands",
        "Made from `aem --help`. Exit codes: 0 done, 1 block, 2 inconclusive, 3 infrastructure, 4 usage.",
    ]
    root: Any = typer.main.get_command(app)
    for name, command in root.commands.items():
        parts += _section(f"aem {name}", command, 2)
    return "\n\n".join(parts) + "\n"


def _section(title: str, command: Any, level: int) -> list[str]:
    parts = [f"{'#' * level} {title}", _text(command.help)]
    subcommands = getattr(command, "commands", {})
    if not subcommands:
        arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
        shown = " ".join(parameter.make_metavar(None) for parameter in arguments)
        parts.append(f"```text\n{title} [OPTIONS] {shown}".rstrip() + "\n```")
        parts.append(_table(command.params))
    if command.epilog:
        parts.append(f"```text\n{inspect.cleandoc(command.epilog)}\n```")
    for name, below in subcommands.items():
        parts += _section(f"{title} {name}", below, level + 1)
    return [part for part in parts if part]


def _table(parameters: list[Any]) -> str:
    rows = [f"| {_names(one)} | {_text(one.help)} | {_default(one)} |" for one in parameters if not one.hidden]
    return "\n".join(["| option | meaning | default |", "|---|---|---|", *rows]) if rows else ""


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.make_metavar(None)}`"
    names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    metavar = "" if parameter.is_flag else parameter.make_metavar(None)
    return f"{names} `{metavar}`".replace("|", "\\|") if metavar else names


def _default(parameter: Any) -> str:
    value = parameter.default
    if value is None or value is False or value == () or callable(value):
        return "required" if parameter.required else ""
    return f"`{getattr(value, 'value', value)}`"


def _text(text: str | None) -> str:
    """Help text without the terminal's markup, on one line a paragraph."""
    plain = re.sub(r"\[/?(?:bold|dim|italic|cyan|green|red|yellow)\]", "", inspect.cleandoc(text or ""))
    return re.sub(r"(?<!\n)\n(?!\n)", " ", plain).replace("|", "\\|").replace("<", "&lt;")
