"""Finished files: made durable, hashed, and checked against their hashes.

A journal line says that work is done. So all files that it names are on the disk before it (files, then their folders),
and the line carries a hash of each: changes since then, by a power loss, a full disk or a person, are detected, and
changed files are never graded.
"""

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

Files = Mapping[str, Mapping[str, Any]]  # name -> {"bytes": size, "sha256": hex digits}; the hash may be missing


def files_of(folder: Path, *, without: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every regular file directly in `folder`, except those named in `without` and hidden ones."""
    return {
        path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.iterdir())
        if path.name not in without and not path.name.startswith(".") and path.is_file() and not path.is_symlink()
    }


def damage(folder: Path, files: Files) -> str:
    """The first file of `files` that has changed, in words; empty if none has."""
    for name, known in files.items():
        path = folder / name
        try:
            size = path.stat().st_size
            if size != known["bytes"]:
                return f"{name} has {size} bytes, had {known['bytes']}"
            if "sha256" in known and _sha256(path) != known["sha256"]:
                return f"{name} has changed since it was written"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
