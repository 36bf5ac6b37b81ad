"""What the official parser is known to miss in a log is marked, and nothing else is. Logs as the runners print them."""

from pathlib import Path

from aem_harness.harness.grading.container import apply_patch
from aem_harness.harness.grading.readings import UNMERGED, audit_readings
from aem_harness.harness.types import Observation, Task
from tests.grading.conftest import stored_log
from tests.grading.test_canary import tiny_task

PYTEST_9 = """\
=========================== short test summary info ============================
PASSED test_sub.py::T::test_a
PASSED test_sub.py::test_p[x0]
PASSED test_sub.py::test_p[b]
SUBFAILED[a b] (i=1) test_sub.py::T::test_a - assert 1 == 0
========================= 1 failed, 3 passed in 0.26s ==========================
"""
UNITTEST_311 = """\
test_a (st.T.test_a) ...
  test_a (st.T.test_a) (i=1) ... skipped 'no'
test_c (st.T.test_c) ... ok
test_d (st.T.test_d) ... skipped 'not here'
"""


def listing(*tests: str, parser: str = "parse_log_pytest") -> Task:
    return tiny_task().model_copy(update={"fail_to_pass": tests, "pass_to_pass": (), "log_parser": parser})


def names(log: str, task: Task, notes: str = "") -> dict[str, bool]:
    return {mark.name: mark.grave for mark in audit_readings(log, notes, task)}


def test_a_listed_test_with_a_failed_sub_test_is_marked_gravely() -> None:
    assert names(PYTEST_9, listing("test_sub.py::T::test_a")) == {"failed sub-test": True}
    assert names(PYTEST_9, listing("test_sub.py::test_p[b]")) == {}


def test_an_id_that_this_pytest_shortens_is_marked() -> None:
    assert names(PYTEST_9, listing(f"test_sub.py::test_p[{'a' * 150}]")) == {"shortened id": False}
    assert names(PYTEST_9, listing(f"test_sub.py::test_p[{'a' * 50}]")) == {}
    whole = PYTEST_9.replace("[x0]", f"[{'a' * 150}]")
    assert names(whole, listing(f"test_sub.py::test_p[{'a' * 150}]")) == {}


def test_a_listed_test_whose_status_a_skipped_sub_test_took_is_marked() -> None:
    tests = ("test_a (st.T.test_a)", "test_c (st.T.test_c)", "test_d (st.T.test_d)")
    assert names(UNITTEST_311, listing(*tests, parser="parse_log_django")) == {"skipped sub-test": False}
    assert names(UNITTEST_311, listing(*tests[1:], parser="parse_log_django")) == {}


def test_files_left_unmerged_by_a_three_way_apply_are_named() -> None:
    class Conflicted:
        """git as it answers where the second way ends in conflicts and the fourth works."""

        def write_file(self, path: str, data: bytes) -> None: ...

        def execute(self, command: str, *, timeout: float = 60.0, cwd: str | None = None) -> Observation:
            applied = command.startswith("patch")
            output = "src/a.py\n" if "--diff-filter=U" in command else "patching file src/a.py\n" if applied else ""
            failed = command.startswith("git apply")
            return Observation(output=output, returncode=int(failed), seconds=0.0)

    commands = ["git apply --verbose", "git apply --verbose --3way", "git apply --verbose --reject", "patch -p1 -i"]
    applied, words = apply_patch(Conflicted(), b"", commands, "/testbed")  # type: ignore[arg-type]
    assert applied
    assert words.endswith(f"\n{UNMERGED}src/a.py\n")
    assert names("", tiny_task(), words) == {"unmerged": False}
    assert names("", tiny_task(), "Applied patch src/a.py cleanly.") == {}


def test_public_logs_bear_no_such_mark(verified: dict[str, Task], logs: Path, index: list[dict[str, str]]) -> None:
    for row in index:
        log = stored_log(logs / row["instance_id"] / row["submission"])
        if log:
            found = names(log, verified[row["instance_id"]])
            assert found == {}, row["instance_id"]
