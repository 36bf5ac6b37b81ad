"""A gate simulated: how often it errs and what it costs, on checkpoints whose true difference is known.

A surface is a resolve probability for every task. One's own comes from the baseline's stored seeds: each task's
probability is drawn from its posterior under a Beta fitted to all tasks. Public ones are the few fitted numbers of
`harness.compare.surface`. Every trial draws the baseline and the candidate afresh, the candidate with probabilities
lowered by a known drop, and puts them through the same gate that will judge.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from aem_harness.harness.compare.regressions import fit_beta
from aem_harness.harness.compare.surface import PUBLIC
from aem_harness.harness.compare.values import Floats, Trials
from aem_harness.harness.errors import ConfigError, DataError
from aem_harness.harness.gate.config import GateConfig
from aem_harness.harness.gate.design import Arm, design
from aem_harness.harness.gate.gate import GateVerdict, decide
from aem_harness.harness.gate.looks import Cells, planned
from aem_harness.harness.io import cache_folder, write_json
from aem_harness.harness.types import Record

Surface = Callable[[np.random.Generator], Floats]

TRIALS = 400
FORMAT = 10  # of the cache; raised when the gate's mathematics changes


class Share(Record):
    """`count` of `trials`, with the exact 95 % interval (Clopper and Pearson 1934)."""

    count: int
    trials: int
    low: float
    high: float

    @classmethod
    def of(cls, count: int, trials: int) -> "Share":
        interval = stats.binomtest(count, trials).proportion_ci(0.95, method="exact")
        return cls(count=count, trials=trials, low=float(interval.low), high=float(interval.high))

    @property
    def value(self) -> float:
        return self.count / self.trials


class Scenario(Record):
    """Results for one true drop; `used` is the mean share of the planned rollouts."""

    drop: float
    passed: Share
    blocked: Share
    used: float


class Calibration(Record):
    """Measured behaviour of one gate configuration on one surface."""

    source: str
    tasks: int
    seeds: int
    baseline_seeds: int
    fresh: bool = False
    margin: float
    scenarios: tuple[Scenario, ...]

    @property
    def false_pass(self) -> Share:
        """PASS although the drop is exactly the margin: the worst case."""
        return next(scenario.passed for scenario in self.scenarios if scenario.drop == self.margin)

    @property
    def false_block(self) -> Share:
        """BLOCK although the candidate is equal."""
        return next(scenario.blocked for scenario in self.scenarios if scenario.drop == 0)


def calibrate(
    config: GateConfig,
    surface: Surface,
    *,
    source: str,
    seeds: int,
    baseline_seeds: int,
    drops: Sequence[float] | None = None,
    trials: int = TRIALS,
    seed: int = 0,
    fresh: bool = False,
) -> Calibration:
    """Put `trials` new pairs of baseline and candidate through the gate for each true drop.

    By default the drops are 0, the margin, and 5, 10 and 20 points; 0 and the margin are always among them. `fresh`:
    the baseline is run beside the candidate.
    """
    rng = np.random.default_rng(seed)
    first = np.random.default_rng(0)
    rate = float(np.mean([surface(first).mean() for _ in range(50)]))
    if rate <= config.margin:
        raise ConfigError(
            f"the simulated baseline resolves {100 * rate:.1f} %, so a drop of {100 * config.margin:g} points is "
            f"impossible; choose a margin below {100 * rate:.1f}"
        )
    if impossible := [drop for drop in drops or () if drop >= rate]:
        raise ConfigError(
            f"the simulated baseline resolves {100 * rate:.1f} %, so a drop of {100 * max(impossible):g} points is "
            "impossible"
        )
    wanted = [drop for drop in (0.05, 0.10, 0.20) if drop < rate] if drops is None else drops
    drops = sorted({0.0, config.margin, *wanted})
    scenarios = []
    for drop in drops:
        verdicts, used = [], []
        for _ in range(trials):
            q = able(surface, drop, rng)
            verdict, share = trial(config, q, lowered(q, drop), seeds, baseline_seeds, rng, fresh=fresh)
            verdicts.append(verdict)
            used.append(share)
        passed, blocked = (verdicts.count(kind) for kind in (GateVerdict.PASS, GateVerdict.BLOCK))
        scenarios.append(
            Scenario(
                drop=drop,
                passed=Share.of(passed, trials),
                blocked=Share.of(blocked, trials),
                used=float(np.mean(used)),
            )
        )
    return Calibration(
        source=source,
        tasks=len(q),
        seeds=seeds,
        baseline_seeds=baseline_seeds,
        fresh=fresh,
        margin=config.margin,
        scenarios=tuple(scenarios),
    )


def trial(
    config: GateConfig,
    q: Floats,
    p: Floats,
    seeds: int,
    baseline_seeds: int,
    rng: np.random.Generator,
    *,
    fresh: bool = False,
) -> tuple[GateVerdict, float]:
    """One gate on outcomes drawn from the baseline's q and the candidate's p, (N,): verdict, share used of the plan."""
    tasks = tuple(f"task-{i:05d}" for i in range(len(q)))
    theirs, mine = draw(q, seeds if fresh else baseline_seeds, rng), draw(p, seeds, rng)
    stored = None if fresh else Arm("baseline", tasks, tuple(range(baseline_seeds)), theirs)
    plan = design(tasks, seeds, baseline=stored, stratified=config.question == "rates", seed=int(rng.integers(2**31)))
    known = theirs if fresh else theirs.mean(axis=1)
    verdict, rollouts = decide(config, plan, Cells(mine, mine, known, known))
    return verdict, rollouts / planned(plan, config)


def draw(p: Floats, seeds: int, rng: np.random.Generator) -> Floats:
    """Outcomes (N, seeds) of independent rollouts."""
    return (rng.random((len(p), seeds)) < p[:, None]).astype(float)


def able(surface: Surface, drop: float, rng: np.random.Generator) -> Floats:
    """Probabilities (N,) of which a drop of `drop` is possible: with few tasks a surface may draw hardly any solved."""
    for _ in range(1000):
        q = surface(rng)
        if q.mean() >= drop:
            return q
    raise ConfigError(f"hardly any simulated baseline of so few tasks resolves {100 * drop:g} %: give more --tasks")


def lowered(q: Floats, drop: float) -> Floats:
    """Scale all probabilities so that their mean is lower by exactly `drop` (or 0, if it is less than that)."""
    mean = q.mean()
    return q * max(1 - drop / mean, 0.0) if mean > 0 else q


def to_text(calibration: Calibration) -> str:
    """For the terminal: one line per true drop."""
    stored = "run beside it" if calibration.fresh else f"{calibration.baseline_seeds} stored seeds"
    lines = [
        f"{calibration.tasks} tasks x {calibration.seeds} seeds, baseline {stored}, margin "
        f"{100 * calibration.margin:g} points; {calibration.source}",
        "",
        f"  {'true drop':>9}  {'PASS':<26}{'BLOCK':<26}{'INCONCLUSIVE':<14}rollouts used",
    ]
    for one in calibration.scenarios:
        rest = 1 - one.passed.value - one.blocked.value
        lines.append(
            f"  {100 * one.drop:>9g}  {_interval(one.passed):<26}{_interval(one.blocked):<26}{_percent(rest):<14}"
            f"{_percent(one.used)}"
        )
    return "\n".join([*lines, "", f"  {calibration.scenarios[0].passed.trials} trials per line, 95 % intervals"])


def _interval(share: Share) -> str:
    return f"{_percent(share.value)} [{_percent(share.low)}, {_percent(share.high)}]"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


# --- surfaces ---------------------------------------------------------------------------------------------------------


def own_surface(baseline: Arm) -> tuple[Surface, str]:
    """From stored outcomes, with at least two seeds on some tasks; and its description."""
    if (baseline.trials > 1).sum() < 5:
        raise DataError(
            f"baseline {baseline.name!r} has hardly any task with two verdicts; use --surface deepswe instead"
        )
    solved = np.nansum(baseline.resolved, axis=1).astype(np.int64)
    a, b = fit_beta(Trials(solved, baseline.trials, np.zeros_like(solved)))
    words = f"{baseline.name}, {len(baseline.tasks)} tasks x {len(baseline.seeds)} seeds; Beta({a:.3g}, {b:.3g})"
    return lambda rng: rng.beta(a + solved, b + baseline.trials - solved), words


def public_surface(name: str, tasks: int) -> tuple[Surface, str]:
    """One of the shipped surfaces on `tasks` tasks, new ones for every trial; and its source."""
    if name not in PUBLIC:
        raise ConfigError(f"no surface {name!r}; choose {', '.join(PUBLIC)}")
    known = PUBLIC[name]
    size = known.noise / (1 - known.noise)
    return lambda rng: rng.beta(known.rate * size, (1 - known.rate) * size, tasks), known.source


# --- cache ------------------------------------------------------------------------------------------------------------


def cached(
    config: GateConfig,
    baseline: Arm,
    seeds: int,
    *,
    fresh: bool = False,
    folder: Path | None = None,
    trials: int = 200,
) -> Calibration:
    """A short calibration of this gate on this baseline, computed once (in seconds) and kept in the user's cache.

    If too little of the baseline is stored, the public surface of DeepSWE replaces it.
    """
    setting = config.model_copy(update={"seed": 0})
    key = [FORMAT, setting.model_dump(mode="json"), baseline.digest, seeds, fresh, trials]
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = (folder or cache_folder("calibration")) / f"{name}.json"
    if path.exists():
        return Calibration.model_validate_json(path.read_text())
    try:
        surface, source = own_surface(baseline)
    except DataError:
        surface, source = public_surface("deepswe", len(baseline.tasks))
    found = calibrate(
        config,
        surface,
        source=source,
        seeds=seeds,
        baseline_seeds=len(baseline.seeds),
        drops=(),
        trials=trials,
        fresh=fresh,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, found.model_dump(mode="json"))
    return found
