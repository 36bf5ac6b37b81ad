"""Entry point of `aem`: assembles the commands, and turns errors into one line and an exit code."""

import logging
import os
import shlex
import signal
import sys
from contextlib import suppress
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Annotated, cast

import typer

from aem_harness.harness import log
from aem_harness.harness.errors import EXIT_INFRASTRUCTURE, EXIT_USAGE, AemError, in_one_line, of_disk

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
    "data",
    "checkpoints",
    "serve",
    "failures",
    "runs",
    "instances",
    "images",
    "import_",
    "audit",
    "regrade",
    "fsck",
    "export",
    "doctor",
)

EXIT_INTERRUPTED, EXIT_PIPE, EXIT_SIGNAL = 130, 141, 128  # as shells number SIGINT, SIGPIPE, and signals in general

app = typer.Typer(
    name="aem",
    help="Measure whether a new checkpoint is a better software engineer than the last: run, grade, compare, gate.",
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
        bool,
        typer.Option("--version", metavar="", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose", "-v", metavar="", count=True, show_default=False, help="Log to stderr; -vv in detail."
        ),
    ] = 0,
    log_file: Annotated[Path | None, typer.Option("--log-file", metavar="FILE", help="Also log to this file.")] = None,
) -> None:
    if verbose:
        log.show(verbose)
    if log_file:
        log.keep(log_file)
    logging.getLogger(log.ROOT).info("aem %s", shlex.join(sys.argv[1:]))


def _register() -> None:
    try:
        for name in COMMANDS:
            import_module(f"aem_harness.commands.{name}").register(app)
        import_module("aem_harness.commands.options").name_values(app)
    except ImportError as error:  # Python would end with 1, which says BLOCK
        typer.secho(f"error: this installation is incomplete ({error}): install aem-harness again", fg="red", err=True)
        sys.exit(EXIT_INFRASTRUCTURE)


_register()


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 block, 2 inconclusive (gate), 3 infrastructure, 4 usage, 130 ^C."""
    _unwind_on_signals()
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # its own one keeps tens of megabytes that nobody uses
    try:
        code = app(_hoisted(sys.argv[1:]), standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    except _ClickException as error:
        error.show()
        code = EXIT_USAGE
    except AemError as error:
        _complain(str(error))
        code = error.exit_code
    except BrokenPipeError:  # the reader of our output has gone: `aem show ... | head`
        code = _without_reader()
    except SystemExit as ended:  # a signal's, or that of a library, whose 1 would say BLOCK
        code = _exit_code(ended)
    except OSError as error:
        log.keep_traceback(error)
        remedy = ": free or repair the disk, then give the same command again" if of_disk(error) else ""
        _complain(f"{error.filename or 'this machine'}: {error.strerror or error}{remedy}")
        code = EXIT_INFRASTRUCTURE
    except Exception as error:
        where = log.keep_traceback(error)
        kept = f"; the traceback is in {where}" if where else ""
        _complain(f"unexpected {in_one_line(error)}{kept}; finished work is kept, and the same command continues")
        code = EXIT_INFRASTRUCTURE
    if code == EXIT_INTERRUPTED:  # Typer turns most interrupts into this code itself
        typer.echo("interrupted; finished work is kept, and the same command continues", err=True)
    sys.exit(code if isinstance(code, int) else 0)


def _complain(line: str) -> None:
    """One line on stderr, and in the log."""
    logging.getLogger(log.ROOT).error("%s", line)
    with suppress(OSError):  # nobody may be there to read it
        typer.secho(f"error: {line}", fg="red", err=True)


def _unwind_on_signals() -> None:
    """A request to end, or the end of the terminal, unwinds the program, so that containers are removed; once."""

    def unwind(number: int, _: object) -> None:
        for one in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(one, signal.SIG_IGN)
        sys.exit(EXIT_SIGNAL + number)

    signal.signal(signal.SIGTERM, unwind)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, unwind)


def _exit_code(ended: SystemExit) -> int:
    if isinstance(ended.__context__, BrokenPipeError):
        return _without_reader()
    if ended.code in (EXIT_SIGNAL + signal.SIGTERM, EXIT_SIGNAL + signal.SIGHUP):
        return int(ended.code)
    _complain(f"a library ended the program ({ended.code}); finished work is kept")
    return EXIT_INFRASTRUCTURE


def _without_reader() -> int:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains once more at its end
    return EXIT_PIPE


def _hoisted(words: list[str]) -> list[str]:
    """Move the options that all commands have to the front, where the parser expects them."""
    first: list[str] = []
    rest: list[str] = []
    at = iter(words)
    for word in at:
        if word == "--":
            return [*first, *rest, word, *at]
        if word in ("-v", "-vv", "--verbose") or word.startswith("--log-file="):
            first.append(word)
        elif word == "--log-file":
            first += [word, *islice(at, 1)]
        else:
            rest.append(word)
    return first + rest


if __name__ == "__main__":
    main()
