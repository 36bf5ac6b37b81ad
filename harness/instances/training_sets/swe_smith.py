"""SWE-smith (github.com/SWE-bench/SWE-smith, huggingface.co/datasets/SWE-bench/SWE-smith).

`patch` is the bug, so the gold patch is its reverse. The published image holds the correct code; a layer made here
applies the bug and leaves no trace of the correct code in the history. Tests are those of the image. As the project
does, the files of FAIL_TO_PASS alone are run, and only their tests are asked about: it takes tests that were not run
for passed. A row whose tests are not pytest's is refused: mypy, tornado and a few others have runners of their own.
"""

import base64
import gzip
import re
import shlex
from pathlib import Path

from aem_harness.harness.errors import DataError
from aem_harness.harness.instances.training_sets import Adapted, Row
from aem_harness.harness.instances.training_sets.columns import local_image, names, text
from aem_harness.harness.instances.training_sets.patches import reversed_patch

LAYER = Path(__file__).parent / "smith"
MOST = 96_000  # characters of a build argument that a Linux command line surely takes
TEST = "pytest --disable-warnings --color=no --tb=no -rA"  # the project's own, with the summary that swebench reads
REGISTRY = "jyangballin"  # where the images of the first releases lie, whose rows name no registry


def fits(row: Row) -> bool:
    """Sets with test patches and images of their own have an `image_name` too, and are not of this form."""
    needed = ("instance_id", "patch", "FAIL_TO_PASS", "PASS_TO_PASS", "image_name", "repo")
    return all(row.get(name) is not None for name in needed) and not row.get("test_patch")


def columns(row: Row) -> Adapted:
    repo, bug = text(row, "repo"), text(row, "patch")
    failing, passing = names(row, "FAIL_TO_PASS"), names(row, "PASS_TO_PASS")
    if strange := next((test for test in failing if "::" not in test), None):
        raise DataError(f"FAIL_TO_PASS names {strange!r}, no test of pytest: {repo} has a test runner of its own")
    files = sorted({test.partition("::")[0] for test in failing})
    packed = base64.b64encode(gzip.compress(bug.encode("utf-8", "surrogateescape"), mtime=0)).decode()
    if len(packed) > MOST:
        raise DataError(f"patch is too large to be built in: {len(packed)} characters when packed, at most {MOST}")
    derived = {
        "base_commit": _commit(repo),
        "problem_statement": row.get("problem_statement") or "",
        "patch": reversed_patch(bug),
        "test_patch": "",
        "FAIL_TO_PASS": failing,
        "PASS_TO_PASS": [test for test in passing if test.partition("::")[0] in files],
        "image": local_image("smith", text(row, "instance_id")),
        "eval_script": _script(files),
        "log_parser": "parse_log_pytest",
        "eval_type": "pass_and_fail",
        "dockerfile": str(LAYER),
        "build_args": {"IMAGE": image_of(text(row, "image_name")), "BUG": packed},
    }
    sources = dict.fromkeys(("PASS_TO_PASS", "eval_script", "log_parser", "eval_type"), "SWE-smith harness")
    sources |= {"image": "SWE-smith image_name", "patch": "the reverse of SWE-smith's bug"}
    return derived, sources | {"base_commit": "name of SWE-smith's mirror"}


def image_of(name: str) -> str:
    """The published image: a name with its registry's user as it is, another one as the project's tools complete it."""
    return name if "/" in name else f"{REGISTRY}/{name.replace('__', '_1776_')}:latest".lower()


def _commit(repo: str) -> str:
    """The original commit, which ends the name of the repository's mirror: swesmith/owner__name.1fd52536."""
    found = re.search(r"\.([0-9a-f]{7,40})$", repo)
    if not found:
        raise DataError(f"repo must end in the commit of its mirror, as in swesmith/owner__name.1fd52536, is {repo!r}")
    return found[1]


def _script(files: list[str]) -> str:
    words = shlex.join(files)
    return "\n".join(
        [
            "#!/bin/bash",
            "set -uxo pipefail",
            "source /opt/miniconda3/bin/activate",
            "conda activate testbed",
            "cd /testbed",
            "git config --global --add safe.directory /testbed",
            f"git checkout HEAD -- {words}",
            ": '>>>>> Start Test Output'",
            f"{TEST} {words}",
            ": '>>>>> End Test Output'",
            f"git checkout HEAD -- {words}",
            "",
        ]
    )
