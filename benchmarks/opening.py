"""How long a run takes to open and to say what is still to do: the first time, when every file is hashed, and again.

    .venv/bin/python -m benchmarks.opening [--tasks 5000] [--seeds 8] [--folder /tmp/aem-report-speed]

The run is drawn (`synthetic_runs.py`) and kept in the folder, as for `report_speed.py`.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from aem_harness.harness.config import RunConfig
from aem_harness.harness.run.store import RunStore
from aem_harness.harness.run.verified import FILE
from benchmarks.synthetic_runs import make_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "aem-report-speed")
    options = parser.parse_args()
    run = options.folder / f"base-{options.tasks}x{options.seeds}"
    if not run.exists():
        make_run(run, "base", tasks=options.tasks, seeds=options.seeds)
    known = json.loads((run / "run.json").read_text())
    facts = {name: known[name] for name in ("plan", "tasks", "agent", "dataset", "versions", "fingerprint")}
    keys = [(name, seed) for seed in range(options.seeds) for name in known["plan"]["instances"]]
    (run / FILE).unlink(missing_ok=True)
    for what in ("every file hashed", "again", "again"):
        start, spent = time.perf_counter(), time.process_time()
        with RunStore(run, RunConfig(**known["config"]), facts) as store:
            pending = store.pending(keys)
        wall, spent = time.perf_counter() - start, time.process_time() - spent
        found = f"{len(pending.rollouts)} rollouts and {len(pending.grades)} gradings of {len(keys)} to do"
        print(f"{what:<20}{wall:8.2f} s, {spent:.2f} s of CPU: {found}")


if __name__ == "__main__":
    main()
