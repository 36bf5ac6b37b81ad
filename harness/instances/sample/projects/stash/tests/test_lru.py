import pytest

from stash import LRUCache


def full(**entries):
    cache = LRUCache(maxsize=len(entries))
    cache.update(entries)
    return cache


def test_oldest_leaves_first():
    cache = full(a=1, b=2)
    cache["c"] = 3
    assert list(cache) == ["b", "c"]


def test_reading_makes_young():
    cache = full(a=1, b=2)
    assert cache["a"] == 1
    cache["c"] = 3
    assert list(cache) == ["a", "c"]


def test_peek_does_not():
    cache = full(a=1, b=2)
    assert cache.peek("a") == 1
    cache["c"] = 3
    assert "a" not in cache


def test_overwriting_evicts_nothing():
    cache = full(a=1, b=2)
    cache["a"] = 10
    assert dict(cache.items()) == {"a": 10, "b": 2}
    assert cache.info().evictions == 0


def test_eviction_callback():
    gone = []
    cache = LRUCache(2, on_evict=lambda key, value: gone.append((key, value)))
    for number in range(4):
        cache[number] = number * 10
    del cache[3]
    assert gone == [(0, 0), (1, 10)]


def test_resize_drops_the_oldest():
    cache = full(a=1, b=2, c=3)
    cache.resize(1)
    assert list(cache) == ["c"]
    assert cache.info().evictions == 2


@pytest.mark.parametrize("maxsize", [0, -1])
def test_maxsize_must_be_positive(maxsize):
    with pytest.raises(ValueError, match="at least 1"):
        LRUCache(maxsize)


def test_get_counts():
    cache = full(a=1)
    assert cache.get("a") == 1
    assert cache.get("x") is None
    assert cache.get("x", 5) == 5
    info = cache.info()
    assert (info.hits, info.misses, info.size) == (1, 2, 1)
    assert info.hit_rate == pytest.approx(1 / 3)


@pytest.mark.parametrize("value", [0, "", None, [], False], ids=repr)
def test_get_returns_stored_falsy_values(value):
    cache = LRUCache()
    cache["k"] = value
    assert cache.get("k", "default") == value
    assert cache.info().hits == 1


def test_falsy_values_are_computed_once():
    calls = []
    cache = LRUCache()
    for _ in range(3):
        assert cache.get_or_compute("k", lambda: calls.append(1)) is None
    assert len(calls) == 1


def test_get_or_compute():
    cache = LRUCache()
    assert cache.get_or_compute("a", lambda: 1) == 1
    assert cache.get_or_compute("a", lambda: 2) == 1


def test_clear_forgets_counts():
    cache = full(a=1)
    cache.get("a")
    cache.clear()
    assert len(cache) == 0
    assert cache.info().hits == 0
