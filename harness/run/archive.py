"""A run as one file: a tar archive with a SHA256SUMS of every file, written whole or not at all.

The list has the format of coreutils: `sha256sum --check SHA256SUMS` works in a restored folder.
"""

import gzip
import hashlib
import io
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, cast

from aem_harness.harness.errors import ConfigError, DataError
from aem_harness.harness.io import is_left, replacing
from aem_harness.harness.run.listing import is_written

SUMS = "SHA256SUMS"
MOST = 1 << 40  # bytes that an archive may expand to
_LEFT_OUT = {".lock", ".owners", ".verified", SUMS}
_DERIVED = {"facts"}  # folders of what can be computed again, in other bytes


def archive(folder: Path, out: Path) -> int:
    """Pack a run folder into `out` (.tar, .tar.gz or .tgz); the number of files. Equal runs give equal bytes.

    Raises ConfigError while the run is being written, or where `out` exists.
    """
    if is_written(folder):
        raise ConfigError(f"{folder} is being written by another aem process; archive it when that has ended")
    if out.exists():
        raise ConfigError(f"{out} exists already; choose another --out")
    files = sorted(_files(folder))
    sums = "".join(f"{_digest(folder / name)}  {name}\n" for name in files).encode()
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as handle, _compressed(handle, out) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(_plain(folder.name, SUMS, len(sums)), io.BytesIO(sums))
        for name in files:
            path = folder / name
            with path.open("rb") as content:
                tar.addfile(_plain(folder.name, name, path.stat().st_size), content)
    return len(files)


def restore(file: Path, into: Path) -> Path:
    """Unpack an archive below `into` and verify it; the folder. Nothing remains if a digest is wrong."""
    into.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(file) as tar, tempfile.TemporaryDirectory(dir=into, prefix=".restore.") as scratch:
            members = tar.getmembers()
            names = {Path(member.name).parts[0] for member in members if Path(member.name).parts}
            if len(names) != 1:
                raise DataError(f"{file} is not the archive of one run: it holds {len(names)} folders")
            if sum(member.size for member in members) > MOST:
                raise DataError(f"{file} would expand to more than {MOST >> 40} TiB")
            final = into / names.pop()
            if final.exists():
                raise ConfigError(f"{final} exists already; restore into another folder")
            tar.extractall(scratch, filter="data")
            made = Path(scratch) / final.name
            if problems := list(verify(made)):
                raise DataError(f"{file}: {problems[0]} ({len(problems)} files differ); fetch the archive again")
            made.rename(final)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise DataError(f"cannot read {file}: {str(error).splitlines()[0].rstrip(':')}") from None
    return final


def verify(folder: Path) -> Iterator[str]:
    """What differs between a restored folder and its SHA256SUMS: one line per file. DataError without that list."""
    path = folder / SUMS
    if not path.is_file():
        raise DataError(f"{folder} has no {SUMS}: only a run restored from `aem runs archive` can be verified")
    lines = [line.partition("  ") for line in path.read_text().split("\n") if line]
    known = {name: digest for digest, _, name in lines}
    here = set(_files(folder))
    for name, digest in known.items():
        if name not in here:
            yield f"{name} is missing"
        elif _digest(folder / name) != digest:
            yield f"{name} has changed"
    yield from (f"{name} was added" for name in sorted(here - set(known)))


def _files(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        left_out = path.name in _LEFT_OUT or is_left(path.name) or name.parts[0] in _DERIVED
        if path.is_file() and not path.is_symlink() and not left_out:
            yield name.as_posix()


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _plain(root: str, name: str, size: int) -> tarfile.TarInfo:
    """An entry without times and owners, so that archives of equal runs are equal."""
    entry = tarfile.TarInfo(f"{root}/{name}")
    entry.size, entry.mode = size, 0o644
    return entry


def _compressed(handle: IO[bytes], out: Path) -> AbstractContextManager[IO[bytes]]:
    """The stream for the archive's suffix; gzip without a time stamp."""
    if out.name.endswith(".tar"):
        return nullcontext(handle)
    if out.name.endswith((".tar.gz", ".tgz")):
        return cast("AbstractContextManager[IO[bytes]]", gzip.GzipFile(filename="", fileobj=handle, mode="wb", mtime=0))
    raise ConfigError(f"{out} must end in .tar, .tar.gz or .tgz")
