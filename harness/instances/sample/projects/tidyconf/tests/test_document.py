import pytest

from tidyconf import Document, InterpolationError, MissingKey, load, loads

TEXT = """
name = demo

[paths]
root = /srv/${name}
logs = ${paths.root}/logs

[server]
port = 8080
hosts = one.example,
    two.example
"""


def test_typed_access():
    document = loads(TEXT)
    assert document.get_int("server.port") == 8080
    assert document.get_list("server.hosts") == ["one.example", "two.example"]


def test_interpolation_follows_references():
    assert loads(TEXT).get("paths.logs") == "/srv/demo/logs"


def test_defaults_only_for_missing_keys():
    document = loads("a = ${gone}\n")
    assert document.get("b", None) is None
    assert document.get_int("b", 3) == 3
    with pytest.raises(InterpolationError, match="a refers to gone"):
        document.get("a", "default")


def test_missing_key():
    with pytest.raises(MissingKey, match="no such key: server.name"):
        loads(TEXT).get("server.name")


def test_reference_loop_is_reported():
    with pytest.raises(InterpolationError, match="a -> b -> a"):
        loads("a = ${b}\nb = ${a}\n").get("a")


def test_dollar_is_escaped_by_doubling():
    assert loads("price = $${5}\n").get("price") == "${5}"


def test_environment_reference():
    document = Document({"": {"home": "${env:HOME}", "shell": "${env:SHELL:-/bin/sh}"}}, environ={"HOME": "/root"})
    assert document.get("home") == "/root"
    assert document.get("shell") == "/bin/sh"


def test_later_layer_overrides():
    document = loads(TEXT, "[server]\nport = 9090\n")
    assert document.get_int("server.port") == 9090
    assert document.get_list("server.hosts") == ["one.example", "two.example"]


def test_set_and_remove():
    document = loads(TEXT)
    document.set("server.port", "1")
    assert document.get_int("server.port") == 1
    document.remove("server.port")
    assert "server.port" not in document


def test_set_is_seen_by_values_that_refer_to_it():
    document = loads(TEXT)
    assert document.get("paths.logs") == "/srv/demo/logs"
    document.set("name", "other")
    assert document.get("paths.root") == "/srv/other"
    assert document.get("paths.logs") == "/srv/other/logs"


def test_merge_is_seen_by_values_that_refer_to_it():
    document = loads(TEXT)
    assert document.get("paths.logs") == "/srv/demo/logs"
    document.merge(loads("[paths]\nroot = /tmp\n"))
    assert document.get("paths.logs") == "/tmp/logs"


def test_remove_is_seen_by_values_that_refer_to_it():
    document = loads(TEXT)
    assert document.get("paths.logs") == "/srv/demo/logs"
    document.remove("paths.root")
    with pytest.raises(InterpolationError, match="paths.logs refers to paths.root"):
        document.get("paths.logs")


def test_merged_layer_stays_independent():
    layer = loads("[tls]\ncert = a.pem\n")
    document = loads(TEXT)
    document.merge(layer)
    document.set("tls.cert", "b.pem")
    assert layer.get("tls.cert") == "a.pem"
    assert document.get("tls.cert") == "b.pem"


def test_copy_is_independent():
    document = loads(TEXT)
    clone = document.copy()
    clone.set("name", "clone")
    assert clone.get("paths.logs") == "/srv/clone/logs"
    assert document.get("paths.logs") == "/srv/demo/logs"


def test_load_reads_layers_from_files(tmp_path):
    (tmp_path / "a.conf").write_text("x = 1\ny = ${x}\n")
    (tmp_path / "b.conf").write_text("x = 2\n")
    assert load(tmp_path / "a.conf", tmp_path / "b.conf").get("y") == "2"
