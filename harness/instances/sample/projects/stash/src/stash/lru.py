"""The least recently used entry leaves first."""

from collections import OrderedDict
from collections.abc import MutableMapping

from .stats import Counters

_MISSING = object()


class LRUCache(MutableMapping):
    """A mapping of at most `maxsize` entries; reading or writing an entry makes it the youngest.

    `on_evict(key, value)` is called for every entry that leaves for want of room (not for deletions).
    """

    def __init__(self, maxsize=128, on_evict=None):
        if maxsize < 1:
            raise ValueError(f"maxsize must be at least 1, is {maxsize}")
        self.maxsize = maxsize
        self._on_evict = on_evict
        self._entries = OrderedDict()
        self._counters = Counters()

    # --- mapping

    def __getitem__(self, key):
        value = self._entries[key]
        self._entries.move_to_end(key)
        return value

    def __setitem__(self, key, value):
        if key not in self._entries:
            self._make_room(1)
        self._entries[key] = value
        self._entries.move_to_end(key)

    def __delitem__(self, key):
        del self._entries[key]

    def __iter__(self):
        return iter(list(self._entries))

    def __len__(self):
        return len(self._entries)

    def __contains__(self, key):
        return key in self._entries

    def __repr__(self):
        return f"{type(self).__name__}({dict(self._entries)!r}, maxsize={self.maxsize})"

    # --- reading with counting

    def get(self, key, default=None):
        """The value of `key`, counted as a hit, or `default`, counted as a miss."""
        value = self._entries.get(key, _MISSING)
        if value is _MISSING:
            self._counters.misses += 1
            return default
        self._counters.hits += 1
        self._entries.move_to_end(key)
        return value

    def get_or_compute(self, key, compute):
        """The value of `key`, computed by `compute()` and kept if it is not there."""
        value = self.get(key, _MISSING)
        if value is _MISSING:
            value = self[key] = compute()
        return value

    def peek(self, key, default=None):
        """The value without counting and without making it young."""
        return self._entries.get(key, default)

    # --- size

    def resize(self, maxsize):
        """Change the limit; what no longer fits leaves, oldest first."""
        if maxsize < 1:
            raise ValueError(f"maxsize must be at least 1, is {maxsize}")
        self.maxsize = maxsize
        self._make_room(0)

    def clear(self):
        """Forget all entries and counts."""
        self._entries.clear()
        self._counters.reset()

    def info(self):
        return self._counters.snapshot(len(self), self.maxsize)

    def _make_room(self, wanted):
        while len(self._entries) + wanted > self.maxsize:
            key, value = self._entries.popitem(last=False)
            self._counters.evictions += 1
            if self._on_evict:
                self._on_evict(key, value)
