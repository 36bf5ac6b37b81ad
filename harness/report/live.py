"""What one sees while a run is going: a live panel on a terminal, one plain line per finished rollout elsewhere."""

import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from aem_harness.harness.types import Outcome

STYLE = {
    Outcome.RESOLVED: "green",
    Outcome.UNRESOLVED: "red",
    Outcome.NOT_APPLIED: "red",
    Outcome.EMPTY_PATCH: "yellow",
    Outcome.TEST_TIMEOUT: "yellow",
    Outcome.ERROR: "magenta",
}


def warner(console: Console) -> Callable[[str], None]:
    """Prints lines in yellow, as they are: what goes wrong meanwhile, and is waited for."""
    return lambda line: console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)


class RunView:
    """Follows a runner's events. `total` counts rollouts; those finished in earlier sessions come in as `known`."""

    def __init__(self, console: Console, title: str, total: int, known: Counter[str] | None = None) -> None:
        self._console = console
        self._title = title
        self._known: Counter[str] = Counter(known or {})
        self._ended: dict[tuple[str, int], Outcome] = {}  # the newest outcome of each rollout: retries replace it
        self._running: dict[tuple[str, int], float] = {}
        self._tokens = 0
        self._started = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            expand=True,
        )
        self._bar = self._progress.add_task(title, total=total, completed=self._known.total())
        self._total = total
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def __call__(self, kind: str, event: dict[str, Any]) -> None:
        key = event["instance_id"], event["seed"]
        if kind == "started":
            self._running[key] = time.monotonic()
        elif kind == "rollout":
            self._running.pop(key, None)
            self._tokens += event["completion_tokens"]
            if event["fault"]:
                self._finish(event, Outcome.ERROR, event["fault"]["message"])
        elif kind == "grade":
            self._finish(event, Outcome(event["outcome"]), event["cause"])

    def _finish(self, event: dict[str, Any], outcome: Outcome, why: str) -> None:
        self._ended[event["instance_id"], event["seed"]] = outcome
        done = self._known.total() + len(self._ended)
        self._progress.update(self._bar, completed=done)
        line = Text.assemble(
            (f"[{done}/{self._total}] ", "dim"),
            (f"{outcome.value:<12}", STYLE[outcome]),
            f" {event['instance_id']}",
            (f" seed {event['seed']}", "dim"),
            (f"  {why.splitlines()[0][:160]}" if why else "", "dim"),
        )
        self._console.print(line, soft_wrap=True, highlight=False)

    def _render(self) -> Group:
        counts = Table.grid(padding=(0, 2))
        cells = [Text(f"{len(self._running)} running", "bold")]
        outcomes = self._known + Counter(outcome.value for outcome in self._ended.values())
        cells += [Text(f"{outcomes[o.value]} {o.value}", STYLE[o]) for o in Outcome if outcomes[o.value]]
        if self._tokens:
            rate = self._tokens / (time.monotonic() - self._started)
            cells.append(Text(f"{rate:.0f} tokens/s", "cyan"))
        counts.add_row(*cells)
        now = time.monotonic()
        slowest = sorted(self._running.items(), key=lambda item: item[1])[:4]
        lines = [Text(f"  {name} seed {seed}  {now - since:.0f}s", "dim") for (name, seed), since in slowest]
        return Group(self._progress, counts, *lines)
