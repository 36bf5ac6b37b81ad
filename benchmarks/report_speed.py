"""How long a report of a whole benchmark takes: two arms x tasks x seeds, every stage by itself.

    .venv/bin/python -m benchmarks.report_speed [--tasks 500] [--seeds 8] [--folder /tmp/aem-report-speed]

The runs are drawn (`synthetic_runs.py`) and kept in the folder, so that a second call measures at once.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from aem_harness.harness.compare.compare import compare
from aem_harness.harness.compare.outcomes import load
from aem_harness.harness.io import write_text
from aem_harness.harness.report.html import build_report
from benchmarks.synthetic_runs import make_run

T = TypeVar("T")


def timed(what: str, work: Callable[[], T]) -> T:
    """The work's result; prints what it took."""
    start = time.perf_counter()
    result = work()
    print(f"{what:<28}{time.perf_counter() - start:8.2f} s")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "aem-report-speed")
    options = parser.parse_args()
    size = f"{options.tasks}x{options.seeds}"
    sources = [options.folder / f"base-{size}", options.folder / f"aem-{size}"]
    for folder, gain in zip(sources, (0.0, 0.014), strict=True):
        if not folder.exists():
            make_run(folder, folder.name.split("-")[0], tasks=options.tasks, seeds=options.seeds, gain=gain)
    start = time.perf_counter()
    outcomes = timed("reading the runs", lambda: load(sources))
    comparison = timed("comparing", lambda: compare(outcomes))
    out = options.folder / "report.html"
    page = timed("building the page", lambda: build_report(comparison, outcomes, out))
    timed("writing it", lambda: write_text(out, page))
    print(f"{'report in all':<28}{time.perf_counter() - start:8.2f} s")
    print(f"{len(outcomes.table)} rollouts, {len(page) / 1e6:.1f} MB: {out}")


if __name__ == "__main__":
    main()
