"""The order of rollouts where it is free, the time that is left, and a run's state for Prometheus."""

import socket
import urllib.request
from collections import deque
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.report.metrics import served
from aem_harness.harness.run.listing import read_state
from aem_harness.harness.run.schedule import Durations, in_turn, longest_first, makespan
from aem_harness.harness.run.store import now
from aem_harness.harness.run.trajectory import TrajectoryWriter
from benchmarks.synthetic_runs import make_run
from tests.run.test_store import KEYS, open_store

NAMES = [name for name, _ in KEYS[::2]]


def ended(name: str, seconds: float, **more: object) -> dict[str, object]:
    return {"instance_id": name, "seconds": seconds, "fault": None, **more}


def order(waiting: list[tuple[str, int, int]], durations: Durations) -> list[tuple[str, int]]:
    queue, take = deque(waiting), longest_first(durations)
    return [take(queue)[:2] for _ in waiting]


def test_the_first_seed_comes_in_its_order_and_later_ones_the_longest_first():
    durations = Durations()
    waiting = [(name, seed, 0) for seed in range(2) for name in NAMES]
    queue, take = deque(waiting), longest_first(durations)
    assert [take(queue)[:2] for _ in NAMES] == [(name, 0) for name in NAMES]
    for name, seconds in zip(NAMES, (5.0, 50.0, 20.0), strict=True):
        durations.add(ended(name, seconds))
    assert [take(queue)[:2] for _ in NAMES] == [(NAMES[1], 1), (NAMES[2], 1), (NAMES[0], 1)]


def test_seeds_stay_one_after_the_other_and_a_retry_comes_at_once():
    durations = Durations([ended(NAMES[0], 1.0), ended(NAMES[1], 9.0)])
    waiting = [(NAMES[0], 0, 1), (NAMES[0], 1, 0), (NAMES[1], 1, 0), (NAMES[1], 2, 0)]
    assert order(waiting, durations) == [(NAMES[0], 0), (NAMES[1], 1), (NAMES[0], 1), (NAMES[1], 2)]


def test_a_long_rollout_of_a_later_seed_is_started_before_the_run_would_wait_for_it():
    """Two workers: if the long one came last, it would run alone for most of its time."""
    durations = Durations([ended(NAMES[0], 1.0), ended(NAMES[1], 40.0), ended(NAMES[2], 2.0)])
    waiting = [(NAMES[0], 6, 0), (NAMES[2], 6, 0), *((name, 7, 0) for name in NAMES)]
    assert longest_first(durations, 2)(deque(waiting))[:2] == (NAMES[1], 7)
    assert longest_first(durations, 1)(deque(waiting))[:2] == (NAMES[2], 6)  # one worker never waits


def test_far_from_the_end_seeds_stay_whole():
    durations = Durations([ended(NAMES[0], 1.0), ended(NAMES[1], 40.0), ended(NAMES[2], 2.0)])
    waiting = [(name, seed, 0) for seed in range(1, 40) for name in NAMES]
    queue, take = deque(waiting), longest_first(durations, 2)
    assert {take(queue)[1] for _ in NAMES} == {1}


def test_equal_rollouts_stay_in_their_seeds_to_the_end():
    durations = Durations(ended(name, 5.0) for name in NAMES)
    waiting = [(name, seed, 0) for seed in range(1, 4) for name in NAMES]
    queue, take = deque(waiting), longest_first(durations, 64)
    assert [take(queue)[1] for _ in waiting] == [seed for _, seed, _ in waiting]


def test_an_order_by_instance_is_kept():
    durations = Durations([ended(NAMES[0], 1.0), ended(NAMES[1], 9.0)])
    waiting = [(NAMES[0], 0, 0), (NAMES[0], 1, 0), (NAMES[1], 0, 0), (NAMES[1], 1, 0)]
    assert order(waiting, durations) == [one[:2] for one in waiting]
    queue, take = deque(waiting), longest_first(durations, 2)
    assert [take(queue) for _ in waiting] == waiting
    assert [in_turn(deque(waiting))] == waiting[:1]


def test_what_was_lost_tells_nothing_of_how_long_a_rollout_takes():
    durations = Durations([ended(NAMES[0], 900.0, fault={"boundary": "policy"}), ended(NAMES[1], 9.0)])
    assert not durations.known(NAMES[0])
    assert durations.of(NAMES[0]) == 9.0


@pytest.mark.parametrize(
    ("seconds", "workers", "busy", "expected"),
    [([3, 3, 2, 2, 2], 2, (), 7), ([3, 3, 2, 2, 2], 5, (), 3), ([], 2, (4.0, 1.0), 4), ([5], 2, (4.0, 1.0), 6)],
)
def test_makespan_of_a_list(seconds, workers, busy, expected):
    assert makespan(seconds, workers, busy=busy) == expected


def test_the_time_left_follows_what_the_remaining_instances_took(tmp_path: Path):
    with open_store(tmp_path / "r") as store:
        assert read_state(tmp_path / "r").left_seconds is None
        for name, seconds in zip(NAMES, (10.0, 1000.0, 30.0), strict=True):
            scratch = store.scratch(name, 0)
            (scratch / "patch.diff").write_text("patch")
            event = {"event": "rollout", "instance_id": name, "seed": 0, "attempt": 0, "fault": None}
            store.finish_rollout(scratch, {**event, "exit_status": "submitted", "seconds": seconds, "at": now()})
        writer = TrajectoryWriter(store.scratch(NAMES[0], 1), NAMES[0])  # one worker, just begun
        writer.message({"role": "user", "content": "begin"})
        assert read_state(tmp_path / "r").left_seconds == pytest.approx(10 + 1000 + 30, abs=9)
    assert read_state(tmp_path / "r").left_seconds is None  # nobody works any more


def test_prometheus_reads_the_state_of_a_run(tmp_path: Path):
    pytest.importorskip("prometheus_client")
    from prometheus_client.parser import text_string_to_metric_families

    run = make_run(tmp_path / "r", "night", tasks=4, seeds=2, turns=3, marked=0)
    with served(run, 0, "127.0.0.1") as port:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30).read().decode()
    found = {
        (sample.name, sample.labels.get("outcome", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    state = read_state(run)
    assert found["aem_rollouts_planned", ""] == 8
    assert found["aem_run_active", ""] == 0
    assert found["aem_completion_tokens_total", ""] == state.tokens
    assert {name: found["aem_rollouts", name] for name in state.outcomes} == state.outcomes
    assert 'run="r",arm="night"' in text or 'arm="night",run="r"' in text


def test_a_scrape_of_a_folder_that_is_no_run_says_so_and_does_not_fail(tmp_path: Path):
    pytest.importorskip("prometheus_client")
    with served(tmp_path, 0, "127.0.0.1") as port:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30).read().decode()
    assert "aem_run_readable 0.0" in text


def test_a_port_that_is_taken_is_one_line(tmp_path: Path):
    pytest.importorskip("prometheus_client")
    run = make_run(tmp_path / "r", "night", tasks=2, seeds=1, turns=3, marked=0)
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        done = CliRunner().invoke(app, ["status", str(run), "--metrics-port", str(taken.getsockname()[1])])
    assert "cannot serve metrics on port" in str(done.exception)
