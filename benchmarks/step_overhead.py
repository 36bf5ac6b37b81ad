"""What one command in a container costs, by four ways of running it, side by side.

    .venv/bin/python benchmarks/step_overhead.py [--steps 100]

The commands are interleaved, so that load on the machine falls on all of them alike. Prints milliseconds per command.
"""

import argparse
import subprocess
import time
from collections.abc import Callable
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table

from aem_harness.harness.sandbox.build import BASE, build_base
from aem_harness.harness.sandbox.container import Sandbox
from aem_harness.harness.sandbox.engine import client

COMMAND = "true"


def measure(steps: int) -> dict[str, list[float]]:
    """Milliseconds of each of `steps` commands, by way of running it."""
    build_base()
    with Sandbox(BASE, workdir="/", labels={"aem.benchmark": "step"}) as sandbox:
        container = client().containers.get(sandbox.id)
        inside = (
            f"s=$(date +%s%N); for i in $(seq {steps}); do bash -c {COMMAND}; done; e=$(date +%s%N); "
            f"echo $(( (e - s) / {steps} ))"
        )
        ways: dict[str, Callable[[], object]] = {
            "aem channel": lambda: sandbox.execute(COMMAND),
            "docker exec (command line)": lambda: subprocess.run(
                ["docker", "exec", sandbox.id, "bash", "-c", COMMAND], check=True
            ),
            "exec_run (docker-py)": lambda: container.exec_run(["bash", "-c", COMMAND]),
        }
        times: dict[str, list[float]] = {
            "bash -c, inside (mean)": [int(sandbox.execute(inside, timeout=600).output) / 1e6]
        }
        for _ in range(steps):
            for way, run in ways.items():
                began = time.perf_counter()
                run()
                times.setdefault(way, []).append(1000 * (time.perf_counter() - began))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    steps = parser.parse_args().steps
    table = Table("way", "min ms", "median ms", "max ms", box=box.SIMPLE_HEAD, title=f"{steps} commands each")
    for way, times in measure(steps).items():
        table.add_row(way, f"{min(times):.1f}", f"{median(times):.1f}", f"{max(times):.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
