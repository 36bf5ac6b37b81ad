"""Whole commands that read large runs, before and now in turn: seconds, processor time and the largest memory.

    .venv/bin/python -m benchmarks.reading --before TREE [--rounds 2] [--folder /tmp/aem-reading]

2 arms x 500 tasks x 8 seeds are drawn (`synthetic_runs.py`); the runs of 5,000 tasks are hard links to them under other
names. Both are kept in the folder. The first call of each command, which reads all trajectories, is not counted.
`python -m benchmarks.opening --tasks 5000 --folder FOLDER`, in either tree, opens one of them to continue it.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.synthetic_runs import linked, make_run

ARMS = {"base": 0.0, "aem": 0.014}


def measured(tree: Path, folder: Path, words: Sequence[str]) -> tuple[float, float, float]:
    """Seconds, seconds of the processor, and MB of `aem` of a tree, imports included."""
    environment = {**os.environ, "PYTHONPATH": str(tree / "src")}
    start = time.perf_counter()
    child = os.fork()
    if not child:
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.execve(sys.executable, [sys.executable, "-m", "aem_harness.cli", *words], environment)
    _, status, used = os.wait4(child, 0)
    if status:
        sys.exit(f"{tree}: aem {' '.join(words)} ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="a working tree of the build to compare with")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "aem-reading")
    options = parser.parse_args()
    for arm, gain in ARMS.items():
        small, large = (options.folder / f"{arm}-{tasks}x8" for tasks in (500, 5000))
        if not small.exists():
            make_run(small, arm, gain=gain)
        if not large.exists():
            linked(small, large, 10)
    trees = {"before": options.before.resolve(), "now": Path.cwd()}
    page = options.folder / "report.html"
    for tasks in (500, 5000):
        runs = [f"{arm}-{tasks}x8" for arm in ARMS]
        for words in (["compare", *runs], ["report", *runs, "--out", str(page)]):
            for number in range(options.rounds + 1):
                # The build of now first: it removes the facts that an earlier one has stored.
                for name, tree in reversed(trees.items()):
                    wall, spent, memory = measured(tree, options.folder, words)
                    if number:
                        load = os.getloadavg()[0]
                        shown = f"{wall:6.2f} s, {spent:6.2f} s of CPU, {memory:4.0f} MB, load {load:.0f}"
                        print(f"{words[0]:<8} {2 * tasks * 8:6} rollouts, {name:<7} {shown}", flush=True)


if __name__ == "__main__":
    main()
