"""The reference of `aem`: what `--help` prints for each command, as one page."""

import os
from typing import Any

os.environ["TYPER_USE_RICH"] = "0"  # plain text; read when typer is imported

import typer
from typer.testing import CliRunner

from aem_harness.cli import app


def commands_page() -> str:
    """The whole page, in Markdown."""
    root: Any = typer.main.get_command(app)
    own = printed().split("\nCommands:")[0].strip()  # click cuts the lines of that list; the table has them whole
    parts = ["# Commands", "What `--help` prints, from the program itself.", _overview(root), f"```text\n{own}\n```"]
    for name, command in root.commands.items():
        parts += _section([name], command)
    return "\n\n".join(parts) + "\n"


def _overview(root: Any) -> str:
    rows = [f"| [{name}](#aem-{name}) | {one.help.splitlines()[0]} |" for name, one in root.commands.items()]
    return "\n".join(["| command | what it does |", "|---|---|", *rows])


def _section(words: list[str], command: Any) -> list[str]:
    parts = [f"{'#' * (1 + len(words))} aem {' '.join(words)}", f"```text\n{printed(*words)}\n```"]
    for name, below in getattr(command, "commands", {}).items():
        parts += _section([*words, name], below)
    return parts


def printed(*words: str) -> str:
    """The help text of one command."""
    result = CliRunner().invoke(app, [*words, "--help"], prog_name="aem")
    if result.exit_code:
        raise RuntimeError(f"aem {' '.join(words)} --help: {result.output}")
    return result.output.strip()
