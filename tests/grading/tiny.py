"""A task with an image of its own, small enough to be graded in two seconds: one wrong function, two tests."""

import json
from pathlib import Path

from aem_harness.harness.instances.rows import parse_row
from aem_harness.harness.types import Task

IMAGE = "aem/test-grading:latest"
SOURCE = "def double(x):\n    # twice the number\n    return x * x\n"
GOLD = """\
diff --git a/double.py b/double.py
--- a/double.py
+++ b/double.py
@@ -1,3 +1,3 @@
 def double(x):
     # twice the number
-    return x * x
+    return x + x
"""
TEST_PATCH = """\
diff --git a/test_double.py b/test_double.py
--- a/test_double.py
+++ b/test_double.py
@@ -3,3 +3,7 @@
 
 def test_two():
     assert double(2) == 4
+
+
+def test_three():
+    assert double(3) == 6
"""
EVAL_SCRIPT = f"""\
#!/bin/bash
set -uxo pipefail
source /opt/miniconda3/bin/activate
conda activate testbed
cd /testbed
git checkout HEAD test_double.py
git apply -v - <<'EOF_114329324912'
{TEST_PATCH}
EOF_114329324912
: '>>>>> Start Test Output'
python -m pytest -rA -p no:cacheprovider test_double.py
: '>>>>> End Test Output'
git checkout HEAD test_double.py
"""
DOCKERFILE = """\
FROM aem/base:bookworm
RUN /opt/miniconda3/envs/testbed/bin/pip install -q pytest==8.3.5
WORKDIR /testbed
COPY double.py test_double.py /testbed/
RUN git init -q . && git add -A && git commit -q -m base
"""


def row(instance_id: str = "aem__tiny-1") -> dict[str, object]:
    """A row in the format of swebench 5, with a Dockerfile in the folder `image` beside the dataset file."""
    return {
        "instance_id": instance_id,
        "repo": "aem/tiny",
        "version": "1",
        "base_commit": "0" * 40,
        "problem_statement": "double(3) is 9",
        "patch": GOLD,
        "test_patch": TEST_PATCH,
        "FAIL_TO_PASS": json.dumps(["test_double.py::test_three"]),
        "PASS_TO_PASS": json.dumps(["test_double.py::test_two"]),
        "image": IMAGE,
        "eval_script": EVAL_SCRIPT,
        "log_parser": "parse_log_pytest",
        "eval_type": "pass_and_fail",
        "dockerfile": "image",
    }


def write_dataset(folder: Path, *instance_ids: str) -> Path:
    """A dataset file of such rows, with the Dockerfile that builds their image."""
    image = folder / "image"
    image.mkdir(parents=True)
    (image / "Dockerfile").write_text(DOCKERFILE)
    (image / "double.py").write_text(SOURCE)
    (image / "test_double.py").write_text("from double import double\n\n\ndef test_two():\n    assert double(2) == 4\n")
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row(name)) + "\n" for name in instance_ids))
    return path


def task(folder: Path) -> Task:
    write_dataset(folder, "aem__tiny-1")
    return parse_row(row(), dataset="tiny", folder=folder)


def creating(path: str, text: str) -> str:
    """A patch that creates one file."""
    lines = text.splitlines()
    head = (
        f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1,{len(lines)} @@\n"
    )
    return head + "".join(f"+{line}\n" for line in lines)
