"""Counters that every cache keeps."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CacheInfo:
    """A snapshot of a cache's counters."""

    hits: int
    misses: int
    evictions: int
    size: int
    maxsize: int

    @property
    def hit_rate(self):
        """Hits over look-ups; 0.0 before the first look-up."""
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else 0.0


class Counters:
    """The running counts behind a CacheInfo."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.hits = self.misses = self.evictions = 0

    def snapshot(self, size, maxsize):
        return CacheInfo(self.hits, self.misses, self.evictions, size, maxsize)
