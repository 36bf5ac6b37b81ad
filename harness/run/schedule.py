"""Which rollout comes next if the order is free, and how long the rest will take, from earlier times of the instances.

Near its end a run waits for its longest rollouts. Rollouts of one instance take similar times, so from the second seed
on the longest are started first (LPT: Graham, "Bounds on multiprocessing timing anomalies", 1969). Seeds still come one
after the other, so that a preliminary rate covers all tasks equally; but a rollout of a later seed is started early if
the run would otherwise wait for it at its end. Even an order that knew all times could not do with whole seeds alone
(docs/benchmarks.md).
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

Pending = tuple[str, int, int]  # instance_id, seed, attempt
Order = Callable[[deque[Pending]], Pending]

MOST = 2.0  # times the mean of its instance that a rollout may well take


def in_turn(waiting: deque[Pending]) -> Pending:
    """Take the first of `waiting`."""
    return waiting.popleft()


class Durations:
    """Seconds that rollouts of each instance took; those lost to infrastructure do not count."""

    def __init__(self, rollouts: Iterable[Mapping[str, Any]] = ()) -> None:
        self._own: dict[str, tuple[int, float]] = {}  # how many, and their sum
        self._all = 0, 0.0
        self.longest = 0.0  # at least the mean of every instance
        for event in rollouts:
            self.add(event)

    def add(self, rollout: Mapping[str, Any]) -> None:
        if rollout.get("fault") or not rollout.get("seconds"):
            return
        count, total = self._own.get(rollout["instance_id"], (0, 0.0))
        self._own[rollout["instance_id"]] = count + 1, total + rollout["seconds"]
        self._all = self._all[0] + 1, self._all[1] + rollout["seconds"]
        self.longest = max(self.longest, self.of(rollout["instance_id"]))

    def known(self, instance_id: str) -> bool:
        return instance_id in self._own

    @property
    def mean(self) -> float:
        """Of all rollouts; 0 if there are none."""
        return self._all[1] / self._all[0] if self._all[0] else 0.0

    def of(self, instance_id: str) -> float:
        """The mean of the instance; that of all rollouts if it has none; 0 if there are none."""
        count, total = self._own.get(instance_id, self._all)
        return total / count if count else 0.0


def longest_first(durations: Durations, workers: int = 1) -> Order:
    """Among waiting rollouts of one seed, take one of unknown length, or else the longest.

    First of all comes one of a later seed that could outlast all other work, shared by `workers`.
    """

    def take(waiting: deque[Pending]) -> Pending:
        best = _outlasting(waiting, durations, workers)
        if best is None:
            best = _longest_of_its_seed(waiting, durations)
        chosen = waiting[best]
        del waiting[best]
        return chosen

    return take


def _longest_of_its_seed(waiting: deque[Pending], durations: Durations) -> int:
    best, length = 0, -1.0
    for place, (instance_id, seed, _) in enumerate(waiting):
        if seed != waiting[0][1]:
            break
        if not durations.known(instance_id):
            return place
        if durations.of(instance_id) > length:
            best, length = place, durations.of(instance_id)
    return best


def _outlasting(waiting: deque[Pending], durations: Durations, workers: int) -> int | None:
    """The place of a rollout of a later seed that may take longer than all that waits, by `workers` at a time."""
    if workers < 2 or 2 * MOST * durations.longest < len(waiting) * durations.mean / workers:  # the end is far
        return None
    if waiting[0][1] == waiting[-1][1] or any(one[1] > other[1] for one, other in pairwise(waiting)):
        return None  # a single seed, or an order by instance
    lengths = [durations.of(instance_id) for instance_id, _, _ in waiting]
    place = max(range(len(lengths)), key=lengths.__getitem__)
    late = MOST * lengths[place] >= sum(lengths) / workers and waiting[place][1] != waiting[0][1]
    return place if late else None


def makespan(seconds: Sequence[float], workers: int, *, busy: Sequence[float] = ()) -> float:
    """How long `workers` take for rollouts of `seconds`, in this order; `busy`: remaining times of the running ones."""
    free = [*busy, *([0.0] * (workers - len(busy)))]
    heapq.heapify(free)
    for one in seconds:
        heapq.heappush(free, heapq.heappop(free) + one)
    return max(free, default=0.0)
