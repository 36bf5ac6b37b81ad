"""Two or many arms -> one `Comparison`: a pure function of the outcomes table."""

from collections.abc import Mapping, Sequence

import pandas as pd

from harness import __version__
from harness.compare.contrast import contrast, estimate
from harness.compare.decisions import difference_decision, holm
from harness.compare.outcomes import Outcomes
from harness.compare.records import ArmSummary, Comparison, Contrast, Decision, Question
from harness.compare.schema import listed
from harness.compare.values import count_trials, rates
from harness.errors import DataError

STAMPS = ("grader", "dataset", "scaffold", "model")


def compare(
    outcomes: Outcomes,
    baseline: str | None = None,
    candidates: Sequence[str] = (),
    *,
    level: float = 0.95,
    common: bool = False,
    margin: float | None = None,
) -> Comparison:
    """Every candidate against the baseline (by default the first arm); see `contrast` for the options."""
    arms = outcomes.arms
    baseline = baseline or arms[0]
    candidates = list(candidates) or [arm for arm in arms if arm != baseline]
    for arm in (baseline, *candidates):
        if arm not in arms:
            raise DataError(f"no arm {arm!r}; the table has: {listed(arms)}")
    if not candidates:
        raise DataError(f"only one arm ({baseline}); give a second run folder or file to compare it with")
    tables = {arm: outcomes.table[outcomes.table["arm"] == arm] for arm in (baseline, *candidates)}
    contrasts = [
        contrast(baseline, tables[baseline], arm, tables[arm], level=level, common=common, margin=margin)
        for arm in candidates
    ]
    return Comparison(
        level=level,
        baseline=baseline,
        arms=tuple(summarise(arm, table, level) for arm, table in tables.items()),
        contrasts=tuple(adjusted(contrasts)),
        warnings=tuple(stamp_warnings(tables)),
        versions={"aem": __version__},
    )


def summarise(arm: str, table: pd.DataFrame, level: float) -> ArmSummary:
    """One arm: counts, resolved rate over rollouts with a verdict, and the rates if all others had failed or passed."""
    tasks = tuple(sorted(set(table["instance_id"])))
    trials = count_trials(table, tasks)
    scored = trials.rollouts > 0
    if not scored.any():
        raise DataError(f"arm {arm!r} has no verdict at all ({len(table)} rollouts without one)")
    kept = trials.where(scored)
    repos = table.drop_duplicates("instance_id").set_index("instance_id")["repo"].reindex(list(tasks))
    names = tuple(task for task, keep in zip(tasks, scored, strict=True) if keep)
    values = rates(kept, names, repos.to_numpy(dtype=str)[scored])
    as_failed, as_passed = trials.filled(False), trials.filled(True)
    return ArmSummary(
        arm=arm,
        tasks=len(tasks),
        rollouts=len(table),
        scored=int(trials.rollouts.sum()),
        missing=int(trials.missing.sum()),
        errors=int((table["outcome"] == "error").sum()),
        retried=int((table["attempt"] > 0).sum()),
        resolved=estimate(values, kept, level=level, rate=True),
        official=float((as_failed.solved / as_failed.rollouts).mean()),
        highest=float((as_passed.solved / as_passed.rollouts).mean()),
        outcomes={str(name): int(count) for name, count in table["outcome"].value_counts().items()},
        versions={name: listed(table[name].dropna().unique(), most=3) for name in STAMPS},
    )


def adjusted(contrasts: Sequence[Contrast]) -> list[Contrast]:
    """Holm over the contrasts of a table, for each question; a verdict of better or worse has to survive it."""
    out = list(contrasts)
    questions: tuple[Question, ...] = ("these tasks", "tasks like these")
    for question in questions:
        found = [(i, test) for i, c in enumerate(out) for test in c.tests if test.question == question]
        for (index, test), p in zip(found, holm([test.p for _, test in found]), strict=True):
            tests = tuple(t.model_copy(update={"p_holm": p}) if t == test else t for t in out[index].tests)
            out[index] = out[index].model_copy(update={"tests": tests})
    return [_with_family(one, len(out)) for one in out] if len(out) > 1 else out


def _with_family(one: Contrast, family: int) -> Contrast:
    p = {test.question: test.p_holm for test in one.tests}
    result = one.difference

    def redecided(decision: Decision) -> Decision:
        interval = result.these if decision.question == "these tasks" else result.like
        p_holm = p[decision.question]
        if decision.verdict not in ("better", "worse", "no difference detected") or interval is None or p_holm is None:
            return decision
        return difference_decision(result.value, interval, p_holm, family=family)

    decisions = tuple(redecided(decision) for decision in one.decisions)
    return one.model_copy(update={"decision": redecided(one.decision), "decisions": decisions})


def stamp_warnings(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """One line for every version stamp in which arms differ although only the weights should."""
    out = []
    for name in ("grader", "dataset", "scaffold"):
        found = {arm: listed(table[name].dropna().unique(), most=3) for arm, table in tables.items()}
        if len(set(found.values())) > 1:
            out.append(f"{name} differs: " + "; ".join(f"{arm}: {value or 'unknown'}" for arm, value in found.items()))
    ids = {arm: set(table["instance_id"]) for arm, table in tables.items()}
    first, *rest = ids
    for arm in rest:
        if ids[arm] != ids[first]:
            shared, ours, theirs = ids[first] & ids[arm], ids[first] - ids[arm], ids[arm] - ids[first]
            out.append(
                f"tasks differ: {len(shared)} in common, {len(ours)} only in {first}, {len(theirs)} only in {arm}"
            )
    return out
