"""Who is to blame when a container does not work: the engine and the host, or what ran in the container.

A policy must not be able to turn its failure into an infrastructure failure, which leaves the rate: by stopping or
removing the shell, killing everything, filling its disk, or growing the work tree beyond what git can read in time. The
rule is the grader's for limits: a control decides. Where a fresh container of the same image, under the same limits,
does before and after what this one twice cannot, the engine is well, and it was what ran in this one.
"""

from collections.abc import Callable

from aem_harness.harness.errors import AemError, ContainerDied, EnvironmentFault
from aem_harness.harness.sandbox.container import Sandbox

PROBE_BYTES = 16 * 2**20


def own_doing(sandbox: Sandbox, fault: AemError, work: Callable[[Sandbox], object]) -> bool:
    """Whether `work`, which ended with `fault`, fails in `sandbox` again and succeeds in a fresh container like it.

    Never for what no process in a container can cause: that the engine was told to end it, and faults of other kinds.
    """
    if not isinstance(fault, EnvironmentFault) or isinstance(fault, ContainerDied):
        return False
    try:
        with sandbox.fresh() as control:
            work(control)
            if _works(sandbox, work):
                return False
            work(control)  # the engine is still well: it was not that which failed in between
    except AemError:
        return False
    return True


def _works(sandbox: Sandbox, work: Callable[[Sandbox], object]) -> bool:
    """Raises ContainerDied where the container was ended meanwhile."""
    try:
        work(sandbox)
    except ContainerDied:
        raise
    except AemError:
        return False
    return True


def probe(sandbox: Sandbox) -> None:
    """A command and a file, as every rollout needs them. Raises EnvironmentFault when either fails."""
    command = f"head -c {PROBE_BYTES} /dev/zero > /tmp/.aem-probe && rm /tmp/.aem-probe"
    for _ in range(2):  # the first may only find that its shell is gone, and be answered by a new one
        seen = sandbox.execute(command)
        if seen.returncode == 0:
            return
    raise EnvironmentFault(f"the container runs no command: {seen.output.strip()[-200:]}")
