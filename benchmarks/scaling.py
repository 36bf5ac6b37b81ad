"""How much faster a run is on 2 and 3 nodes than on 1, with the latency of a model simulated.

    python -m benchmarks.scaling [--rollouts 12] [--slots 2] [--latency 8] [--steps 6] [--how ray|pool]

Needs root: it starts up to three Docker engines on this machine, each with data and a bridge of its own, and for `ray`
a Ray cluster with a node for each. All share this machine's cores, so the model's latency must be most of a rollout, as
it is in real runs. Time is counted from the first rollout's begin to the last verdict, by the journal; starting and
ending a run comes on top, and is shown beside it. Efficiency is the time on one node over n times that on n.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from aem_harness.harness.run.store import read_journal
from tests.run.more_engines import MoreEngine, more_engines, small_set

ROOT = Path(__file__).parents[1]
PATHS = f"{ROOT}/src:{ROOT}"


@contextmanager
def where(how: str, engines: list[MoreEngine]) -> Iterator[list[str]]:
    """The options that say where containers are."""
    if how == "pool":
        yield ["--engine", ",".join(engine.address for engine in engines)]
        return
    from ray.cluster_utils import Cluster

    os.environ["PYTHONPATH"] = PATHS
    cluster = Cluster()
    try:
        for engine in engines:
            own = {"DOCKER_HOST": engine.address, "PYTHONPATH": PATHS}
            cluster.add_node(num_cpus=1, object_store_memory=100 << 20, include_dashboard=False, env_vars=own)
        yield ["--ray", cluster.address]
    finally:
        cluster.shutdown()


def measure(rows: Path, out: Path, options: list[str], nodes: int, asked: argparse.Namespace) -> tuple[float, float]:
    """Seconds from the first rollout's begin to the last verdict, and of the whole command."""
    settings = {"latency": asked.latency, "steps": asked.steps, "rows": rows}
    command = [
        *(sys.executable, "-m", "aem_harness.cli", "run", "--agent", "tests.run.cluster_agent:Slow", "--arm", "slow"),
        *("--set", str(rows), "--out", str(out), "-k", "1", "--no-canary"),
        *("--workers", str(asked.slots * nodes), "--grade-workers", str(nodes), *options),
        *(word for name, value in settings.items() for word in ("-c", f"agent_options.{name}={value}")),
    ]
    began = time.monotonic()
    nowhere = {"DOCKER_HOST": "unix:///nowhere/docker.sock", "PYTHONPATH": PATHS}
    subprocess.run(command, env={**os.environ, **nowhere}, check=True, capture_output=True)
    whole = time.monotonic() - began
    events = list(read_journal(out))
    ends = [datetime.fromisoformat(event["at"]).timestamp() for event in events]
    starts = [end - event["seconds"] for end, event in zip(ends, events, strict=True) if event["event"] == "rollout"]
    assert len(starts) == asked.rollouts
    assert not any(event.get("fault") for event in events)
    return max(ends) - min(starts), whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=12)
    parser.add_argument("--slots", type=int, default=2, help="rollouts at a time on a node")
    parser.add_argument("--latency", type=float, default=8.0, help="seconds of the model before each step")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--how", choices=["ray", "pool"], default="ray")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 3])
    asked = parser.parse_args()
    table = Table("nodes", "seconds", "efficiency", "whole command, s", "load before", box=box.SIMPLE_HEAD)
    table.title = f"{asked.how}: {asked.rollouts} rollouts of {asked.steps} x {asked.latency:g} s, {asked.slots} a node"
    with tempfile.TemporaryDirectory() as folder:
        rows, image = small_set(Path(folder), asked.rollouts)
        with more_engines(max(asked.nodes), image) as engines:
            alone = 0.0
            for nodes in asked.nodes:
                with where(asked.how, engines[:nodes]) as options:
                    load = os.getloadavg()[0]
                    seconds, whole = measure(rows, Path(folder) / f"{nodes}", options, nodes, asked)
                alone = alone or seconds * nodes
                table.add_row(
                    str(nodes), f"{seconds:.1f}", f"{alone / (nodes * seconds):.2f}", f"{whole:.1f}", f"{load:.1f}"
                )
                Console().print(table)


if __name__ == "__main__":
    main()
