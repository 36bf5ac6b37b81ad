"""The list of runs and the state of one, for the terminal."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from aem_harness.harness.compare.intervals import estimate
from aem_harness.harness.compare.records import Estimate
from aem_harness.harness.compare.values import Trials, rates
from aem_harness.harness.errors import counted
from aem_harness.harness.report.live import STYLE
from aem_harness.harness.run.listing import RunState, pace
from aem_harness.harness.run.store import moment
from aem_harness.harness.types import Outcome

TONES = {"running": "cyan", "finished": "green", "unfinished": "yellow"}


def resolved_rate(state: RunState, level: float = 0.95) -> Estimate | None:
    """The share of rollouts with a verdict that are resolved, a mean over tasks; None before the first verdict."""
    if not state.solved:
        return None
    solved, scored = np.array(state.solved, dtype=np.int64).T
    names = tuple(map(str, range(len(solved))))
    trials = Trials(solved, scored, np.zeros_like(solved))
    return estimate(rates(trials, names, np.full(len(solved), "", dtype=str)), level, rate=True)


def runs_table(states: Sequence[RunState], now: datetime | None = None) -> Table:
    """One line for each run: how far it is, its resolved rate with the interval for a repetition on these tasks."""
    now = now or datetime.now(UTC)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False, collapse_padding=True)
    table.add_column("run", overflow="fold")
    for name in ("resolved %, 95 %", "status", "changed"):
        table.add_column(name, justify="left" if name == "status" else "right", no_wrap=True)
    for state in states:
        table.add_row(_name(state), rate_words(state), _progress(state), age(now, state.last))
    return table


def _name(state: RunState) -> Text:
    """The folder, and under it what the run is of."""
    facts = [state.dataset.rsplit("/", 1)[-1], f"{counted(state.tasks, 'task')} x {counted(state.seeds, 'seed')}"]
    facts += [] if state.bytes is None else [size_words(state.bytes)]
    lines = [", ".join(facts)]
    if state.arm not in state.folder.name:
        lines.insert(0, state.arm)
    if state.checkpoint and state.checkpoint != state.arm:
        lines.append(state.checkpoint)
    if state.digest not in state.folder.name:
        lines.append(state.digest)
    note = f"\n  {state.note}" if state.note else ""
    return Text.assemble(str(state.folder), ("".join(f"\n  {line}" for line in lines), "dim"), note)


def _progress(state: RunState) -> Text:
    """The status, how far the run is where it is not finished, and what it lost."""
    share = "" if state.status == "finished" else f" {100 * state.done / max(state.rollouts, 1):.0f} %"
    lost = state.outcomes.get(Outcome.ERROR.value, 0)
    return Text.assemble((state.status + share, TONES[state.status]), (f"\n{lost} lost" if lost else "", "magenta"))


def state_view(state: RunState, now: datetime | None = None) -> RenderableType:
    """How a run stands: done, pace, what came out, how rollouts ended, and what is under way."""
    now = now or datetime.now(UTC)
    lines: list[RenderableType] = [
        Text.assemble(
            (str(state.folder), "bold"), f"  {state.arm}, {state.dataset}, ", (state.status, TONES[state.status])
        )
    ]
    if state.note:
        lines.append(Text(state.note, "dim"))
    share = 100 * state.done / max(state.rollouts, 1)
    done = f"{state.done} of {state.rollouts} rollouts done ({share:.1f} %)"
    if state.status == "running" and (speed := pace(state, now)):
        left = speed[1] if state.left_seconds is None else state.left_seconds
        done += f", {speed[0]:.1f} rollouts/h since the start, about {duration(left)} left"
    elif state.status == "unfinished":
        done += f"; last change {age(now, state.last)}; the command that started it continues it"
    lines.append(Text(done))
    graded = f"resolved  {rate_words(state)} % of {state.scored} graded rollouts"
    lines.append(Text(graded if state.scored else "resolved  not known yet: none is graded"))
    lines.append(Text.assemble("outcomes  ", *_counts(state)))
    if state.exits:
        ends = ", ".join(f"{count} {name}" for name, count in sorted(state.exits.items(), key=lambda one: -one[1]))
        lines.append(Text(f"ended by  {ends}"))
    lines.append(Text(f"spent     {state.tokens:,} completion tokens, {state.seconds / 3600:.2f} rollout-hours"))
    for one in state.working[:8]:
        idle = f", silent for {duration(one.idle_seconds)}" if one.idle_seconds > 60 else ""
        words = f"{one.messages} messages, {duration(one.seconds)}{idle}"
        lines.append(Text(f"  running {one.instance_id} seed {one.seed}: {words}", "dim"))
    if len(state.working) > 8:
        lines.append(Text(f"  and {len(state.working) - 8} more", "dim"))
    return Group(*lines)


def closing(state: RunState) -> Group:
    """What a finished command ends with: the rate with its interval, what was spent, and what to do next."""
    lines = []
    if state.scored:
        rate = f"resolved {rate_words(state)} % of {state.scored} graded rollouts"
        lines.append(Text(f"{rate} (95 % interval: a repetition on these tasks)"))
    spent = f"{duration(state.seconds)} of rollouts"
    if state.tokens:
        spent += f", {state.tokens:,} completion tokens ({state.tokens / max(state.done, 1):,.0f} each)"
    lines.append(Text(f"spent: {spent}", "dim"))
    failed = state.scored - state.outcomes.get(Outcome.RESOLVED.value, 0)
    if failed:
        lines.append(Text(f"why {failed} failed: aem failures {state.folder}", "dim"))
    lines.append(Text(f"compare: aem compare BASELINE {state.folder}", "dim"))
    return Group(*lines)


def _counts(state: RunState) -> list[Text]:
    parts = [Text(f"{state.outcomes[one.value]} {one.value}  ", STYLE[one]) for one in Outcome if one in state.outcomes]
    return parts or [Text("none yet", "dim")]


def rate_words(state: RunState) -> str:
    """`34.2 [30.2, 38.5]`, empty before the first verdict."""
    rate = resolved_rate(state)
    if rate is None:
        return ""
    return f"{100 * rate.value:.1f} [{100 * rate.these.low:.1f}, {100 * rate.these.high:.1f}]"


def age(now: datetime, then: str) -> str:
    """`3.5 h ago`, in the largest unit that fits."""
    known = moment(then)
    return f"{duration(max((now - known).total_seconds(), 0.0))} ago" if known else "at an unknown time"


def duration(seconds: float) -> str:
    """`42 s`, `7 min`, `3.5 h`, `2.1 days`."""
    for most, unit, size in ((90, "s", 1), (5400, "min", 60), (172_800, "h", 3600)):
        if seconds < most:
            return f"{seconds / size:.{1 if unit == 'h' else 0}f} {unit}"
    return f"{seconds / 86_400:.1f} days"


def size_words(count: int) -> str:
    """Bytes in powers of 1000: `3.4 MB`."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.{0 if unit == 'B' else 1}f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
