import pytest

from wayfind.query import build_query, split_target


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/a", ("/a", {})),
        ("/a?b=1", ("/a", {"b": ["1"]})),
        ("/a?b=1&b=2#c", ("/a", {"b": ["1", "2"]})),
        ("/a?b=", ("/a", {"b": [""]})),
        ("/a?q=x+y%26z", ("/a", {"q": ["x y&z"]})),
        ("?b=1", ("/", {"b": ["1"]})),
    ],
)
def test_split_target(target, expected):
    assert split_target(target) == expected


@pytest.mark.parametrize(
    ("params", "query"),
    [
        ({}, ""),
        ({"a": None}, ""),
        ({"a": 1}, "?a=1"),
        ({"a": [1, 2], "b": True}, "?a=1&a=2&b=true"),
        ({"q": "x y&z"}, "?q=x+y%26z"),
    ],
)
def test_build_query(params, query):
    assert build_query(params) == query
