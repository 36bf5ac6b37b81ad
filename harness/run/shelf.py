"""Which images to fetch next and which to remove, by the order of what is still to do. Decides, and does nothing.

The order is known, so the best choice is known too (Belady, 1966): the image that is needed again last, or never, goes
first. An image is fetched ahead as long as it fits beside all that is needed before it. Layers that images share are
counted once. What an image that is coming shares with others is not known before it is here: until then, a layer that
it may have counts as present although its last image was removed.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
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
    _left: dict[str, tuple[int, set[str]]] = field(default_factory=dict)  # layers of removed images: bytes, for whom
    _known: dict[str, Layers] = field(default_factory=dict)  # also of images that are gone
    _ratio: float = UNPACKED
    _measured: bool = False
    _last: dict[str, int] = field(default_factory=dict)
    _uses: int = 0

    # --- what happened ----------------------------------------------------------------------------------------------

    def arrived(self, name: str, layers: Layers, compressed: float = 0.0) -> None:
        """An image is here; `compressed` bytes of it came over the network."""
        if self.coming.pop(name, None) is not None and compressed:
            seen = self._size_of(layers, [*self.present.values(), self._left_layers()]) / compressed
            self._ratio = max(seen, self._ratio if self._measured else 1.0)
            self._measured = True
        self.present[name] = self._known[name] = layers
        self._settle(name)
        self._seen()

    def grew(self, name: str, compressed: float) -> None:
        """An image that is coming turns out to have at least so many bytes to download."""
        if name in self.coming:
            self.coming[name] = max(self.coming[name], compressed * self._ratio)

    def cannot_fit(self, name: str, compressed: float) -> bool:
        """Is it over the budget beside all else that is here, compressed as badly as the worst image so far?"""
        others = self.used - self.coming.get(name, 0.0)
        ratio = self._ratio if self._measured else 1.0
        return self.budget is not None and others + compressed * ratio > self.budget

    def gone(self, name: str) -> None:
        left = self._left_by({name})
        self.present.pop(name, None)
        self._left |= {layer: (size, set(self.coming)) for layer, size in left.items()}

    def not_coming(self, name: str, *, failed: bool = False) -> None:
        expected = self.coming.pop(name, None)
        self._settle(name)
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
        """Bytes of what is here, or may still be, and of what is coming."""
        return self._size_of(self._left_layers(), self.present.values(), whole=True) + sum(self.coming.values())

    def next(self, upcoming: Sequence[str], among: Collection[str] | None = None) -> Move:
        """What to do now; `upcoming` are the images of all that is under way and to come, in order, with repeats.

        `among`: fetch only one of these.
        """
        first: dict[str, int] = {}
        for at, name in enumerate(upcoming):
            first.setdefault(name, at)
        wanted = next(
            (
                name
                for name in first
                if not (name in self.present or name in self.coming or name in self.failed)
                and (among is None or name in among)
            ),
            None,
        )
        if wanted is None:
            return Move()
        need = self.expected(wanted)
        evict = self._room(need, first, after=first[wanted], wanted=wanted)
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
            return min(FIRST_GUESS, self.budget or FIRST_GUESS)  # the next one waits for the first
        times = Counter(layer for layers in self._known.values() for layer in layers)
        own = [
            sum(size for layer, size in layers.items() if times[layer] == 1)
            for layers in list(self._known.values())[-NEWEST:]
        ]
        some = next(iter(self._known.values()))
        shared = {layer: size for layer, size in some.items() if times[layer] == len(self._known) > 1}
        return max(own) + self._size_of(shared, self.present.values())

    # --- inside -----------------------------------------------------------------------------------------------------

    def _room(
        self, need: float, first: Mapping[str, int], after: int, wanted: str | None = None
    ) -> tuple[str, ...] | None:
        """The images to remove so that `need` more bytes, of `wanted`, fit; None where that is not enough."""
        if self.budget is None:
            return ()
        over = self.used + need - self.budget
        shared = self._may_be_shared(wanted)
        chosen: list[str] = []
        for name in self._victims(first, after):
            if over <= 0:
                break
            others = [layers for one, layers in self.present.items() if one != name and one not in chosen]
            surely = {layer: size for layer, size in self.present[name].items() if layer not in shared}
            over -= self._size_of(surely, others)
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

    def _may_be_shared(self, wanted: str | None = None) -> set[str]:
        """Layers of the images that are coming; for those never seen before, all that two images had so far."""
        coming = {*self.coming, *((wanted,) if wanted else ())}
        seen = [self._known[name] for name in coming if name in self._known and name not in self._known[name]]
        shared = {layer for layers in seen for layer in layers}
        if len(seen) < len(coming):
            times = Counter(layer for layers in self._known.values() for layer in layers)
            shared |= {layer for layer, count in times.items() if count > 1}
        return shared

    def _left_by(self, gone: "set[str]") -> Layers:
        """What may stay on the disk when images are removed: layers that one that is coming may need."""
        if not self.coming:
            return {}
        shared, here = (
            self._may_be_shared(),
            {layer for n, one in self.present.items() if n not in gone for layer in one},
        )
        lost = {layer: size for name in gone for layer, size in self.present.get(name, {}).items() if layer not in here}
        return {layer: size for layer, size in lost.items() if layer in shared}

    def _left_layers(self) -> Layers:
        return {layer: size for layer, (size, _) in self._left.items()}

    def _settle(self, name: str) -> None:
        """It is known now which layers an image has that was coming, or that it does not come."""
        for layer, (_, users) in list(self._left.items()):
            users.discard(name)
            if not users:
                del self._left[layer]

    def _seen(self, without: Iterable[str] = ()) -> None:
        gone = set(without)
        left = {**self._left_layers(), **self._left_by(gone)}
        here = [layers for name, layers in self.present.items() if name not in gone]
        self.peak = max(self.peak, self._size_of(left, here, whole=True) + sum(self.coming.values()))
