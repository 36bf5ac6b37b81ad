"""The two steps of the official procedure that happen inside a container: apply the patch, run the eval script.

Source of both: `run_instance` and `exec_run_with_timeout` of swebench 5.0.2.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aem_harness.harness.errors import GradingFault
from aem_harness.harness.grading.readings import UNMERGED
from aem_harness.harness.grading.verdict import Witness
from aem_harness.harness.sandbox.worktree import differing
from aem_harness.harness.types import Environment

PATCH_FILE, SCRIPT_FILE, LOG_FILE = "/tmp/patch.diff", "/eval.sh", "/eval.log"
LOG_BOUND = 200 * 2**20  # bytes of test output kept; the longest real log of Verified is about 20 MB
STEP_SECONDS = 600.0  # for each small step; only the eval script has the caller's time limit
_RESET = "git checkout -- . ; git clean -fd"

# The script's output goes through a pipe, as in the official harness, into a file that `cat` writes at once and that
# `ulimit -f` (KiB) bounds, for `cat` alone. Like the engine, which waits 2 s for output after a command ended, this
# does not wait for daemons that the tests left behind with the pipe open.
_RUN = f"""\
exec 9> >(ulimit -f $KIB; exec cat > {LOG_FILE}); reader=$!
/bin/bash {SCRIPT_FILE} >&9 2>&1 9>&- < /dev/null
status=$?
exec 9>&-
( sleep 2; kill $reader ) > /dev/null 2>&1 &
wait $reader
exit $status
"""

# Counters of what the limits of this container stopped, of cgroup v2 and v1, and the free KiB of the root file system.
_LOOK = """\
cat /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control 2> /dev/null | grep '^oom_kill ' || true
for file in /sys/fs/cgroup/pids.events /sys/fs/cgroup/pids/pids.events; do
  [ -r $file ] && sed 's/^max/pids_max/' $file
done
echo "free_kib $(df -Pk / | awk 'NR == 2 {print $4}')"
"""


@dataclass(frozen=True)
class TestRun:
    """What running the eval script gave: its whole output, and what the engine saw."""

    __test__ = False  # a name that pytest would collect

    output: bytes
    timed_out: bool
    witness: Witness


@dataclass(frozen=True)
class Attempt:
    """A patch tried in a container: what applying it said, and the tests' run if it could be applied."""

    words: str
    run: TestRun | None
    tree_differs: tuple[str, ...] | None = None


def attempt_patch(
    environment: Environment,
    patch: bytes,
    script: str,
    timeout: float,
    commands: Sequence[str],
    workdir: str,
    left: Mapping[str, str | None] | None = None,
) -> Attempt:
    """Apply `patch`, then run the eval script for at most `timeout` seconds.

    The patched tree is compared with what the agent `left` (`harness.sandbox.worktree.Patch.carried`) where that is
    known.
    """
    applied, words = apply_patch(environment, patch, commands, workdir)
    if not applied:
        return Attempt(words, None)
    differs = None if left is None else tuple(differing(environment, workdir, left))
    return Attempt(words, run_tests(environment, script, timeout), differs)


def apply_patch(environment: Environment, patch: bytes, commands: Sequence[str], workdir: str) -> tuple[bool, str]:
    """Try `commands` in order on a tree that is reset in between; whether one worked, and what it (or the last) said.

    A patch that every command refuses, yet that is found fully applied, counts as applied. Raises GradingFault when
    the container, not the patch, is what refuses.
    """
    environment.write_file(PATCH_FILE, patch)
    # There git apply leaves a patch out and ends with 0; its words are no proof, since it quotes lines of the patch.
    below = environment.execute("git rev-parse --show-prefix", timeout=STEP_SECONDS, cwd=workdir)
    if below.returncode == 0 and below.output.strip():
        raise GradingFault(f"{workdir} lies inside another git repository, where git leaves patches out")
    words = ""
    for attempt, command in enumerate(commands):
        if attempt:
            environment.execute(_RESET, timeout=STEP_SECONDS, cwd=workdir)
        step = environment.execute(f"{command} {PATCH_FILE}", timeout=STEP_SECONDS, cwd=workdir)
        if step.timed_out:
            raise GradingFault(f"`{command}` did not end within {STEP_SECONDS:g} s")
        words = step.output
        if step.returncode == 0:
            return True, words + (_unmerged(environment, workdir) if attempt else "")
    if (
        environment.execute(f"git apply --check --reverse {PATCH_FILE}", timeout=STEP_SECONDS, cwd=workdir).returncode
        == 0
    ):
        return True, "verified already applied"
    _require_sound_tree(environment, workdir)
    return False, words


def _unmerged(environment: Environment, workdir: str) -> str:
    """A line that names the files which a three-way apply left in conflict: the reset between tries keeps them so."""
    left = environment.execute("git diff --name-only --diff-filter=U", timeout=STEP_SECONDS, cwd=workdir)
    names = ", ".join(left.output.split("\n")[:5]).strip(", ") if left.returncode == 0 else ""
    return f"\n{UNMERGED}{names}\n" if names else ""


def _require_sound_tree(environment: Environment, workdir: str) -> None:
    """A refusal says something about the patch only if git works here and files can be written."""
    probe = "git rev-parse --verify HEAD && git status --porcelain > /dev/null && : > .aem-probe && rm .aem-probe"
    step = environment.execute(probe, timeout=STEP_SECONDS, cwd=workdir)
    if step.returncode:
        raise GradingFault(f"no patch can be applied in {workdir}: {' '.join(step.output.split())[-300:]}")


def run_tests(environment: Environment, script: str, timeout: float, *, bound: int = LOG_BOUND) -> TestRun:
    """Run the official eval script for at most `timeout` seconds; its output comes back whole up to `bound` bytes."""
    environment.write_file(SCRIPT_FILE, script.encode())
    run = environment.execute(f"KIB={bound // 1024}\n{_RUN}", timeout=timeout)
    try:
        output = environment.read_file(LOG_FILE)
    except FileNotFoundError:
        output = b""
    look = environment.execute(_LOOK, timeout=60.0)
    seen = {name: int(value) for name, value in re.findall(r"^(\w+) (\d+)$", look.output, re.MULTILINE)}
    return TestRun(output=output, timed_out=run.timed_out, witness=_witness(seen, len(output) >= bound // 1024 * 1024))


def _witness(seen: dict[str, int], flooded: bool) -> Witness:
    limits = []
    if killed := seen.get("oom_kill", 0):
        limits.append(f"memory ({killed} processes killed)")
    if refused := seen.get("pids_max", 0):
        limits.append(f"processes ({refused} forks refused)")
    return Witness(
        limits_hit=tuple(limits),
        disk_full=seen.get("free_kib", 1) == 0,
        flooded=flooded,
    )
