"""The state of a run for Prometheus: read from the run folder at each scrape, so that any process can serve it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from aem_harness.harness.errors import AemError, ConfigError, in_one_line
from aem_harness.harness.run.listing import RunState, read_state

if TYPE_CHECKING:
    from prometheus_client.core import Metric

FRESH = 5.0  # seconds for which one reading of the folder is used: a large journal takes a second


class States:
    """A collector in the sense of prometheus-client."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._read = -FRESH
        self._state: RunState | None = None
        self._mutex = threading.Lock()

    def collect(self) -> "Iterator[Metric]":
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        state = self._newest()
        up = GaugeMetricFamily("aem_run_readable", "1 if the run folder could be read at this scrape")
        up.add_metric([], 0 if state is None else 1)
        yield up
        if state is None:
            return
        labels, run = ["run", "arm"], [state.folder.name, state.arm]
        gauges = (
            ("aem_rollouts_planned", "Rollouts that the run is to make", state.rollouts),
            ("aem_rollouts_in_progress", "Rollouts in progress", len(state.working)),
            ("aem_run_active", "1 while a process writes the run", state.status == "running"),
            ("aem_run_left_seconds", "Expected seconds until the rollouts are done", state.left_seconds),
            ("aem_idle_seconds", "Seconds since the last message of the most silent rollout in progress",
             max((one.idle_seconds for one in state.working), default=None)),
        )  # fmt: skip
        for name, meaning, value in gauges:
            if value is not None:
                gauge = GaugeMetricFamily(name, meaning, labels=labels)
                gauge.add_metric(run, float(value))
                yield gauge
        totals = (
            (
                "aem_rollouts",
                "Rollouts by their newest outcome; error: lost to infrastructure",
                "outcome",
                state.outcomes,
            ),
            ("aem_rollout_ends", "Rollouts by exit status", "exit_status", state.exits),
        )
        for name, meaning, label, counts in totals:
            gauge = GaugeMetricFamily(name, meaning, labels=[*labels, label])
            for of, count in counts.items():
                gauge.add_metric([*run, of], count)
            yield gauge
        for name, meaning, spent in (
            ("aem_completion_tokens", "Completion tokens of the rollouts that count", state.tokens),
            ("aem_rollout_seconds", "Seconds of the rollouts that count", state.seconds),
        ):
            counter = CounterMetricFamily(name, meaning, labels=labels)
            counter.add_metric(run, spent)
            yield counter

    def _newest(self) -> RunState | None:
        with self._mutex:
            if time.monotonic() - self._read > FRESH:
                try:
                    self._state = read_state(self._run)
                except (AemError, OSError):  # not there yet, or no longer
                    self._state = None
                self._read = time.monotonic()
            return self._state


@contextmanager
def served(run: Path, port: int, address: str = "0.0.0.0") -> Iterator[int]:
    """The metrics of `run` at http://ADDRESS:PORT/metrics, from a thread of this process; the port (0: a free one).

    Raises ConfigError if prometheus-client is not installed or the port cannot be opened.
    """
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ImportError:
        raise ConfigError("--metrics-port needs prometheus-client: pip install 'aem-harness[metrics]'") from None
    registry = CollectorRegistry()
    registry.register(States(run))
    try:
        server, thread = start_http_server(port, address, registry=registry)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"cannot serve metrics on port {port} ({in_one_line(error)}): choose another") from None
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
