"""A set of points kept as sorted, disjoint, non-touching intervals."""

from bisect import bisect_left, bisect_right

from .interval import Interval


class IntervalSet:
    """The union of intervals. Adding merges what overlaps or touches, so equal sets have equal intervals."""

    def __init__(self, intervals=()):
        self._intervals = []
        for interval in intervals:
            self.add(interval)

    # --- looking

    def __iter__(self):
        return iter(self._intervals)

    def __len__(self):
        return len(self._intervals)

    def __bool__(self):
        return bool(self._intervals)

    def __eq__(self, other):
        return self._intervals == other._intervals if isinstance(other, IntervalSet) else NotImplemented

    def __repr__(self):
        return f"IntervalSet({' '.join(map(str, self._intervals))})"

    def __contains__(self, point):
        position = bisect_right(self._intervals, point, key=lambda interval: interval.start) - 1
        return position >= 0 and point in self._intervals[position]

    def covers(self, interval):
        """Whether every point of `interval` is in the set."""
        return not interval or any(own.covers(interval) for own in self._intervals)

    def overlapping(self, interval):
        """The intervals of the set that share a point with `interval`, in order."""
        first = bisect_right(self._intervals, interval.start, key=lambda own: own.end)
        last = bisect_left(self._intervals, interval.end, key=lambda own: own.start)
        return self._intervals[first:last] if interval else []

    @property
    def span(self):
        """The smallest interval over the whole set, None when empty."""
        return Interval(self._intervals[0].start, self._intervals[-1].end) if self._intervals else None

    def total(self, zero=0):
        """The summed length; pass the zero of the unit, such as timedelta(), for datetimes."""
        return sum((interval.duration for interval in self._intervals), zero)

    def gaps(self, within=None):
        """The set of points of `within` (default: the span) that are not in the set."""
        within = within or self.span
        return IntervalSet() if within is None else IntervalSet([within]) - self

    # --- changing

    def add(self, interval):
        """Put every point of `interval` into the set."""
        if not interval:
            return
        first = bisect_left(self._intervals, interval.start, key=lambda own: own.end)
        last = bisect_right(self._intervals, interval.end, key=lambda own: own.start)
        for own in self._intervals[first:last]:
            interval = interval.union(own)
        self._intervals[first:last] = [interval]

    def discard(self, interval):
        """Take every point of `interval` out of the set."""
        self._intervals = [part for own in self._intervals for part in own.difference(interval)]

    # --- combining

    def __or__(self, other):
        return IntervalSet([*self, *other])

    def __sub__(self, other):
        result = IntervalSet(self)
        for interval in other:
            result.discard(interval)
        return result

    def __and__(self, other):
        common = (own.intersection(theirs) for own in self for theirs in other.overlapping(own))
        return IntervalSet(interval for interval in common if interval)
