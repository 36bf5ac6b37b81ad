"""The gate: is this checkpoint as good as the baseline, to within a margin? Asked after every rollout.

`Gate` takes finished rollouts in any order, considers them in the order of its `Design`, and says as soon as it can
PASS (the drop is smaller than the margin) or BLOCK (it is larger). It runs nothing: its caller feeds it, checks
`decided`, and stops (`harness.gate.driver`).
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from aem_harness.harness.compare.values import Floats, Ints
from aem_harness.harness.errors import EXIT_BLOCK, EXIT_INCONCLUSIVE, EXIT_OK, DataError
from aem_harness.harness.gate import methods
from aem_harness.harness.gate.config import GateConfig
from aem_harness.harness.gate.design import Design, Key
from aem_harness.harness.gate.looks import Cells, GatePath, planned
from aem_harness.harness.types import Record

CANDIDATE, BASELINE = "candidate", "baseline"
SHOWN = 12  # looks of the interval path in a report


class GateVerdict(StrEnum):
    """The possible results of a gate."""

    PASS = "PASS"
    BLOCK = "BLOCK"
    INCONCLUSIVE = "INCONCLUSIVE"

    @property
    def exit_code(self) -> int:
        return {"PASS": EXIT_OK, "BLOCK": EXIT_BLOCK, "INCONCLUSIVE": EXIT_INCONCLUSIVE}[self.value]


class Look(Record):
    """After `rollouts` of the candidate: the difference and its confidence sequence, as fractions."""

    rollouts: int
    difference: float
    lower: float
    upper: float


@dataclass
class Spent:
    """What the rollouts fed so far have cost, both arms together; the baseline's stored outcomes cost nothing."""

    rollouts: int = 0
    tokens: float = 0.0
    gpu_hours: float = 0.0


class Gate:
    """Feed it outcomes, in any order; it decides in the order fixed beforehand.

    `order` lists (instance_id, seed) in the order in which to start them; with a fresh baseline each stands for one
    rollout of either arm. Rebuilt with the same configuration and design and fed again, it reaches the same verdict.
    """

    def __init__(self, config: GateConfig, design: Design) -> None:
        self.config, self.design = config, design
        self._method = methods.choose(design, config)
        self.method = methods.name(self._method, config)
        self.chance = self._method.chance(design, config)
        self.most = planned(design, config)
        self.order: list[Key] = design.keys[: self.most]
        self.spent = Spent()
        self.verdict: GateVerdict | None = None
        self.reason = ""
        self.consumed = 0
        self._place = {key: index for index, key in enumerate(design.keys)}
        self._arms = [CANDIDATE] if design.baseline is not None else [CANDIDATE, BASELINE]
        shape = len(design.tasks), design.seeds
        self._values = {arm: np.zeros(shape) for arm in self._arms}
        self._known = {arm: np.zeros(len(design.order), bool) for arm in self._arms}
        self._looks = self._method.looks(design, config)
        self._looked = 0

    @property
    def decided(self) -> bool:
        return self.verdict is not None

    def feed(
        self,
        instance_id: str,
        seed: int,
        resolved: bool | None,
        *,
        arm: str = CANDIDATE,
        tokens: float = 0.0,
        gpu_seconds: float = 0.0,
    ) -> GateVerdict | None:
        """Take one finished rollout; None stands for one that infrastructure lost for good, after all retries.

        Returns the verdict if there is one. After the verdict, further rollouts count as spent and change nothing.
        Raises DataError for a rollout that is not in the order, or a second, different outcome of one.
        """
        place = self._place.get((instance_id, seed))
        if place is None or arm not in self._arms:
            raise DataError(f"rollout {instance_id}, seed {seed}, of the {arm} is not in the order of this gate")
        cell, value = tuple(self.design.order[place]), np.nan if resolved is None else float(resolved)
        if self._known[arm][place]:
            if not np.array_equal(self._values[arm][cell], value, equal_nan=True):
                raise DataError(f"two outcomes of {instance_id}, seed {seed}, of the {arm}; only the first counts")
            return self.verdict
        self._values[arm][cell] = value
        self._known[arm][place] = True
        self.spent.rollouts += 1
        self.spent.tokens += tokens
        self.spent.gpu_hours += gpu_seconds / 3600
        if not self.decided:
            self._advance()
        return self.verdict

    def finish(self, reason: str) -> GateVerdict:
        """No more rollouts are coming: a last look at what has been consumed, then INCONCLUSIVE for `reason`."""
        if not self.decided and self.consumed:
            self._look(np.array([self.consumed]))
        if not self.decided:
            self.verdict, self.reason = GateVerdict.INCONCLUSIVE, reason
        return self._verdict

    # --- what a report needs ----------------------------------------------------------------------------------------

    @property
    def _verdict(self) -> GateVerdict:
        assert self.verdict is not None
        return self.verdict

    def path(self) -> list[Look]:
        """The interval path up to now, at no more than SHOWN looks."""
        if not self.consumed:
            return []
        at = np.union1d(self._looks[self._looks < self.consumed], self.consumed)
        at = at[np.unique(np.linspace(0, len(at) - 1, min(SHOWN, len(at))).round().astype(np.int64))]
        cells = self._cells()
        lower, upper = self._method.bounds(self.design, self.config, cells, at)
        difference = self._method.follow(self.design, self.config, cells, at).difference
        return [
            Look(rollouts=int(n), difference=float(d), lower=float(low), upper=float(high))
            for n, d, low, high in zip(at, difference, lower, upper, strict=True)
        ]

    def consumed_outcomes(self, arm: str = CANDIDATE) -> Floats:
        """Outcomes (N, K), by visit, that the verdict rests on: 1, 0, nan for missing and for not consumed."""
        values = np.full_like(self._values[arm], np.nan)
        rows, columns = self.design.order[: self.consumed].T
        values[rows, columns] = self._values[arm][rows, columns]
        return values

    def missing(self, arm: str = CANDIDATE) -> int:
        """Consumed rollouts of an arm that infrastructure lost."""
        rows, columns = self.design.order[: self.consumed].T
        return int(np.isnan(self._values[arm][rows, columns]).sum())

    def verdict_excused(self) -> GateVerdict | None:
        """The verdict if every rollout that the candidate lost had failed; None if it lost none."""
        if not self.missing():
            return None
        candidate = np.nan_to_num(self._values[CANDIDATE], nan=0.0)
        baseline = self._cells().baseline_low
        at = np.union1d(self._looks[self._looks <= self.consumed], self.consumed)
        path = self._method.follow(self.design, self.config, Cells(candidate, candidate, baseline, baseline), at)
        stop = path.stop()
        return GateVerdict.INCONCLUSIVE if stop is None else _said(path, stop)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        while self.consumed < self.most and all(known[self.consumed] for known in self._known.values()):
            self.consumed += 1
        due = int(np.searchsorted(self._looks, self.consumed, side="right"))
        if due > self._looked:
            self._look(self._looks[self._looked : due])
            self._looked = due
        if not self.decided and self.consumed == self.most:
            self.verdict = GateVerdict.INCONCLUSIVE
            self.reason = "all planned rollouts are used"
        budget = self.config.budget
        if budget is not None and getattr(self.spent, budget.unit) >= budget.amount and self.consumed < self.most:
            self.finish(f"the budget of {budget} is spent")

    def _look(self, at: Ints) -> None:
        path = self._method.follow(self.design, self.config, self._cells(), at)
        stop = path.stop()
        if stop is None:
            return
        self.consumed, self.verdict = int(at[stop]), _said(path, stop)
        self.reason = {
            GateVerdict.PASS: f"the drop is smaller than {_points(self.config.margin)}",
            GateVerdict.BLOCK: f"the drop is larger than {_points(self.config.blocks_beyond)}",
            GateVerdict.INCONCLUSIVE: "the remaining rollouts cannot bring either verdict",
        }[self.verdict]

    def _cells(self) -> Cells:
        candidate = self._values[CANDIDATE]
        stored = self.design.baseline
        if stored is None:
            baseline = self._values[BASELINE]
            return Cells(*_extremes(candidate), *_extremes(baseline))
        return Cells(*_extremes(candidate), *stored.extremes)


def decide(config: GateConfig, design: Design, cells: Cells) -> tuple[GateVerdict, int]:
    """Verdict and rollouts used if all outcomes are known already, by visit: the result of `Gate`, computed faster."""
    question = methods.choose(design, config)
    at = question.looks(design, config)
    for part in np.array_split(at, max(1, len(at) // 40)):
        path = question.follow(design, config, cells, part)
        stop = path.stop()
        if stop is not None:
            return _said(path, stop), int(part[stop])
    return GateVerdict.INCONCLUSIVE, int(at[-1])


def _said(path: GatePath, stop: int) -> GateVerdict:
    if path.passed[stop]:
        return GateVerdict.PASS
    return GateVerdict.BLOCK if path.blocked[stop] else GateVerdict.INCONCLUSIVE


def _extremes(values: Floats) -> tuple[Floats, Floats]:
    """Worst and best case; the same object if nothing is missing."""
    missing = np.isnan(values)
    if not missing.any():
        return values, values
    return np.where(missing, 0.0, values), np.where(missing, 1.0, values)


def _points(fraction: float) -> str:
    return f"{100 * fraction:g} points"
