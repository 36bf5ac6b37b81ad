"""Tasks as SWE-bench instances: one project that holds all their functions, one image, and one row for each bug.

At the base commit every module of the project has its bug. An instance reports one of them; its test patch adds the
hidden examples of that module, and its tests are that module's examples alone.

    python -m aem_harness.training.export results/tiny 60  then: aem run --set results/tiny/rows.jsonl --agent bash ...
    python -m aem_harness.training.export                        writes the bundled set anew: aem run --set tiny ...
"""

import difflib
import hashlib
import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aem_harness.harness.errors import ConfigError
from aem_harness.training.environment import files_of, statement_of
from aem_harness.training.project import t
from aem_harness.training.project.t import failures
from aem_harness.training.tasks import TEST_SEED, BugFix, tasks

REPO = "aem/tiny-bugs"
BUNDLED_SEED, BUNDLED_COUNT = 2, 40  # held-out tasks like those that trainers evaluate on, and none of them
SECONDS = 20  # for the tests of a module: an edit may well make it run forever
DATE = "2026-01-01T00:00:00+00:00"
# The commit must be the same wherever the image is built: all that its hash depends on is said here.
COMMIT = {
    "GIT_AUTHOR_NAME": "aem",
    "GIT_AUTHOR_EMAIL": "aem@localhost",
    "GIT_AUTHOR_DATE": DATE,
    "GIT_COMMITTER_NAME": "aem",
    "GIT_COMMITTER_EMAIL": "aem@localhost",
    "GIT_COMMITTER_DATE": DATE,
}
DOCKERFILE = """\
FROM aem/base:bookworm
ENV PATH=/opt/miniconda3/envs/testbed/bin:$PATH
WORKDIR /testbed
COPY files/ /testbed/
RUN chmod -R u=rwX,go=rX . && git init -q && git add -A && {commit} git commit -q -m base
"""
_HEREDOC = "EOF_114329324912"


def export_rows(chosen: Sequence[BugFix], folder: Path) -> Path:
    """Write `rows.jsonl` and the image's build folder `project/` into `folder`; returns the rows' path.

    `aem run --set rows.jsonl` builds the image once. Raises ConfigError when two tasks share a name.
    """
    if len({task.name for task in chosen}) != len(chosen):
        raise ConfigError("tasks of one project need distinct names")
    files = project_files(chosen)
    for path, text in files.items():
        _write(folder / "project" / "files" / path, text)
    identity = " ".join(f"{key}='{value}'" for key, value in COMMIT.items())
    _write(folder / "project" / "Dockerfile", DOCKERFILE.format(commit=identity))
    commit = commit_of(files)
    image = f"{REPO}:{hashlib.sha256((DOCKERFILE + commit).encode()).hexdigest()[:12]}"
    rows = [row_of(task, commit, image) for task in chosen]
    _write(folder / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return folder / "rows.jsonl"


def project_files(chosen: Iterable[BugFix]) -> dict[str, str]:
    """The work tree at the base commit."""
    files = {"t.py": inspect.getsource(t)}
    for task in chosen:
        files |= files_of(task)
    return files


def row_of(task: BugFix, commit: str, image: str) -> dict[str, Any]:
    """The instance of one task, in the row format of swebench 5."""
    module, tests = f"lib/{task.name}.py", f"tests/{task.name}.txt"
    visible = files_of(task)[tests]
    examples = [*task.visible, *task.hidden]
    test_patch = patch_of(tests, visible, "".join(f"{example}\n" for example in examples))
    verdicts = failures(task.bug, examples)
    ids = [f"{tests}::{number}" for number in range(len(examples))]
    return {
        "instance_id": f"aem__tiny-bugs-{task.name}",
        "repo": REPO,
        "base_commit": commit,
        "version": "1",
        "problem_statement": statement_of(task),
        "hints_text": "",
        "created_at": DATE,
        "difficulty": "",
        "patch": patch_of(module, task.bug + "\n", task.gold + "\n"),
        "test_patch": test_patch,
        "FAIL_TO_PASS": [test for test, failure in zip(ids, verdicts, strict=True) if failure],
        "PASS_TO_PASS": [test for test, failure in zip(ids, verdicts, strict=True) if not failure],
        "image": image,
        "eval_script": eval_script(task.name, tests, commit, test_patch),
        "log_parser": "parse_log_pytest",
        "eval_type": "pass_and_fail",
        "dockerfile": "project",
        "network": False,
    }


def eval_script(name: str, tests: str, commit: str, test_patch: str) -> str:
    """What the grader runs: the module's tests as the test patch leaves them, with the base commit's runner."""
    lines = [
        "#!/bin/bash",
        "set -uxo pipefail",
        "cd /testbed",
        "git status",
        f"git -c core.fileMode=false diff {commit}",
        f"git checkout {commit} {tests} t.py",
        f"git apply -v - <<'{_HEREDOC}'\n{test_patch}\n{_HEREDOC}",
        ": '>>>>> Start Test Output'",
        f"timeout {SECONDS} python t.py -v {name}",
        ": '>>>>> End Test Output'",
        f"git checkout {commit} {tests}",
    ]
    return "\n".join(lines) + "\n"


def patch_of(path: str, before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(True), after.splitlines(True), f"a/{path}", f"b/{path}")
    return f"diff --git a/{path} b/{path}\n" + "".join(lines)


def commit_of(files: Mapping[str, str]) -> str:
    """The hash of the base commit, made here as the Dockerfile makes it there."""
    with tempfile.TemporaryDirectory() as folder:
        for path, text in files.items():
            _write(Path(folder) / path, text)

        def git(*arguments: str) -> str:
            environment = os.environ | COMMIT | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
            done = subprocess.run(
                ["git", *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True
            )
            return done.stdout.strip()

        git("init", "-q")
        git("add", "-A")
        git("commit", "-q", "-m", "base")
        return git("rev-parse", "HEAD")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)


def export_bundled(folder: Path) -> Path:
    """The set that `--set tiny` names, written into a folder; the same bytes on every machine."""
    return export_rows(list(tasks("test", seed=BUNDLED_SEED, count=BUNDLED_COUNT)), folder)


def main(arguments: Sequence[str]) -> None:
    """FOLDER COUNT: the first held-out tasks, those that trainers evaluate on. Nothing: the bundled set."""
    from aem_harness.harness.instances import bundled

    if arguments:
        print(export_rows(list(tasks("test", seed=TEST_SEED, count=int(arguments[1]))), Path(arguments[0])))
    else:
        print(export_bundled(bundled.TINY))


if __name__ == "__main__":
    main(sys.argv[1:])
