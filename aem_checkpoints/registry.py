"""The registry: folders full of cards, found by name.

Searched in order: the folder given, $AEM_REGISTRY, ./checkpoints, and the checkpoints shipped with this package. The
first folder that has a name wins. A card is `<folder>/<name>/card.yaml` or `<folder>/<name>.yaml`.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from aem_harness.aem_checkpoints import weights
from aem_harness.aem_checkpoints.card import CARD, Card, read_card
from aem_harness.harness.errors import ConfigError, listed

SHIPPED = Path(__file__).parent
LATEST = "latest"


@dataclass(frozen=True)
class Entry:
    """A card and the file it was read from."""

    card: Card
    file: Path

    @property
    def folder(self) -> Path | None:
        """The folder with the weights; None for a checkpoint of the hub."""
        return (self.file.parent / self.card.path).resolve() if self.card.path else None

    @property
    def location(self) -> str:
        """What vLLM is told: the folder, or the hub's id."""
        return str(self.folder or self.card.hub)

    def problems(self) -> list[str]:
        """One clear line for every file that is not what the card says; empty when the weights are the card's."""
        return weights.problems(self.card.name, self.folder, self.card.digests) if self.folder else []


class Registry:
    """Every card of the search path, by name. Reading is lazy and cheap; no weights are touched."""

    def __init__(self, folder: Path | None = None) -> None:
        own = [folder] if folder else []
        named = [Path(os.environ["AEM_REGISTRY"])] if os.environ.get("AEM_REGISTRY") else []
        self.folders = [*own, *named, Path("checkpoints"), SHIPPED]
        for given in (*own, *named):
            if not given.is_dir():
                raise ConfigError(f"no registry at {given}: make the folder, or add a card with aem checkpoints add")

    def entries(self) -> list[Entry]:
        """All cards, sorted by series and step; the first of a name counts."""
        found: dict[str, Entry] = {}
        for folder in self.folders:
            for file in _card_files(folder):
                card = read_card(file)
                found.setdefault(card.name, Entry(card, file))
        return sorted(found.values(), key=lambda entry: (entry.card.series, entry.card.step or 0, entry.card.name))

    def get(self, name: str) -> Entry:
        """The checkpoint of that name; ConfigError with those there are, the closest first, when there is none."""
        entries = {entry.card.name: entry for entry in self.entries()}
        if name in entries:
            return entries[name]
        close = get_close_matches(name, entries, n=3)
        known = listed([*close, *sorted(set(entries) - set(close))]) or "none"
        raise ConfigError(f"no checkpoint {name!r} is registered; there are: {known}")

    def latest(self) -> Entry:
        """The newest registered checkpoint: the card that was written last; of equally old ones the highest step.

        Those shipped with this package do not count.
        """
        own = [entry for entry in self.entries() if not entry.file.is_relative_to(SHIPPED)]
        if not own:
            folders = ", ".join(str(folder) for folder in self.folders if folder != SHIPPED)
            raise ConfigError(f"no checkpoint is registered in {folders}; add one with aem checkpoints add")
        return max(own, key=lambda entry: (entry.file.stat().st_mtime, entry.card.step or 0, entry.card.name))

    def base(self, entry: Entry) -> Entry | None:
        """The registered base model of an adapter; None for full weights, and for bases named by folder or hub id."""
        known = {other.card.name: other for other in self.entries()}
        return known.get(entry.card.base_model) if entry.card.weights == "lora" else None

    def series(self, name: str) -> list[Entry]:
        """One checkpoint, or the steps of a series: `name@50..250`, `name@50,100`, `name@*`; in order of step.

        `latest` is the card that was written last, `name@latest` the last step of a series.
        """
        series, separator, steps = name.partition("@")
        if name == LATEST and all(entry.card.name != LATEST for entry in self.entries()):
            return [self.latest()]
        if steps == LATEST:
            return [self.series(f"{series}@*")[-1]]
        if not separator or steps.isdigit():
            return [self.get(name)]
        members = [entry for entry in self.entries() if entry.card.series == series and "@" in entry.card.name]
        wanted = [entry for entry in members if _wanted(entry.card.step or 0, steps, name)]
        if not wanted:
            known = ", ".join(str(entry.card.step) for entry in members) or "none"
            raise ConfigError(f"no checkpoint matches {name!r}; steps of {series}: {known}")
        return wanted


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
