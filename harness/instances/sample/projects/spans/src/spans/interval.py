"""One half-open interval [start, end)."""

from dataclasses import dataclass
from typing import Any

from .timeline import elapsed


@dataclass(frozen=True, order=True)
class Interval:
    """All x with start <= x < end. The bounds may be numbers, dates, datetimes: anything that can be ordered."""

    start: Any
    end: Any

    def __post_init__(self):
        if self.end < self.start:
            raise ValueError(f"the interval ends before it starts: [{self.start}, {self.end})")

    def __bool__(self):
        return self.start < self.end

    def __contains__(self, point):
        return self.start <= point < self.end

    def __str__(self):
        return f"[{self.start}, {self.end})"

    @property
    def duration(self):
        """The length. Between aware datetimes this is real time, whatever the clocks did meanwhile."""
        return elapsed(self.start, self.end)

    def overlaps(self, other):
        """Whether the two share a point. Intervals that only touch do not."""
        return self.start < other.end and other.start < self.end

    def touches(self, other):
        """Whether one begins where the other ends."""
        return self.end == other.start or other.end == self.start

    def covers(self, other):
        """Whether every point of `other` is in this interval."""
        return not other or (self.start <= other.start and other.end <= self.end)

    def intersection(self, other):
        """The common part, or None."""
        if not self.overlaps(other):
            return None
        return Interval(max(self.start, other.start), min(self.end, other.end))

    def union(self, other):
        """One interval over both; they must overlap or touch."""
        if not (self.overlaps(other) or self.touches(other)):
            raise ValueError(f"no single interval covers exactly {self} and {other}")
        return Interval(min(self.start, other.start), max(self.end, other.end))

    def difference(self, other):
        """What is left without `other`: a list of none, one or two intervals."""
        if not self.overlaps(other):
            return [self] if self else []
        parts = [Interval(self.start, max(self.start, other.start)), Interval(min(self.end, other.end), self.end)]
        return [part for part in parts if part]
