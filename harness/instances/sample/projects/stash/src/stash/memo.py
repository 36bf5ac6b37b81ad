"""A decorator that remembers results."""

import time
from functools import update_wrapper
from types import MethodType

from .keys import Identity, make_key
from .lru import LRUCache
from .ttl import TTLCache


class Memoized:
    """A function with a cache. Used in a class body, it keeps one key space for each instance."""

    def __init__(self, function, cache, typed):
        self._function = function
        self._cache = cache
        self._typed = typed
        update_wrapper(self, function)

    def __call__(self, *args, **kwargs):
        key = make_key(args, kwargs, self._typed)
        return self._cache.get_or_compute(key, lambda: self._function(*args, **kwargs))

    def __get__(self, instance, owner=None):
        return self if instance is None else MethodType(_OfInstance(self), instance)

    def cache_info(self):
        return self._cache.info()

    def cache_clear(self):
        self._cache.clear()


class _OfInstance:
    """A memoized method: `self` is told apart by identity, whatever its class thinks of equality."""

    def __init__(self, memoized):
        self._memoized = memoized

    def __call__(self, instance, *args, **kwargs):
        memoized = self._memoized
        key = (Identity(instance), make_key(args, kwargs, memoized._typed))
        return memoized._cache.get_or_compute(key, lambda: memoized._function(instance, *args, **kwargs))

    def __getattr__(self, name):
        return getattr(self._memoized, name)


def memoize(function=None, *, maxsize=128, ttl=None, typed=False, timer=time.monotonic):
    """Remember the results of a function, for `ttl` seconds if given. Works with and without parentheses."""

    def decorate(wrapped):
        cache = LRUCache(maxsize) if ttl is None else TTLCache(maxsize, ttl, timer)
        return Memoized(wrapped, cache, typed)

    return decorate if function is None else decorate(function)
