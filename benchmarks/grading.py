"""Two builds, or one with and without reused verdicts, on the same work in turn: wall time and verdicts.

    .venv/bin/python -m benchmarks.grading reuse [--instances 10] [--seeds 8] [--repeats 3]
    .venv/bin/python -m benchmarks.grading before TREE [--set tiny|sample|ROWS.jsonl] [--repeats 3]

`reuse` runs the gold agent on `tiny`, each instance with the same patch in all seeds, with and without
--reuse-verdicts. `before` grades the gold patches of a set with the build in the folder TREE (a checkout of an earlier
commit) and with this one. Canaries are off. The order of the two is turned round from one repeat to the next. Prints
the seconds of every command from start to exit, the medians and their ratio; ends with status 1 if a verdict differs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from aem_harness.harness.instances.load import load

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    options = parse()
    seconds: dict[str, list[float]] = {}
    verdicts: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="aem-benchmark-") as scratch:
        commands = reuse(options) if options.what == "reuse" else before(options, Path(scratch))
        for number in range(options.repeats):
            turn = list(commands.items())
            for name, (tree, words) in turn if number % 2 == 0 else turn[::-1]:
                out = Path(scratch) / f"{number}-{name}"
                load_before = os.getloadavg()[0]
                seconds.setdefault(name, []).append(measure(tree, [*words, "--out", str(out)]))
                verdicts.add(verdicts_of(out))
                print(f"{name:<8} {seconds[name][-1]:7.1f} s   load before {load_before:.1f}", flush=True)
    first, second = (statistics.median(each) for each in seconds.values())
    names = " : ".join(seconds)
    print(f"medians {first:.1f} and {second:.1f} s, {names} = {first / second:.2f}")
    print("verdicts equal in all runs" if len(verdicts) == 1 else "VERDICTS DIFFER")
    return int(len(verdicts) > 1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("reuse", "before"))
    parser.add_argument("tree", nargs="?", type=Path, help="with `before`: the checkout of the other build")
    parser.add_argument("--set", dest="dataset", default="tiny")
    parser.add_argument("--instances", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if (options.what == "before") != bool(options.tree):
        parser.error("`before` needs the folder of the other build, `reuse` takes none")
    return options


def reuse(options: argparse.Namespace) -> dict[str, tuple[Path, list[str]]]:
    words = ["run", "--agent", "gold", "--set", options.dataset, "--slice", f"0:{options.instances}", "--no-canary"]
    words += ["-k", str(options.seeds), "-w", str(options.workers), "--grade-workers", str(options.workers)]
    return {"graded": (ROOT, words), "reused": (ROOT, [*words, "--reuse-verdicts"])}


def before(options: argparse.Namespace, scratch: Path) -> dict[str, tuple[Path, list[str]]]:
    gold = scratch / "gold.jsonl"
    chosen = load(options.dataset).tasks[: options.instances]
    lines = ({"instance_id": t.instance_id, "model_name_or_path": "gold", "model_patch": t.patch} for t in chosen)
    gold.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["grade", str(gold), "--set", options.dataset, "-w", str(options.workers), "--no-canary"]
    return {"before": (options.tree.resolve(), words), "now": (ROOT, words)}


def measure(tree: Path, words: list[str]) -> float:
    """Seconds of one command of the build in `tree`."""
    environment = {**os.environ, "PYTHONPATH": str(tree / "src")}
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "aem_harness.cli", *words], env=environment, capture_output=True)
    if done.returncode:
        raise SystemExit(f"aem {' '.join(words)} ended with {done.returncode}:\n{done.stderr.decode()[-2000:]}")
    return time.monotonic() - started


def verdicts_of(run: Path) -> str:
    events = map(json.loads, (run / "journal.jsonl").read_text().splitlines())
    return json.dumps(sorted((e["instance_id"], e["seed"], e["outcome"]) for e in events if e["event"] == "grade"))


if __name__ == "__main__":
    sys.exit(main())
