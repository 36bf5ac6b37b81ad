"""What the program did, for whoever has to find out later: ordinary `logging`, under the name of the package.

Every run folder gets a run.log; `-v` shows the same on stderr, and `--log-file` keeps it wherever one likes. A run.log
is a trace, not data: nothing reads it.
"""

import logging
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = "aem_harness"
RUN_LOG = "run.log"
_FORMAT = "%(asctime)s %(levelname)-7s %(threadName)s %(name)s: %(message)s"

logging.getLogger(ROOT).addHandler(logging.NullHandler())  # else Python writes warnings to stderr

_newest: Path | None = None  # where this process logs, for the traceback of what ends it


class _Stderr(logging.StreamHandler):
    """Writes to whatever stderr is at the moment: a live view takes its place for a while."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def show(verbosity: int) -> None:
    """Log on stderr from now on: 1 what happens, 2 every detail."""
    _add(_Stderr(), logging.DEBUG if verbosity > 1 else logging.INFO)


def keep(path: Path) -> None:
    """Log to a file from now on. Raises OSError when it cannot be written."""
    global _newest
    _newest = path
    _add(_file(path), logging.DEBUG)


@contextmanager
def kept(path: Path) -> Iterator[None]:
    """Log to a file inside the block, too. That it cannot be written is no reason not to go on."""
    global _newest
    try:
        handler = _file(path)
    except OSError:
        yield
        return
    _newest = path
    _add(handler, logging.INFO)
    try:
        yield
    finally:
        logging.getLogger(ROOT).removeHandler(handler)
        with suppress(OSError):
            handler.close()


def keep_traceback(error: BaseException) -> Path | None:
    """Append the traceback of an error to the newest log, or to a file of its own; where it is, if anywhere."""
    text = "".join(traceback.format_exception(error))
    own = Path(tempfile.gettempdir()) / f"aem-error-{time.strftime('%Y%m%dT%H%M%S')}.log"
    for path in filter(None, (_newest, own)):
        with suppress(OSError), path.open("a", encoding="utf-8", errors="backslashreplace") as handle:
            handle.write(text)
            return path
    return None


def _file(path: Path) -> logging.Handler:
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk must not fill the screen
    return handler


def _add(handler: logging.Handler, level: int) -> None:
    formatter = logging.Formatter(_FORMAT, "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    handler.setLevel(level)
    logger = logging.getLogger(ROOT)
    logger.setLevel(min(level, logger.getEffectiveLevel() if logger.level else level))
    logger.propagate = False
    logger.addHandler(handler)
