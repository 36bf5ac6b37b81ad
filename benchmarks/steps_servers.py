"""The other side of `benchmarks.steps`: a model's server and an engine's containers, in one process that does little.

The model answers every chat completion after a while with one command; the engine's socket speaks the frames of
`aem_harness.harness.sandbox.channel` in the engine's multiplexed stream, and answers each command with 2 kB.
"""

import asyncio
import json
import random
import struct
import sys

SAID = "The parser drops the last row when the file has no line end, so I look at where rows are cut. " * 4
REPLY = f"{SAID}\n\n```bash\nsed -n 1,40p src/parser.py\n```"
OUTPUT = b"    def rows(self, text: str) -> list[str]:  # one line of a file\n" * 31
READY = {b"ready?\n": b"ready\n", b"kill\n": b"killed\n"}


def completion(logprobs: int) -> bytes:
    message = {"role": "assistant", "content": REPLY}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    if logprobs:
        top = [{"token": f" t{n}", "logprob": -0.25 - n, "bytes": [32, 116, 49]} for n in range(logprobs)]
        choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top} for _ in range(100)]}
    usage = {"prompt_tokens": 2000, "completion_tokens": 100, "total_tokens": 2100}
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    data = json.dumps({**body, "usage": usage}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(data), data)


class Model(asyncio.Protocol):
    answer, latency = b"", 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.held, self.missing = transport, bytearray(), -1

    def data_received(self, data: bytes) -> None:
        self.held += data
        if self.missing < 0 and b"\r\n\r\n" in self.held:
            head = bytes(self.held[: self.held.index(b"\r\n\r\n")]).lower()
            length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
            self.missing = len(head) + 4 + int(length.split(b":")[1])
        if 0 <= self.missing <= len(self.held):
            self.held, self.missing = bytearray(), -1
            wait = self.latency * random.uniform(0.5, 1.5)
            asyncio.get_running_loop().call_later(wait, self.transport.write, self.answer)  # type: ignore[attr-defined]


class Container(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.held = transport, bytearray()

    def data_received(self, data: bytes) -> None:
        self.held += data
        end = self.held.find(b"\n") + 1
        if not end:
            return
        header = bytes(self.held[:end])
        if header in READY:
            self.say(end, READY[header])
            return
        _, _, _, cwd, command = header.split()
        size = end + int(cwd) + int(command)
        if len(self.held) >= size:
            self.say(size, b"0 0 0 %d 0\n%s" % (len(OUTPUT), OUTPUT))

    def say(self, taken: int, answer: bytes) -> None:
        del self.held[:taken]
        self.transport.write(struct.pack(">BxxxL", 1, len(answer)) + answer)  # type: ignore[attr-defined]


async def main(socket: str, latency: str, logprobs: str) -> None:
    Model.answer, Model.latency = completion(int(logprobs)), float(latency)
    loop = asyncio.get_running_loop()
    model = await loop.create_server(Model, "127.0.0.1", 0, backlog=1024)
    engine = await loop.create_unix_server(Container, socket, backlog=1024)
    print(f"http://127.0.0.1:{model.sockets[0].getsockname()[1]}/v1", flush=True)
    await asyncio.gather(model.serve_forever(), engine.serve_forever())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
