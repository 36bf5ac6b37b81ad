import gc

import pytest

from stash import memoize


@pytest.fixture
def calls():
    return []


def test_remembers(calls):
    @memoize
    def double(x):
        calls.append(x)
        return 2 * x

    assert [double(1), double(1), double(2)] == [2, 2, 4]
    assert calls == [1, 2]
    assert double.cache_info().hits == 1


def test_keeps_name_and_docstring():
    @memoize(maxsize=2)
    def named():
        """What it does."""

    assert named.__name__ == "named"
    assert named.__doc__ == "What it does."


def test_ttl(calls, clock):
    @memoize(ttl=5, timer=clock)
    def now():
        calls.append(1)
        return clock()

    first = now()
    clock.advance(4)
    assert now() == first
    clock.advance(1)
    assert now() == first + 5


def test_clear(calls):
    @memoize
    def call():
        calls.append(1)

    call()
    call.cache_clear()
    call()
    assert len(calls) == 2


def test_order_of_keywords_does_not_matter(calls):
    @memoize
    def call(**kwargs):
        calls.append(kwargs)
        return kwargs["a"] - kwargs["b"]

    assert call(a=1, b=2) == call(b=2, a=1) == -1
    assert len(calls) == 1


def test_lists_and_dicts_count_by_content(calls):
    @memoize
    def total(numbers, weights):
        calls.append(1)
        return sum(numbers)

    assert total([1, 2], {"a": [1]}) == 3
    assert total([1, 2], {"a": [1]}) == 3
    assert total([1, 2, 3], {"a": [1]}) == 6
    assert len(calls) == 2


def test_exceptions_are_not_remembered(calls):
    @memoize
    def fail():
        calls.append(1)
        raise OSError

    for _ in range(2):
        with pytest.raises(OSError):
            fail()
    assert len(calls) == 2


def test_method(calls):
    class Shop:
        def __init__(self, rate):
            self.rate = rate

        @memoize
        def price(self, net):
            calls.append(net)
            return net * self.rate

    one, two = Shop(1), Shop(2)
    assert [one.price(10), two.price(10), one.price(10)] == [10, 20, 10]
    assert calls == [10, 10]
    assert one.price.cache_info().hits == 1


def test_keyword_is_not_confused_with_positional_arguments():
    @memoize
    def call(*args, **kwargs):
        return args, kwargs

    assert call("a", 1) == (("a", 1), {})
    assert call(a=1) == ((), {"a": 1})
    assert call(("a", 1)) == ((("a", 1),), {})


def test_containers_of_different_kind_are_different_arguments():
    @memoize
    def kind(value):
        return type(value).__name__

    values = [[1, 2], (1, 2), {1, 2}, {1: 2}, [(1, 2)], ((1, 2),)]
    assert [kind(value) for value in values] == ["list", "tuple", "set", "dict", "list", "tuple"]


def test_typed_tells_keyword_values_apart():
    @memoize(typed=True)
    def name(value=None):
        return type(value).__name__

    assert [name(1), name(1.0), name(True)] == ["int", "float", "bool"]
    assert [name(value=1), name(value=1.0)] == ["int", "float"]


def test_result_of_a_dead_instance_is_not_given_to_a_new_one():
    class Account:
        __hash__ = None

        def __init__(self, owner):
            self.owner = owner

        @memoize(maxsize=1000)
        def greeting(self):
            return f"Hello {self.owner}"

    for number in range(200):
        account = Account(number)
        assert account.greeting() == f"Hello {number}"
        del account
        gc.collect(0)


def test_equal_instances_do_not_share_results():
    class Box:
        def __init__(self, content):
            self.content = content

        def __eq__(self, other):
            return True

        def __hash__(self):
            return 0

        @memoize
        def look(self):
            return self.content

    assert [Box("a").look(), Box("b").look()] == ["a", "b"]
