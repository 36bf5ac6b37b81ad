"""Which images to fetch next and which to remove, by the order of what is still to do. Decides, and does nothing.

The order is known, so the best choice is known too (Belady, 1966): the image that is needed again last, or never, goes
first. An image is fetched ahead as long as it fits beside all that is needed before it. Layers that images share are
counted once.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Layers = Mapping[str, int]  # bytes by layer

UNPACKED = 3.0  # bytes on the disk of one byte over the network, until the first images have shown it
NEWEST = 16  # images, by which the size of the next one is guessed
FIRST_GUESS = 3 << 30  # bytes of an image, until one has been fetched


@dataclass(frozen=True)
class Move:
    """Remove `evict`, then fetch `fetch` (None: nothing to do, or nothing fits)."""

    fetch: str | None = None
    evict: tuple[str, ...] = ()


@dataclass
class Shelf:
    """The images of a run. `budget`: bytes that they may take together, None for any number.

    `kept` are present images that are not ours to remove. `last` numbers uses, to remove the longest unused first of
    those that are not needed again.
    """

    budget: float | None = None
    present: dict[str, Layers] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    held: Counter[str] = field(default_factory=Counter)
    coming: dict[str, float] = field(default_factory=dict)  # bytes that each is expected to add
    failed: set[str] = field(default_factory=set)
    peak: float = 0.0
    _known: dict[str, Layers] = field(default_factory=dict)  # also of images that are gone
    _ratio: float = UNPACKED
    _least: float = 1.0  # the smallest such ratio that was seen
    _measured: bool = False
    _last: dict[str, int] = field(default_factory=dict)
    _uses: int = 0

    # --- what happened ----------------------------------------------------------------------------------------------

    def arrived(self, name: str, layers: Layers, compressed: float = 0.0) -> None:
        """An image is here; `compressed` bytes of it came over the network."""
        if self.coming.pop(name, None) is not None and compressed:
            seen = self._size_of(layers, self.present.values()) / compressed
            self._ratio = max(seen, self._ratio if self._measured else 1.0)
            self._least = min(seen, self._least if self._measured else seen)
            self._measured = True
        self.present[name] = self._known[name] = layers
        self._seen()

    def grew(self, name: str, compressed: float) -> None:
        """An image that is coming turns out to have at least so many bytes to download."""
        if name in self.coming:
            self.coming[name] = max(self.coming[name], compressed * self._ratio)

    def cannot_fit(self, name: str, compressed: float) -> bool:
        """Is it over the budget beside all else that is here, however well it was compressed?"""
        others = self.used - self.coming.get(name, 0.0)
        return self.budget is not None and others + compressed * self._least > self.budget

    def gone(self, name: str) -> None:
        self.present.pop(name, None)

    def not_coming(self, name: str, *, failed: bool = False) -> None:
        expected = self.coming.pop(name, None)
        if failed:
            self.failed.add(name)
        elif expected is not None:
            self._known.setdefault(name, {name: int(expected)})  # so that it is not begun again before it fits

    def take(self, name: str) -> None:
        self.held[name] += 1

    def release(self, name: str) -> None:
        self.held[name] -= 1
        if self.held[name] <= 0:
            del self.held[name]
        self._uses += 1
        self._last[name] = self._uses

    # --- what to do -------------------------------------------------------------------------------------------------

    @property
    def used(self) -> float:
        """Bytes of what is here and of what is coming."""
        return self._size_of({}, self.present.values(), whole=True) + sum(self.coming.values())

    def next(self, upcoming: Sequence[str]) -> Move:
        """What to do now; `upcoming` are the images of all that is under way and to come, in order, with repeats."""
        first: dict[str, int] = {}
        for at, name in enumerate(upcoming):
            first.setdefault(name, at)
        wanted = next(
            (n for n in first if n not in self.present and n not in self.coming and n not in self.failed), None
        )
        if wanted is None:
            return Move()
        need = self.expected(wanted)
        evict = self._room(need, first, after=first[wanted])
        if evict is not None:
            self.coming[wanted] = need
            self._seen(evict)
            return Move(wanted, evict)
        first_of_all = next(name for name in first if name not in self.failed)
        if (
            not self.held and not self.coming and wanted == first_of_all
        ):  # waiting frees nothing: it goes over the budget
            evict = tuple(self._victims(first, after=first[wanted]))
            self.coming[wanted] = need
            self._seen(evict)
            return Move(wanted, evict)
        return Move()

    def relief(self, upcoming: Sequence[str]) -> tuple[str, ...] | None:
        """What to remove when what is coming proves larger than expected; None where that cannot help."""
        first: dict[str, int] = {}
        for at, name in enumerate(upcoming):
            first.setdefault(name, at)
        nearest = min((first.get(name, len(first)) for name in self.coming), default=0)
        return self._room(0.0, first, after=nearest)

    def expected(self, name: str) -> float:
        """Bytes that an image will add: known if it was here before. Else what all images so far share, as far as that
        is not here, and the most that one of the newest has for itself."""
        if name in self._known:
            return self._size_of(self._known[name], self.present.values())
        if not self._known:
            return min(FIRST_GUESS, (self.budget or 2 * FIRST_GUESS) / 2)
        times = Counter(layer for layers in self._known.values() for layer in layers)
        own = [
            sum(size for layer, size in layers.items() if times[layer] == 1)
            for layers in list(self._known.values())[-NEWEST:]
        ]
        some = next(iter(self._known.values()))
        shared = {layer: size for layer, size in some.items() if times[layer] == len(self._known) > 1}
        return max(own) + self._size_of(shared, self.present.values())

    # --- inside -----------------------------------------------------------------------------------------------------

    def _room(self, need: float, first: Mapping[str, int], after: int) -> tuple[str, ...] | None:
        """The images to remove so that `need` more bytes fit; None where that is not enough."""
        if self.budget is None:
            return ()
        over = self.used + need - self.budget
        chosen: list[str] = []
        for name in self._victims(first, after):
            if over <= 0:
                break
            others = [layers for one, layers in self.present.items() if one != name and one not in chosen]
            over -= self._size_of(self.present[name], others)
            chosen.append(name)
        return tuple(chosen) if over <= 0 else None

    def _victims(self, first: Mapping[str, int], after: int) -> list[str]:
        """What may go for an image that is needed at place `after`: first what is needed last, or never."""
        never = float("inf")
        free = [
            name
            for name in self.present
            if name not in self.held and name not in self.kept and first.get(name, never) > after
        ]
        return sorted(free, key=lambda name: (-first.get(name, never), self._last.get(name, 0)))

    def _size_of(self, layers: Layers, others: Iterable[Layers], *, whole: bool = False) -> float:
        """Bytes of `layers` that none of `others` has; with `whole`, of all together."""
        shared: dict[str, int] = {}
        for other in others:
            shared.update(other)
        if whole:
            return float(sum((shared | dict(layers)).values()))
        return float(sum(size for layer, size in layers.items() if layer not in shared))

    def _seen(self, without: Iterable[str] = ()) -> None:
        gone = set(without)
        here = [layers for name, layers in self.present.items() if name not in gone]
        self.peak = max(self.peak, self._size_of({}, here, whole=True) + sum(self.coming.values()))
