"""Grade the same gold patches on the same images with the stock harness and with ours: verdicts and throughput.

Usage: `python -m benchmarks.against_swebench [--workers 1 2 4] [--repeats 1] [--out FILE]` from the repository root.

Three command lines are timed from start to exit, in turn for each number of workers so that a drifting load hits all:

    swebench         python -m swebench.harness.run_evaluation, unchanged
    swebench, no grace   the same, with a `docker` on PATH that turns `stop --time=15` into `stop --time=0`
    aem              aem grade

Ends with status 1 if any verdict of any run differs from the stock run's.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

from aem_harness.harness.instances.rows import parse_row, to_row
from tests.verified import build

HERE = Path(__file__).parent
SIDES = ("swebench", "swebench, no grace", "aem")

NO_GRACE = """#!/bin/bash
arguments=()
for argument in "$@"; do arguments+=("${argument/#--time=15/--time=0}"); done
exec REAL "${arguments[@]}"
"""


def main() -> int:
    options = parse()
    ids = options.instances or build.instance_ids()
    print(f"building or finding {len(ids)} images", flush=True)
    build.build(ids, say=print)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="aem-benchmark-") as scratch:
        inputs = write_inputs(Path(scratch), ids)
        for number, (_, workers, side) in enumerate(product(range(options.repeats), options.workers, options.sides)):
            wait_for_quiet(options.patience)
            runs.append(measure(side, workers, Path(scratch) / str(number), *inputs))
            print(describe(runs[-1]), flush=True)
            options.out.write_text(json.dumps({"about": about(ids), "runs": runs}, indent=1) + "\n")
    print(f"\n{table(runs)}\n\nwritten to {options.out}")
    return int(not same_verdicts(runs))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument(
        "--patience", type=float, default=0, help="seconds to wait, before each measurement, for the machine to be idle"
    )
    parser.add_argument("--instances", nargs="*", help="ids of tests/verified/instances.toml (default: all)")
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "against_swebench.json")
    return parser.parse_args()


def write_inputs(folder: Path, ids: Sequence[str]) -> tuple[Path, Path]:
    """The rows in the format of swebench 5 and the gold predictions: the files both sides read."""
    rows, predictions = folder / "rows.jsonl", folder / "gold.jsonl"
    tasks = [parse_row(row) for row in build.rows(ids)]
    rows.write_text("".join(json.dumps(to_row(task)) + "\n" for task in tasks))
    lines = [
        {"instance_id": task.instance_id, "model_name_or_path": "gold", "model_patch": task.patch} for task in tasks
    ]
    predictions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return rows, predictions


def measure(side: str, workers: int, folder: Path, rows: Path, predictions: Path) -> dict[str, Any]:
    """Run one side once: wall time in seconds, verdicts, and the load of the machine before and after."""
    folder.mkdir()
    environment = dict(os.environ)
    if side == "swebench, no grace":
        shim = folder / "bin" / "docker"
        shim.parent.mkdir()
        shim.write_text(NO_GRACE.replace("REAL", str(shutil.which("docker"))))
        shim.chmod(0o755)
        environment["PATH"] = f"{shim.parent}:{environment['PATH']}"
    command = ours(workers, folder, rows, predictions) if side == "aem" else stock(workers, rows, predictions)
    load_before = os.getloadavg()[0]
    started = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True)
    wall = time.monotonic() - started
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    verdicts = read_verdicts(folder)
    return {
        "side": side,
        "workers": workers,
        "wall_s": round(wall, 1),
        "per_minute": round(60 * len(verdicts) / wall, 1),
        "load_before": round(load_before, 1),
        "load_after": round(os.getloadavg()[0], 1),
        "resolved": verdicts,
    }


def wait_for_quiet(patience: float, idle: float = 0.75, window: float = 15.0) -> None:
    """Return once the processors were idle for this share of `window` seconds, or after `patience` seconds."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        before = processor_ticks()
        time.sleep(window)
        spent = [after - earlier for after, earlier in zip(processor_ticks(), before, strict=True)]
        if spent[3] + spent[4] >= idle * sum(spent):  # idle, and waiting for the disk
            return


def processor_ticks() -> list[int]:
    """user, nice, system, idle, iowait of all processors since boot, in clock ticks."""
    return [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:6]]


def stock(workers: int, rows: Path, predictions: Path) -> list[str]:
    options = {"dataset_name": rows, "predictions_path": predictions, "run_id": "stock", "max_workers": workers}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "swebench.harness.run_evaluation", *words]


def ours(workers: int, folder: Path, rows: Path, predictions: Path) -> list[str]:
    aem = Path(sys.executable).with_name("aem")
    words = [aem, "grade", predictions, "--set", rows, "--out", folder / "run", "--workers", workers]
    return [str(word) for word in words]


def read_verdicts(folder: Path) -> dict[str, bool]:
    """Resolved or not by instance, from the official per-instance reports that both sides write."""
    verdicts: dict[str, bool] = {}
    for path in folder.rglob("report.json"):
        for instance_id, report in json.loads(path.read_text()).items():
            if isinstance(report, Mapping) and "resolved" in report:
                verdicts[instance_id] = report["resolved"]
    return dict(sorted(verdicts.items()))


def same_verdicts(runs: Sequence[Mapping[str, Any]]) -> bool:
    return all(run["resolved"] == runs[0]["resolved"] for run in runs)


def about(ids: Sequence[str]) -> dict[str, Any]:
    import docker
    import swebench

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, text=True, capture_output=True)
    client = docker.from_env()
    try:
        engine = client.version()["Version"]
    finally:
        client.close()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "swebench": swebench.__version__,
        "engine": engine,
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "instances": list(ids),
    }


def describe(run: Mapping[str, Any]) -> str:
    resolved = sum(run["resolved"].values())
    return (
        f"{run['side']:<20} {run['workers']} workers  {run['wall_s']:7.1f} s  {run['per_minute']:5.1f}/min  "
        f"{resolved}/{len(run['resolved'])} resolved  load {run['load_before']} to {run['load_after']}"
    )


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """Best throughput of each side at each number of workers, as Markdown, with ours over the stock one's."""
    best: dict[tuple[str, int], float] = {}
    for run in runs:
        key = run["side"], run["workers"]
        best[key] = max(best.get(key, 0.0), run["per_minute"])
    sides = [side for side in SIDES if any(side == found for found, _ in best)]
    lines = [f"| workers | {' | '.join(sides)} | aem : swebench |", "|---" * (len(sides) + 2) + "|"]
    for workers in sorted({workers for _, workers in best}):
        row = [best.get((side, workers)) for side in sides]
        ratio = best.get(("aem", workers), 0) / best.get(("swebench", workers), float("inf"))
        lines.append(f"| {workers} | {' | '.join(f'{value:.1f}' for value in row if value)} | {ratio:.1f} |")
    verdict = "equal in all runs" if same_verdicts(runs) else "DIFFERENT"
    return "\n".join(lines) + f"\n\ninstances per minute; verdicts {verdict}"


if __name__ == "__main__":
    sys.exit(main())
