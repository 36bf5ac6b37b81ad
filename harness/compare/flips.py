"""The tasks whose rate changed, the surest first, each with two trajectories to look at; and unique solves."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pandas as pd

from aem_harness.harness.compare.behaviour import Read, action_at, first_divergence
from aem_harness.harness.compare.records import Flip, TaskChange
from aem_harness.harness.compare.regressions import moved, regressions
from aem_harness.harness.compare.values import count_trials
from aem_harness.harness.facts.features import Sketch

Change = TypeVar("Change", bound=TaskChange)


@dataclass(frozen=True)
class _Rollout:
    """One scored rollout: its row label in the table, and what is shown of it."""

    row: int
    seed: int
    resolved: bool
    trajectory: str
    repo: str


def flips(
    baseline: str,
    table_a: pd.DataFrame,
    candidate: str,
    table_b: pd.DataFrame,
    read: Read | None = None,
) -> list[Flip]:
    """Every task whose resolved rate differs, ordered by the posterior that it really changed.

    The trajectories shown are a success of the better arm and a failure of the other, of the same seed where there is
    such a pair. `read` knows trajectories by row label of the tables, for the first diverging step.
    """
    rollouts_a, rollouts_b = _by_task(table_a), _by_task(table_b)
    tasks = tuple(sorted(set(rollouts_a) & set(rollouts_b)))
    a, b = count_trials(table_a, tasks), count_trials(table_b, tasks)
    posterior = regressions(a, b)
    found = moved(a, b)
    shown = [
        _shown(rollouts_a[tasks[i]], rollouts_b[tasks[i]], worse=bool(worse))
        for i, worse in zip(found, (a.solved * b.rollouts > b.solved * a.rollouts)[found], strict=True)
    ]
    sketches: Mapping[int, Sketch] = read.sketches([one.row for pair in shown for one in pair]) if read else {}
    out = []
    for i, (one, other) in zip(found, shown, strict=True):
        step, actions = _divergence(sketches, one.row, other.row)
        out.append(
            Flip(
                instance_id=tasks[i],
                repo=one.repo,
                baseline=baseline,
                candidate=candidate,
                solved=(int(a.solved[i]), int(b.solved[i])),
                rollouts=(int(a.rollouts[i]), int(b.rollouts[i])),
                p_worse=float(posterior.worse[i]),
                p_better=float(posterior.better[i]),
                trajectories=(one.trajectory, other.trajectory),
                step=step,
                actions=actions,
            )
        )
    return surest(out)


def surest(flips: Sequence[Change]) -> list[Change]:
    """The surest first; of equally sure ones the largest."""
    return sorted(flips, key=lambda flip: (-max(flip.p_worse, flip.p_better), -abs(flip.change), flip.instance_id))


def unique_solves(tables: Mapping[str, pd.DataFrame]) -> dict[str, tuple[str, ...]]:
    """Per arm, the tasks that it alone ever resolved."""
    solved = {arm: set(table["instance_id"][table["resolved"].fillna(False)]) for arm, table in tables.items()}
    return {
        arm: tuple(sorted(mine - set().union(*(theirs for other, theirs in solved.items() if other != arm))))
        for arm, mine in solved.items()
    }


def _by_task(table: pd.DataFrame) -> dict[str, list[_Rollout]]:
    needed = ["instance_id", "seed", "resolved", "trajectory", "repo"]
    scored = table.loc[table["resolved"].notna(), needed].sort_values("seed")
    columns = [scored["instance_id"], scored.index, scored["seed"], scored["resolved"], scored["trajectory"].fillna("")]
    rollouts: dict[str, list[_Rollout]] = defaultdict(list)
    for task, row, seed, resolved, path, repo in zip(*(c.tolist() for c in [*columns, scored["repo"]]), strict=True):
        rollouts[task].append(_Rollout(int(row), int(seed), bool(resolved), str(path), str(repo)))
    return rollouts


def _shown(a: list[_Rollout], b: list[_Rollout], *, worse: bool) -> tuple[_Rollout, _Rollout]:
    """A pair in which exactly the better arm resolved the task."""
    wanted_a = {one.seed: one for one in a if one.resolved == worse}
    wanted_b = {one.seed: one for one in b if one.resolved != worse}
    shared = sorted(set(wanted_a) & set(wanted_b))
    if shared:
        return wanted_a[shared[0]], wanted_b[shared[0]]
    return wanted_a[min(wanted_a)], wanted_b[min(wanted_b)]


def _divergence(read: Mapping[int, Sketch], row_a: int, row_b: int) -> tuple[int | None, tuple[str, str]]:
    if row_a not in read or row_b not in read:
        return None, ("", "")
    a, b = read[row_a], read[row_b]
    step = first_divergence(a, b)
    return step, (action_at(a, step), action_at(b, step))
