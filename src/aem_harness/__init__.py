"""aem-harness: find out whether a new checkpoint is a better software engineer than the last.

The one name that the distribution installs. The packages lie at the top of the repository and are linked here.

    import aem_harness

    finished = aem_harness.run("gold", "sample")                            # -> Finished
    finished = aem_harness.grade("preds.json", "verified")                  # -> Finished
    table = aem_harness.outcomes("results/base")                            # -> DataFrame, one row a rollout
    comparison = aem_harness.compare(["results/base", "results/new"])       # -> Comparison
    report = aem_harness.gate("results/base", "results/new", margin=0.03)   # -> GateReport
    plan = aem_harness.plan(difference=0.02)                                # -> Plan

Nothing is printed, and nothing heavy is imported before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aem_harness.api.comparing import compare, outcomes, plan
    from aem_harness.api.gating import Candidate, gate
    from aem_harness.api.grading import grade
    from aem_harness.api.running import Finished, Tasks, run
    from aem_harness.api.serving import Served
    from aem_harness.harness.compare.compare import CompareOptions
    from aem_harness.harness.gate.driver import GateOptions
    from aem_harness.harness.run.origin import Reuse

    __version__: str

_HOME = {
    "run": "api.running",
    "Finished": "api.running",
    "Reuse": "harness.run.origin",
    "Tasks": "api.running",
    "grade": "api.grading",
    "outcomes": "api.comparing",
    "compare": "api.comparing",
    "CompareOptions": "harness.compare.compare",
    "plan": "api.comparing",
    "gate": "api.gating",
    "GateOptions": "harness.gate.driver",
    "Candidate": "api.gating",
    "Served": "api.serving",
}
__all__ = [
    "Candidate",
    "CompareOptions",
    "Finished",
    "GateOptions",
    "Reuse",
    "Served",
    "Tasks",
    "__version__",
    "compare",
    "gate",
    "grade",
    "outcomes",
    "plan",
    "run",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        globals()[name] = _version()
        return globals()[name]
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"aem_harness.{_HOME[name]}"), name)


def _version() -> str:
    """The installed version, read when asked for: it takes longer than all else that `aem --help` imports from here."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("aem-harness")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
