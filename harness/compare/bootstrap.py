"""Hierarchical bootstrap of a paired difference: tasks, then seeds within tasks, both arms on the same drawn tasks.

Resampling both stages with replacement counts run noise twice (Davison and Hinkley 1997, section 3.8). Rao and Wu
(1988) rescale the two stages so that each is counted once: with f the fraction of the tasks of interest that were run,

    mean + sqrt(1 - f) * sqrt(n / (n - 1)) * (task stage) + sqrt(f) * sqrt(k / (k - 1)) * (seed stage).

f = 1 answers the question about these tasks, f = 0 the one about tasks like these, and 50 tasks drawn from 500 have
f = 0.1.
"""

import numpy as np

from aem_harness.harness.compare.values import Floats, Ints, Trials


def bootstrap_differences(
    baseline: Trials, candidate: Trials, *, fraction: float, draws: int = 10_000, seed: int = 0
) -> Floats:
    """`draws` replicates of the mean task difference, candidate minus baseline; `fraction` is f above.

    Tasks with the same counts are exchangeable, so a draw needs only how often each kind of task occurs (multinomial)
    and each kind's total of successes (binomial): the same distribution as drawing task by task, in far less time.
    """
    rng = np.random.default_rng(seed)
    kinds, freq = np.unique(
        np.stack([baseline.solved, baseline.rollouts, candidate.solved, candidate.rollouts]), axis=1, return_counts=True
    )
    n = len(baseline.solved)
    solved_a, n_a, solved_b, n_b = kinds
    observed = solved_b / n_b - solved_a / n_a
    mean = float(observed @ freq) / n
    times: Ints | None = None
    out = np.full(draws, mean)
    if fraction < 1:
        times = rng.multinomial(n, freq / n, size=draws)
        task_stage = np.concatenate([part @ observed for part in np.array_split(times, 20)]) / n - mean
        out += np.sqrt(1 - fraction) * np.sqrt(n / max(n - 1, 1)) * task_stage
    if fraction > 0:
        seed_stage = np.zeros(draws)
        for sign, solved, rollouts in ((1, solved_b, n_b), (-1, solved_a, n_a)):
            scale = np.sqrt(rollouts / np.maximum(rollouts - 1, 1)) / rollouts
            for kind, (k, wins) in enumerate(zip(rollouts, solved, strict=True)):
                # One chance a call, and one number of trials too where it is fixed: numpy prepares a draw only once.
                often = freq[kind] if times is None else times[:, kind]
                moved = rng.binomial(often * k, wins / k, draws) - often * wins
                seed_stage += sign * moved * scale[kind] / n
        out = out + np.sqrt(fraction) * seed_stage
    return out
