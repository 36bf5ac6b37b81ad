"""How many rollouts of a run ended in which way."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aem_harness.harness.run.origin import REUSES, reuse_line, reuse_of
from aem_harness.harness.run.store import Key, Progress, RunStore
from aem_harness.harness.run.thoughts import done_with
from aem_harness.harness.types import Outcome


def outcomes(store: RunStore, keys: Sequence[Key]) -> Counter[str]:
    """How many of `keys` ended in each outcome; "pending" counts those that have none yet."""
    counts: Counter[str] = Counter()
    for key in keys:
        progress = store.progress.get(key)
        if progress is None:
            counts["pending"] += 1
        elif progress.rollout["fault"] is not None:
            counts[Outcome.ERROR.value] += 1
        else:
            counts[progress.grade["outcome"] if progress.grade else "pending"] += 1
    return counts


def ends(store: RunStore, keys: Sequence[Key]) -> dict[str, Counter[str]]:
    """By outcome, how the rollouts among `keys` ended (their exit statuses)."""
    found: dict[str, Counter[str]] = {}
    for progress in (store.progress[key] for key in keys if key in store.progress):
        graded = progress.grade["outcome"] if progress.grade else "pending"
        outcome = Outcome.ERROR.value if progress.rollout["fault"] is not None else graded
        found.setdefault(outcome, Counter())[progress.rollout.get("exit_status", "")] += 1
    return found


def remarks(store: RunStore, keys: Sequence[Key]) -> list[str]:
    """Notes for the reader of a run's summary, one line each."""
    known = [store.progress[key] for key in keys if key in store.progress]
    said = []
    if left_out := [one for one in known if one.rollout.get("left_out")]:
        whys = Counter(why.partition(":")[0] for one in left_out for why in one.rollout["left_out"])
        reasons = ", ".join(f"{why} ({count})" for why, count in whys.most_common())
        said.append(f"{len(left_out)} patches leave out changed files, listed in receipt.json: {reasons}")
    graded = [one.grade for one in known if one.grade]
    origins = Counter(map(reuse_of, graded))
    if line := reuse_line(**{name: origins[name] for name in REUSES}, of=f"{len(graded)} verdicts"):
        said.append(line)
    if differs := [one for one in known if one.grade and one.grade.get("tree_differs")]:
        ids = ", ".join(sorted({one.rollout["instance_id"] for one in differs})[:3])
        said.append(f"{len(differs)} graded trees differ from what the agent left (tree_differs in grade.json): {ids}")
    said += _thoughts(known, store.begun("agent") or {})
    return said


def _thoughts(known: Sequence[Progress], agent: Mapping[str, Any]) -> Iterator[str]:
    """Do replies hold more than thoughts, and does the model see its earlier ones? Nothing where all is well."""
    names = ("thoughts", "thoughts_lost", "thoughts_alone")
    apart, lost, alone = (sum(one.rollout.get(name) or 0 for one in known) for name in names)
    some = "" if all("thoughts" in one.rollout for one in known) else "at least "  # earlier releases counted none
    does = done_with(agent)
    if alone:
        yield (
            f"{some}{alone} replies were thoughts in a field of their own and nothing else, and count as malformed: "
            "the model ended there, or the server's reasoning parser takes plain replies for thoughts (docs/agents.md)"
        )
    if apart and does == "drop":
        yield (
            f"thoughts of {some}{apart} replies, which the server returns in a field of their own, were not sent back "
            "(agent_options.thoughts, or a run of an earlier release): the model never sees its earlier thoughts"
        )
    elif lost:
        unsent = "" if does else "the agent does not send them back, or "
        yield (
            f"at least {lost} of {apart} replies with thoughts in a field of their own are followed by a prompt that "
            f"lacks these: {unsent}the server or its chat template leaves them out (docs/agents.md)"
        )
