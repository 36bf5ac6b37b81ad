"""The gate on real submissions, whose outcome tables and so true differences are known."""

import numpy as np
import pytest

from aem_harness.harness.compare.outcomes import import_outcomes
from aem_harness.harness.gate.calibrate import lowered, trial
from aem_harness.harness.gate.config import configure
from aem_harness.harness.gate.design import Arm, design
from aem_harness.harness.gate.gate import GateVerdict, decide
from aem_harness.harness.gate.looks import Cells


@pytest.fixture(scope="module")
def submissions(shared) -> np.ndarray:
    """Outcomes (submissions, 500) of those that report every task."""
    table = import_outcomes(shared / "data" / "verified-leaderboard.csv.gz").table
    wide = table.assign(resolved=table["resolved"].astype(float)).pivot(
        index="arm", columns="instance_id", values="resolved"
    )
    return wide.dropna().to_numpy()


def pairs(y: np.ndarray, count: int, seed: int):
    """Random pairs within 10 points of each other."""
    rng = np.random.default_rng(seed)
    while count:
        a, b = rng.choice(len(y), 2, replace=False)
        if abs(y[a].mean() - y[b].mean()) <= 0.10:
            yield y[a], y[b], int(rng.integers(2**31))
            count -= 1


def test_verdicts_on_the_full_table_of_real_submissions_are_right(submissions):
    """At most one in twenty may be wrong; of 300 pairs, at most what a rate of 5 % gives once in a thousand times."""
    config, tasks = configure(question="outcomes"), tuple(map(str, range(500)))
    wrong, used = 0, []
    for a, b, seed in pairs(submissions, 300, seed=0):
        baseline = Arm("a", tasks, (0,), a[:, None])
        plan = design(tasks, 1, baseline=baseline, stratified=False, seed=seed)
        values = b[np.array([int(task) for task in plan.tasks])][:, None]
        means = baseline.select(plan.tasks).means
        verdict, rollouts = decide(config, plan, Cells(values, values, means, means))
        difference = round(float((b - a).mean()), 9)
        wrong += verdict is (GateVerdict.BLOCK if difference >= -0.03 else GateVerdict.PASS)
        used.append(rollouts / 500)
        assert verdict is not GateVerdict.INCONCLUSIVE
    assert wrong <= 27
    assert np.mean(used) < 0.75


def test_a_submission_run_again_passes_and_one_20_points_worse_is_blocked(submissions):
    """Resolve probabilities of a task: the share of the 15 submissions of the nearest scores that solve it."""
    rng = np.random.default_rng(1)
    ranked = submissions[np.argsort(submissions.mean(axis=1))]
    for middle in (80, 110, 140):
        q = ranked[middle - 7 : middle + 8].mean(axis=0)
        blocked, used = zip(*(trial(configure(), q, lowered(q, 0.2), 4, 4, rng) for _ in range(10)), strict=True)
        assert set(blocked) == {GateVerdict.BLOCK}
        assert np.mean(used) < 0.10
        equal = [trial(configure(), q, q, 4, 4, rng)[0] for _ in range(10)]
        assert GateVerdict.BLOCK not in equal
