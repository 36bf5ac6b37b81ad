import uuid

import pytest

from wayfind import BuildError, Pattern, PatternError


@pytest.mark.parametrize(
    ("pattern", "path", "params"),
    [
        ("/", "/", {}),
        ("/about", "/about", {}),
        ("/users/<int:id>", "/users/7", {"id": 7}),
        ("/users/<name>", "/users/ada", {"name": "ada"}),
        ("/files/<path:name>", "/files/a/b.txt", {"name": "a/b.txt"}),
        ("/<slug:a>/<slug:b>", "/x-1/y_2", {"a": "x-1", "b": "y_2"}),
    ],
    ids=["root", "static", "int", "str", "path", "two"],
)
def test_match(pattern, path, params):
    assert Pattern(pattern).match(path) == params


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/about", "/about/"),
        ("/users/<int:id>", "/users/ada"),
        ("/users/<name>", "/users/a/b"),
        ("/users/<name>", "/users/"),
    ],
    ids=["slash", "not_int", "two_segments", "empty"],
)
def test_no_match(pattern, path):
    assert Pattern(pattern).match(path) is None


def test_uuid():
    value = uuid.UUID(int=7)
    assert Pattern("/j/<uuid:id>").match(f"/j/{value}") == {"id": value}


@pytest.mark.parametrize("text", ["about", "/<int:id", "/<what:id>", "/<a>/<a>", "/a>"])
def test_bad_patterns(text):
    with pytest.raises(PatternError):
        Pattern(text)


def test_build():
    assert Pattern("/users/<int:id>/<tab>").build({"id": 7, "tab": "posts"}) == "/users/7/posts"


@pytest.mark.parametrize(
    ("params", "message"),
    [({}, "needs id"), ({"id": "x"}, "id of"), ({"id": -1}, "whole number")],
    ids=["missing", "text", "negative"],
)
def test_build_refuses(params, message):
    with pytest.raises(BuildError, match=message):
        Pattern("/users/<int:id>").build(params)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [("/v1.0/status", "/v1x0/status"), ("/a+b", "/aab"), ("/(x)", "/x"), ("/feed.<kind>", "/feedxrss")],
    ids=["dot", "plus", "parentheses", "dot_before_parameter"],
)
def test_static_text_is_literal(pattern, path):
    assert Pattern(pattern).match(path) is None


@pytest.mark.parametrize("path", ["/v1.0/status", "/a+b", "/(x)"])
def test_static_text_matches_itself(path):
    assert Pattern(path).match(path) == {}


@pytest.mark.parametrize(
    ("path", "name"),
    [("/f/a%20b", "a b"), ("/f/50%25", "50%"), ("/f/caf%C3%A9", "café"), ("/f/a%2Fb", "a/b"), ("/f/a+b", "a+b")],
    ids=["space", "percent", "unicode", "slash", "plus"],
)
def test_parameters_are_decoded(path, name):
    assert Pattern("/f/<name>").match(path) == {"name": name}


@pytest.mark.parametrize(
    "name",
    ["a b", "50%", "café", "a/b", "a?b#c", "%2F"],
    ids=["space", "percent", "unicode", "slash", "delimiters", "encoded_slash"],
)
def test_built_paths_match_back(name):
    pattern = Pattern("/f/<name>/raw")
    path = pattern.build({"name": name})
    assert path.isascii()
    assert not set(path) & set(" ?#")
    assert pattern.match(path) == {"name": name}


def test_path_parameter_keeps_its_slashes():
    pattern = Pattern("/f/<path:name>")
    assert pattern.build({"name": "my docs/a.txt"}) == "/f/my%20docs/a.txt"
    assert pattern.match("/f/my%20docs/a.txt") == {"name": "my docs/a.txt"}


def test_static_text_may_need_encoding():
    assert Pattern("/über/<name>").match("/%C3%BCber/x") == {"name": "x"}
    assert Pattern("/über/<name>").build({"name": "x"}) == "/%C3%BCber/x"


def test_decoded_text_that_no_url_can_carry():
    with pytest.raises(BuildError, match="cannot be"):
        Pattern("/f/<slug:name>").build({"name": "a b"})
