"""Error rates and savings of the group-sequential gate in many thousands of trials, a millisecond each.

    python -m benchmarks.gate_paths [--trials 4000] [--out FOLDER] [--check 200] [--never-give-up]

The estimate, its planned and its observed variance are computed by prefix sums over the passes of each stratum instead
of matrices of looks by tasks; boundaries, looks, variance and order are the product's own. `--check` puts that many
trials through the product's rule as well, on the same draws: verdicts and rollouts are the same. Worlds are those of
`benchmarks.gate_simulation`; where the design would choose bets, the looks are measured nevertheless, and the share of
such designs is in the column `bets`.
"""

import argparse
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from aem_harness.harness.compare.values import Floats, Ints
from aem_harness.harness.gate import stages
from aem_harness.harness.gate.boundaries import boundaries, inner
from aem_harness.harness.gate.config import GateConfig
from aem_harness.harness.gate.design import Design
from aem_harness.harness.gate.gate import Verdict, decide
from aem_harness.harness.gate.looks import Cells
from aem_harness.harness.gate.methods import suits_stages
from aem_harness.harness.gate.sequential import Truths
from benchmarks.gate_simulation import WORLDS, Case, fixed_size, trials_of, upper

DROPS = (0.0, 0.03, 0.05, 0.10, 0.20)


@dataclass
class Stratum:
    """Tasks of one stratum: share of all, the pass orders (K, n), and when its rollouts come in the whole order."""

    share: float
    passes: Ints
    places: Ints
    noise: float
    lowered: float
    spread: float

    @property
    def tasks(self) -> int:
        return self.passes.shape[1]

    def reached(self, at: Ints) -> tuple[Ints, Ints]:
        """Full passes, and tasks seen in the pass under way, after `at` rollouts of the whole order."""
        mine = np.searchsorted(self.places, at)
        full = np.minimum(mine // self.tasks, len(self.passes) - 1)
        return full, mine - full * self.tasks

    def weights(self, full: Ints, more: Ints) -> tuple[Floats, Floats]:
        """Of a task that has been seen once more than the others, and of the others."""
        first = 1 / (self.lowered / (full + 1) + self.spread)
        second = np.where(full > 0, 1 / (self.lowered / np.maximum(full, 1) + self.spread), 0.0)
        total = np.maximum(more * first + (self.tasks - more) * second, 1e-12)
        return self.share * first / total, self.share * second / total

    def variance(self, at: Ints, noise: float) -> Floats:
        full, more = self.reached(at)
        first, second = self.weights(full, more)
        rest = noise / np.maximum(full, 1) + self.spread
        return np.asarray(more * first**2 * (noise / (full + 1) + self.spread) + (self.tasks - more) * second**2 * rest)


def planned_variance(strata: list[Stratum], at: Ints, *, equal: bool = False) -> Floats:
    """Of the difference at the looks (L,), for a candidate at the margin or an equal one."""
    return np.asarray(np.sum([s.variance(at, s.noise if equal else s.lowered) for s in strata], axis=0))


def strata_of(plan: Design, margin: float) -> list[Stratum]:
    expected, places = plan.forecast, plan.places
    factor = max(1 - margin / max(float(expected.rate.mean()), 1e-9), 0.0)
    certain = expected.rate - expected.noise
    out = []
    for h in range(len(plan.sizes)):
        inside = np.flatnonzero(plan.strata == h)
        mine = places[inside]
        lowered = np.maximum(factor * expected.rate - factor**2 * certain, 1e-3)[inside].mean()
        equal = np.maximum(expected.rate - certain, 1e-3)[inside].mean()
        passes = inside[np.argsort(mine, axis=0)].T
        spread = expected.spread[inside].mean()
        out.append(Stratum(len(inside) / len(plan.tasks), passes, np.sort(mine.ravel()), equal, lowered, spread))
    return out


def verdict_of(config: GateConfig, plan: Design, mine: Floats, baseline: Floats) -> tuple[str, int]:
    """What `decide` comes to by looks, for a stored baseline and complete outcomes."""
    strata, last = strata_of(plan, config.margin), len(plan.order)
    grid = np.unique(np.linspace(1, last, min(last, 100)).round().astype(np.int64))
    ready = np.all([s.reached(grid)[0] * s.tasks + s.reached(grid)[1] > 0 for s in strata], axis=0)
    known = np.where(ready, 1 / np.maximum(planned_variance(strata, grid), 1e-12), 0.0)
    known = np.maximum.accumulate(known)
    at = np.ceil(np.interp(stages.FRACTIONS * known[-1], known, grid).round(6)).astype(np.int64)
    at[-1] = last
    fits = (at >= min(stages.FIRST, last)) & np.r_[np.diff(at) > 0, True]
    at, fractions = at[fits], stages.FRACTIONS[fits]
    alone = 1 / np.sqrt(planned_variance(strata, np.array([last]), equal=True)[0])
    futility = stages.thresholds(config, float(alone))
    edge = edges(tuple(fractions.tolist()), stages.spendable(config), futility)
    estimate, observed, seen = scored(strata, mine, baseline, at)
    error = np.sqrt(stages.believed(planned_variance(strata, at), observed, at))
    z = (estimate + config.margin) / error
    up, down = (z >= edge[0]) & seen, (z <= edge[1]) & seen
    stop = up | down | ((z < edge[3]) & (z > edge[2]) & seen & (at < last))
    if not stop.any():
        return Verdict.INCONCLUSIVE.value, last
    first = int(stop.argmax())
    said = Verdict.PASS if up[first] else Verdict.BLOCK if down[first] else Verdict.INCONCLUSIVE
    return said.value, int(at[first])


@lru_cache(maxsize=512)
def edges(
    fractions: tuple[float, ...], alphas: tuple[float, float], futility: tuple[float, float]
) -> tuple[Floats, Floats, Floats, Floats]:
    """Limits of z for PASS and for BLOCK, and those between which the gate gives up, (L,) each."""
    found = boundaries(fractions, alphas, stages.SHAPES, futility)
    return found.upper, found.lower, *inner(found.fractions, alphas, futility)


def scored(strata: list[Stratum], mine: Floats, baseline: Floats, at: Ints) -> tuple[Floats, Floats, Truths]:
    """Estimate and observed variance at the looks (L,), and whether every stratum has been seen."""
    means = np.cumsum(mine, axis=1) / np.arange(1, mine.shape[1] + 1) - baseline[:, None]
    estimate, observed, seen = np.zeros(len(at)), np.zeros(len(at)), np.ones(len(at), bool)
    for s in strata:
        full, more = s.reached(at)
        first, second = s.weights(full, more)
        seen &= full * s.tasks + more > 0
        for k in np.unique(full):
            here = full == k
            new, old = means[s.passes[k], k], means[s.passes[k], k - 1] if k else np.zeros(s.tasks)
            a, b, n = first[here], second[here], more[here]
            sums = [np.r_[0.0, np.cumsum(part)][n] for part in (new, new**2)]
            rest = [part.sum() - np.r_[0.0, np.cumsum(part)][n] for part in (old, old**2)]
            total = a * sums[0] + b * rest[0]
            center = total / s.share
            square = a**2 * (sums[1] - 2 * center * sums[0] + n * center**2)
            if k:
                square += b**2 * (rest[1] - 2 * center * rest[0] + (s.tasks - n) * center**2)
            tasks = s.tasks if k else n
            estimate[here] += total
            observed[here] += square * tasks / np.maximum(tasks - 1, 1)
    return estimate, observed, seen


def run_case(case: Case, trials: int, check: int, seed: int = 0) -> dict[str, object]:
    said, used, bets, config = [], [], 0, case.config
    for plan, mine, means in islice(trials_of(case, np.random.default_rng([seed, 20261130])), trials):
        verdict, rollouts = verdict_of(config, plan, mine, means)
        suits = suits_stages(plan, config)
        if suits and len(said) < check:
            cells = Cells(mine, mine, means, means)
            assert decide(config, plan, cells) == (Verdict(verdict), rollouts)
        bets += not suits
        said.append(verdict)
        used.append(rollouts / len(plan.order))
    passed, blocked = said.count("PASS"), said.count("BLOCK")
    found: dict[str, object] = {
        "world": case.world,
        "tasks": case.tasks,
        "seeds": case.seeds,
        "margin": config.margin,
        "drop": case.drop,
        "trials": trials,
        "pass": passed / trials,
        "pass_upper": upper(passed, trials),
        "block": blocked / trials,
        "block_upper": upper(blocked, trials),
        "inconclusive": said.count("INCONCLUSIVE") / trials,
        "used": float(np.mean(used)),
        "used_error": float(np.std(used) / np.sqrt(trials)),
        "bets": bets / trials,
    }
    if (case.world, case.tasks) == ("deepswe", 500):
        more = {"baseline_seeds": case.baseline_seeds, "block_margin": config.blocks_beyond, "alpha": config.alpha}
        found["fixed"] = fixed_size(**{**found, **more})  # type: ignore[arg-type]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=4000)
    parser.add_argument("--check", type=int, default=200)
    parser.add_argument("--never-give-up", action="store_true")
    parser.add_argument("--only", nargs="*", help="worlds, by name; default: all")
    parser.add_argument(
        "--drops", nargs="*", type=float, help="true drops in points; default: the margin, and all for DeepSWE"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/gate-paths"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for world, tasks, seeds, margin in WORLDS:
        if options.only and f"{world}:{tasks}:{seeds}" not in options.only:
            continue
        drops = DROPS if (world, tasks, seeds) == ("deepswe", 500, 4) else (margin,)
        if options.drops:
            drops = tuple(drop / 100 for drop in options.drops)
        for drop in drops:
            settings: dict[str, object] = {"margin": margin} | ({"futility": 0.0} if options.never_give_up else {})
            case = Case(world, drop, tasks, seeds, 1 if seeds == 1 else 4, settings)
            rows.append(run_case(case, options.trials, options.check, options.seed))
            print(rows[-1], flush=True)
            pd.DataFrame(rows).to_csv(options.out / "paths.csv", index=False)


if __name__ == "__main__":
    main()
