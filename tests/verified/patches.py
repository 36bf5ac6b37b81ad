"""The kinds of patch that every instance is graded with, and grading many at a time."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aem_harness.harness.grading import official
from aem_harness.harness.types import Grade, Prediction, Task

# Changes nothing that a test looks at (an empty patch would not be graded at all).
NO_OP = """\
diff --git a/aem-no-op.txt b/aem-no-op.txt
new file mode 100644
index 0000000..12ab5d9
--- /dev/null
+++ b/aem-no-op.txt
@@ -0,0 +1 @@
+This file changes nothing.
"""

# Fits no file of any repository.
BROKEN = """\
diff --git a/no/such/file.py b/no/such/file.py
--- a/no/such/file.py
+++ b/no/such/file.py
@@ -1,2 +1,2 @@
 def nowhere():
-    return False
+    return True
"""


def gold(task: Task) -> str:
    return task.patch


def no_op(task: Task) -> str:
    return NO_OP


def broken(task: Task) -> str:
    return BROKEN


def prediction_of(task: Task, patch_of: Callable[[Task], str]) -> Prediction:
    return Prediction(instance_id=task.instance_id, model_name_or_path=patch_of.__name__, model_patch=patch_of(task))


def grade_all(
    tasks: Mapping[str, Task], patch_of: Callable[[Task], str], folder: Path, *, workers: int = 4
) -> dict[str, Grade]:
    """The grade of every task under the patch that `patch_of` gives it, each in a fresh container."""

    def one(task: Task) -> Grade:
        return official.grade(task, prediction_of(task, patch_of), folder=folder / task.instance_id)

    with ThreadPoolExecutor(workers) as pool:
        return dict(zip(tasks, pool.map(one, tasks.values()), strict=True))
