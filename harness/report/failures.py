"""The failed rollouts of a run, grouped by cause."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from aem_harness.harness.errors import ConfigError
from aem_harness.harness.io import read_json
from aem_harness.harness.report.why import cause, printable, read_tests
from aem_harness.harness.run.listing import newest, read_state
from aem_harness.harness.run.store import read_journal


@dataclass(frozen=True)
class Failure:
    """One rollout that is not resolved."""

    folder: Path
    instance_id: str
    seed: int
    cause: str
    reason: str

    @property
    def name(self) -> str:
        return f"{self.instance_id} seed {self.seed}"


def failures(run: Path) -> list[Failure]:
    """Every rollout of a run folder that is not resolved, in the order of instance and seed; DataError where it is no
    run."""
    read_state(run)
    out = []
    for (instance_id, seed), one in sorted(newest(read_journal(run)).items()):
        folder = run / "rollouts" / instance_id / str(seed)
        graded = one.grade is not None and one.rollout["fault"] is None
        why = cause(one.rollout, one.grade, read_tests(folder) if graded else None)
        if why:
            said = one.rollout["fault"]["message"] if one.rollout["fault"] else one.rollout.get("reason") or ""
            said = said or (one.grade or {}).get("cause") or ""
            out.append(Failure(folder, instance_id, seed, why, str(said).split("\n")[0]))
    return out


def grouped(failures: Iterable[Failure]) -> list[tuple[str, list[Failure]]]:
    """Failures by cause, the most frequent first."""
    groups: dict[str, list[Failure]] = {}
    for one in failures:
        groups.setdefault(one.cause, []).append(one)
    return sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))


def chosen(failures: Sequence[Failure], words: str) -> list[Failure]:
    """The failures whose cause contains `words`; ConfigError names the causes there are."""
    kept = [one for one in failures if words.lower() in one.cause.lower()]
    if not kept:
        known = "; ".join(name for name, _ in grouped(failures)) or "none"
        raise ConfigError(f"no failure with the cause {words!r}; causes here: {known}")
    return kept


def failures_view(run: Path, failures: Sequence[Failure], *, total: int, most: int = 3) -> RenderableType:
    """Causes with their share of the `total` rollouts that ended, and up to `most` examples of each."""
    title = Text(f"{run}: {len(failures)} of {total} rollouts are not resolved", "bold")
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False, collapse_padding=True)
    table.add_column("rollouts", justify="right", no_wrap=True)
    table.add_column("tasks", justify="right", no_wrap=True)
    table.add_column("cause, and examples", overflow="fold")
    for name, group in grouped(failures):
        names = [printable(f"{one.name}{f': {one.reason}' if one.reason else ''}") for one in group]
        shown = [*names[:most], *([f"and {len(names) - most} more"] if len(names) > most else [])]
        tasks = len({one.instance_id for one in group})
        share = f"{len(group)} ({100 * len(group) / total:.0f} %)"
        examples = Padding(Text("\n".join(shown), "dim"), (0, 0, 0, 2))
        table.add_row(share, str(tasks), Group(Text(printable(name)), examples))
    return Group(title, table) if failures else title


def as_rows(failures: Iterable[Failure]) -> list[dict[str, object]]:
    """The failures as JSON values."""
    return [
        {
            "instance_id": one.instance_id,
            "seed": one.seed,
            "cause": one.cause,
            "reason": one.reason,
            "folder": str(one.folder),
            "exit_status": read_json(one.folder / "rollout.json").get("exit_status"),
        }
        for one in failures
    ]
