"""Which tasks of a dataset to run. Pure; the order is always that of the dataset."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from random import Random

from aem_harness.harness.errors import ConfigError
from aem_harness.harness.io import read_text
from aem_harness.harness.types import Task

_MAGIC = frozenset("*?[")


def select(
    tasks: Sequence[Task],
    *,
    ids: Iterable[str] = (),
    repos: Iterable[str] = (),
    difficulties: Iterable[str] = (),
    slice: str = "",
    sample: int | None = None,
    sample_seed: int = 0,
) -> list[Task]:
    """The tasks that pass every filter given, in dataset order, each once.

    `ids`: instance ids, globs (`django__*`) or `@file` with one of either a line (blank lines and `#` comments are
    skipped); a task passes if any matches. `repos` and `difficulties`: equal to any (repo also as a glob).
    Then `slice` (`start:stop:step`, as in Python), then `sample` tasks drawn without replacement by `sample_seed`:
    the same draw on every machine. Raises `ConfigError` naming what matches nothing, with what comes close.
    """
    filters = (
        _filter("instance", expand(ids), [task.instance_id for task in tasks]),
        _filter("repo", repos, [task.instance.repo for task in tasks]),
        _filter("difficulty", difficulties, [task.instance.difficulty for task in tasks]),
    )
    tasks = [task for task, *passes in zip(tasks, *filters, strict=True) if all(passes)]
    if slice:
        tasks = [tasks[index] for index in sorted(range(len(tasks))[parse_slice(slice)])]
    if sample is not None:
        tasks = _sample(tasks, sample, sample_seed)
    if not tasks:
        raise ConfigError(
            "the selection is empty: no instance passes all of its filters; `aem instances list` shows what there is"
        )
    return list(tasks)


def expand(ids: Iterable[str]) -> list[str]:
    """Ids and globs, with every `@file` replaced by its lines."""
    expanded: list[str] = []
    for entry in ids:
        if not entry.startswith("@"):
            expanded.append(entry)
            continue
        lines = read_text(Path(entry[1:])).splitlines()
        expanded += [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return expanded


def parse_slice(text: str) -> slice:
    """`10`, `:10`, `5:10`, `::2`, `-3:` as Python reads them; a lone number is the count from the start."""
    parts = text.split(":")
    try:
        numbers = [int(part) if part.strip() else None for part in parts]
        if len(parts) > 3 or (len(parts) == 1 and numbers == [None]):
            raise ValueError
        found = slice(*numbers)
        range(0)[found]  # a step of 0 is refused here
    except ValueError:
        raise ConfigError(f"slice must read start:stop:step with whole numbers, is {text!r}") from None
    return found


def _filter(what: str, wanted: Iterable[str], values: Sequence[str]) -> list[bool]:
    """For each of `values` (one a task) whether any of `wanted` matches it; true for all where nothing is wanted."""
    patterns = list(wanted)
    known = list(dict.fromkeys(values))
    kept = set() if patterns else set(known)
    for pattern in patterns:
        matches = {value for value in known if value == pattern or (_is_glob(pattern) and fnmatchcase(value, pattern))}
        if not matches:
            raise ConfigError(_unknown(what, pattern, known))
        kept |= matches
    return [value in kept for value in values]


def _is_glob(pattern: str) -> bool:
    return not _MAGIC.isdisjoint(pattern)


def _unknown(what: str, pattern: str, known: Sequence[str]) -> str:
    if _is_glob(pattern):
        return f"no {what} matches {pattern!r}"
    close = get_close_matches(pattern, known, n=3, cutoff=0.5)
    named = known if len(known) <= 12 else []
    hint = f"; close: {', '.join(close)}" if close else f"; there are: {', '.join(named)}" if named else ""
    return f"unknown {what} {pattern!r}{hint}"


def _sample(tasks: Sequence[Task], count: int, seed: int) -> Sequence[Task]:
    if not 1 <= count <= len(tasks):
        raise ConfigError(f"cannot draw a sample of {count} from {len(tasks)} instances")
    # Drawn over sorted ids, so that the draw does not depend on the order of the rows.
    drawn = set(Random(seed).sample(sorted(task.instance_id for task in tasks), count))
    return [task for task in tasks if task.instance_id in drawn]
