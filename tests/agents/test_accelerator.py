"""GPU time divided among requests, worked by hand and as properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aem_harness.agents.accelerator import Charge, GpuClock
from aem_harness.agents.messages import said
from aem_harness.harness.run.trajectory import Summary
from aem_harness.harness.types import Completion

SPANS = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50)), min_size=1, max_size=12)


def charged(gpus: float | None, spans: list[tuple[int, int]]) -> list[float | None]:
    """The charges of requests that begin and last so many seconds."""
    at = [0.0]
    clock = GpuClock(gpus, now=lambda: at[0])
    charges: dict[int, Charge] = {}
    blocks = [clock.request() for _ in spans]
    moments = [(begin + length, 0, number) for number, (begin, length) in enumerate(spans)]
    moments += [(begin, 1, number) for number, (begin, _) in enumerate(spans)]
    for moment, begins, number in sorted(moments):
        at[0] = moment
        if begins:
            charges[number] = blocks[number].__enter__()
        else:
            blocks[number].__exit__(None, None, None)
    return [charges[number].gpu_seconds for number in range(len(spans))]


def test_two_requests_that_overlap_share_the_gpus_while_they_do():
    assert charged(8, [(0, 10), (6, 10)]) == pytest.approx([8 * (6 + 4 / 2), 8 * (4 / 2 + 6)])


def test_without_known_gpus_nothing_is_charged():
    assert charged(None, [(0, 10)]) == [None]


def test_a_request_that_fails_gives_its_share_back():
    at = 0.0
    clock = GpuClock(1, now=lambda: at)
    with pytest.raises(OSError), clock.request():
        raise OSError
    with clock.request() as charge:
        at = 5.0
    assert charge.gpu_seconds == 5


def test_a_rollout_is_charged_the_sum_of_its_responses_and_nothing_where_no_gpu_is_known():
    summary = Summary()
    assert summary.facts()["gpu_seconds"] is None
    for charge in (None, 1.5, 2.0):
        completion = Completion(content="", gpu_seconds=charge)
        summary.add(said(completion, []))
    assert summary.facts()["gpu_seconds"] == 3.5


@given(SPANS)
def test_charges_add_up_to_the_time_in_which_any_request_was_in_flight(spans):
    busy = len({second for begin, length in spans for second in range(begin, begin + length)})
    assert sum(charge or 0 for charge in charged(2, spans)) == pytest.approx(2 * busy)
