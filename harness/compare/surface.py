"""How noisy evaluations are: variance components, public ones that are shipped, and one's own from history.

All components are shares of rate * (1 - rate), so that they carry over to other resolve rates:
noise: run noise of one rollout, W / (rate (1 - rate)), with W = mean of p (1 - p) over tasks;
change: spread over tasks of the true change between two arms;
repository: spread of that change between repositories.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from aem_harness.harness.compare.plan import allocate
from aem_harness.harness.compare.records import Allocation, Components
from aem_harness.harness.compare.regressions import fit_beta
from aem_harness.harness.compare.values import count_trials, difference, rates, task_values
from aem_harness.harness.errors import ConfigError, DataError
from aem_harness.harness.io import write_text

# Fitted once to public outcomes; only these few numbers are kept. `change` and `repository` come from the 181 pairs of
# public mini-SWE-agent submissions on SWE-bench Verified within 5 points of each other: the median repository part of
# their differences is 0.007, and their total variance (median 0.73, lowest tenth below 0.58) leaves between 0 and 0.3
# for `change`, depending on the noise assumed. Two checkpoints of one training run should lie at the low end.
PUBLIC: Mapping[str, Components] = {
    "deepswe": Components(
        source="DeepSWE model card: 42.2 % pass@1, 71.0 % pass@16 over 16 runs at temperature 1; Beta(0.25, 0.34)",
        rate=0.422, noise=0.37, change=0.05, repository=0.007, steps=64.8, seconds=2676.0,
    ),
    "autocoderover": Components(
        source="AutoCodeRover with GPT-4 (April 2024), 3 runs of 93 tasks; Beta(0.131, 0.339)",
        rate=0.28, noise=0.32, change=0.05, repository=0.007,
    ),
    "temperature-0": Components(
        source="mini-SWE-agent 2.2.8 with Claude 4.5 Sonnet at temperature 0, 5 runs of 100 tasks; Beta(0.219, 0.069)",
        rate=0.76, noise=0.224, change=0.05, repository=0.007,
    ),
}  # fmt: skip


def from_history(table: pd.DataFrame, base: Components) -> Components:
    """Components of one's own runs; those that they do not determine come from `base`.

    The noise comes from arms with at least two rollouts on some task (beta-binomial fit), the change from the first two
    arms on their common tasks, costs from all rollouts.
    """
    arms = list(dict.fromkeys(table["arm"]))
    scored = table[table["resolved"].notna()]
    if scored.empty:
        raise DataError("the history has no verdicts to learn from: give --history a run that was graded")
    components = base.model_copy(update={"source": f"history of {', '.join(arms)}", **_costs(table)})
    components = components.model_copy(update={"rate": float(np.mean([_rate(scored, arm) for arm in arms]))})
    repeated = [noise for arm in arms if (noise := _noise(scored[scored["arm"] == arm])) is not None]
    if repeated:
        components = components.model_copy(update={"noise": float(np.mean(repeated))})
    else:
        components = components.model_copy(update={"source": f"{components.source}; run noise from {base.source}"})
    if len(arms) > 1:
        components = components.model_copy(update=_change(scored, arms[0], arms[1], components))
    return components


def task_variances(table: pd.DataFrame, tasks: Sequence[str]) -> np.ndarray:
    """Expected p (1 - p) of each task given its history, shrunk by the Beta fitted to all; of one arm.

    A task that always failed so far is not taken to be certain: its variance is that of its posterior.
    """
    trials = count_trials(table, tuple(tasks))
    seen = trials.where(trials.rollouts > 0)
    a, b = fit_beta(seen)
    a_n, b_n = a + trials.solved, b + trials.rollouts - trials.solved
    return np.asarray(a_n * b_n / ((a_n + b_n) * (a_n + b_n + 1)), dtype=float)


def _rate(scored: pd.DataFrame, arm: str) -> float:
    return float(task_values(scored[scored["arm"] == arm], "resolved").values.mean())


def _noise(scored: pd.DataFrame) -> float | None:
    trials = count_trials(scored, tuple(sorted(set(scored["instance_id"]))))
    if (trials.rollouts > 1).sum() < 5:
        return None
    a, b = fit_beta(trials)
    return (a + b) / (a + b + 1)


def _change(scored: pd.DataFrame, baseline: str, candidate: str, known: Components) -> dict[str, float]:
    a, b = scored[scored["arm"] == baseline], scored[scored["arm"] == candidate]
    tasks = tuple(sorted(set(a["instance_id"]) & set(b["instance_id"])))
    if len(tasks) < 10:
        return {}
    counts_a, counts_b = count_trials(a, tasks), count_trials(b, tasks)
    repos = a.drop_duplicates("instance_id").set_index("instance_id")["repo"].reindex(list(tasks)).to_numpy(dtype=str)
    delta = difference(rates(counts_a, tasks, repos), rates(counts_b, tasks, repos)).values
    spread = known.rate * (1 - known.rate)
    if not spread:
        return {}
    noise = float((known.noise * spread * (1 / counts_a.rollouts + 1 / counts_b.rollouts)).mean())
    between = max(float(delta.var(ddof=1)) - noise, 0.0)
    labels, index, sizes = np.unique(repos, return_inverse=True, return_counts=True)
    if len(labels) < 3:
        return {"change": between / spread}
    means = np.bincount(index, delta) / sizes
    within = ((delta - means[index]) ** 2).sum() / (len(delta) - len(labels))
    square = (sizes * (means - delta.mean()) ** 2).sum() / (len(labels) - 1)
    typical = (len(delta) - (sizes**2).sum() / len(delta)) / (len(labels) - 1)
    repository = max(float((square - within) / typical), 0.0)  # one-way analysis of variance
    return {"change": max(between - repository, 0.0) / spread, "repository": repository / spread}


def _costs(table: pd.DataFrame) -> dict[str, float]:
    names = ("steps", "seconds", "prompt_tokens", "completion_tokens", "gpu_seconds")
    return {name: float(table[name].mean()) for name in names if table[name].fillna(0).sum() > 0}


def write_allocation(table: pd.DataFrame, budget: int | None, at_least: int, path: Path) -> Allocation:
    """Allocate `budget` rollouts (4 a task by default) by the first arm's history; write seeds per task as CSV."""
    arm = table["arm"].iloc[0]
    own = table[table["arm"] == arm]
    tasks = sorted(set(own["instance_id"]))
    budget = 4 * len(tasks) if budget is None else budget
    if budget < at_least * len(tasks):
        raise ConfigError(f"--budget {budget} is less than {at_least} for each of {len(tasks)} tasks")
    found = allocate(task_variances(own, tasks), budget, at_least=at_least)
    write_text(path, pd.DataFrame({"instance_id": tasks, "seeds": found.seeds}).to_csv(index=False))
    return found
