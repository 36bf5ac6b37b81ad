"""Entries that leave after a time."""

import time
from collections.abc import MutableMapping

from .lru import LRUCache

_MISSING = object()


class TTLCache(MutableMapping):
    """An LRU cache whose entries also expire `ttl` seconds after they were written.

    An expired entry is never seen: not by look-ups, not by `in`, `len()` or iteration. `timer` is a function that tells
    the time in seconds (for tests, a fake one).
    """

    def __init__(self, maxsize=128, ttl=60.0, timer=time.monotonic):
        if ttl <= 0:
            raise ValueError(f"ttl must be positive, is {ttl}")
        self.ttl = ttl
        self._timer = timer
        self._cache = LRUCache(maxsize)  # key -> (expiry, value)

    # --- mapping

    def __getitem__(self, key):
        expiry, value = self._cache[key]
        if expiry <= self._timer():
            del self._cache[key]
            raise KeyError(key)
        return value

    def __setitem__(self, key, value):
        if key not in self._cache:
            self.purge()  # an expired entry must not cost a living one its place
        self._cache[key] = (self._timer() + self.ttl, value)

    def __delitem__(self, key):
        self[key]  # an expired entry is no entry
        del self._cache[key]

    def __iter__(self):
        self.purge()
        return iter(self._cache)

    def __len__(self):
        self.purge()
        return len(self._cache)

    def __contains__(self, key):
        expiry, _ = self._cache.peek(key, (0, None))
        return key in self._cache and expiry > self._timer()

    def items(self):
        """The living (key, value) pairs, as they are now: safe to keep while the cache changes."""
        self.purge()
        return [(key, self._cache.peek(key)[1]) for key in self._cache]

    def values(self):
        """The living values, as they are now."""
        return [value for _, value in self.items()]

    # ---

    def get(self, key, default=None):
        """The value of `key`, counted as a hit, or `default`, counted as a miss."""
        if key not in self and self._cache.peek(key) is not None:
            del self._cache[key]
        entry = self._cache.get(key)
        return default if entry is None else entry[1]

    def get_or_compute(self, key, compute):
        value = self.get(key, _MISSING)
        if value is _MISSING:
            value = self[key] = compute()
        return value

    def remaining(self, key):
        """Seconds until `key` expires; KeyError if it has or never was."""
        self[key]
        return self._cache.peek(key)[0] - self._timer()

    def touch(self, key):
        """Start the time of `key` anew."""
        self[key] = self[key]

    def purge(self):
        """Drop what has expired; how many entries that were."""
        now = self._timer()
        expired = [key for key in self._cache if self._cache.peek(key)[0] <= now]
        for key in expired:
            del self._cache[key]
        return len(expired)

    def clear(self):
        self._cache.clear()

    def info(self):
        self.purge()
        return self._cache.info()
