import pytest

from wayfind import BuildError, Converter, MethodNotAllowed, NotFound, PatternError, Router


@pytest.fixture
def router():
    router = Router()
    router.add("GET", "/", "home", name="home")
    router.add("GET", "/users/<int:id>", "show user", name="user")
    router.add("GET", "/users/<name>", "find user")
    router.add("GET", "/users/me", "show me")
    router.add("GET", "/files/<path:file>", "send file", name="file")
    return router


@pytest.mark.parametrize(
    ("target", "handler"),
    [
        ("/", "home"),
        ("/users/7", "show user"),
        ("/users/ada", "find user"),
        ("/users/me", "show me"),
        ("/files/a/b", "send file"),
    ],
    ids=["root", "int", "str", "static", "path"],
)
def test_the_most_specific_route_wins(router, target, handler):
    assert router.match("GET", target).handler == handler


def test_params_and_query(router):
    match = router.match("get", "/users/7?tab=posts&tag=a&tag=b#top")
    assert match.params == {"id": 7}
    assert match.query == {"tab": ["posts"], "tag": ["a", "b"]}


def test_get_route_answers_head(router):
    assert router.match("HEAD", "/").handler == "home"


def test_not_found(router):
    with pytest.raises(NotFound, match="GET /nothing"):
        router.match("GET", "/nothing")


def test_method_not_allowed(router):
    with pytest.raises(MethodNotAllowed) as caught:
        router.match("POST", "/")
    assert caught.value.allowed == ["GET", "HEAD"]


def test_url_for(router):
    assert router.url_for("user", id=7) == "/users/7"
    assert router.url_for("user", id=7, tab="posts", tag=["a", "b"], q=None) == "/users/7?tab=posts&tag=a&tag=b"


@pytest.mark.parametrize(("name", "params"), [("nobody", {}), ("user", {}), ("user", {"id": "x"})])
def test_url_for_refuses(router, name, params):
    with pytest.raises(BuildError):
        router.url_for(name, **params)


def test_a_name_belongs_to_one_path(router):
    with pytest.raises(PatternError, match="already belongs"):
        router.add("GET", "/elsewhere", "x", name="home")


def test_mount():
    inner, outer = Router(), Router()
    inner.add("GET", "/<int:id>", "show", name="show")
    outer.mount("/api/users", inner)
    assert outer.match("GET", "/api/users/3").params == {"id": 3}
    assert outer.url_for("api.users.show", id=3) == "/api/users/3"


def test_own_converter():
    class Hex(Converter):
        regex = "[0-9a-f]+"

        def to_python(self, text):
            return int(text, 16)

        def to_text(self, value):
            return f"{value:x}"

    router = Router({"hex": Hex()})
    router.add("GET", "/c/<hex:colour>", "colour", name="colour")
    assert router.match("GET", "/c/ff").params == {"colour": 255}
    assert router.url_for("colour", colour=255) == "/c/ff"


def test_routes_of_one_path_by_method():
    router = Router()
    router.add("GET", "/items", "list")
    router.add("POST", "/items", "create")
    router.add("DELETE", "/items", "clear")
    assert [router.match(method, "/items").handler for method in ("GET", "POST", "DELETE")] == ["list", "create", "clear"]


def test_a_less_specific_route_may_have_the_method(router):
    router.add("PUT", "/users/<name>", "rename user")
    match = router.match("PUT", "/users/me")
    assert (match.handler, match.params) == ("rename user", {"name": "me"})


def test_allowed_methods_of_all_routes_of_a_path(router):
    router.add("PUT", "/users/<name>", "rename user")
    router.add("DELETE", "/users/<int:id>", "delete user")
    with pytest.raises(MethodNotAllowed) as caught:
        router.match("PATCH", "/users/7")
    assert caught.value.allowed == ["DELETE", "GET", "HEAD", "PUT"]
    assert router.allowed_methods("/users/7") == ["DELETE", "GET", "HEAD", "PUT"]


def test_url_for_encodes_what_match_decodes(router):
    url = router.url_for("file", file="reports 2024/50% & more?.txt")
    assert url == "/files/reports%202024/50%25%20%26%20more%3F.txt"
    assert router.match("GET", url).params == {"file": "reports 2024/50% & more?.txt"}


def test_an_encoded_slash_does_not_split_a_segment():
    router = Router()
    router.add("GET", "/tags/<tag>", "tag", name="tag")
    router.add("GET", "/tags/<tag>/<int:page>", "page")
    assert router.match("GET", router.url_for("tag", tag="and/1")).handler == "tag"


def test_a_parameter_may_be_called_name():
    router = Router()
    router.add("GET", "/users/<name>", "user", name="user")
    assert router.url_for("user", name="ada") == "/users/ada"
    assert router.url_for("user", name="ada", self="x") == "/users/ada?self=x"
