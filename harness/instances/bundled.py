"""The bundled sets. Of `sample`, the rows in the published format of swebench 5 are put together here from its files.

How those files make an instance is told in `sample/README.md`; what lies in `tiny/` are rows, in `tiny/README.md`.
"""

import json
import re
from pathlib import Path
from string import Template
from typing import Any

from aem_harness.harness.instances.legacy import default_image

ROOT = Path(__file__).with_name("sample")
TINY = Path(__file__).with_name("tiny")
PREFIX = "aem-sample__"


def rows() -> list[dict[str, Any]]:
    """Every instance of `sample`, sorted by project and number."""
    script = Template((ROOT / "eval.sh").read_text())
    return [_row(folder, script) for folder in sorted((ROOT / "tasks").iterdir(), key=_order) if folder.is_dir()]


def project_of(instance_id: str) -> str:
    """The project of an instance: aem-sample__calx-9 -> calx."""
    return instance_id.removeprefix(PREFIX).rpartition("-")[0]


def _row(folder: Path, script: Template) -> dict[str, Any]:
    import yaml

    instance_id, project = folder.name, project_of(folder.name)
    facts = yaml.safe_load((folder / "task.yaml").read_text())
    test_patch = (folder / "test.patch").read_text()
    test_files = re.findall(r"^diff --git a/(\S+) ", test_patch, re.MULTILINE)
    hints = folder / "hints.md"
    return {
        "instance_id": instance_id,
        "repo": f"aem-sample/{project}",
        **facts,
        "problem_statement": (folder / "problem_statement.md").read_text(),
        "hints_text": hints.read_text() if hints.is_file() else "",
        "patch": (folder / "gold.patch").read_text(),
        "test_patch": test_patch,
        **json.loads((folder / "tests.json").read_text()),
        "image": default_image(instance_id).replace("swebench/", "aem/", 1),
        "eval_script": script.substitute(
            base_commit=facts["base_commit"], test_files=" ".join(test_files), test_patch=test_patch
        ),
        "log_parser": "parse_log_pytest",
        "eval_type": "pass_and_fail",
        "dockerfile": ".",
        "build_args": {"PROJECT": project, "INSTANCE": instance_id, "BASE_COMMIT": facts["base_commit"]},
        "network": False,
    }


def _order(folder: Path) -> tuple[str, int]:
    project, _, number = folder.name.rpartition("-")
    return project, int(number)
