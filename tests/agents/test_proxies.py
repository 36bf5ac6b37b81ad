"""A proxy in the environment: servers of this machine are called past it, others name it when they fail."""

import socket
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from typer.testing import CliRunner

from aem_harness.aem_checkpoints import client
from aem_harness.agents.policy import EndpointPolicy, Retry, served_models
from aem_harness.agents.refusals import token_count
from aem_harness.cli import app
from aem_harness.harness.errors import ConfigError, PolicyFault
from aem_harness.harness.web import is_loopback, proxy_of, reserve_port
from tests.agents.model_server import Handler, chat, model_server, say

HELLO = [{"role": "user", "content": "u"}]


@pytest.fixture
def dead_proxy(monkeypatch):
    """Every kind of call is told to go through a proxy that is not there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://user:secret@127.0.0.1:{free.getsockname()[1]}"
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, address)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        yield f"127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.8.9.1", "[::1]", "0.0.0.0", "LOCALHOST", "a.localhost"]
)
def test_addresses_of_this_machine_are_known(host):
    assert is_loopback(f"http://{host}:8000/v1")
    assert is_loopback(f"{host}:8000")


@pytest.mark.parametrize("host", ["10.0.0.1", "model.example", "localhost.example", "127.example"])
def test_other_addresses_are_not_taken_for_them(host):
    assert not is_loopback(f"http://{host}:8000/v1")


def test_a_server_of_this_machine_is_called_past_the_proxy(dead_proxy, monkeypatch):
    monkeypatch.setattr(Handler, "do_GET", lambda handler: handler.send_json({"data": [{"id": "tiny"}]}))
    with model_server(say("hello")) as server, EndpointPolicy("tiny", [server.url], retry=Retry(attempts=1)) as policy:
        assert policy.complete(HELLO).content == "hello"
        assert served_models(server.url) == ["tiny"]
        assert client.health(server.url) is client.Health.READY
        assert client.ask(f"{server.url}/models")
        server.answer = lambda handler, request: handler.send_json({**chat("x"), "count": 7})
        assert token_count(server.url, None, "tiny", HELLO) == 7


def test_the_error_of_another_endpoint_names_the_proxy_and_not_its_password(dead_proxy):
    assert proxy_of("http://model.example:8000/v1") == dead_proxy
    with pytest.raises(PolicyFault, match=f"through the proxy {dead_proxy}") as caught:
        served_models("http://model.example:8000/v1", seconds=5)
    assert "secret" not in str(caught.value)
    with EndpointPolicy("m", ["http://model.example:8000/v1"], retry=Retry(attempts=1)) as policy:
        with pytest.raises(PolicyFault, match=f"through the proxy {dead_proxy}") as caught:
            policy.complete(HELLO)
    assert "secret" not in str(caught.value)


def test_calls_go_through_the_proxy_with_its_password(monkeypatch):
    asked = []

    def answer(handler, request):
        asked.append((handler.path, handler.headers["proxy-authorization"]))
        handler.send_json(chat("by the proxy"))

    with model_server(answer) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1").replace("//", "//user:secret@"))
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        with EndpointPolicy("m", ["http://model.example:8000/v1"], retry=Retry(attempts=1)) as policy:
            assert policy.complete(HELLO).content == "by the proxy"
    credentials = b64encode(b"user:secret").decode()
    assert asked == [("http://model.example:8000/v1/chat/completions", f"Basic {credentials}")]


def test_a_proxy_that_is_no_http_proxy_is_a_wrong_setting(monkeypatch):
    monkeypatch.setenv("http_proxy", "socks5://user:secret@proxy.example:1080")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(ConfigError, match=r"proxy proxy\.example:1080, which is no HTTP proxy") as caught:
        EndpointPolicy("m", ["http://model.example:8000/v1"])
    assert "secret" not in str(caught.value)


def test_a_host_that_no_proxy_excepts_has_none(dead_proxy, monkeypatch):
    monkeypatch.setenv("no_proxy", "model.example")
    assert proxy_of("http://model.example:8000/v1") == ""


def doctor(url, *words):
    return CliRunner().invoke(app, ["doctor", "--set", "sample", "--endpoint", url, *words])


def test_doctor_holds_max_tokens_against_the_context_of_the_server(monkeypatch):
    about = {"id": "tiny", "object": "model", "max_model_len": 4096}
    monkeypatch.setattr(Handler, "do_GET", lambda handler: handler.send_json({"object": "list", "data": [about]}))
    with model_server(lambda handler, request: handler.send_json({"count": 20})) as server:
        fits = " ".join(doctor(server.url, "-c", "sampling.max_tokens=512").output.split())
        assert "tiny: 4096 tokens, max_tokens 512" in fits
        assert "its chat template ignores `tools`" in fits
        shown = doctor(server.url, "-c", "sampling.max_tokens=5000")
        assert shown.exit_code == 3
        assert "does not fit the server's context of 4096 tokens" in " ".join(shown.output.split())


def test_a_reserved_port_is_free_for_the_server_that_it_is_meant_for_also_after_its_restart():
    with reserve_port() as kept:
        address = kept.getsockname()
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address, timeout=30)
            with HTTPServer(address, BaseHTTPRequestHandler):
                socket.create_connection(address, timeout=30).close()
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(address)  # as a program would that does not share it
    with socket.socket() as other:
        other.bind(address)
