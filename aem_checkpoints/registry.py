"""The registry: folders full of cards, found by name; and whether the weights are still those of their card.

Searched in order: the folder given, $AEM_REGISTRY, ./checkpoints, and the checkpoints shipped with this package. The
first folder that has a name wins. A card is `<folder>/<name>/card.yaml` or `<folder>/<name>.yaml`.
"""

import hashlib
import json
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from aem_checkpoints.card import CARD, Card, read_card
from harness.errors import ConfigError, DataError
from harness.run.store import write_json, write_text

SHIPPED = Path(__file__).parent
WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "adapter_config.json", "config.json")
TEXT_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
BLOCK = 1 << 22


@dataclass(frozen=True)
class Entry:
    """A card and the file it was read from."""

    card: Card
    file: Path

    @property
    def folder(self) -> Path | None:
        """The folder with the weights; None for a checkpoint of the hub."""
        return (self.file.parent / self.card.path).resolve() if self.card.path else None


class Registry:
    """Every card of the search path, by name. Reading is lazy and cheap; no weights are touched."""

    def __init__(self, folder: Path | None = None) -> None:
        own = [folder] if folder else []
        named = [Path(os.environ["AEM_REGISTRY"])] if os.environ.get("AEM_REGISTRY") else []
        self.folders = [*own, *named, Path("checkpoints"), SHIPPED]
        if folder and not folder.is_dir():
            raise ConfigError(f"no registry at {folder}: make the folder, or add a card with aem checkpoints add")

    def entries(self) -> list[Entry]:
        """All cards, sorted by series and step; the first of a name counts."""
        found: dict[str, Entry] = {}
        for folder in self.folders:
            for file in _card_files(folder):
                card = read_card(file)
                found.setdefault(card.name, Entry(card, file))
        return sorted(found.values(), key=lambda entry: (entry.card.series, entry.card.step or 0, entry.card.name))

    def get(self, name: str) -> Entry:
        """The checkpoint of that name; ConfigError with what comes close when there is none."""
        entries = {entry.card.name: entry for entry in self.entries()}
        if name in entries:
            return entries[name]
        close = get_close_matches(name, entries, n=3) or sorted(entries)[:8]
        raise ConfigError(f"no checkpoint {name!r} is registered; there are: {', '.join(close) or 'none'}")

    def series(self, name: str) -> list[Entry]:
        """One checkpoint, or the steps of a series: `name@50..250`, `name@50,100`, `name@*`; in order of step."""
        series, separator, steps = name.partition("@")
        if not separator or steps.isdigit():
            return [self.get(name)]
        members = [entry for entry in self.entries() if entry.card.series == series and "@" in entry.card.name]
        wanted = [entry for entry in members if _wanted(entry.card.step or 0, steps, name)]
        if not wanted:
            known = ", ".join(str(entry.card.step) for entry in members) or "none"
            raise ConfigError(f"no checkpoint matches {name!r}; steps of {series}: {known}")
        return wanted

    def add(self, card: Card, folder: Path, *, replace: bool = False) -> Path:
        """Write a card into `folder`; ConfigError when the name is taken there and `replace` is not given."""
        file = folder / f"{card.name}.yaml"
        if file.exists() and not replace:
            raise ConfigError(f"{file} exists: choose another name, or give --replace")
        folder.mkdir(parents=True, exist_ok=True)
        write_text(file, card.to_yaml())
        return file


def _card_files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(folder.glob(f"*/{CARD}"))
        yield from sorted(folder.glob("*.yaml"))


def _wanted(step: int, steps: str, name: str) -> bool:
    if steps == "*":
        return True
    for part in steps.split(","):
        span = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", part)
        if not span:
            raise ConfigError(f"{name!r}: steps read 50, 50..250 or 50,100, not {part!r}")
        if int(span[1]) <= step <= int(span[2] or span[1]):
            return True
    return False


# --- weights --------------------------------------------------------------------------------------------------------


def identify(folder: Path) -> dict[str, str]:
    """Digest of every file that decides what the policy says. ConfigError when the folder holds no checkpoint."""
    if not folder.is_dir():
        raise ConfigError(f"no checkpoint at {folder}: the folder does not exist")
    files = sorted({path for pattern in (*WEIGHT_FILES, *TEXT_FILES) for path in folder.glob(pattern)})
    if not any(path.suffix == ".safetensors" for path in files):
        raise ConfigError(f"no checkpoint at {folder}: it has no .safetensors file")
    return {path.name: content_digest(path) for path in files}


def problems(entry: Entry) -> list[str]:
    """One clear line for every file that is not what the card says; empty when the weights are the card's."""
    folder = entry.folder
    if folder is None:
        return []
    found = []
    for name, wanted in entry.card.digests.items():
        path = folder / name
        if not path.is_file():
            found.append(f"{entry.card.name}: {path} is missing")
        elif path.suffix == ".safetensors" and (why := header_problem(path)):
            found.append(f"{entry.card.name}: {path} is damaged: {why}")
        elif content_digest(path) != wanted:
            found.append(f"{entry.card.name}: {path} has changed since it was registered ({wanted[:19]}... then)")
    if not entry.card.digests:
        found.append(
            f"{entry.card.name}: the card has no digests; register it again with aem checkpoints add --replace"
        )
    return found


def header_problem(path: Path) -> str:
    """What is wrong with a safetensors file by its header alone; empty when header and size agree.

    The format: 8 bytes little-endian length, that much JSON, then the tensors that the JSON's offsets describe.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            return "shorter than its header"
        (length,) = struct.unpack("<Q", start)
        if length > size - 8:
            return "its header is cut off"
        try:
            header = json.loads(file.read(length))
            ends = [value["data_offsets"][1] for key, value in header.items() if key != "__metadata__"]
        except (ValueError, TypeError, KeyError, AttributeError):
            return "its header is not that of a safetensors file"
    expected = 8 + length + max(ends, default=0)
    return "" if expected == size else f"{size} bytes, its header promises {expected}"


def content_digest(path: Path) -> str:
    """`sha256:...` of a file, cached by path, size and modification time: weights are large and rarely change."""
    stat = path.stat()
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "aem-harness" / "digests"
    key = hashlib.sha256(f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}".encode()).hexdigest()
    known = cache / f"{key[:32]}.json"
    try:
        digest: str = json.loads(known.read_text())["digest"]
        return digest
    except (OSError, ValueError, KeyError):
        pass
    hasher = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                hasher.update(block)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    digest = f"sha256:{hasher.hexdigest()}"
    cache.mkdir(parents=True, exist_ok=True)
    write_json(known, {"file": str(path.resolve()), "digest": digest})
    return digest
