"""What the tests of the sample set really do before and after each gold patch, in real containers.

python -m tests.instances.observe            # say what differs from the files
python -m tests.instances.observe --write    # write base_commit (task.yaml) and tests.json anew
"""

import json
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from aem_harness.harness.grading import official
from aem_harness.harness.instances import bundled
from aem_harness.harness.instances.rows import parse_row
from aem_harness.harness.types import Grade, Prediction, Task

UNRELATED = "diff --git a/NOTES b/NOTES\nnew file mode 100644\n--- /dev/null\n+++ b/NOTES\n@@ -0,0 +1 @@\n+later\n"


@dataclass(frozen=True)
class Observed:
    """What the containers say of one instance."""

    gold: Grade
    unrelated: Grade
    lists: dict[str, list[str]]  # FAIL_TO_PASS and PASS_TO_PASS


def base_commit(instance_id: str) -> str:
    """The commit an instance starts from, made from the files of the set with the git of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(bundled.ROOT / "projects" / bundled.project_of(instance_id), tree)
        made = subprocess.run(
            ["sh", bundled.ROOT / "commit.sh", tree, bundled.ROOT / "tasks" / instance_id],
            capture_output=True,
            text=True,
            check=True,
        )
    return made.stdout.strip()


def observe(task: Task, folder: Path) -> Observed:
    """Grade the gold patch and an unrelated one, and read from both logs which tests each of them passes."""
    gold, gold_passes = _graded(task, "gold", task.patch, folder)
    unrelated, unrelated_passes = _graded(task, "unrelated", UNRELATED, folder)
    lists = {
        "FAIL_TO_PASS": sorted(gold_passes - unrelated_passes),
        "PASS_TO_PASS": sorted(gold_passes & unrelated_passes),
    }
    return Observed(gold, unrelated, lists)


def _graded(task: Task, kind: str, patch: str, folder: Path) -> tuple[Grade, set[str]]:
    prediction = Prediction(instance_id=task.instance_id, model_name_or_path=kind, model_patch=patch)
    place = folder / kind / task.instance_id
    grade = official.grade(task, prediction, folder=place, timeout=120)
    statuses = official.log_statuses(task, (place / official.TEST_OUTPUT).read_text())
    return grade, {test for test, status in statuses.items() if status == "PASSED"}


def _tasks() -> list[Task]:
    """The set as tasks, whatever its test lists say (an instance that is being written has none yet)."""
    rows = ({**row, "FAIL_TO_PASS": row["FAIL_TO_PASS"] or ["none yet"]} for row in bundled.rows())
    return [parse_row(row, dataset="sample", folder=bundled.ROOT) for row in rows]


def _update(path: Path, text: str, write: bool) -> None:
    if path.read_text() == text:
        return
    print(f"{path.relative_to(bundled.ROOT)} {'written' if write else 'differs'}")
    if write:
        path.write_text(text)


def main(write: bool) -> None:
    for task in _tasks():
        path = bundled.ROOT / "tasks" / task.instance_id / "task.yaml"
        commit = base_commit(task.instance_id)
        _update(path, path.read_text().replace(task.instance.base_commit, commit), write)
    tasks = _tasks()
    with ThreadPoolExecutor(2) as pool, tempfile.TemporaryDirectory() as folder:
        observed = pool.map(lambda task: observe(task, Path(folder)), tasks)
        for task, found in zip(tasks, observed, strict=True):
            path = bundled.ROOT / "tasks" / task.instance_id / "tests.json"
            _update(path, json.dumps(found.lists, indent=2, ensure_ascii=False) + "\n", write)


if __name__ == "__main__":
    main("--write" in sys.argv[1:])
