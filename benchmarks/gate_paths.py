"""Error rates and savings of the group-sequential gate in many thousands of trials, a millisecond each.

    python -m benchmarks.gate_paths [--trials 4000] [--out FOLDER] [--check 200] [--never-give-up] [--leaderboard FILE]
    python -m benchmarks.gate_paths --nights 500
    python -m benchmarks.gate_paths --orders 10

The estimate, its planned and its observed variance are computed by prefix sums over the passes of each stratum instead
of matrices of looks by tasks; boundaries, looks, variance and order are the product's own. `--check` puts that many
trials through the product's rule as well, on the same draws: verdicts and rollouts are the same. Worlds are those of
`benchmarks.gate_simulation` and MORE; `irt` needs the public leaderboard matrix. Where the design chooses bets, the
looks are measured nevertheless, and the share of such designs is in the column `bets`; `--product` puts every trial
through the product's own rule, bets included, ten to a hundred times more slowly.

`--nights` simulates that many sequences of 90 nightly gates, each against one stored baseline. `--orders` gates one
candidate at the margin in that many orders, until one passes: of the same outcomes, and of a new run each.
"""

import argparse
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from aem_harness.harness.compare.values import Floats, Ints
from aem_harness.harness.errors import ConfigError
from aem_harness.harness.gate import ledger, stages
from aem_harness.harness.gate.boundaries import boundaries, inner
from aem_harness.harness.gate.calibrate import draw, lowered
from aem_harness.harness.gate.config import GateConfig, configure
from aem_harness.harness.gate.design import Arm, Design, design
from aem_harness.harness.gate.gate import GateVerdict, decide
from aem_harness.harness.gate.looks import Cells, planned
from aem_harness.harness.gate.methods import suits_stages
from aem_harness.harness.gate.sequence import WINDOW, GateSequence
from aem_harness.harness.gate.sequential import Truths
from benchmarks.gate_simulation import (
    LEADERBOARD,
    NIGHTS,
    SURFACES,
    WORLDS,
    Case,
    fixed_size,
    night_rows,
    trials_of,
    upper,
)

DROPS = (0.0, 0.03, 0.05, 0.10, 0.20)
ALL_DROPS = ("deepswe", "8 stored seeds", "fresh baseline", "irt")  # the other worlds: the margin alone
CASES: dict[str, Case] = {
    (f"{world}:{tasks}:{seeds}" if (tasks, seeds) != (500, 4) else world): Case(
        world, margin, tasks, seeds, 1 if seeds == 1 else 4, {"margin": margin}
    )
    for world, tasks, seeds, margin in WORLDS
}
MORE = {
    "8 stored seeds": Case("deepswe", 0.03, baseline_seeds=8),
    "fresh baseline": Case("deepswe", 0.03, fresh=True),
    "irt": Case("irt", 0.03),
    "deepswe:200:4": Case("deepswe", 0.03, 200),
    "temperature-0:500:1": Case("temperature-0", 0.03, 500, 1, 1),
    "never or always:200:4": Case("never or always", 0.03, 200),
    "never or always:50:4": Case("never or always", 0.10, 50, settings={"margin": 0.10}),
    "coin flips": Case("coin flips", 0.03),
    "smoke": Case("deepswe", 0.10, settings={"tier": "smoke"}),
    "release": Case("deepswe", 0.03, settings={"tier": "release"}),
    "block margin 0": Case("deepswe", 0.03, settings={"block_margin": 0.0}),
}


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
    """A baseline that is run afresh has, like the candidate, noise that falls with every pass, and no spread."""
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
        spread = expected.spread[inside].mean() if plan.baseline else 0.0
        if not plan.baseline:
            lowered, equal = (one + expected.noise[inside].mean() for one in (lowered, equal))
        out.append(Stratum(len(inside) / len(plan.tasks), passes, np.sort(mine.ravel()), equal, lowered, spread))
    return out


def verdict_of(config: GateConfig, plan: Design, mine: Floats, baseline: Floats) -> tuple[str, int]:
    """What `decide` comes to by looks with complete outcomes, if BLOCK is beyond the same margin as PASS."""
    strata, last = strata_of(plan, config.margin), planned(plan, config)
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
        return GateVerdict.INCONCLUSIVE.value, last
    first = int(stop.argmax())
    said = GateVerdict.PASS if up[first] else GateVerdict.BLOCK if down[first] else GateVerdict.INCONCLUSIVE
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
    passes = np.arange(1, mine.shape[1] + 1)
    stored = baseline.ndim == 1
    means = np.cumsum(mine if stored else mine - baseline, axis=1) / passes - (baseline[:, None] if stored else 0.0)
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


def run_case(case: Case, trials: int, check: int, seed: int = 0, product: bool = False) -> dict[str, object]:
    said, used, bets, config = [], [], 0, case.config
    product |= not config.sequential or config.blocks_beyond != config.margin
    for plan, mine, theirs in islice(trials_of(case, np.random.default_rng([seed, 20261130])), trials):
        suits, cells = suits_stages(plan, config), Cells(mine, mine, theirs, theirs)
        if product:
            verdict, rollouts = decide(config, plan, cells)
        else:
            name, rollouts = verdict_of(config, plan, mine, theirs)
            verdict = GateVerdict(name)
            if suits and len(said) < check:
                assert decide(config, plan, cells) == (verdict, rollouts)
        bets += not suits
        said.append(verdict.value)
        used.append(rollouts / planned(plan, config))
    passed, blocked = said.count("PASS"), said.count("BLOCK")
    found: dict[str, object] = {
        "world": case.world,
        "baseline_seeds": 0 if case.fresh else case.baseline_seeds,
        "tier": case.settings.get("tier", "nightly"),
        "block_margin": config.blocks_beyond,
        "futility": config.gives_up_below,
        "product": product,
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
        found["fixed"] = fixed_size(**{**found, "alpha": config.alpha})  # type: ignore[arg-type]
    return found


def nights(drop: float, sequences: int, seed: int = 0) -> dict[str, object]:
    """A row about sequences of 90 nights on DeepSWE's surface: each has one stored baseline, a candidate a night."""
    sequence = GateSequence(baseline_digest="", alpha=0.05, window=WINDOW)
    found, config = [], configure(block_alpha=sequence.block_alpha(1))
    tasks = tuple(f"{i:04d}" for i in range(500))
    for number in range(sequences):
        rng = np.random.default_rng([seed, number, 90])
        q = SURFACES["deepswe"](rng, 500)
        stored = Arm("baseline", tasks, (0, 1, 2, 3), draw(q, 4, rng))
        verdicts = []
        for _ in range(NIGHTS):
            plan = design(tasks, 4, baseline=stored, seed=int(rng.integers(2**31)))
            verdicts.append(verdict_of(config, plan, draw(lowered(q, drop), 4, rng), stored.means)[0])
        found.append(verdicts)
    return night_rows(drop, np.array(found))


def orders(tries: int, trials: int, *, reruns: bool, seed: int = 0) -> dict[str, object]:
    """One candidate at the margin, gated until a try passes: another order each of the same outcomes, or (`reruns`)
    of another run. Shares of the trials with a PASS, in the first try, which is all that the ledger admits, in any, and
    in any if they were planned with `--orders`.
    """
    rng, found = np.random.default_rng([seed, tries, int(reruns), 6]), []
    tasks = tuple(f"{i:04d}" for i in range(500))
    alone, planned_for = configure(), configure(orders=tries)
    for _ in range(trials):
        q = SURFACES["deepswe"](rng, 500)
        stored = Arm("baseline", tasks, (0, 1, 2, 3), draw(q, 4, rng))
        by_seed = draw(lowered(q, 0.03), 4, rng)
        said: list[list[str]] = []
        for _ in range(tries):
            if reruns:
                by_seed = draw(lowered(q, 0.03), 4, rng)
            plan = design(tasks, 4, baseline=stored, seed=int(rng.integers(2**31)))
            mine = np.take_along_axis(by_seed, plan.seed_of, axis=1)
            said.append([verdict_of(config, plan, mine, stored.means)[0] for config in (alone, planned_for)])
        found.append(np.array(said))
    every = np.array(found)  # (trials, tries, rules)
    out: dict[str, object] = {"tries": tries, "reruns": reruns, "trials": trials}
    for name in ("PASS", "BLOCK"):
        given = every == name
        admitted = sum(_admitted(alone.orders, tries))
        out |= {
            f"{name.lower()}, ledger": float(given[:, :admitted, 0].any(axis=1).mean()),
            f"{name.lower()}, no ledger": float(given[:, :, 0].any(axis=1).mean()),
            f"{name.lower()}, --orders": float(given[:, : sum(_admitted(tries, tries)), 1].any(axis=1).mean()),
        }
    return out


def _admitted(planned_orders: int, tries: int) -> list[bool]:
    """Which tries the product's ledger admits, if each is in an order of its own."""
    past: list[ledger.GateEntry] = []
    for number in range(tries):
        attempt = ledger.GateAttempt(
            baseline="b", candidate="c", order=str(number), outcomes="o", single_look=False, question="rates",
            orders=planned_orders, futility=0.0,
        )  # fmt: skip
        with suppress(ConfigError):
            ledger.check(past, attempt, Path("ledger"))
            past.append(ledger.line(attempt, "c", margin=0.03, alpha=0.05, verdict="", rollouts=0))
    return [str(number) in {line.attempt.order for line in past} for number in range(tries)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=4000)
    parser.add_argument("--check", type=int, default=200)
    parser.add_argument("--never-give-up", action="store_true")
    parser.add_argument("--only", nargs="*", metavar="CASE", help="names in CASES and MORE; default: all")
    parser.add_argument(
        "--drops", nargs="*", type=float, help="true drops in points; default: the margin, and all for DeepSWE"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/gate-paths"))
    parser.add_argument("--leaderboard", type=Path)
    parser.add_argument("--product", action="store_true", help="every trial by the product's own rule")
    parser.add_argument("--nights", type=int, metavar="SEQUENCES")
    parser.add_argument("--orders", type=int, metavar="N")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    LEADERBOARD.extend([options.leaderboard] if options.leaderboard else [])
    rows = []

    def keep(row: dict[str, object], name: str) -> None:
        rows.append(row)
        print(row, flush=True)
        pd.DataFrame(rows).to_csv(options.out / name, index=False)

    if options.nights:
        for drop in options.drops or (0.0, 3.0, 5.0):
            keep(nights(drop / 100, options.nights, options.seed), "nights.csv")
        return
    if options.orders:
        for reruns in (False, True):
            keep(orders(options.orders, options.trials, reruns=reruns, seed=options.seed), "orders.csv")
        return
    cases = {**CASES, **MORE}
    if not LEADERBOARD:
        del cases["irt"]
    for name in options.only or cases:
        case = cases[name]
        drops = DROPS if name in ALL_DROPS else (case.drop,)
        if options.drops:
            drops = tuple(drop / 100 for drop in options.drops)
        for drop in drops:
            settings = case.settings | ({"futility": 0.0} if options.never_give_up else {})
            one = replace(case, drop=drop, settings=settings)
            keep(run_case(one, options.trials, options.check, options.seed, options.product), "paths.csv")


if __name__ == "__main__":
    main()
