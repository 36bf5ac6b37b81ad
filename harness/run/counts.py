"""How many rollouts of a run ended in which way."""

from collections import Counter
from collections.abc import Sequence

from aem_harness.harness.run.store import Key, RunStore
from aem_harness.harness.types import Outcome


def outcomes(store: RunStore, keys: Sequence[Key]) -> Counter[str]:
    """How many of `keys` ended in each outcome; "owed" counts those that have none yet."""
    counts: Counter[str] = Counter()
    for key in keys:
        progress = store.progress.get(key)
        if progress is None:
            counts["owed"] += 1
        elif progress.rollout["fault"] is not None:
            counts[Outcome.ERROR.value] += 1
        else:
            counts[progress.grade["outcome"] if progress.grade else "owed"] += 1
    return counts
