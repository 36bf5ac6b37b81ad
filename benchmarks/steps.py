"""Steps per second, processor time per step and memory per rollout of one run with many rollouts in flight.

    python -m benchmarks.steps [--before TREE] [--flight 64 200] [--steps 30] [--latency 0.2] [--logprobs 0]

Everything on this side is real: agent, endpoint client, channel, runner, trajectories, journal, facts, reports. What
is on the other side is simulated by one process (`benchmarks.steps_servers`): a model that answers after `--latency`
seconds (uniform from half of it to one and a half), and an engine whose containers answer each command with 2 kB. No
Docker is needed. `--before` is another checkout of this project (git worktree), which runs the same in turn.

Steps per second are from the first container to the end of the last. Processor time (user and system) is that of the
whole run, its start and its reports included, over its steps. Memory is the largest resident size less that before the
run, over the rollouts in flight.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def servers(folder: Path, latency: float, logprobs: int) -> Iterator[str]:
    """The simulated model and engine; the URL of the model."""
    words = [sys.executable, str(Path(__file__).with_name("steps_servers.py"))]
    words += [str(folder / "engine.sock"), str(latency), str(logprobs)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def measure(tree: Path, url: str, folder: Path, flight: int, asked: argparse.Namespace) -> dict[str, Any]:
    """One run of the checkout `tree`."""
    environment = os.environ | {"PYTHONPATH": str(tree / "src"), "XDG_CACHE_HOME": str(folder / "cache")}
    settings = {
        "url": url,
        "engine": str(folder / "engine.sock"),
        "out": tempfile.mkdtemp(dir=folder),
        "flight": flight,
        "rollouts": asked.rounds * flight,
        "steps": asked.steps,
        "logprobs": asked.logprobs,
    }
    words = [sys.executable, str(Path(__file__).with_name("steps_run.py")), json.dumps(settings)]
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{tree}: exit code {done.returncode}")
    return dict(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, metavar="TREE", help="another checkout, run in turn")
    parser.add_argument("--flight", type=int, nargs="+", default=[64, 200], help="rollouts at a time")
    parser.add_argument("--rounds", type=int, default=2, help="rollouts, over those at a time")
    parser.add_argument("--steps", type=int, default=30, help="of each rollout")
    parser.add_argument("--latency", type=float, default=0.2, help="seconds of the model for a reply")
    parser.add_argument("--logprobs", type=int, default=0, help="top log-probabilities of each of 100 tokens a reply")
    parser.add_argument("--times", type=int, default=1, help="runs of each")
    asked = parser.parse_args()
    trees = {"before": asked.before, "now": ROOT} if asked.before else {"now": ROOT}
    table = Table("in flight", "build", "steps/s", "CPU, ms a step", "MB a rollout", "load", box=box.SIMPLE_HEAD)
    table.title = f"{asked.rounds} x in flight rollouts of {asked.steps} steps, model {asked.latency:g} s"
    with tempfile.TemporaryDirectory(prefix="aem-steps-") as name:
        folder = Path(name)
        with servers(folder, asked.latency, asked.logprobs) as url:
            for flight in asked.flight:
                found: dict[str, list[dict[str, Any]]] = {build: [] for build in trees}
                for _ in range(asked.times):
                    for build, tree in trees.items():
                        one = measure(tree, url, folder, flight, asked) | {"load": os.getloadavg()[0]}
                        found[build].append(one)
                        print(build, flight, json.dumps(one), file=sys.stderr, flush=True)
                for build, runs in found.items():
                    of = {name: median(run[name] for run in runs) for name in runs[0]}
                    cells = f"{of['rate']:.0f}", f"{of['cpu_ms']:.2f}", f"{of['mb']:.2f}", f"{of['load']:.1f}"
                    table.add_row(str(flight), build, *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
