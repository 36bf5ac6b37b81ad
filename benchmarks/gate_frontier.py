"""What the best rule of all could reach: a dynamic programme for the group-sequential gate with known variance.

    python -m benchmarks.gate_frontier [--pass-rate 0.79] [--block-rate 0.50] [--alpha 0.05]

The standardised difference is a Brownian motion in information, with the planned information of the gate's own order
(DeepSWE's surface, 500 tasks x 4 seeds, 4 stored). Among all rules that PASS and BLOCK falsely with probability alpha
each at the margin, PASS an equal candidate and BLOCK a drop of 5 points with the given probabilities, backward
induction finds one with the least expected rollouts under both; its multipliers are found by iteration. Each line says
whose variance is used: that of an equal candidate (a bound that no valid rule reaches), of one at the margin (what a
rule has to assume), or their mean. After Eales and Jennison, Biometrika 79:13 (1992).
"""

import argparse
from dataclasses import dataclass

import numpy as np
from scipy import fft

from aem_harness.harness.compare.values import Floats, Ints
from aem_harness.harness.gate import stages
from aem_harness.harness.gate.calibrate import draw, public_surface
from aem_harness.harness.gate.config import configure
from aem_harness.harness.gate.design import Arm, design

CELLS, WIDTH = 1024, 7.0
PASS, BLOCK, GIVE_UP, GO_ON = range(4)
MARGIN, EQUAL, WORSE = 0.0, 0.03, -0.02  # distance of the truth from the margin: at it, drop 0, drop 5


@dataclass
class Problem:
    """Looks after `at` rollouts, with the variance (L,) of the difference there."""

    at: Ints
    variance: Floats

    def __post_init__(self) -> None:
        information = 1 / np.minimum.accumulate(self.variance)
        self.t, self.root = information / information[-1], float(np.sqrt(information[-1]))
        self.grid, step = np.linspace(-WIDTH, WIDTH, CELLS, retstep=True)
        frequency = 2 * np.pi * fft.rfftfreq(2 * CELLS, step)
        self.kernels = [np.exp(-(frequency**2) * part / 2) for part in np.diff(np.r_[0.0, self.t])]
        self.share = self.at / self.at[-1]

    def likelihood(self, distance: float, j: int) -> Floats:
        """Of each state at look j when the truth is `distance` from the margin, over that at the margin."""
        drift = distance * self.root
        return np.asarray(np.exp(np.clip(drift * self.grid - drift**2 * self.t[j] / 2, -600, 600)))

    def expected(self, by_truth: dict[float, float], j: int) -> Floats:
        """What is lost in every state at look j, weighted by how likely each truth makes the state."""
        parts = [amount * self.likelihood(distance, j) for distance, amount in by_truth.items()]
        return np.asarray(np.sum(parts, axis=0))

    def best(self, costs: dict[float, float], losses: list[dict[float, float]]) -> list[Ints]:
        """The action of every state (CELLS,) at every look that costs least in sum."""
        actions: list[Ints] = []
        value = np.zeros(CELLS)
        for j in reversed(range(len(self.at))):
            choices = [self.expected(each, j) for each in losses]
            if actions:
                ahead = self.share[j + 1] - self.share[j]
                padded = np.r_[value, np.full(CELLS // 2, value[-1]), np.full(CELLS // 2, value[0])]
                later = fft.irfft(fft.rfft(padded) * self.kernels[j + 1], 2 * CELLS)[:CELLS]
                choices.append(later + ahead * self.expected(costs, j))
            table = np.stack(choices)
            value = table.min(axis=0)
            actions.append(table.argmin(axis=0))
        return actions[::-1]

    def outcome(self, actions: list[Ints], distance: float) -> tuple[float, float, float]:
        """Probability of PASS and of BLOCK, and the mean share of the rollouts."""
        mass = np.exp(-(self.grid**2) / 2 / self.t[0])
        mass /= mass.sum()
        passed = blocked = used = 0.0
        for j, action in enumerate(actions):
            if j:
                mass = fft.irfft(fft.rfft(mass, 2 * CELLS) * self.kernels[j], 2 * CELLS)[:CELLS]
            here = mass * self.likelihood(distance, j)
            passed += float(here[action == PASS].sum())
            blocked += float(here[action == BLOCK].sum())
            used += float(here[action != GO_ON].sum() * self.share[j])
            mass = np.where(action == GO_ON, mass, 0.0)
        return passed, blocked, used

    def solve(self, pass_rate: float, block_rate: float, alpha: float) -> dict[float, tuple[float, float, float]]:
        """Outcomes of the best rule with these rates, by distance of the truth from the margin."""
        missed_pass, missed_block, false_pass, false_block = 0.8, 0.8, 8.0, 8.0
        for round_ in range(60):
            losses = [
                {MARGIN: false_pass, WORSE: 5 * false_pass},
                {MARGIN: false_block, EQUAL: 5 * false_block},
                {EQUAL: missed_pass, WORSE: missed_block},
            ]
            actions = self.best({EQUAL: 1.0, WORSE: 1.0}, losses)
            found = {d: self.outcome(actions, d) for d in (EQUAL, MARGIN, WORSE)}
            step = 0.8 if round_ < 30 else 0.4
            missed_pass *= np.exp(3 * step * (pass_rate - found[EQUAL][0]))
            missed_block *= np.exp(3 * step * (block_rate - found[WORSE][1]))
            false_pass *= np.exp(step * np.clip(np.log(max(found[MARGIN][0], 1e-4) / alpha), -1, 1))
            false_block *= np.exp(step * np.clip(np.log(max(found[MARGIN][1], 1e-4) / alpha), -1, 1))
        return found


def planned_variance(draws: int = 40) -> tuple[Ints, Floats, Floats]:
    """Looks, and the mean planned variance there for an equal candidate and for one at the margin."""
    rng, config = np.random.default_rng(0), configure()
    surface, tasks = public_surface("deepswe", 500)[0], tuple(f"{i:04d}" for i in range(500))
    at = np.unique(np.r_[np.geomspace(30, 400, 30), np.linspace(400, 2000, 40)].round().astype(np.int64))
    found = []
    for seed in range(draws):
        stored = Arm("baseline", tasks, (0, 1, 2, 3), draw(surface(rng), 4, rng))
        plan = design(tasks, 4, baseline=stored, seed=seed)
        seen = stages.visits(plan, at)
        found.append([stages.variance(plan, seen, config, drop) for drop in (0.0, config.margin)])
    equal, worse = np.mean(found, axis=0)
    return at, equal, worse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pass-rate", type=float, default=0.79)
    parser.add_argument("--block-rate", type=float, default=0.50)
    parser.add_argument("--alpha", type=float, default=0.05)
    options = parser.parse_args()
    at, equal, worse = planned_variance()
    print("planned for           drop 0: PASS, share   drop 5: BLOCK, share   at the margin: PASS, BLOCK")
    for name, variance in (("an equal candidate", equal), ("the mean", (equal + worse) / 2), ("the margin", worse)):
        found = Problem(at, variance).solve(options.pass_rate, options.block_rate, options.alpha)
        (p, _, n), (fp, fb, _), (_, b, m) = (found[d] for d in (EQUAL, MARGIN, WORSE))
        print(f"{name:20}  {p:.1%}, {n:.1%}{'':10}{b:.1%}, {m:.1%}{'':12}{fp:.1%}, {fb:.1%}", flush=True)


if __name__ == "__main__":
    main()
