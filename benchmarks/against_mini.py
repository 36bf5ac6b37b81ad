"""Rollouts of `aem run` and of mini-swe-agent 2.4.6 on the same images, behind the same model: steps per second, CPU.

    python -m benchmarks.against_mini [--at-once 1 4 16] [--steps 30] [--latency 0] [--mini VENV]

The model is simulated: a server of this machine answers every call after `--latency` seconds with one command (the
listing of a folder), and after `--steps` of them with the submission of an empty patch, which is not graded.
Containers, images (the bundled set `tiny`), agents, clients and files are real; both write their trajectories. Each has
twice as many rollouts as run at once. mini-swe-agent runs by its own `mini-extra swebench` with its
`swebench_backticks.yaml`, in an environment of its own (made in a temporary folder unless `--mini` names one).

Steps per second are counted at the server, between the first call and the last, so that neither pays for its start.
CPU is user and system time of the command and of the processes that it starts (`docker exec` among them), its start
included.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from aem_harness.harness.instances.load import load

ROOT = Path(__file__).resolve().parents[1]
MINI = "mini-swe-agent==2.4.6"
FENCE = {"aem": "bash", "mini": "mswea_bash_command"}
SUBMIT = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"


def serve(steps: int, latency: float) -> None:
    """The model. `GET /calls` tells the times of the first and the last call and their number; `DELETE` forgets."""
    import asyncio

    from aiohttp import web

    calls: list[float] = []

    async def complete(request: web.Request) -> web.Response:
        calls.append(time.monotonic())
        asked = await request.json()
        done = sum(message["role"] == "assistant" for message in asked["messages"])
        command = "ls -la" if done < steps else SUBMIT
        await asyncio.sleep(latency)
        text = f"THOUGHT: I look at what there is.\n\n```{FENCE[asked['model']]}\n{command}\n```"
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1000, "completion_tokens": 20, "total_tokens": 1020}
        body = {"id": "1", "object": "chat.completion", "created": 1, "model": asked["model"], "choices": [choice]}
        return web.json_response({**body, "usage": usage})

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "aem", "object": "model", "max_model_len": 10**6}]})

    async def told(_: web.Request) -> web.Response:
        return web.json_response([calls[0], calls[-1], len(calls)] if calls else [0, 0, 0])

    async def forget(_: web.Request) -> web.Response:
        calls.clear()
        return web.Response()

    async def run() -> None:
        app = web.Application(client_max_size=1 << 26)
        app.add_routes([web.post("/v1/chat/completions", complete), web.get("/v1/models", models)])
        app.add_routes([web.get("/calls", told), web.delete("/calls", forget)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
        await asyncio.Event().wait()

    asyncio.run(run())


@contextmanager
def server(steps: int, latency: float) -> Iterator[str]:
    words = [
        sys.executable,
        "-m",
        "benchmarks.against_mini",
        "--serve",
        "--steps",
        str(steps),
        "--latency",
        str(latency),
    ]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def environment(given: Path | None, scratch: Path) -> Path:
    """The folder with mini-swe-agent's programs."""
    if given:
        return given / "bin"
    subprocess.run([sys.executable, "-m", "venv", str(scratch / "mini")], check=True)
    subprocess.run([scratch / "mini/bin/pip", "install", "--quiet", MINI, "datasets==5.2.0"], check=True)
    return scratch / "mini/bin"


def rows(folder: Path, count: int) -> Path:
    """The first tasks of `tiny` as mini-swe-agent reads them; their images are built where they are not there."""
    words = [sys.executable, "-m", "aem_harness.cli", "images", "build", "--set", "tiny"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    folder.mkdir()
    with (folder / "test.jsonl").open("w") as file:
        for task in load("tiny").tasks[:count]:
            row = {"instance_id": task.instance_id, "problem_statement": task.instance.problem_statement}
            file.write(json.dumps({**row, "image_name": task.instance.image}) + "\n")
    return folder


def command(who: str, url: str, mini: Path, dataset: Path, out: Path, count: int, at_once: int) -> list[str]:
    if who == "aem":
        words = [sys.executable, "-m", "aem_harness.cli", "run", "--endpoint", f"{url}/v1", "--model", "aem"]
        return [*words, "--set", "tiny", "--slice", f"0:{count}", "-w", str(at_once), "--no-canary", "--out", str(out)]
    settings = {
        "model.model_name": "openai/mini",
        "model.model_class": "litellm_textbased",
        "model.model_kwargs.api_base": f"{url}/v1",
        "model.cost_tracking": "ignore_errors",
    }
    words = [str(mini / "mini-extra"), "swebench", "--subset", str(dataset), "--split", "test", "--slice", f"0:{count}"]
    words += ["-w", str(at_once), "-o", str(out), "-c", "swebench_backticks.yaml"]
    return [*words, *(word for name, value in settings.items() for word in ("-c", f"{name}={value}"))]


def measure(words: list[str], url: str, wanted: int, log: Path) -> dict[str, float]:
    """One command: its steps per second at the server, and its processor time."""
    urllib.request.urlopen(urllib.request.Request(f"{url}/calls", method="DELETE")).close()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    variables = os.environ | {"OPENAI_API_KEY": "none", "MSWEA_CONFIGURED": "true", "MSWEA_SILENT_STARTUP": "1"}
    with log.open("w") as file:
        subprocess.run(words, env=variables, stdout=file, stderr=file)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    with urllib.request.urlopen(f"{url}/calls") as answer:
        first, last, calls = json.load(answer)
    if calls != wanted:
        raise SystemExit(f"{calls} calls instead of {wanted}: look at {log}\n{log.read_text()[-2000:]}")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"rate": calls / (last - first), "cpu_ms": 1000 * spent / calls}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--steps", type=int, default=30, help="of each rollout, before its submission")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds of the model for a reply")
    parser.add_argument("--mini", type=Path, metavar="VENV", help="an environment with mini-swe-agent")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(asked.steps, asked.latency)
        return
    table = Table("at once", "", "steps/s", "CPU, ms a step", "load", box=box.SIMPLE_HEAD)
    with tempfile.TemporaryDirectory(prefix="aem-mini-") as name, server(asked.steps, asked.latency) as url:
        scratch = Path(name)
        mini, dataset = environment(asked.mini, scratch), rows(scratch / "rows", 2 * max(asked.at_once))
        for at_once in asked.at_once:
            found: dict[str, Any] = {}
            for who in ("mini", "aem"):
                words = command(who, url, mini, dataset, scratch / f"{who}-{at_once}", 2 * at_once, at_once)
                calls = 2 * at_once * (asked.steps + 1)
                found[who] = measure(words, url, calls, scratch / f"{who}-{at_once}.log") | {"load": os.getloadavg()[0]}
                row = f"{found[who]['rate']:.1f}", f"{found[who]['cpu_ms']:.1f}", f"{found[who]['load']:.1f}"
                table.add_row(str(at_once), who, *row)
                print(at_once, who, json.dumps(found[who]), file=sys.stderr, flush=True)
            ratios = found["aem"]["rate"] / found["mini"]["rate"], found["mini"]["cpu_ms"] / found["aem"]["cpu_ms"]
            table.add_row("", "aem : mini", f"{ratios[0]:.1f} x", f"1 / {ratios[1]:.1f}", "")
    Console().print(table)


if __name__ == "__main__":
    main()
