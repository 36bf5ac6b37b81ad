"""Real instances for the tests of this folder: their images are built on first use and kept."""

from collections.abc import Mapping

import pytest

from aem_harness.harness.instances.rows import parse_row
from aem_harness.harness.types import Task
from tests.verified import build


@pytest.fixture(scope="session")
def tasks(engine: None) -> Mapping[str, Task]:
    """Every listed instance by id, straight from its published row, with its image present."""
    try:
        build.require_index()
        build.build(build.instance_ids())
        rows = build.rows(build.instance_ids())
    except build.Unavailable as error:
        pytest.skip(str(error))
    return {row["instance_id"]: parse_row(row, dataset="SWE-bench/SWE-bench_Verified") for row in rows}
