"""A run whose rollouts all end alike without having worked is no result: it stops, and says what is likely wrong."""

import itertools

import pytest

from aem_harness.harness.run.alike import Alike, AlikeWatch, alike, sign


def event(status: str, *, commands: int = 0, patch: int = 0, fault: str = "", reason: str = "", **facts) -> dict:
    return {
        "exit_status": status,
        "commands": commands,
        "patch_bytes": patch,
        "reason": reason,
        "fault": {"boundary": "policy", "message": fault} if fault else None,
        **facts,
    }


@pytest.mark.parametrize(
    ("one", "remedy"),
    [
        (event("format_errors"), "chat template"),
        (event("format_errors"), "reasoning parser"),
        (event("context_limit", reason="4096 tokens"), "max_tokens"),
        (event("context_limit", commands=3), "max_tokens"),
        (event("agent_crash", reason="KeyError: 'x'", patch=10, commands=4), "agent's own code"),
        (event("submitted", commands=2, left_out={"ignored": 2}), "an empty patch, because"),
        (event("wall_limit", commands=9), "wall time"),
    ],
)
def test_a_dozen_that_end_alike_stop_the_run_with_the_cause(one, remedy):
    watch = AlikeWatch(12)
    for _ in range(11):
        watch.add(one)
    with pytest.raises(Alike, match=remedy) as caught:
        watch.add(one)
    assert caught.value.exit_code == 3
    with pytest.raises(Alike):
        AlikeWatch(12, [one] * 12).check()
    AlikeWatch(0, [one] * 12).check()


HONEST = [
    event("submitted", commands=5, patch=100),
    event("submitted", commands=5),  # a model that hands in nothing
    event("step_limit", commands=50, patch=100),
    event("context_limit", commands=50, patch=100),
]


@pytest.mark.parametrize("one", HONEST)
def test_rollouts_that_worked_are_a_result_however_they_ended(one):
    assert sign(one) == ""
    AlikeWatch(12, [one] * 12).check()


def test_two_that_differ_from_a_dozen_and_losses_to_faults_say_nothing():
    bad, good = event("format_errors"), HONEST[0]
    assert alike([bad] * 11 + [good])
    assert not alike([bad] * 10 + [good] * 2)
    assert not alike([event("fault", fault="gone")] * 12)
    assert not alike([bad] * 2), "of two nothing can be said"
    watch = AlikeWatch(12)
    for one in itertools.islice(itertools.cycle([good, bad]), 40):
        watch.add(one)


def test_crashes_are_alike_when_only_their_numbers_differ():
    crashes = [event("agent_crash", reason=f"IndexError: index {n} of {2 * n}") for n in range(12)]
    assert "agent's own code" in alike(crashes)
