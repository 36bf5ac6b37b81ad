import pytest

from stash import TTLCache


@pytest.fixture
def cache(clock):
    return TTLCache(maxsize=3, ttl=10, timer=clock)


def test_entry_expires(cache, clock):
    cache["a"] = 1
    clock.advance(9.9)
    assert cache["a"] == 1
    clock.advance(0.1)
    assert "a" not in cache
    with pytest.raises(KeyError):
        cache["a"]


def test_writing_starts_the_time_anew(cache, clock):
    cache["a"] = 1
    clock.advance(6)
    cache["a"] = 2
    clock.advance(6)
    assert cache["a"] == 2


def test_touch(cache, clock):
    cache["a"] = 1
    clock.advance(6)
    cache.touch("a")
    assert cache.remaining("a") == 10


def test_get_counts_expired_as_miss(cache, clock):
    cache["a"] = 1
    assert cache.get("a") == 1
    clock.advance(10)
    assert cache.get("a", "gone") == "gone"
    info = cache.info()
    assert (info.hits, info.misses) == (1, 1)


def test_stored_none_is_a_value(cache):
    cache["a"] = None
    assert cache.get("a", "default") is None


def test_expired_entries_leave_room(cache, clock):
    cache["a"] = 1
    clock.advance(5)
    cache["b"] = cache["c"] = 2
    clock.advance(5)
    cache["d"] = 3
    assert sorted(cache) == ["b", "c", "d"]
    assert cache.info().evictions == 0


def test_delete_of_expired_entry(cache, clock):
    cache["a"] = 1
    clock.advance(10)
    with pytest.raises(KeyError):
        del cache["a"]


def test_purge_counts(cache, clock):
    cache["a"] = cache["b"] = 1
    clock.advance(10)
    assert cache.purge() == 2


def test_ttl_must_be_positive():
    with pytest.raises(ValueError, match="positive"):
        TTLCache(ttl=0)


def test_len_and_iteration_skip_expired_entries(cache, clock):
    cache["a"] = 1
    clock.advance(6)
    cache["b"] = 2
    clock.advance(6)
    assert len(cache) == 1
    assert list(cache) == ["b"]
    assert cache.info().size == 1


def test_items_and_values_skip_expired_entries(cache, clock):
    cache["a"] = 1
    clock.advance(6)
    cache["b"] = 2
    clock.advance(6)
    assert list(cache.items()) == [("b", 2)]
    assert list(cache.values()) == [2]
    assert dict(cache) == {"b": 2}


def test_entries_may_expire_during_iteration(cache, clock):
    cache["a"], cache["b"] = 1, 2
    seen = []
    for key, value in cache.items():
        seen.append((key, value))
        clock.advance(10)
    assert seen == [("a", 1), ("b", 2)]


def test_cache_may_change_during_iteration(cache):
    cache["a"], cache["b"] = 1, 2
    for key in cache:
        del cache[key]
    assert len(cache) == 0


def test_iteration_does_not_make_entries_young(cache):
    for key in "abc":
        cache[key] = key
    cache["a"]
    list(cache.items())
    cache["d"] = "d"
    assert "b" not in cache
