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
from pathlib import Path

from harness.grading.container import apply_patch, run_tests
from harness.grading.official import apply_commands, eval_script, log_statuses
from harness.instances import bundled
from harness.instances.rows import parse_row
from harness.sandbox.container import Sandbox
from harness.sandbox.images import ensure_image
from harness.types import Task

Lists = dict[str, list[str]]


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


def observe(task: Task) -> Lists:
    """FAIL_TO_PASS and PASS_TO_PASS as the official reader of logs sees them in the task's own container."""
    image = ensure_image(task).name
    with Sandbox(image, network=task.network, scrub_git=False, prelude="") as sandbox:
        before = _statuses(task, sandbox)
        applied, words = apply_patch(sandbox, task.patch.encode(), apply_commands(), task.instance.workdir)
        assert applied, f"{task.instance_id}: the gold patch does not apply: {words}"
        after = _statuses(task, sandbox)
    passing = sorted(test for test, status in after.items() if status == "PASSED")
    return {
        "FAIL_TO_PASS": [test for test in passing if before.get(test) != "PASSED"],
        "PASS_TO_PASS": [test for test in passing if before.get(test) == "PASSED"],
    }


def _statuses(task: Task, sandbox: Sandbox) -> dict[str, str]:
    run = run_tests(sandbox, eval_script(task), timeout=120)
    return log_statuses(task, run.output.decode())


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
        found = base_commit(task.instance_id)
        _update(path, path.read_text().replace(task.instance.base_commit, found), write)
    tasks = _tasks()
    with ThreadPoolExecutor(2) as pool:
        for task, lists in zip(tasks, pool.map(observe, tasks), strict=True):
            path = bundled.ROOT / "tasks" / task.instance_id / "tests.json"
            _update(path, json.dumps(lists, indent=2, ensure_ascii=False) + "\n", write)


if __name__ == "__main__":
    main("--write" in sys.argv[1:])
