"""The endpoint client against a real HTTP server, well-behaved and not."""

import gzip
import json
import math
import shutil
import socket
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import MappingProxyType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aem_harness.agents.calls import STALE, seconds_of
from aem_harness.agents.policy import EndpointPolicy, Retry, Sampling, served_models
from aem_harness.agents.refusals import base_url, unanswered
from aem_harness.agents.reply import NOTHING_LEFT, Unreadable, read_reply
from aem_harness.harness.errors import ConfigError, PolicyFault
from aem_harness.harness.run.thoughts import ALL_REASONING
from aem_harness.harness.web import reserve_port, trusted
from tests.agents.model_server import Handler, ModelServer, chat, model_server, say

HELLO = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
QUICK = Retry(attempts=3, first=0.001, cap=0.002, timeouts=2, seconds=60)
HURRIED = QUICK.model_copy(update={"seconds": 1.5})


def ask(answer, sampling=None, *, retry=QUICK, seed=0, messages=HELLO):
    """One completion from a server that answers so; returns it with the requests that were made."""
    with model_server(answer) as server, EndpointPolicy("tiny", [server.url], sampling, retry=retry) as policy:
        return policy.complete(messages, seed=seed), server.requests


def failing(*answers, then="fine"):
    """Fail in the given ways, one call each, then answer."""
    rest = list(answers)

    def answer(handler: Handler, request):
        if rest:
            rest.pop(0)(handler)
        else:
            handler.send_json(chat(then))

    return answer


def http(status, message="no", **headers):
    return lambda handler: handler.send_json({"error": {"message": message}}, status, **headers)


FAULTS = {
    "HTTP 500": http(500),
    "HTTP 502": http(502),
    "HTTP 503": http(503),
    "HTTP 429": http(429),
    "HTTP 408": http(408),
    "reset": lambda handler: handler.reset(),
    "half a body": lambda handler: handler.send_bytes(b'{"id": "x", "choi', length=5000),
    "half a JSON": lambda handler: handler.send_bytes(json.dumps(chat("hello")).encode()[:60]),
    "not JSON": lambda handler: handler.send_bytes(b"<html>gateway</html>"),
    "binary": lambda handler: handler.send_bytes(bytes(range(256))),
    "no choices": lambda handler: handler.send_json({**chat("x"), "choices": []}),
    "choices null": lambda handler: handler.send_json({**chat("x"), "choices": None}),
    "a list": lambda handler: handler.send_json([chat("x")]),
    "no message": lambda handler: handler.send_json(chat(None)),
    "message is text": lambda handler: handler.send_json(
        {**chat("x"), "choices": [{"message": "x", "finish_reason": "stop"}]}
    ),
    "aborted": lambda handler: handler.send_json(chat("half a sen", finish_reason="abort")),
    "deeply nested": lambda handler: handler.send_bytes(b"[" * 200_000),
    "silent": lambda handler: time.sleep(2 * HURRIED.seconds),
}


def patience(name):
    return HURRIED if name == "silent" else QUICK


def test_a_completion_carries_everything_the_server_said():
    completion, requests = ask(say("hello"), Sampling(temperature=0.7, top_k=20, max_tokens=99, stop=("X",)))
    assert completion.content == "hello"
    assert (completion.prompt_tokens, completion.completion_tokens) == (11, 7)
    assert (completion.finish_reason, completion.model, completion.request_id) == ("stop", "tiny", "r-1")
    assert completion.seconds > 0
    assert completion.retries == 0
    assert completion.anomalies == ()
    sent = requests[0]
    assert (sent["temperature"], sent["top_p"], sent["top_k"], sent["max_tokens"]) == (0.7, 1.0, 20, 99)
    assert sent["stop"] == ["X"]
    assert "logprobs" not in sent
    assert "tools" not in sent


@pytest.mark.parametrize(
    ("metrics", "seconds"),
    [
        ({"queue_time_ms": 250.0, "time_to_first_token_ms": 3.0}, 0.25),
        ({"queue_time_ms": 0}, 0.0),
        ({"queue_time_ms": None}, None),
        ({"queue_time_ms": "soon"}, None),
        ({"queue_time_ms": float("nan")}, None),
        ({"queue_time_ms": -1}, None),
        ({}, None),
        (["queue_time_ms"], None),
        (None, None),
    ],
)
def test_the_time_in_the_server_s_queue_is_what_the_server_says_or_unknown(metrics, seconds):
    completion, _ = ask(lambda handler, request: handler.send_json(chat("x", metrics=metrics)))
    assert completion.server_queue_seconds == seconds
    assert completion.anomalies == ()


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_server_is_tried_again_and_counted(name):
    completion, _ = ask(failing(FAULTS[name]), retry=patience(name))
    assert completion.content == "fine"
    assert completion.retries == 1
    assert completion.queue_seconds > 0


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_stays_is_infrastructure_in_the_end(name):
    with pytest.raises(PolicyFault, match="look at the server's log") as caught:
        ask(failing(*[FAULTS[name]] * 5), retry=patience(name))
    assert "\n" not in str(caught.value)


def test_a_server_that_drips_runs_into_the_time_limit():
    def drip(handler, request):
        handler.send_response(200)
        handler.send_header("content-length", "1000000")
        handler.end_headers()
        for _ in range(200):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.02)

    with pytest.raises(PolicyFault, match="did not end in time"):
        ask(drip, retry=HURRIED)


def test_an_unknown_model_names_those_that_are_served():
    with pytest.raises(PolicyFault, match=r"does not serve 'tiny' \(it serves: tiny\)"):
        ask(failing(http(404, "The model `tiny` does not exist.")))


def test_a_refused_key_says_where_to_put_one():
    with pytest.raises(PolicyFault, match="set OPENAI_API_KEY"):
        ask(failing(http(401, "no")))


def test_a_refused_request_is_not_repeated():
    calls = []

    def answer(handler, request):
        calls.append(request)
        handler.send_json({"error": {"message": "temperature must be\n non-negative"}}, 400)

    with pytest.raises(PolicyFault, match="temperature must be non-negative"):
        ask(answer)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [('{"command": "ls', True), ("[1]", True), ('{"command": "ls"}', False), ({}, False)],
)
def test_a_refused_conversation_with_a_malformed_call_is_told_from_other_refusals(arguments, named):
    """Servers disagree about such a call (findings/vllm-empties-a-malformed-call-that-sglang-refuses.sh)."""
    call = {"id": "1", "type": "function", "function": {"name": "bash", "arguments": arguments}}
    said = {"role": "assistant", "content": "", "tool_calls": [{"id": "0"}, call]}
    with pytest.raises(PolicyFault, match="must be valid JSON") as fault:
        ask(failing(http(400, "arguments must be valid JSON.")), messages=[*HELLO, said])
    assert ("holds a tool call whose arguments are no JSON object" in str(fault.value)) is named


def test_retry_after_is_heeded_up_to_the_cap():
    retry = Retry(first=0.5, cap=30)
    assert 0.25 <= retry.wait(1) <= 0.5
    assert 1 <= retry.wait(3) <= 2
    assert retry.wait(50) <= 30
    assert retry.wait(1, retry_after=7) == 7
    assert retry.wait(1, retry_after=600) == 30


def test_retry_after_is_seconds_or_a_date():
    assert seconds_of("7") == 7
    assert 15 < seconds_of(format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)) <= 20
    for nothing in ("", "soon", "-3", "nan", "inf", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 99 Oct 2015 07:28:00 GMT"):
        assert seconds_of(nothing) == 0, nothing
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
    patient = QUICK.model_copy(update={"cap": 60.0})
    completion, _ = ask(failing(http(429, retry_after=date)), retry=patient)
    assert completion.queue_seconds >= 1, "a date has whole seconds"


def closing_idle(how):
    """Answer the first call of every connection, and close it at the next one."""

    def answer(handler: Handler, request):
        handler.used = getattr(handler, "used", 0) + 1
        if handler.used > 1:
            how(handler)
        else:
            handler.send_json(chat("fine"))

    return answer


def hang_up(handler):
    handler.close_connection = True


@pytest.mark.parametrize("how", [hang_up, Handler.reset])
def test_a_connection_that_the_server_closed_while_it_was_idle_is_no_failure(how):
    """It cost an attempt, and with several endpoints the prefix cache: the next one was asked."""
    with model_server(closing_idle(how)) as server, EndpointPolicy("tiny", [server.url], retry=QUICK) as policy:
        said = [policy.complete(HELLO, seed=0) for _ in range(4)]
    assert [one.content for one in said] == ["fine"] * 4
    assert [one.retries for one in said] == [0] * 4


def test_a_server_that_closes_every_connection_fails_in_the_end():
    """What is answered once a process must not be asked for ever."""
    first = threading.Event()

    def answer(handler: Handler, request):
        if first.is_set():
            hang_up(handler)
        else:
            first.set()
            handler.send_json(chat("fine"))

    with model_server(answer) as server, EndpointPolicy("tiny", [server.url], retry=QUICK) as policy:
        assert policy.complete(HELLO, seed=0).content == "fine"
        with pytest.raises(PolicyFault, match="failed 3 times"):
            policy.complete(HELLO, seed=0)
        assert len(server.requests) <= 1 + QUICK.attempts + STALE


def test_a_damaged_compressed_reply_is_a_broken_reply():
    broken = gzip.compress(json.dumps(chat("x")).encode())[:-12] + b"\0" * 12
    completion, _ = ask(failing(lambda handler: handler.send_bytes(broken, content_encoding="gzip")))
    assert (completion.content, completion.retries) == ("fine", 1)


@pytest.mark.parametrize(
    "url", ["http://", "http://:8000/v1", "http://host:x/v1", "ftp://host/v1", "http://[::1/v1", "http://host:99999"]
)
def test_an_endpoint_that_is_no_address_is_a_wrong_setting(url):
    with pytest.raises(ConfigError, match="is no address of a model server"):
        EndpointPolicy("m", [url])


def test_an_endpoint_with_a_password_is_refused_without_showing_it():
    """Each call ended in an error of the HTTP client that was taken for the agent's own."""
    with pytest.raises(ConfigError, match=r"http://host:8000/v1 is given with a user name") as caught:
        EndpointPolicy("m", ["http://user:secret@host:8000/v1"])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("host:8000", "http://host:8000/v1"),
        ("http://host:8000/", "http://host:8000/v1"),
        ("http://host/gateway/v1//", "http://host/gateway/v1"),
        ("[::1]:8000", "http://[::1]:8000/v1"),
        (" https://host ", "https://host/v1"),
    ],
)
def test_addresses_as_people_write_them(given, base):
    assert base_url(given) == base


def test_a_server_is_reached_by_its_ipv6_address():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")

    class Six(ModelServer):
        address_family = socket.AF_INET6
        address = "::1"

    with model_server(say("by six"), Six) as server:
        url = f"http://[::1]:{server.server_address[1]}/v1/"
        with EndpointPolicy("tiny", [url], retry=QUICK) as policy:
            assert policy.complete(HELLO).content == "by six"


def test_a_key_is_sent_without_the_line_break_of_its_file_and_one_with_a_break_inside_is_refused(monkeypatch):
    """A break ended every rollout in an error of the HTTP client that was taken for the agent's own."""
    seen = []

    def answer(handler: Handler, request):
        seen.append(handler.headers["authorization"])
        handler.send_json(chat("fine"))

    monkeypatch.setenv("OPENAI_API_KEY", "key\r\n")
    ask(answer)
    assert seen == ["Bearer key"]
    for key in ("two\nlines", "schl\u00fcssel"):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        with pytest.raises(ConfigError, match="OPENAI_API_KEY has characters that no key has"):
            EndpointPolicy("m", ["http://host/v1"])


@pytest.fixture
def certificate(tmp_path):
    """A certificate for localhost and its key, signed by nobody else."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    both = tmp_path / "both.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(both), "-out", str(tmp_path / "cert.pem")]
    subprocess.run(made, check=True, capture_output=True)
    both.write_bytes(both.read_bytes() + (tmp_path / "cert.pem").read_bytes())
    return both


@pytest.mark.parametrize("known", [True, False])
def test_certificates_are_those_of_ssl_cert_file(certificate, monkeypatch, known):
    if known:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_name("cert.pem")))
    else:
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    trusted.cache_clear()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    try:
        with model_server(say("in private")) as server:
            server.socket = context.wrap_socket(server.socket, server_side=True)
            url = f"https://localhost:{server.server_address[1]}/v1"
            with EndpointPolicy("tiny", [url], retry=QUICK) as policy:
                if known:
                    assert policy.complete(HELLO).content == "in private"
                    assert unanswered([url]) == ""
                else:
                    with pytest.raises(PolicyFault, match="CERTIFICATE_VERIFY_FAILED"):
                        policy.complete(HELLO)
    finally:
        trusted.cache_clear()


def test_a_rollout_stays_on_one_endpoint_and_rollouts_spread():
    with model_server(say("x")) as one, model_server(say("x")) as two:
        with EndpointPolicy("tiny", [one.url, two.url], retry=QUICK) as policy:
            for seed in range(20):
                for step in range(3):
                    policy.complete([*HELLO, *[{"role": "user", "content": "more"}] * step], seed=seed)
        counts = [len(one.requests), len(two.requests)]
    assert sum(counts) == 60
    assert all(count % 3 == 0 and count >= 9 for count in counts)


def test_a_dead_endpoint_is_passed_over():
    with reserve_port() as nobody, model_server(say("x")) as alive:
        gone = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1"
        policy = EndpointPolicy("tiny", [gone, alive.url], retry=QUICK)
        with policy:
            assert [policy.complete(HELLO, seed=seed).content for seed in range(6)] == ["x"] * 6


def test_every_call_has_a_seed_of_its_own_and_a_rollout_repeats_its_seeds():
    def seeds(seed):
        with model_server(say("x")) as server, EndpointPolicy("tiny", [server.url]) as policy:
            for step in range(4):
                policy.complete([*HELLO, *[{"role": "user", "content": "more"}] * step], seed=seed)
            return [request["seed"] for request in server.requests]

    assert seeds(0) == seeds(0)
    assert len(set(seeds(0) + seeds(1))) == 8


def test_closing_wakes_a_call_that_waits_to_retry():
    policy = None
    with model_server(failing(*[http(503)] * 9)) as server:
        policy = EndpointPolicy("tiny", [server.url], retry=Retry(attempts=9, first=60, cap=60))
        threading.Timer(0.3, policy.close).start()
        with pytest.raises(PolicyFault, match="closed"):
            policy.complete(HELLO, seed=0)


@pytest.mark.parametrize("begun", [False, True], ids=["before the headers", "within the reply"])
def test_closing_wakes_calls_that_wait_for_a_reply(begun):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(8) as callers:
        policy = EndpointPolicy("tiny", [f"http://127.0.0.1:{silent.getsockname()[1]}/v1"])
        calls = [callers.submit(policy.complete, HELLO, seed=seed) for seed in range(8)]
        accepted = [silent.accept()[0] for _ in calls]
        for connection in accepted:
            connection.recv(1)
            connection.sendall(head if begun else b"")
        policy.close()
        for call in calls:
            with pytest.raises(PolicyFault, match="closed"):
                call.result(timeout=60)
        for connection in accepted:
            connection.close()
    assert "model calls" not in {thread.name for thread in set(threading.enumerate()) - before}


def test_every_rollout_in_flight_has_its_call_in_flight():
    together = threading.Barrier(150)

    def answer(handler, request):
        together.wait(timeout=60)
        handler.send_json(chat("x"))

    with model_server(answer) as server, EndpointPolicy("tiny", [server.url], retry=Retry(attempts=1)) as policy:
        with ThreadPoolExecutor(150) as callers:
            replies = list(callers.map(lambda seed: policy.complete(HELLO, seed=seed), range(150)))
    assert {reply.content for reply in replies} == {"x"}


def test_whatever_an_agent_says_reaches_the_server():
    messages = [*HELLO, MappingProxyType({"role": "user", "content": "half a pair: \ud800, and caf\u00e9"})]
    _, requests = ask(say("x"), messages=messages)
    assert requests[0]["messages"] == [dict(message) for message in messages]


def test_extra_fields_of_a_request_come_last():
    _, requests = ask(say("x"), Sampling(extra_body={"seed": 5, "top_p": 0.5, "of_the_server": [1]}))
    assert (requests[0]["seed"], requests[0]["top_p"], requests[0]["of_the_server"]) == (5, 0.5, [1])
    assert "extra_body" not in requests[0]


def test_a_compressed_reply_is_read():
    def answer(handler, request):
        handler.send_bytes(gzip.compress(json.dumps(chat("small")).encode()), content_encoding="gzip")

    assert ask(answer)[0].content == "small"


def test_served_models_lists_them_or_says_what_to_do():
    with model_server(say("x")) as server:
        assert served_models(server.url) == ["tiny"]
        url = server.url.removeprefix("http://").removesuffix("/v1")
        assert served_models(url) == ["tiny"]
    with pytest.raises(PolicyFault, match="aem serve"):
        served_models(url)


def test_no_endpoint_is_a_configuration_error():
    with pytest.raises(ConfigError, match="--endpoint"):
        EndpointPolicy("tiny", [])


# --- log-probabilities ----------------------------------------------------------------------------------------------


def test_log_probabilities_are_asked_for_and_recorded():
    top = [{"token": "a", "logprob": math.log(0.5)}, {"token": "b", "logprob": math.log(0.25)}]
    logprobs = {"content": [{"token": "a", "logprob": math.log(0.5), "top_logprobs": top}] * 2}

    def answer(handler, request):
        assert (request["logprobs"], request["top_logprobs"]) == (True, 2)
        handler.send_json(chat("aa", logprobs=None) | {"choices": [chat("aa", logprobs=logprobs)["choices"][0]]})

    completion, _ = ask(answer, Sampling(logprobs=2, vocabulary=3))
    assert completion.tokens == ("a", "a")
    assert completion.logprobs == pytest.approx([math.log(0.5)] * 2)
    assert completion.entropies == pytest.approx([1.5 * math.log(2)] * 2)  # the rest, 1/4, is one token
    assert completion.entropy_method.startswith("top-2, tail midpoint")


# --- whatever the model says ----------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
CALL = st.fixed_dictionaries(
    {},
    optional={
        "id": JSON,
        "type": JSON,
        "function": st.fixed_dictionaries({}, optional={"name": JSON, "arguments": JSON}) | JSON,
    },
)
MESSAGE = st.fixed_dictionaries(
    {}, optional={"role": JSON, "content": JSON, "tool_calls": st.lists(CALL, max_size=3) | JSON, "reasoning": JSON}
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(message=MESSAGE, usage=JSON, finish=JSON, logprobs=JSON)
def test_any_message_of_the_model_becomes_a_completion_that_can_be_sent_back(message, usage, finish, logprobs):
    body = json.dumps(
        {"choices": [{"message": message, "finish_reason": finish, "logprobs": logprobs}], "usage": usage}
    )
    completion = read_reply(body.encode())
    completion.model_dump_json().encode("utf-8")
    for call in completion.tool_calls:
        assert isinstance(call["id"], str)
        assert isinstance(call["function"]["name"], str)
        assert isinstance(call["function"]["arguments"], str)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_completion_or_unreadable(body):
    try:
        completion = read_reply(body)
    except Unreadable:
        completion = None
    if completion is not None:  # then there was a message in the bytes
        assert isinstance(json.loads(body)["choices"][0]["message"], dict)
        assert isinstance(completion.content, str)


@pytest.mark.parametrize(
    ("message", "content", "anomaly"),
    [
        ({"role": "assistant", "content": None}, "", (NOTHING_LEFT,)),
        ({"role": "assistant", "content": ""}, "", (NOTHING_LEFT,)),
        ({"role": "user", "content": "x"}, "x", ("role is 'user'",)),
        ({"role": "assistant", "content": "a\ud800b"}, "a?b", ("text is not Unicode",)),
        ({"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab", ()),
        ({"role": "assistant", "content": 7}, "7", ("content is int",)),
        ({"role": "assistant", "content": None, "reasoning": "```bash\nls\n```"}, "", (ALL_REASONING,)),
        ({"role": "assistant", "content": "x", "reasoning": "look"}, "x", ()),
    ],
)
def test_odd_messages_are_recorded_as_what_they_are(message, content, anomaly):
    completion, _ = ask(say(message))
    assert (completion.content, completion.anomalies) == (content, anomaly)
    assert completion.retries == 0


@pytest.mark.parametrize(
    ("tokens", "content", "noted"), [(30, "", True), (2, "", False), (30, " \n", True), (30, "x", False)]
)
def test_a_reply_of_which_the_server_left_nothing_is_noted(tokens, content, noted):
    """It reads as if the model had said nothing (findings/sglang-takes-out-a-call-that-vllm-returns.sh)."""
    choice = {"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    body = {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": tokens}}
    assert (NOTHING_LEFT in read_reply(json.dumps(body).encode()).anomalies) is noted


def test_a_thought_stays_where_the_server_put_it():
    """Other clients cut a leading block out of the text (findings/litellm-takes-a-leading-think-block-out.sh)."""
    inside, _ = ask(say("<think>look first</think>\nls"))
    assert (inside.content, inside.reasoning) == ("<think>look first</think>\nls", "")
    apart, _ = ask(say({"role": "assistant", "content": "ls", "reasoning_content": "look first"}))
    assert (apart.content, apart.reasoning) == ("ls", "look first")


def test_a_megabyte_on_one_line_comes_through():
    completion, _ = ask(say("x" * 2**20))
    assert len(completion.content) == 2**20
