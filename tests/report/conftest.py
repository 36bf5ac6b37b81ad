"""Two drawn runs in the real store's format, and what a comparison of them says."""

from pathlib import Path

import pytest

from aem_harness.harness.compare.compare import compare
from aem_harness.harness.compare.outcomes import Outcomes, load
from aem_harness.harness.compare.records import Comparison
from benchmarks.synthetic_runs import make_run


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Baseline and candidate of 24 tasks x 3 seeds; the candidate resolves clearly more."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        make_run(folder / arm, arm, tasks=24, seeds=3, gain=gain, turns=5)
        for arm, gain in (("base", 0.0), ("aem_50", 0.35))
    ]


@pytest.fixture(scope="session")
def outcomes(runs: list[Path]) -> Outcomes:
    return load(runs)


@pytest.fixture(scope="session")
def comparison(outcomes: Outcomes) -> Comparison:
    return compare(outcomes)
