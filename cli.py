"""The door of `aem`: assembles the command groups and turns errors into one clear line and an exit code."""

import os
import signal
import sys
from importlib import import_module
from typing import Annotated, cast

import typer

from aem_harness.harness.errors import EXIT_INFRASTRUCTURE, EXIT_USAGE, AemError

# typer carries its own copy of click since 0.26 and used the package before: reach the classes through typer itself.
_ClickException = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[2])

# One module a command group, in the order of `aem --help`.
COMMANDS: tuple[str, ...] = (
    "run",
    "grade",
    "compare",
    "gate",
    "table",
    "report",
    "plan",
    "train",
    "checkpoints",
    "serve",
    "failures",
    "runs",
    "instances",
    "images",
    "import_",
    "audit",
    "fsck",
    "export",
    "doctor",
)

EXIT_INTERRUPTED, EXIT_PIPE, EXIT_TERMINATED = 130, 141, 143  # as shells number SIGINT, SIGPIPE and SIGTERM

app = typer.Typer(
    name="aem",
    help="Find out whether a new checkpoint is a better software engineer than the last: run, grade, compare, gate.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _version(show: bool) -> None:
    if show:
        from aem_harness import __version__

        typer.echo(f"aem-harness {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None: ...


for _name in COMMANDS:
    import_module(f"aem_harness.commands.{_name}").register(app)


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 block, 2 inconclusive (gate), 3 infrastructure, 4 usage, 130 ^C."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))  # unwinds, so that containers are removed
    try:
        code = app(standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    except _ClickException as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except AemError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of our output has gone: `aem show ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains once more at its end
        sys.exit(EXIT_PIPE)
    except OSError as error:
        typer.secho(f"error: {error.filename or 'this machine'}: {error.strerror or error}", fg="red", err=True)
        sys.exit(EXIT_INFRASTRUCTURE)
    if code == EXIT_INTERRUPTED:  # Typer turns most interrupts into this code itself
        typer.echo("interrupted; what is finished is kept, and the same command goes on", err=True)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
