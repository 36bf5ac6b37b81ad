"""False alarms and cost of the canary regrade: gold and honest public patches on real and bundled instances.

    python -m benchmarks.canaries --gold 3 --predictions preds.json.gz --out canaries.jsonl

Every patch is graded officially; a resolved one is then graded again with canaries, `--gold` times for gold and once
for each prediction, with canaries drawn anew each time. A line of `--out` is one regrade; the script continues a file.
The table at the end counts, by runner, regrades, false alarms, those that said nothing, and the cost beside grading.
"""

import argparse
import json
import random
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aem_harness.harness.grading import official
from aem_harness.harness.grading.canary import command_of, kind_of
from aem_harness.harness.grading.predictions import read_predictions
from aem_harness.harness.grading.regrade import Regrader, passed_tests
from aem_harness.harness.instances.load import load
from aem_harness.harness.instances.rows import parse_row
from aem_harness.harness.types import Prediction, Task
from tests.verified import build


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gold", type=int, default=3, help="regrades of each gold patch of a real instance")
    parser.add_argument("--predictions", type=Path, action="append", default=[])
    parser.add_argument("--bundled", default="sample", help="bundled set, one regrade of gold each; none: leave out")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("canaries.jsonl"))
    options = parser.parse_args()
    done = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    known = {(line["instance_id"], line["patch"]) for line in done}
    jobs = [job for job in work(options) if (job[0].instance_id, job[1]) not in known]
    with options.out.open("a") as out, ThreadPoolExecutor(options.workers) as pool:
        for lines in pool.map(lambda job: regrades(*job), jobs):
            for line in lines:
                out.write(json.dumps(line) + "\n")
                out.flush()
                print(line["instance_id"], line["patch"], line["outcome"], line.get("state", ""), flush=True)
            done += lines
    table(done)


def work(options: argparse.Namespace) -> Iterator[tuple[Task, str, str, int]]:
    """(task, name of the patch, patch, regrades)."""
    build.build(build.instance_ids())
    rows = build.rows(build.instance_ids())
    tasks = {row["instance_id"]: parse_row(row, dataset="SWE-bench/SWE-bench_Verified") for row in rows}
    for task in tasks.values():
        yield task, "gold", task.patch, options.gold
    for path in options.predictions:
        for prediction in read_predictions(path).predictions:
            if prediction.instance_id in tasks and prediction.model_patch:
                yield tasks[prediction.instance_id], path.name, prediction.model_patch, 1
    if options.bundled != "none":
        for task in load(options.bundled).tasks:
            yield task, "gold", task.patch, 1


def regrades(task: Task, name: str, patch: str, count: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        prediction = Prediction(instance_id=task.instance_id, model_name_or_path=name, model_patch=patch)
        grade = official.grade(task, prediction, folder=Path(folder))
    line = {"instance_id": task.instance_id, "patch": name, "runner": runner(task), "outcome": grade.outcome.value}
    if not grade.resolved:
        return [line]
    regrader = Regrader(task, chance=random.Random())
    found = [regrader.regrade(patch, passed_tests(grade.report)) for _ in range(count)]
    return [
        {
            **line,
            "state": each.state,
            "reason": each.reason,
            "marks": [mark.model_dump() for mark in each.marks],
            "canaries": len(each.canaries),
            "seconds": each.seconds,
            "grade_seconds": grade.seconds,
        }
        for each in found
    ]


def runner(task: Task) -> str:
    names = {"method": "Django's", "bare": "sympy's", "example": "examples"}
    form = names.get(str(kind_of(task)), "pytest")
    return "tox (sphinx)" if "tox" in command_of(task.eval_script) else form


def table(lines: list[dict[str, Any]]) -> None:
    by_runner: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        if "state" in line:
            by_runner[line["runner"]].append(line)
    print("| runner | instances | regrades | canaries | false alarms | unaudited | cost of grading |")
    print("|---|---|---|---|---|---|---|")
    for name, found in [*sorted(by_runner.items()), ("all", [line for each in by_runner.values() for line in each])]:
        states = [line["state"] for line in found]
        instances = len({line["instance_id"] for line in found})
        cost = sum(line["seconds"] for line in found) / sum(line["grade_seconds"] for line in found)
        canaries = sum(line["canaries"] for line in found)
        print(
            f"| {name} | {instances} | {len(found)} | {canaries} | {states.count('marked')} | "
            f"{states.count('unaudited')} | {cost:.2f} |"
        )


if __name__ == "__main__":
    main()
