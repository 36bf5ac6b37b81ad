"""A disk that loses power: of everything written, only what was synced by then is left.

`Disk` listens to `os.fsync`. A synced file keeps the content it had then; a synced folder keeps the list of names it
had then. `after(n, copy)` rebuilds the tree as a file system may leave it that lost power right after the n-th sync:
strictly (names and contents that were not synced are gone), or with `names_survive` (names are all there, but contents
that were not synced are empty), which is what journalling file systems do that write their metadata first.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Disk:
    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self._states: list[tuple[dict[int, bytes], dict[int, dict[str, int]], list[Path]]] = []
        self._contents: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._held: list[int] = []  # so that no inode number is given out again
        self._fsync = os.fsync
        self._patch = monkeypatch

    @contextmanager
    def listening(self) -> Iterator[None]:
        with self._patch.context() as patch:
            patch.setattr(os, "fsync", self._synced)
            yield

    @property
    def syncs(self) -> int:
        return len(self._states)

    def close(self) -> None:
        for descriptor in self._held:
            os.close(descriptor)

    def after(self, sync: int, copy: Path, *, names_survive: bool) -> Path:
        contents, names, tree = self._states[sync]
        if names_survive:
            for name in tree:
                target = copy / name
                kept = contents.get(self._inodes[sync][name])
                if kept is None and name in self._folders[sync]:
                    target.mkdir(parents=True, exist_ok=True)
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(kept or b"")
            return copy
        self._restore(self.root.stat().st_ino, copy, contents, names)
        return copy

    def _restore(self, folder: int, copy: Path, contents: dict[int, bytes], names: dict[int, dict[str, int]]) -> None:
        copy.mkdir(parents=True, exist_ok=True)
        for name, inode in names.get(folder, {}).items():
            if inode in names or inode in self._all_folders:
                self._restore(inode, copy / name, contents, names)
            else:
                (copy / name).write_bytes(contents.get(inode, b""))

    _all_folders: set[int]
    _inodes: list[dict[Path, int]]
    _folders: list[set[Path]]

    def _synced(self, descriptor: int) -> None:
        self._fsync(descriptor)
        state = os.fstat(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if self.root not in (path, *path.parents):
            return
        if not self._states:
            self._all_folders, self._inodes, self._folders = set(), [], []
        self._held.append(os.dup(descriptor))
        if stat.S_ISDIR(state.st_mode):
            self._names[state.st_ino] = {entry.name: entry.inode() for entry in os.scandir(path)}
        else:
            self._contents[state.st_ino] = path.read_bytes()
        tree = sorted(each.relative_to(self.root) for each in self.root.rglob("*"))
        folders = {name for name in tree if (self.root / name).is_dir()}
        self._inodes.append({name: (self.root / name).stat().st_ino for name in tree})
        self._folders.append(folders)
        self._all_folders |= {self._inodes[-1][name] for name in folders}
        self._states.append((dict(self._contents), {key: dict(value) for key, value in self._names.items()}, tree))
