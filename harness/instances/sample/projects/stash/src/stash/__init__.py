"""In-process caches: LRU, expiring, and a memoizing decorator."""

from .lru import LRUCache
from .memo import memoize
from .stats import CacheInfo
from .ttl import TTLCache

__all__ = ["CacheInfo", "LRUCache", "TTLCache", "memoize"]
__version__ = "1.6.1"
