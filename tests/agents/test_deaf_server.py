"""A server that ends while a call is in flight may keep its open connections: the call is not waited for."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from aem_harness.agents import calls
from aem_harness.agents.policy import EndpointPolicy, Retry, Sampling
from aem_harness.harness.web import reserve_port

MESSAGE = {"role": "assistant", "content": "from the new server"}
BODY = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
REPLY = json.dumps(BODY | {"choices": [{"index": 0, "finish_reason": "stop", "message": MESSAGE}]}).encode()


class Answers(BaseHTTPRequestHandler):
    def log_message(self, *_): ...

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(REPLY)))
        self.end_headers()
        self.wfile.write(REPLY)


def test_a_call_to_a_server_that_stopped_listening_is_made_again_on_the_one_that_answers(monkeypatch):
    monkeypatch.setattr(calls, "WATCH_SECONDS", 0.1)
    kept = reserve_port()
    port = kept.getsockname()[1]
    listening = socket.create_server(("127.0.0.1", port))
    held, started = [], []

    def end_in_the_middle() -> None:
        connection, _ = listening.accept()
        held.append(connection)  # kept open, as by a process that lives on
        connection.recv(1)
        listening.close()
        threading.Event().wait(1.0)
        started.append(ThreadingHTTPServer(("127.0.0.1", port), Answers))
        started[0].serve_forever()

    threading.Thread(target=end_in_the_middle, daemon=True).start()
    retry = Retry(attempts=60, first=0.1, cap=0.2, seconds=120)
    with EndpointPolicy("m", [f"http://127.0.0.1:{port}/v1"], Sampling(), retry=retry) as policy:
        completion = policy.complete([{"role": "user", "content": "x"}])
    assert completion.content == "from the new server"
    assert completion.retries > 0
    held[0].close()
    started[0].shutdown()
    kept.close()


def test_a_slow_server_that_listens_is_waited_for(monkeypatch):
    monkeypatch.setattr(calls, "WATCH_SECONDS", 0.05)

    class Slow(Answers):
        def do_POST(self):
            threading.Event().wait(1.0)
            super().do_POST()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with EndpointPolicy(
        "m", [f"http://127.0.0.1:{server.server_port}/v1"], Sampling(), retry=Retry(attempts=1)
    ) as policy:
        assert policy.complete([{"role": "user", "content": "x"}]).retries == 0
    server.shutdown()
