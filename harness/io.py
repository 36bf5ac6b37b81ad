"""Files: read what other tools leave, write so that a kill leaves the old file or the new one, and the cache folder.

Read are gzipped files whatever they are called, and UTF-8, UTF-16 or UTF-32 with a byte order mark (PowerShell's `>`
writes UTF-16). Files are written with the permissions that the user's umask gives.
"""

import gzip
import json
import os
import re
import zlib
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple

from aem_harness.harness.errors import ConfigError, DataError

GZIP = b"\x1f\x8b"
MOST_UNPACKED = 2**30  # bytes that a gzipped or zipped file may hold
# The long marks first: UTF-32's little-endian mark begins with UTF-16's.
MARKS = (
    (BOM_UTF32_LE, "utf-32"),
    (BOM_UTF32_BE, "utf-32"),
    (BOM_UTF8, "utf-8-sig"),
    (BOM_UTF16_LE, "utf-16"),
    (BOM_UTF16_BE, "utf-16"),
)


# --- reading --------------------------------------------------------------------------------------------------------


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, unpacked where it is gzipped. Raises DataError where it cannot be read."""
    try:
        raw = path.read_bytes()
        return _unpacked(raw, path) if raw.startswith(GZIP) or path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"cannot read {path}: {why}") from None


def _unpacked(raw: bytes, path: Path) -> bytes:
    """What a gzipped file holds, at most `MOST_UNPACKED` bytes: a small file can hold more than any memory."""
    with gzip.GzipFile(fileobj=BytesIO(raw)) as file:
        data = file.read(MOST_UNPACKED + 1)
    if len(data) > MOST_UNPACKED:
        raise DataError(
            f"{path} unpacks to more than {MOST_UNPACKED >> 20} MiB; unpack it yourself if that is intended"
        )
    return data


def decoded(data: bytes) -> str:
    """The text in `data` by its byte order mark, which is dropped; UTF-8 where it has none, bad bytes replaced."""
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")
    return data.decode(encoding, "replace")


def read_text(path: Path) -> str:
    """The text of a file; bytes that are no text are replaced. Raises DataError where it cannot be read."""
    return decoded(read_bytes(path))


def read_json(path: Path) -> Any:
    """One JSON document. Raises DataError where it cannot be read or is not JSON."""
    data = read_bytes(path)
    try:
        return _parsed(data)
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from None


class Line(NamedTuple):
    """One line of a JSONL file: its number from 1, and its value or what is wrong with it."""

    number: int
    value: Any = None
    problem: str = ""


def json_lines(data: bytes) -> Iterator[Line]:
    """Every line that is not blank. Lines end at \\n only: JSON text may hold the other line ends of Unicode."""
    if data.startswith((BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_LE, BOM_UTF32_BE)):
        data = decoded(data).encode("utf-8", "surrogatepass")
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            try:
                value = _parsed(line)
            except ValueError as error:
                yield Line(number, problem=f"is not JSON: {error}")
            else:
                yield Line(number, value)


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number from 1, and object, of every line that is not blank. Raises DataError at the first that is none."""
    for number, value, problem in json_lines(read_bytes(path)):
        if problem or not isinstance(value, dict):
            raise DataError(f"{path} line {number} {problem or 'is not an object'}")
        yield number, value


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


_SCRATCH = re.compile(r"\..+\.([0-9]+)\.[0-9a-f]{8}")

# --- writing --------------------------------------------------------------------------------------------------------


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` when the block ends well; until then nobody sees any of it.

    The bytes, then the rename are on the disk when the block has ended. A link stays a link: what it leads to is
    replaced. A device or a pipe (`/dev/stdout`) is written straight to. Raises ConfigError where it cannot be.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        with _opened(target, "wb", path) as file:
            yield file
        return
    scratch = target.with_name(f".{target.name[:100]}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with _opened(scratch, "xb", path) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(target)
    except BaseException:
        with suppress(OSError):
            scratch.unlink()
        raise
    make_durable(target.parent)


def is_left(name: str) -> bool:
    """Is it the name of a file that `replacing` writes, and leaves only where it is killed meanwhile?"""
    return bool(_SCRATCH.fullmatch(name))


def remove_left(folder: Path) -> None:
    """Remove from a folder what killed processes of this machine left half written.

    That a living process of another machine writes there at this moment cannot be seen: its writing then fails.
    """
    with suppress(OSError):
        for path in folder.iterdir():
            found = _SCRATCH.fullmatch(path.name)
            if found and not Path("/proc", found[1]).exists():
                path.unlink(missing_ok=True)


def _opened(path: Path, mode: str, shown: Path) -> IO[bytes]:
    try:
        return path.open(mode)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise ConfigError(f"cannot write {shown}: {error.strerror}") from None


def write_bytes(path: Path, data: bytes) -> None:
    with replacing(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """UTF-8; bytes that were no text when they were read (kept as surrogates) come out as they were."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_json_lines(path: Path, values: Iterable[Any]) -> None:
    """One value a line, in ASCII with escapes, so that any text survives."""
    write_text(path, "".join(json.dumps(value) + "\n" for value in values))


def append_line(file: IO[str], line: str) -> None:
    """Add a whole line to an open file and hand it to the system."""
    file.write(line + "\n")
    file.flush()


def cut_torn(path: Path) -> None:
    """Remove a last line without its end, left by a kill or a full disk: the next one would become a part of it."""
    if path.is_file():
        held = path.read_bytes()
        whole = held.rfind(b"\n") + 1
        if whole < len(held):
            with path.open("r+b") as file:
                file.truncate(whole)


def temporary_folder(parent: Path, name: str) -> Path:
    """A new folder beside others, hidden, with the permissions that the user's umask gives (`mkdtemp` gives 0700)."""
    folder = parent / f".{name}.{os.urandom(6).hex()}"
    folder.mkdir()
    return folder


def make_durable(path: Path) -> None:
    """Return only when a file, or the list of names in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some network file systems cannot do it for folders
            raise
    finally:
        os.close(descriptor)


# --- the cache ------------------------------------------------------------------------------------------------------


def cache_folder(*parts: str) -> Path:
    """A folder of what can be made again, created if need be: `$XDG_CACHE_HOME/aem-harness`, else where the platform
    keeps such (`~/.cache/aem-harness`). Raises ConfigError where the user has none or it cannot be made."""
    from platformdirs import user_cache_path

    try:
        folder = user_cache_path("aem-harness", appauthor=False).joinpath(*parts)
    except RuntimeError:  # no home
        folder = Path()
    if not folder.is_absolute():
        raise ConfigError("no home folder for the cache: set XDG_CACHE_HOME to the full path of a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the cache folder {folder} ({error.strerror}): set XDG_CACHE_HOME") from None
    return folder
