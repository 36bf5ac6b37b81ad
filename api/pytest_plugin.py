"""A fixture for a lab's own tests, known to pytest as soon as aem-harness is installed.

    def test_the_new_checkpoint_is_no_worse(aem_gate):
        assert aem_gate("results/base", "results/new", margin=0.03).passed

Nothing of aem-harness but this file is imported before a test asks for the fixture.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from aem_harness.harness.gate.report import GateReport


@pytest.fixture
def aem_gate(request: pytest.FixtureRequest) -> "Callable[..., GateReport]":
    """`aem_harness.gate`, whose report is shown beside the test when the test fails."""
    from aem_harness import gate
    from aem_harness.harness.gate.report import to_text

    def judged(*arms: Any, **settings: Any) -> "GateReport":
        report = gate(*arms, **settings)
        request.node.add_report_section("call", "aem gate", to_text(report))
        return report

    return judged
