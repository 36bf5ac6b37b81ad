"""Is the gate right, and what does it save? Its error rates and its rollouts, on worlds whose truth is known.

    python -m benchmarks.gate_simulation [--trials 2500] [--workers 2] [--leaderboard FILE] [--out FOLDER] [--part NAME]

Where the true drop is exactly the margin, both verdicts are wrong: those cells get four times the trials.

Parts: `savings` (verdicts and rollouts for true drops of 0, 3, 5, 10 and 20 points, on public surfaces), `stress`
(error rates at a true drop of exactly the margin, without giving up early, on surfaces and candidates chosen to be
difficult), `irt` (a two-parameter item response model fitted to the leaderboard: every submission can be baseline, its
ability is lowered), `pairs` (the real submissions as they are, as baselines and candidates: the true difference of two
tables is known), `side_by_side` (the rule of version 1.0, kept in `frozen_gate`, and today's on the same draws),
`nights` (a sequence of 90 nightly gates). `irt` and `pairs` need the public leaderboard matrix, a CSV as `aem import`
reads it.

Every part writes a CSV into the output folder; `python -m benchmarks.gate_plot` draws the savings.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from aem_harness.harness.compare.outcomes import import_outcomes
from aem_harness.harness.compare.plan import VERIFIED_REPOS
from aem_harness.harness.compare.surface import PUBLIC
from aem_harness.harness.compare.values import Floats
from aem_harness.harness.gate.calibrate import draw, lowered, public_surface, trial
from aem_harness.harness.gate.config import GateConfig, configure
from aem_harness.harness.gate.design import Arm, Design, design
from aem_harness.harness.gate.gate import GateVerdict, decide
from aem_harness.harness.gate.looks import Cells
from aem_harness.harness.gate.sequence import WINDOW, GateSequence
from benchmarks import frozen_gate

DROPS = (0.0, 0.03, 0.05, 0.10, 0.20)
BLOCK = 250  # trials a task of the pool


@dataclass(frozen=True)
class Case:
    """One row of a table: `world` is a name that `worlds` understands."""

    world: str
    drop: float
    tasks: int = 500
    seeds: int = 4
    baseline_seeds: int = 4
    settings: dict[str, object] = field(default_factory=dict)
    fresh: bool = False

    @property
    def config(self) -> GateConfig:
        return configure(**self.settings)

    @property
    def weight(self) -> int:
        """How many times the usual number of trials it gets."""
        return 4 if self.drop == self.config.margin else 1


# --- worlds -----------------------------------------------------------------------------------------------------------

REPOSITORIES = np.concatenate([np.full(count, name) for name, count in VERIFIED_REPOS.items()])


def one_repository(q: Floats, drop: float, rng: np.random.Generator) -> Floats:
    """All that is lost is lost in the largest repository of SWE-bench Verified (of 500 tasks)."""
    inside = np.resize(REPOSITORIES, len(q)) == "django/django"
    p = q.copy()
    p[inside] *= max(1 - drop * len(q) / q[inside].sum(), 0.0)
    return to_mean(p, q.mean() - drop)


SURFACES: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    **{name: lambda rng, n, name=name: public_surface(name, n)[0](rng) for name in PUBLIC},
    "coin flips": lambda rng, n: rng.beta(2, 2.7, n),
    "never or always": lambda rng, n: (rng.random(n) < 0.45).astype(float),
    "95 % solved": lambda rng, n: rng.beta(2, 0.1, n),
    "10 % solved": lambda rng, n: rng.beta(0.1, 0.9, n),
}


def to_mean(p: Floats, target: float) -> Floats:
    """Scale towards 0 or 1 until the mean is `target`."""
    mean = p.mean()
    return p * (target / mean) if target <= mean else 1 - (1 - p) * (1 - target) / (1 - mean)


def broken(q: Floats, drop: float, rng: np.random.Generator) -> Floats:
    """Some tasks are lost entirely, the others untouched."""
    order = rng.permutation(len(q))
    lost = np.minimum(np.maximum(drop * len(q) - (np.cumsum(q[order]) - q[order]), 0), q[order])
    p = q.copy()
    p[order] -= lost
    return p


CANDIDATES: dict[str, Callable[[Floats, float, np.random.Generator], Floats]] = {
    "every task a little worse": lambda q, drop, rng: lowered(q, drop),
    "some tasks lost": broken,
    "equally able on all tasks": lambda q, drop, rng: np.full(len(q), q.mean() - drop),
    "one repository": one_repository,
    "other tasks solved": lambda q, drop, rng: to_mean(rng.permutation(q), q.mean() - drop),
    "no run noise": lambda q, drop, rng: to_mean(
        (q > np.quantile(q, 1 - max(q.mean() - drop, 0.01))).astype(float) * 0.999 + 0.0005, q.mean() - drop
    ),
}


def draw_world(case: Case, rng: np.random.Generator) -> tuple[Floats, Floats] | None:
    """Probabilities of baseline and candidate, (N,) each; None where the drop is not possible."""
    name, _, candidate = case.world.partition(" / ")
    if name == "irt":
        return irt_world(case.drop, rng)
    q = SURFACES[name](rng, case.tasks)
    if q.mean() <= case.drop:
        return None
    return q, CANDIDATES[candidate or "every task a little worse"](q, case.drop, rng) if case.drop else q


LEADERBOARD: list[Path] = []


@lru_cache
def submissions() -> tuple[tuple[str, ...], Floats]:
    """Names, and outcomes (submissions, tasks), of the leaderboard matrix."""
    table = import_outcomes(LEADERBOARD[0]).table
    wide = table.assign(resolved=table["resolved"].astype(float)).pivot(
        index="arm", columns="instance_id", values="resolved"
    )
    return tuple(wide.index), wide.to_numpy()


@lru_cache
def irt() -> tuple[Floats, Floats, Floats]:
    """Ability of each submission, discrimination and difficulty of each task: 2PL, normal priors, joint maximum."""
    _, y = submissions()
    n, m = y.shape

    def loss(x: Floats) -> tuple[float, Floats]:
        theta, log_a, b = x[:n], x[n : n + m], x[n + m :]
        a = np.exp(log_a)
        z = theta[:, None] * a - b
        residual = special.expit(z) - y
        value = (np.logaddexp(0, z) - y * z).sum() + (theta @ theta + log_a @ log_a / 0.25 + b @ b / 9) / 2
        slope_a = (residual * theta[:, None] * a).sum(0) + log_a / 0.25
        return float(value), np.concatenate([residual @ a + theta, slope_a, -residual.sum(0) + b / 9])

    x = optimize.minimize(loss, np.zeros(n + 2 * m), jac=True, method="L-BFGS-B").x
    return x[:n], np.exp(x[n : n + m]), x[n + m :]


def irt_world(drop: float, rng: np.random.Generator) -> tuple[Floats, Floats] | None:
    """A submission between 25 % and 85 % as baseline; the candidate is the same one, less able by `drop`."""
    theta, a, b = irt()
    q = special.expit(rng.choice(theta) * a - b)
    if not max(0.25, drop + 0.02) < q.mean() < 0.85:
        return irt_world(drop, rng)
    if not drop:
        return q, q
    shift = optimize.brentq(lambda s: special.expit(special.logit(q) - s * a).mean() - (q.mean() - drop), 0, 30)
    return q, special.expit(special.logit(q) - shift * a)


# --- running ----------------------------------------------------------------------------------------------------------


def run_block(case: Case, seed: int, trials: int) -> list[tuple[str, float]]:
    """Verdict and share of the rollouts of each trial; fewer than asked where a drop was not possible."""
    rng = np.random.default_rng([seed, 20240521])
    out = []
    for _ in range(trials):
        world = draw_world(case, rng)
        if world is not None:
            verdict, used = trial(case.config, *world, case.seeds, case.baseline_seeds, rng, fresh=case.fresh)
            out.append((verdict.value, used))
    return out


def run(cases: Iterable[Case], trials: int, workers: int) -> pd.DataFrame:
    """One row a case, with exact 95 % upper bounds for the error rates."""
    rows = []
    with ProcessPoolExecutor(workers, initializer=LEADERBOARD.extend, initargs=(list(LEADERBOARD),)) as pool:
        for case in cases:
            blocks = [pool.submit(run_block, case, seed, BLOCK) for seed in range(-(-case.weight * trials // BLOCK))]
            found = [result for block in blocks for result in block.result()]
            if found:
                rows.append(row(case, found))
                print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def row(case: Case, found: list[tuple[str, float]]) -> dict[str, object]:
    verdicts = [verdict for verdict, _ in found]
    used = np.array([share for _, share in found])
    counts = {kind.value: verdicts.count(kind.value) for kind in GateVerdict}
    config = case.config
    return {
        "world": case.world,
        "drop": case.drop,
        "tasks": case.tasks,
        "seeds": case.seeds,
        "baseline_seeds": 0 if case.fresh else case.baseline_seeds,
        "tier": case.settings.get("tier", "nightly"),
        "alpha": config.alpha,
        "question": config.question,
        "margin": config.margin,
        "block_margin": config.blocks_beyond,
        "futility": config.futility,
        "sequential": config.sequential,
        "trials": len(found),
        **{kind.lower(): count / len(found) for kind, count in counts.items()},
        "pass_upper": upper(counts["PASS"], len(found)),
        "block_upper": upper(counts["BLOCK"], len(found)),
        "used": used.mean(),
        "used_median": np.median(used),
        "used_90": np.quantile(used, 0.9),
    }


def upper(count: int, trials: int) -> float:
    return float(stats.binomtest(count, trials).proportion_ci(0.95, method="exact").high)


# --- parts ------------------------------------------------------------------------------------------------------------


def savings(trials: int, workers: int) -> pd.DataFrame:
    """The gate, and the fixed-size test of all rollouts, for every true drop."""
    settings: list[tuple[int, int, dict[str, object]]] = [
        (4, 4, {}),
        (4, 4, {"question": "outcomes"}),
        (4, 8, {}),
        (4, 0, {}),
        (1, 1, {}),
        (4, 4, {"block_margin": 0.0}),
        (1, 1, {"block_margin": 0.0}),
        (4, 4, {"futility": 0.0}),
        (4, 4, {"tier": "smoke"}),
        (4, 4, {"tier": "release"}),
    ]
    cases = [
        Case(world, drop, seeds=seeds, baseline_seeds=stored, settings=setting, fresh=not stored)
        for world in PUBLIC
        for seeds, stored, setting in (settings if world == "deepswe" else settings[:2])
        for drop in DROPS
    ]
    found = run(cases, trials, workers)
    found["fixed"] = [fixed_size(**line) for line in found.to_dict("records")]  # type: ignore[misc]
    return found


def fixed_size(
    world: str,
    drop: float,
    seeds: int,
    baseline_seeds: int,
    margin: float,
    block_margin: float,
    alpha: float,
    **line: object,
) -> float:
    """Rollouts of the fixed-size one-sided test of the same alpha and power, as a share of 500 tasks x seeds.

    Power is the gate's probability of the right verdict for this drop, nan where none is right; the
    test is the normal one on task differences.
    """
    right = float(line["pass"] if drop < margin else line["block"])  # type: ignore[arg-type]
    gap = margin - drop if drop < margin else drop - block_margin
    if gap <= 0 or right <= alpha:
        return float("nan")
    rng = np.random.default_rng(0)
    q = SURFACES[world](rng, 100_000)
    p = lowered(q, drop)
    variance = (p * (1 - p) / seeds + q * (1 - q) / (baseline_seeds or seeds)).mean() + (p - q).var()
    z = stats.norm.ppf(1 - alpha) + stats.norm.ppf(min(right, 0.999))
    return float((z / gap) ** 2 * variance / 500)


def stress(trials: int, workers: int) -> pd.DataFrame:
    """At the margin both verdicts are wrong: each may be given in 5 % of the trials."""
    shapes = [
        (500, 4, 4, 0.03, CANDIDATES),
        (500, 1, 1, 0.03, list(CANDIDATES)[:2]),
        (50, 4, 4, 0.10, list(CANDIDATES)[:2]),
    ]
    return run(
        (
            Case(f"{world} / {candidate}", margin, tasks, seeds, stored, {"margin": margin, "futility": 0.0})
            for tasks, seeds, stored, margin, candidates in shapes
            for world in SURFACES
            for candidate in candidates
        ),
        trials,
        workers,
    )


def irt_part(trials: int, workers: int) -> pd.DataFrame:
    settings: tuple[dict[str, object], ...] = ({}, {"question": "outcomes"}, {"futility": 0.0})
    return run((Case("irt", drop, settings=setting) for setting in settings for drop in DROPS), trials, workers)


NEAR, AT_MARGIN = (-0.10, 0.10), (-0.033, -0.027)  # differences of the two tables
GROUPS = (-0.101, -0.05, -0.0301, -0.01, 0.01, 0.101)


def pairs(trials: int, workers: int) -> pd.DataFrame:
    """Real submissions, one outcome a task; only the order is random, and the difference of two tables is the truth.

    Pairs are drawn at random among those within 10 points of each other, and once more among those whose difference is
    at the margin. Each is gated in one random order.
    """
    rows = []
    with ProcessPoolExecutor(workers, initializer=LEADERBOARD.extend, initargs=(list(LEADERBOARD),)) as pool:
        for question in ("outcomes", "rates"):
            for within in (NEAR, AT_MARGIN):
                blocks = [pool.submit(pair_block, question, within, seed) for seed in range(-(-4 * trials // BLOCK))]
                found = pd.DataFrame([line for block in blocks for line in block.result()])
                groups = pd.cut(found["difference"], GROUPS) if within is NEAR else found["difference"].round(3)
                rows += [pair_row(question, within, str(group), some) for group, some in found.groupby(groups)]
                rows.append(pair_row(question, within, "all", found))
                print(pd.DataFrame(rows).to_string(), flush=True)
    return pd.DataFrame(rows)


def pair_block(question: str, within: tuple[float, float], seed: int) -> list[dict[str, object]]:
    rng = np.random.default_rng([seed, 20231010])
    _, y = submissions()
    y = y[~np.isnan(y).any(axis=1)]
    y = y[y.mean(axis=1) >= 0.1]
    means = y.mean(axis=1)
    gaps = np.round(means[None, :] - means[:, None], 6)  # of candidate b over baseline a
    first, second = np.nonzero((gaps >= within[0]) & (gaps <= within[1]) & ~np.eye(len(y), dtype=bool))
    tasks = tuple(f"{i:04d}" for i in range(y.shape[1]))
    config = configure(question=question, futility=0.0)
    out: list[dict[str, object]] = []
    for pick in rng.integers(len(first), size=BLOCK):
        a, b = first[pick], second[pick]
        stored = Arm("a", tasks, (0,), y[a][:, None])
        plan = design(tasks, 1, baseline=stored, stratified=question == "rates", seed=int(rng.integers(2**31)))
        values = y[b][:, None]
        verdict, used = decide(config, plan, Cells(values, values, stored.means, stored.means))
        out.append({"difference": gaps[a, b], "verdict": verdict.value, "used": used / len(plan.order)})
    return out


def pair_row(question: str, within: tuple[float, float], group: str, some: pd.DataFrame) -> dict[str, object]:
    false_pass = ((some["verdict"] == "PASS") & (some["difference"] < -0.03)).sum()
    false_block = ((some["verdict"] == "BLOCK") & (some["difference"] >= -0.03)).sum()
    return {
        "question": question,
        "drawn": "near" if within is NEAR else "at the margin",
        "difference": group,
        "trials": len(some),
        **{kind.lower(): (some["verdict"] == kind.value).mean() for kind in GateVerdict},
        "false_pass_upper": upper(int(false_pass), len(some)),
        "false_block_upper": upper(int(false_block), len(some)),
        "used": some["used"].mean(),
    }


# --- today's rule and the one before, on the same draws ---------------------------------------------------------------

WORLDS = (
    ("deepswe", 500, 4, 0.03),
    ("deepswe", 500, 2, 0.03),
    ("deepswe", 500, 1, 0.03),
    ("deepswe", 100, 4, 0.03),
    ("deepswe", 50, 4, 0.10),
    ("autocoderover", 500, 4, 0.03),
    ("temperature-0", 500, 4, 0.03),
    ("never or always", 500, 4, 0.03),
    ("95 % solved", 500, 4, 0.03),
    ("10 % solved", 500, 4, 0.03),
    ("deepswe / some tasks lost", 500, 4, 0.03),
    ("deepswe / one repository", 500, 4, 0.03),
    ("deepswe / equally able on all tasks", 500, 4, 0.03),
    ("deepswe / no run noise", 500, 4, 0.03),
)


def trials_of(case: Case, rng: np.random.Generator) -> Iterator[tuple[Design, Floats, Floats]]:
    """Endless trials of a gate: its plan, the candidate's outcomes (N, K), and the baseline's means (N,), or outcomes
    (N, K) where it is run afresh."""
    while True:
        world = draw_world(case, rng)
        if world is None:
            continue
        tasks = tuple(f"{i:04d}" for i in range(len(world[0])))
        theirs = draw(world[0], case.seeds if case.fresh else case.baseline_seeds, rng)
        mine = draw(world[1], case.seeds, rng)
        stored = None if case.fresh else Arm("baseline", tasks, tuple(range(case.baseline_seeds)), theirs)
        plan = design(tasks, case.seeds, baseline=stored, seed=int(rng.integers(2**31)))
        yield plan, mine, theirs if stored is None else stored.means


def both_block(case: Case, seed: int, trials: int) -> list[tuple[str, float, str, float]]:
    """Verdict and share used, by the rule of version 1.0 and by today's, in each trial on the same draws."""
    out = []
    for plan, mine, means in islice(trials_of(case, np.random.default_rng([seed, 20261129])), trials):
        cells = Cells(mine, mine, means, means)
        (then, a), (today, b) = frozen_gate.decide(case.config, plan, cells), decide(case.config, plan, cells)
        out.append((then.value, a / len(plan.order), today.value, b / len(plan.order)))
    return out


def side_by_side(trials: int, workers: int) -> pd.DataFrame:
    """PASS, BLOCK and share of the rollouts of both rules; the draws of the two are the same."""
    rows = []
    with ProcessPoolExecutor(workers) as pool:
        for world, tasks, seeds, margin in WORLDS:
            drops = (0.0, margin, 0.05, 0.10, 0.20) if world == "deepswe" and tasks == 500 and seeds == 4 else (margin,)
            for drop in drops:
                case = Case(world, drop, tasks, seeds, 1 if seeds == 1 else 4, {"margin": margin})
                jobs = [pool.submit(both_block, case, n, 50) for n in range(-(-case.weight * trials // 50))]
                found = [line for job in jobs for line in job.result()]
                for rule, at in (("1.0", 0), ("today", 2)):
                    said = [line[at] for line in found]
                    count = {kind.value: said.count(kind.value) for kind in GateVerdict}
                    rows.append(
                        {
                            "world": world,
                            "tasks": tasks,
                            "seeds": seeds,
                            "drop": drop,
                            "rule": rule,
                            "trials": len(found),
                            "pass": count["PASS"] / len(found),
                            "pass_upper": upper(count["PASS"], len(found)),
                            "block": count["BLOCK"] / len(found),
                            "block_upper": upper(count["BLOCK"], len(found)),
                            "used": float(np.mean([line[at + 1] for line in found])),
                        }
                    )
                    print(rows[-1], flush=True)
    return pd.DataFrame(rows)


NIGHTS = 90


def nights_block(drop: float, seed: int) -> list[str]:
    """The verdicts of 90 nights on DeepSWE's surface: one stored baseline, a new candidate every night."""
    rng = np.random.default_rng([seed, 90])
    tasks = tuple(f"{i:04d}" for i in range(500))
    sequence = GateSequence(baseline_digest="", alpha=0.05, window=WINDOW)
    q = SURFACES["deepswe"](rng, 500)
    p, stored = lowered(q, drop), Arm("baseline", tasks, (0, 1, 2, 3), draw(q, 4, rng))
    out = []
    for night in range(1, NIGHTS + 1):
        plan = design(tasks, 4, baseline=stored, seed=int(rng.integers(2**31)))
        mine = draw(p, 4, rng)
        config = configure(block_alpha=sequence.block_alpha(night))
        out.append(decide(config, plan, Cells(mine, mine, stored.means, stored.means))[0].value)
    return out


def nights(trials: int, workers: int) -> pd.DataFrame:
    """A sequence of 90 nights: false BLOCKs in any window, and BLOCK of a real drop on the 1st, 7th, 30th, 90th."""
    rows = []
    with ProcessPoolExecutor(workers) as pool:
        for drop in (0.0, 0.03, 0.05):
            found = list(pool.map(nights_block, [drop] * trials, range(trials)))
            rows.append(night_rows(drop, np.array(found)))
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def night_rows(drop: float, verdicts: np.ndarray) -> dict[str, object]:
    """What sequences (S, NIGHTS) of verdicts come to; `_sd` is the Monte-Carlo standard error over sequences."""
    blocked, passed = verdicts == "BLOCK", verdicts == "PASS"
    windows = np.stack([blocked[:, i : i + WINDOW].any(axis=1) for i in range(NIGHTS - WINDOW + 1)], axis=1)
    shares = {
        "pass_a_night": passed.mean(axis=1),
        "block_a_night": blocked.mean(axis=1),
        "any_block_in_a_window": windows.mean(axis=1),
        **{f"nights {a}-{b}": blocked[:, a - 1 : b].mean(axis=1) for a, b in ((1, 10), (11, 30), (31, 60), (61, 90))},
    }
    root = np.sqrt(len(verdicts))
    found = {name: value for key, one in shares.items() for name, value in (
        (key, one.mean()), (f"{key}_sd", one.std() / root)
    )}  # fmt: skip
    return {"drop": drop, "sequences": len(verdicts), **found}


PARTS = {
    "savings": savings,
    "stress": stress,
    "irt": irt_part,
    "pairs": pairs,
    "side_by_side": side_by_side,
    "nights": nights,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2500)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--leaderboard", type=Path)
    parser.add_argument("--out", type=Path, default=Path("results/gate-simulation"))
    parser.add_argument("--part", action="append", choices=PARTS)
    options = parser.parse_args()
    LEADERBOARD.extend([options.leaderboard] if options.leaderboard else [])
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.part or PARTS:
        if name in ("irt", "pairs") and not LEADERBOARD:
            print(f"{name}: left out, give --leaderboard")
            continue
        PARTS[name](options.trials, options.workers).to_csv(options.out / f"{name}.csv", index=False)


if __name__ == "__main__":
    main()
